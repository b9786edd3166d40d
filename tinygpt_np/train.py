"""Training: a run in a folder, that can be stopped at any moment and goes on as if it never was.

runs/<name>/config.json        what was asked for (TrainConfig)
           /metrics.jsonl      a line a step; see metrics.py
           /loss.svg           the same as a picture
           /checkpoints/<step> the last two; see checkpoint.py
           /.lock              held by the process that trains it
"""

import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from tinygpt_np import checkpoint, data, engine, machine, metrics
from tinygpt_np.checkpoint import CheckpointError
from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.dataset import Dataset
from tinygpt_np.metrics import Metrics
from tinygpt_np.model import GPT
from tinygpt_np.optim import AdamW, learning_rate_at

CONFIG, CHECKPOINTS, LOCK = "config.json", "checkpoints", ".lock"
# From about here on a model of GPT-2's kind starts to remember a text rather than to learn from it.
MANY_PASSES = 10
SHAPE = ("block_size", "n_layer", "n_head", "n_embd", "bias", "gelu")
# What a run may take another value for when it is resumed: how long it is, where its data lies, and
# how many threads compute it.
MAY_CHANGE = ("max_iters", "data", "threads")
# Settings that older runs did not write down, as there was only one value: what is now the default.
ADDED_LATER = (
    *("threads", "matmul", "dtype", "tokenizer", "tokenizer_path", "vocab_size", "init_from"),
    "gradient_accumulation_steps",
)


class NotFiniteError(RuntimeError):
    """A loss, a gradient or an activation is infinite or not a number."""


