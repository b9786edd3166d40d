"""Training: a run in a folder, that can be stopped at any moment and goes on as if it never was.

runs/<name>/config.json        what was asked for (TrainConfig)
           /metrics.jsonl      a line a step
           /loss.svg           the same as a picture
           /checkpoints/<step> the last two; see checkpoint.py
"""

import io
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np import checkpoint, data
from tinygpt_np.checkpoint import CheckpointError
from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.model import GPT, param_shapes
from tinygpt_np.optim import AdamW, clip, global_norm, learning_rate_at
from tinygpt_np.tokenizer import CharTokenizer

CONFIG, METRICS, PICTURE, CHECKPOINTS = "config.json", "metrics.jsonl", "loss.svg", "checkpoints"

# From about here on a model of GPT-2's kind starts to remember a text rather than to learn from it.
MANY_PASSES = 10


class NotFiniteError(RuntimeError):
    """The loss or a gradient is infinite or not a number."""


@dataclass(frozen=True)
class Metrics:
    """A line of metrics.jsonl. The last line of a run has no training loss: no step was taken."""

    step: int
    loss: float | None
    val_loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens_per_second: float | None


class Trainer:
    """One run. Iterating over it takes the steps that are left and yields the Metrics of each.

    Between two steps its state is whole: stop iterating, call save(), and resume() goes on there.
    """

    def __init__(self, run: Path, config: TrainConfig, corpus: data.Corpus) -> None:
        """Builds the state of step 0 in memory; start() and resume() are the ways in."""
        self.run, self.config, self.corpus = run, config, corpus
        self.tokenizer = CharTokenizer.from_text(corpus.text)
        ids = self.tokenizer.encode(corpus.text)
        self.train_ids, self.val_ids = data.split(ids, config.block_size)
        self.model = GPT(config.gpt(self.tokenizer.vocab_size), config.seed, backend=config.backend)
        self.optimizer = AdamW(self.model.params, config.beta1, config.beta2, config.weight_decay)
        self.data_rng = generator(config.seed, "data")
        self.dropout_rng = generator(config.seed, "dropout")
        self.step = 0
        self.val_loss: float | None = None
        self.step_seconds = deque[float]([0.0], maxlen=50)
        self.evaluation_seconds = 0.0

    @classmethod
    def start(cls, run: Path, config: TrainConfig, corpus: data.Corpus) -> "Trainer":
        """A new run in a folder that does not exist yet or is empty."""
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise CheckpointError(
                f"{run} exists already, and nothing is overwritten: continue it with "
                f"--resume {run}, or choose another --name"
            )
        # corpus.name is a path that holds from any working folder.
        trainer = cls(run, replace(config, data=corpus.name), corpus)
        trainer.write_config()
        return trainer

    @classmethod
    def resume(cls, run: Path, config: TrainConfig, corpus: data.Corpus) -> "Trainer":
        """A run as it was at its last checkpoint."""
        trainer = cls(run, replace(config, data=corpus.name), corpus)
        folder = last_checkpoint(run)
        state = checkpoint.load_state(folder)
        if state["data"]["sha256"] != corpus.sha256:
            raise CheckpointError(
                f"{run} was trained on {state['data']['name']} (SHA-256 "
                f"{state['data']['sha256'][:12]}…), but {corpus.name} has another text (SHA-256 "
                f"{corpus.sha256[:12]}…)"
            )
        _, params = checkpoint.load_model(folder)
        model = trainer.model
        model.params = checkpoint.matching(params, model.params, folder / checkpoint.MODEL)
        trainer.restore_optimizer(folder, state["step"])
        trainer.data_rng.bit_generator.state = state["generators"]["data"]
        trainer.dropout_rng.bit_generator.state = state["generators"]["dropout"]
        trainer.step, trainer.val_loss = state["step"], state["val_loss"]
        trainer.forget_later_metrics()
        trainer.write_config()
        return trainer

    def write_config(self) -> None:
        checkpoint.write_file(self.run / CONFIG, checkpoint.to_json(asdict(self.config)))

    def __iter__(self) -> Iterator[Metrics]:
        config = self.config
        while True:
            if self.evaluation_is_due():
                if self.val_loss is None:
                    began = time.perf_counter()
                    self.val_loss = self.evaluate()
                    self.evaluation_seconds = time.perf_counter() - began
                self.save()
            if self.step >= config.max_iters:
                last = Metrics(self.step, None, self.val_loss, None, None, None)
                self.record(last)
                draw_losses(self.run)
                yield last
                return
            yield self.advance()

    def advance(self) -> Metrics:
        """One step: a batch, its loss and gradients, clipping, and AdamW."""
        config, model = self.config, self.model
        began = time.perf_counter()
        tokens, targets = data.random_batch(
            self.train_ids, config.batch_size, config.block_size, self.data_rng
        )
        masks = model.draw_masks(config.batch_size, config.block_size, self.dropout_rng)
        # What overflows is found and named below; NumPy's own warnings would only repeat it.
        with np.errstate(all="ignore"):
            loss, grads = model.loss_and_grads(tokens, targets, masks)
            norm = global_norm(grads)
            if not np.isfinite(loss) or not np.isfinite(norm):
                raise NotFiniteError(
                    f"at step {self.step} the loss is {loss} and the norm of the gradients {norm}; "
                    f"the first that is not finite is {model.first_not_finite(tokens, masks)}. "
                    f"The last good checkpoint is {last_checkpoint(self.run)}; "
                    "a lower learning rate, a longer warm-up or gradient clipping may help"
                )
            learning_rate = learning_rate_at(self.step, config)
            self.optimizer.update(model.params, clip(grads, norm, config.grad_clip), learning_rate)
        self.step_seconds.append(time.perf_counter() - began)
        speed = config.tokens_per_step / self.step_seconds[-1]
        metrics = Metrics(self.step, loss, self.val_loss, learning_rate, norm, speed)
        self.record(metrics)
        self.step, self.val_loss = self.step + 1, None
        return metrics

    def evaluation_is_due(self) -> bool:
        return self.step % self.config.eval_interval == 0 or self.step == self.config.max_iters

    def seconds_left(self) -> float:
        """How long what is still to come will take, at the pace of what was last."""
        end, interval = self.config.max_iters, self.config.eval_interval
        # One at each multiple of the interval from here on, and one at the end.
        evaluations = end // interval - math.ceil(self.step / interval) + 1 + (end % interval > 0)
        steps = (end - self.step) * statistics.median(self.step_seconds)
        return steps + evaluations * self.evaluation_seconds

    def evaluate(self) -> float:
        """The mean loss in nats over the whole validation split, in order, without dropout."""
        total, count = 0.0, 0
        with np.errstate(all="ignore"):
            for tokens, targets in data.windows(self.val_ids, self.config.block_size):
                total += self.model.loss(tokens, targets) * targets.size
                count += targets.size
        return total / count

    def save(self) -> Path:
        """Writes a checkpoint of this moment, and the picture of the losses so far."""
        folder = self.run / CHECKPOINTS / f"{self.step:06d}"
        if folder.exists():
            return folder  # Of this very step, and a step has only one state.
        self.sync_metrics()
        checkpoint.save_checkpoint(
            self.run / CHECKPOINTS,
            self.step,
            self.model.config,
            self.model.params,
            self.tokenizer.vocabulary,
            self.optimizer_tensors(),
            {
                "val_loss": self.val_loss,
                "generators": {
                    "data": self.data_rng.bit_generator.state,
                    "dropout": self.dropout_rng.bit_generator.state,
                },
                "data": {"name": self.corpus.name, "sha256": self.corpus.sha256},
            },
        )
        draw_losses(self.run)
        return folder

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        first = {f"first.{name}": tensor for name, tensor in self.optimizer.first.items()}
        second = {f"second.{name}": tensor for name, tensor in self.optimizer.second.items()}
        return first | second

    def restore_optimizer(self, folder: Path, steps: int) -> None:
        path = folder / checkpoint.OPTIMIZER
        found = checkpoint.read_safetensors(path)
        found = checkpoint.matching(found, self.optimizer_tensors(), path)
        for name in self.model.params:
            self.optimizer.first[name] = found[f"first.{name}"]
            self.optimizer.second[name] = found[f"second.{name}"]
        self.optimizer.steps = steps

    def record(self, metrics: Metrics) -> None:
        with (self.run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(metrics)) + "\n")

    def sync_metrics(self) -> None:
        path = self.run / METRICS
        if path.exists():
            with path.open("rb+") as file:
                os.fsync(file.fileno())

    def forget_later_metrics(self) -> None:
        """Drops the lines of steps that the last checkpoint does not have; they will come again."""
        kept = [row for row in read_metrics(self.run) if row["step"] < self.step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        checkpoint.write_file(self.run / METRICS, text.encode())


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run."""
    found = checkpoint.steps_in(run / CHECKPOINTS)
    if not found:
        raise CheckpointError(f"{run} holds no checkpoint")
    return found[-1]


def read_config(run: Path) -> TrainConfig:
    """The configuration that a run was started with."""
    path = run / CONFIG
    try:
        return TrainConfig(**checkpoint.read_json(path))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{run} is not a training run: {error}") from None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. A last line cut short by a crash is left out."""
    path = run / METRICS
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def warnings(trainer: Trainer) -> Iterator[str]:
    """Where the data fits the model badly."""
    config, characters = trainer.config, len(trainer.train_ids)
    params = sum(param.size for param in trainer.model.params.values())
    passes = config.max_iters * config.tokens_per_step / characters
    if passes > MANY_PASSES:
        yield (
            f"the text is read {passes:.0f} times: the model may learn it by heart, "
            "and the validation loss rise again"
        )
    if params > characters:
        yield f"there are more parameters ({params:,}) than characters to learn from"
    unseen = data.unseen_in_training(trainer.train_ids, trainer.val_ids, trainer.tokenizer)
    if unseen:
        yield f"characters that only the validation split has, and training never shows: {unseen!r}"


def memory_estimate(config: GPTConfig, rows: int) -> int:
    """About how many bytes training takes, with `rows` tokens a step, in float32.

    Each parameter has its gradient and two running means. What a block saves for its backward are,
    per token, 20·C values (two layer norms, qkv, three arrays of 4·C) and two rows of attention per
    head; the loss keeps two rows of V. Twice that for what lives only while a block runs, and
    100 MB for Python, NumPy and matplotlib.
    """
    params = sum(int(np.prod(shape)) for shape in param_shapes(config).values())
    block = 20 * config.n_embd + 2 * config.n_head * config.block_size
    activations = rows * (config.n_layer * block + 2 * config.vocab_size)
    return 100_000_000 + 4 * (4 * params + 2 * activations)


def draw_losses(run: Path) -> None:
    """Draws metrics.jsonl as loss.svg: the training loss, and the validation loss over it."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [
        row for row in read_metrics(run) if row["loss"] is not None or row["val_loss"] is not None
    ]
    if not rows:
        return
    figure: Any = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    for key, label, style in (("loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in rows if row[key] is not None]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, style, label=label, linewidth=1, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats per character)", title=run.name)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    as_text: dict[Any, Any] = {"svg.fonttype": "none"}
    with matplotlib.rc_context(as_text):  # pyright: ignore[reportUnknownMemberType]
        figure.savefig(picture, format="svg")
    checkpoint.write_file(run / PICTURE, picture.getvalue())
