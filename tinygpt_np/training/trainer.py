"""Training: a run in a folder, that can be stopped at any moment and goes on as if it never was.

The files of a run are listed in runs.py.
"""

import contextlib
import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from tinygpt_np import machine
from tinygpt_np.config import GPTConfig, TrainConfig, counted, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, learning_rate_at, overflowing_square
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import GENERATORS, CheckpointError, State
from tinygpt_np.text import corpus
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import engine, metrics, runs
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.runs import CHECKPOINTS, CONFIG, LOCK, last_checkpoint

# From about here on a model of GPT-2's kind starts to remember a text rather than to learn from it.
MANY_PASSES = 10
SHAPE = ("block_size", "n_layer", "n_head", "n_embd", "bias", "gelu")
# Settings that may change when a run is resumed: how long it is, where its data is, how
# many threads compute it, and which checkpoints are kept.
MAY_CHANGE = ("max_iters", "data", "threads", "keep_best")


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
        self.generators = {purpose: generator(config.seed, purpose) for purpose in GENERATORS}
        self.warm = False
        self.step = 0
        self.val_loss: float | None = None
        self.step_seconds = deque[float](maxlen=50)
        self.evaluation_seconds = 0.0
        self.lock = FileLock(run / LOCK)
        self.notes: list[str] = []
        self.notes_shown = 0

    @classmethod
    def start(
        cls,
        run: Path,
        config: TrainConfig,
        dataset: Dataset,
        model: GPT | None = None,
        numbered: bool = False,
    ) -> "Trainer":
        """Start a new run in a folder that does not exist yet or is empty.

        numbered: if the folder is taken, use the first of <run>-2, <run>-3 … that is not.
        """
        trainer = cls(run, config, dataset, model)
        if numbered:
            numbers = (run.with_name(f"{run.name}-{number}") for number in itertools.count(2))
            trainer.run = next(path for path in itertools.chain([run], numbers) if claim(path))
        files.make_folder(trainer.run)
        trainer.lock = FileLock(trainer.run / LOCK)
        with trainer.locked():
            if runs.is_started(trainer.run):
                raise CheckpointError(
                    f"{run} exists already, and nothing is overwritten: continue it with "
                    f"--resume {run}, or choose another --name"
                )
            files.clean(trainer.run)
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
                    f"{run} has already taken {counted(trainer.step, 'step')}; "
                    f"to train further, give a --max-iters above {trainer.step}"
                )
            files.clean(run)
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
        check_same_run(run, config, dataset, state)
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

    def restore(self, folder: Path, state: State) -> None:
        """Take over the optimizer, the generators and the step of a checkpoint of this model."""
        first, second = checkpoint.load_optimizer(folder, self.model.params)
        self.optimizer.first, self.optimizer.second = first, second
        self.step, self.val_loss = state.step, state.val_loss
        self.optimizer.steps = self.step
        for purpose in GENERATORS:
            self.generators[purpose].bit_generator.state = state.generators[purpose]

    def write_config(self) -> None:
        files.write_file(self.run / CONFIG, checkpoint.to_json(asdict(self.config)))

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
        tokens, targets = corpus.random_batch(
            self.dataset.train, config.chunks_per_step, config.block_size, self.generators["data"]
        )
        noise = steps.draw(self.generators["dropout"])
        # What overflows is found and named below; NumPy's own warnings would only repeat it.
        with np.errstate(all="ignore"):
            loss, grads = steps.loss_and_grads(tokens, targets, noise)
            norm = steps.norm(grads)
            what = f"loss {loss}, norm of the gradients {norm}"
            if not math.isfinite(loss) or not math.isfinite(norm):
                masks = steps.masks(tokens.shape, noise)
                self.stop(what, self.model.first_not_finite(tokens, masks, grads))
            if name := overflowing_square(grads, norm, config.grad_clip):
                self.stop(what, f"the square of the gradient of {name}, which AdamW averages")
            learning_rate = learning_rate_at(self.step, config)
            steps.update(self.optimizer, grads, norm, learning_rate, config.grad_clip)
        self.step_seconds.append(time.perf_counter() - began)
        speed = config.tokens_per_step / self.step_seconds[-1]
        row = Metrics(self.step, loss, self.val_loss, learning_rate, norm, speed)
        # Before anything is written, which may fail: the state is whole again, and can be saved.
        self.step, self.val_loss = self.step + 1, None
        return self.record(row)

    def stop(self, what: str, place: str) -> None:
        """Raise NotFiniteError, with the first tensor that is not finite as the place."""
        kept = checkpoint.steps_in(self.run / CHECKPOINTS)
        raise NotFiniteError(
            f"at step {self.step}: {what}. The first tensor that is not finite is "
            f"{place}. "
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
            for tokens, targets in corpus.sequences(split, self.config.block_size):
                if count == 0 and (place := self.model.first_not_finite(tokens[:1], {}, {})):
                    self.stop("weights that have grown too large", place)
                total += self.engine.loss(tokens, targets) * targets.size
                count += targets.size
                if not math.isfinite(total):
                    place = self.model.first_not_finite(tokens, {}, {})
                    self.stop(f"validation loss {total}", place)
        return total / count

    def save(self) -> None:
        """Write a checkpoint of this moment, and remove those that are no longer kept."""
        checkpoints = self.run / CHECKPOINTS
        if (checkpoints / f"{self.step:06d}").exists():
            return  # Of this very step, and a step has only one state.
        metrics.sync(self.run)
        states = {name: rng.bit_generator.state for name, rng in self.generators.items()}
        checkpoint.save_checkpoint(
            checkpoints,
            self.model.config,
            self.model.params,
            self.dataset.tokenizer.files(),
            self.optimizer_tensors(),
            State(
                self.step,
                self.val_loss,
                self.config,
                states,
                self.dataset.name,
                self.dataset.sha256,
            ),
        )
        try:
            checkpoint.prune(checkpoints, self.config.keep_best)
        except OSError as error:
            self.note(f"{checkpoints / checkpoint.BEST} cannot be written: {error.strerror}")

    def draw(self) -> None:
        """Draw the losses. Training goes on without the picture if that fails."""
        try:
            metrics.draw_losses(self.run)
        except Exception as error:  # Whatever a drawing library makes of it.
            self.note(f"{metrics.PICTURE} was not drawn: {type(error).__name__}: {error}")

    def note(self, note: str) -> None:
        """Keep a note to be shown with the progress; each is shown once."""
        if note not in self.notes:
            self.notes.append(note)

    def new_notes(self) -> list[str]:
        """Return the notes since the last call."""
        new, self.notes_shown = self.notes[self.notes_shown :], len(self.notes)
        return new

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        first = {f"first.{name}": tensor for name, tensor in self.optimizer.first.items()}
        second = {f"second.{name}": tensor for name, tensor in self.optimizer.second.items()}
        return first | second

    def record(self, row: Metrics) -> Metrics:
        """Write a line of metrics, and draw the picture anew after an evaluation."""
        metrics.record(self.run, row)
        if row.val_loss is not None:
            self.draw()
        return row


def claim(folder: Path) -> bool:
    """Create a folder, and return whether it was not there."""
    files.make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def check_same_run(run: Path, config: TrainConfig, dataset: Dataset, state: State) -> None:
    """Raise CheckpointError unless a checkpoint is of this configuration and of this data."""
    if state.data_sha256 != dataset.sha256:
        raise CheckpointError(
            f"{run} was trained on {state.data_name} (SHA-256 {state.data_sha256[:12]}…), but "
            f"{dataset.name} has another text (SHA-256 {dataset.sha256[:12]}…)"
        )
    for field in fields(TrainConfig):
        was, asked = getattr(state.config, field.name), getattr(config, field.name)
        if field.name not in MAY_CHANGE and was != asked:
            raise CheckpointError(
                f"{run} was trained with {as_flag(field.name, was)}, which cannot be changed; "
                f"to train with {as_flag(field.name, asked)}, start a new run"
            )


def as_flag(name: str, value: Any) -> str:
    """Return a setting as it is typed on the command line."""
    flag = name.replace("_", "-")
    return f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"


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
    if config.max_iters < config.warmup_iters:
        yield (
            f"training ends at step {config.max_iters:,}, during the warm-up "
            f"(--warmup-iters {config.warmup_iters:,})"
        )
    decays = config.min_lr < config.learning_rate
    if decays and config.max_iters < config.lr_decay_iters:
        yield (
            f"training ends at step {config.max_iters:,}, before the learning rate has decayed to "
            f"--min-lr (at --lr-decay-iters {config.lr_decay_iters:,})"
        )
    if decays and config.max_iters > config.lr_decay_iters:
        yield (
            f"the learning rate has decayed to --min-lr (at --lr-decay-iters "
            f"{config.lr_decay_iters:,}) and stays there until step {config.max_iters:,}"
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