class Trainer:
    """One run. Iterating over it takes the steps that are left and yields the Metrics of each.

    Between two steps its state is whole: stop iterating, call save(), and resume() goes on there.
    """

    def __init__(
        self, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None
    ) -> None:
        """Builds the state of step 0 in memory; start() and resume() are the ways in.

        model: to go on from; without it, a new one.
        """
        self.run, self.dataset = run, dataset
        # dataset.name is a path that holds from any working folder.
        self.config = config = replace(config, data=dataset.name, tokenizer=dataset.tokenizer.kind)
        vocab_size = model.vocab_size if model else dataset.tokenizer.vocab_size
        check_memory(config.gpt(vocab_size), config)
        self.model = model or GPT(
            config.gpt(vocab_size), config.seed, dtype=config.dtype, backend=config.backend
        )
        if self.model.config != config.gpt(vocab_size):
            raise ValueError(
                f"the model is {self.model.config}, but the run {config.gpt(vocab_size)}"
            )
        self.engine = engine.make(self.model, config)
        self.optimizer = AdamW(self.model.params, config.beta1, config.beta2, config.weight_decay)
        self.data_rng = generator(config.seed, "data")
        self.dropout_rng = generator(config.seed, "dropout")
        self.warm = False
        self.step = 0
        self.val_loss: float | None = None
        self.step_seconds = deque[float](maxlen=50)
        self.evaluation_seconds = 0.0
        self.lock = FileLock(run / LOCK)

    @classmethod
    def start(
        cls, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None
    ) -> "Trainer":
        """A new run in a folder that does not exist yet or is empty."""
        trainer = cls(run, config, dataset, model)
        checkpoint.make_folder(run)
        with trainer.locked():
            if any(path.name != LOCK for path in run.iterdir()):
                raise CheckpointError(
                    f"{run} exists already, and nothing is overwritten: continue it with "
                    f"--resume {run}, or choose another --name"
                )
            trainer.write_config()
        return trainer

    @classmethod
    def resume(
        cls, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None
    ) -> "Trainer":
        """A run as it was at its last checkpoint; at its start, if it has none yet."""
        trainer = cls.at_last_checkpoint(run, config, dataset, model)
        with trainer.locked():
            evaluated = trainer.val_loss is not None
            if trainer.step > config.max_iters or (trainer.step == config.max_iters and evaluated):
                raise ValueError(
                    f"{run} has already taken {trainer.step} steps; "
                    f"to train further, give a --max-iters above {trainer.step}"
                )
            metrics.keep_before(run, trainer.step)
            trainer.write_config()
        return trainer

    @classmethod
    def at_last_checkpoint(
        cls, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None
    ) -> "Trainer":
        """The state of a run, in memory; nothing in its folder is changed."""
        if not checkpoint.steps_in(run / CHECKPOINTS):
            return cls(run, config, dataset, model)
        folder, state = last_checkpoint(run)
        check_same_run(run, config, dataset, folder, state)
        trainer = cls(run, config, dataset, GPT.load(folder, config.backend))
        trainer.restore(folder, state)
        return trainer

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keeps other processes from training this run, until this object or its process ends.

        Lets go at once if what is done under it fails.
        """
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"{self.run} is being trained by another process") from None
        try:
            yield
        except BaseException:
            self.lock.release()
            raise

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Takes over optimizer, generators and step of the checkpoint that the model is of."""
        path = folder / checkpoint.OPTIMIZER
        optimizer = checkpoint.read_safetensors(path)
        shapes = ((name, tensor.shape) for name, tensor in self.optimizer_tensors().items())
        optimizer = checkpoint.matching(optimizer, shapes, self.config.dtype, path)
        for name in self.model.params:
            self.optimizer.first[name] = optimizer[f"first.{name}"]
            self.optimizer.second[name] = optimizer[f"second.{name}"]
        self.step, self.val_loss = state["step"], state["val_loss"]
        self.optimizer.steps = self.step
        self.data_rng.bit_generator.state = state["generators"]["data"]
        self.dropout_rng.bit_generator.state = state["generators"]["dropout"]

    def write_config(self) -> None:
        checkpoint.write_file(self.run / CONFIG, checkpoint.to_json(asdict(self.config)))

    def warm_up(self) -> None:
        """Compiles what training needs, so that it is not counted as training; once is enough."""
        if not self.warm:
            self.engine.warm_up()
            self.warm = True

    def __iter__(self) -> Iterator[Metrics]:
        self.warm_up()
        while True:
            if self.evaluation_is_due():
                if self.val_loss is None:
                    began = time.perf_counter()
                    self.val_loss = self.evaluate()
                    self.evaluation_seconds = time.perf_counter() - began
                self.save()
            if self.step >= self.config.max_iters:
                yield self.record(Metrics(self.step, None, self.val_loss, None, None, None))
                return
            yield self.advance()

    def advance(self) -> Metrics:
        """One step: a batch, its loss and gradients, clipping, and AdamW."""
        config, steps = self.config, self.engine
        began = time.perf_counter()
        tokens, targets = data.random_batch(
            self.dataset.train, config.chunks_per_step, config.block_size, self.data_rng
        )
        noise = steps.draw(self.dropout_rng)
        # What overflows is found and named below; NumPy's own warnings would only repeat it.
        with np.errstate(all="ignore"):
            loss, grads = steps.loss_and_grads(tokens, targets, noise)
            norm = steps.norm(grads)
            if not math.isfinite(loss) or not math.isfinite(norm):
                masks = steps.masks(tokens.shape, noise)
                self.stop(f"loss {loss}, norm of the gradients {norm}", tokens, masks, grads)
            learning_rate = learning_rate_at(self.step, config)
            steps.update(self.optimizer, grads, norm, learning_rate, config.grad_clip)
        self.step_seconds.append(time.perf_counter() - began)
        speed = config.tokens_per_step / self.step_seconds[-1]
        row = self.record(Metrics(self.step, loss, self.val_loss, learning_rate, norm, speed))
        self.step, self.val_loss = self.step + 1, None
        return row

    def stop(self, what: str, tokens: np.ndarray, masks: Any, grads: Any) -> None:
        """Raises NotFiniteError, which names the first tensor that is not finite."""
        kept = checkpoint.steps_in(self.run / CHECKPOINTS)
        raise NotFiniteError(
            f"at step {self.step}: {what}. The first tensor that is not finite is "
            f"{self.model.first_not_finite(tokens, masks, grads)}. "
            f"The last good checkpoint is {kept[-1] if kept else 'none yet'}; "
            "a lower learning rate, a longer warm-up or gradient clipping may help"
        )

    def evaluation_is_due(self) -> bool:
        return self.step % self.config.eval_interval == 0 or self.step == self.config.max_iters

    def seconds_left(self) -> float:
        """How long what is still to come will take, at the pace of what was last."""
        end, interval = self.config.max_iters, self.config.eval_interval
        # One at each multiple of the interval from here on, and one at the end.
        evaluations = end // interval - math.ceil(self.step / interval) + 1 + (end % interval > 0)
        step_seconds = statistics.median(self.step_seconds) if self.step_seconds else 0.0
        return (end - self.step) * step_seconds + evaluations * self.evaluation_seconds

    def evaluate(self, split: np.ndarray | None = None) -> float:
        """The mean loss in nats over a whole split, in order, without dropout.

        split: (M,) tokens; None for the validation split. Raises NotFiniteError if it, or anything
        on the way to it in the first window, is not finite: what is saved after an evaluation is
        known to be good.
        """
        split = self.dataset.val if split is None else split
        total, count = 0.0, 0
        with np.errstate(all="ignore"):
            for tokens, targets in data.windows(split, self.config.block_size):
                if count == 0 and self.model.first_not_finite(tokens[:1], {}, {}):
                    self.stop("weights that have grown too large", tokens[:1], {}, {})
                total += self.engine.loss(tokens, targets) * targets.size
                count += targets.size
                if not math.isfinite(total):
                    self.stop(f"validation loss {total}", tokens, {}, {})
        return total / count

    def save(self) -> None:
        """Writes a checkpoint of this moment."""
        if (self.run / CHECKPOINTS / f"{self.step:06d}").exists():
            return  # Of this very step, and a step has only one state.
        metrics.sync(self.run)
        checkpoint.save_checkpoint(
            self.run / CHECKPOINTS,
            self.step,
            self.model.config,
            self.model.params,
            self.dataset.tokenizer.files(),
            self.optimizer_tensors(),
            {
                "config": asdict(self.config),
                "val_loss": self.val_loss,
                "generators": {
                    "data": self.data_rng.bit_generator.state,
                    "dropout": self.dropout_rng.bit_generator.state,
                },
                "data": {"name": self.dataset.name, "sha256": self.dataset.sha256},
            },
        )

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        first = {f"first.{name}": tensor for name, tensor in self.optimizer.first.items()}
        second = {f"second.{name}": tensor for name, tensor in self.optimizer.second.items()}
        return first | second

    def record(self, row: Metrics) -> Metrics:
        """Writes a line, and draws the picture anew after an evaluation."""
        metrics.record(self.run, row)
        if row.val_loss is not None:
            metrics.draw_losses(self.run)
        return row


def check_same_run(
    run: Path, config: TrainConfig, dataset: Dataset, folder: Path, state: dict[str, Any]
) -> None:
    """Raises CheckpointError unless a checkpoint is of this configuration and of this data."""
    try:
        name, sha256, before = state["data"]["name"], state["data"]["sha256"], state["config"]
        _ = state["step"], state["val_loss"]
        _ = state["generators"]["data"], state["generators"]["dropout"]
    except (KeyError, TypeError):
        path = folder / checkpoint.STATE
        raise CheckpointError(f"{path} is not the state of a training run") from None
    if sha256 != dataset.sha256:
        raise CheckpointError(
            f"{run} was trained on {name} (SHA-256 {sha256[:12]}…), but "
            f"{dataset.name} has another text (SHA-256 {dataset.sha256[:12]}…)"
        )
    for field in fields(TrainConfig):
        asked = getattr(config, field.name)
        default = field.default if field.name in ADDED_LATER else MISSING
        was = before.get(field.name, default)
        if field.name not in MAY_CHANGE and was != asked:
            raise CheckpointError(
                f"{run} was trained with {field.name} = {was}, and keeps it; "
                f"to train with {asked}, start a new run"
            )


def last_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run, found to be whole, and its state."""
    found = checkpoint.steps_in(run / CHECKPOINTS)
    if not found:
        raise CheckpointError(f"{run} holds no checkpoint")
    try:
        return found[-1], checkpoint.load_state(found[-1])
    except CheckpointError as error:
        way_out = f"; remove {found[-1]} to go on from {found[-2]}" if len(found) > 1 else ""
        raise CheckpointError(f"{error}{way_out}") from None


def read_config(run: Path) -> TrainConfig:
    """The configuration that a run was started with."""
    found = checkpoint.read_json(run / CONFIG)
    known = {*found, *ADDED_LATER}
    missing = [field.name for field in fields(TrainConfig) if field.name not in known]
    if missing:
        raise CheckpointError(f"{run} is not a training run: {CONFIG} lacks {', '.join(missing)}")
    try:
        return TrainConfig(**found)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{run} is not a training run: {error}") from None


def shape_kept(config: GPTConfig) -> dict[str, Any]:
    """What a run takes over from a model that it goes on from; dropout is the run's own."""
    return {name: getattr(config, name) for name in SHAPE}


def warnings(trainer: Trainer) -> Iterator[str]:
    """Yield what a user should know before training: data or a schedule that fits badly."""
    config, tokens = trainer.config, len(trainer.dataset.train)
    params = sum(param.size for param in trainer.model.params.values())
    passes = config.max_iters * config.tokens_per_step / tokens
    if passes > MANY_PASSES:
        yield (
            f"the text is read {passes:.0f} times: the model may memorise it, "
            "and the validation loss may rise again"
        )
    if params > tokens:
        what = "characters" if config.tokenizer == "char" else "tokens"
        yield f"there are more parameters ({params:,}) than training {what} ({tokens:,})"
    decays = config.min_lr < config.learning_rate
    if decays and config.max_iters < config.lr_decay_iters:
        yield (
            f"training ends at step {config.max_iters:,}, before the learning rate has decayed to "
            f"min_lr at lr_decay_iters = {config.lr_decay_iters:,}"
        )
    if decays and config.max_iters > config.lr_decay_iters:
        yield (
            f"the learning rate has decayed to min_lr at lr_decay_iters = "
            f"{config.lr_decay_iters:,} and stays there until step {config.max_iters:,}"
        )
    unseen = trainer.dataset.unseen()
    if unseen:
        yield f"characters that occur only in the validation split, never in training: {unseen!r}"


def check_memory(config: GPTConfig, run: TrainConfig) -> None:
    """Raise ValueError if training needs more memory than this process can have, if that is known.

    Without this check the system would end the process in the middle of the training, in silence.
    """
    has, limit = machine.available_memory(), machine.memory_limit()
    needs = engine.memory_estimate(config, run)
    if needs > has:
        of = "" if limit == math.inf else f" of the {limit / 1e6:,.0f} MB of its control group"
        raise ValueError(
            f"training would take about {needs / 1e6:,.0f} MB, and this process can have "
            f"{has / 1e6:,.0f} MB{of}: choose a smaller model, batch_size or block_size"
        )
