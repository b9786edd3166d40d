"""The trainer: a run in a folder that can be stopped at any time and resumed bit for bit.

The files of a run are listed in runs.py.
"""

import contextlib
import functools
import hashlib
import itertools
import math
import shlex
import statistics
import time
from collections import deque
from collections.abc import Container, Generator, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from tinygpt_np.config import TrainConfig, counted, generator
from tinygpt_np.model import muon, optimizer
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import GENERATORS, CheckpointError, State
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.text import batches
from tinygpt_np.text.batches import Epochs
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import engine, metrics, runs
from tinygpt_np.training.gradients import GradientSum
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.ranks.group import ALONE, Group, installed
from tinygpt_np.training.ranks.shards import Layout, Shards
from tinygpt_np.training.runs import CHECKPOINTS, CONFIG, LOCK, as_flag

# Settings that may change when a run is resumed, because they do not change the losses.
MAY_CHANGE = ("max_iters", "data", "threads", "keep_best")
# Settings that may also change when a run is only evaluated, because nothing is written.
MAY_CHANGE_UNTRAINED = (*MAY_CHANGE, "eval_tokens", "gradient_accumulation_steps")


class NotFiniteError(RuntimeError):
    """A loss, gradient or activation is infinite or NaN."""


class Trainer:
    """A training run that can be stopped and resumed.

    Iterating over it takes the remaining steps and yields the Metrics of each. It may be stopped
    after any step: save() then writes a checkpoint, from which resume() continues.
    """

    def __init__(
        self, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None,
        group: Group = ALONE,
    ) -> None:  # fmt: skip
        """Create the state of step 0 in memory, for a new model unless one is given.

        All ranks of a group make the same calls; the first writes the files.
        """
        self.group = group
        self.notes: list[str] = []
        if group.size > 1:
            same = {n: v for n, v in asdict(config).items() if n not in ("data", "threads")}
            self.notes += group.compare(installed() | same | {"data": dataset.sha256})
        self.run, self.dataset = run, dataset
        # dataset.name is an absolute path, so the run can be resumed from any folder.
        self.config = config = replace(config, data=dataset.name, tokenizer=dataset.tokenizer.kind)
        shape = config.gpt(model.vocab_size if model else dataset.tokenizer.vocab_size)
        engine.check_memory(shape, config, group)
        self.model = model or GPT(shape, config.seed, config.dtype, config.backend)
        if self.model.config != shape:
            raise ValueError(f"the model is {self.model.config}, but the run's is {shape}")
        params = self.model.params
        self.matrices = muon.parts_of(config, params) if config.optimizer == "muon" else {}
        layout = Layout(params)
        self.shards = Shards(layout, group.size, group.rank, self.matrices)
        if group.size > 1:  # In one array, so that they can be sent without being copied.
            self.weights = layout.zeros()
            views = layout.views(self.weights)
            for name, param in params.items():
                views[name][...] = param
            self.model.params = {name: views[name] for name in params}
        self.engine = engine.make(self.model, config, group)
        self.gradients = GradientSum(self.engine, config, group, self.shards)
        self.own = self.shards.own(self.model.params)
        self.optimizer = optimizer.make(config, self.own)
        self.generators = {purpose: generator(config.seed, purpose) for purpose in GENERATORS}
        # The part of the validation split that is evaluated: its first token is no target.
        self.val = dataset.val[: config.eval_tokens + 1] if config.eval_tokens else dataset.val
        self.epochs = Epochs(dataset.train, config) if config.data_order == "epochs" else None
        self.is_warm = False
        self.step = 0
        self.val_loss: float | None = None
        self.step_seconds = deque[float](maxlen=50)
        self.evaluation_seconds = self.save_seconds = self.plot_seconds = 0.0
        # The step and the validation loss of the last checkpoint.
        self.saved: tuple[int, float | None] | None = None
        self.lock = FileLock(run / LOCK)
        self.notes_shown = 0
        if group.size > 1:
            group.advice = self.advice

    @classmethod
    def start(
        cls,
        run: Path,
        config: TrainConfig,
        dataset: Dataset,
        model: GPT | None = None,
        numbered: bool = False,
        group: Group = ALONE,
    ) -> "Trainer":
        """Start a new run in a folder that does not exist or is empty.

        numbered: if the folder exists, use the first of <run>-2, <run>-3, … that does not.
        """
        trainer = cls(run, config, dataset, model, group)
        if group.rank == 0:
            if numbered:
                numbers = (run.with_name(f"{run.name}-{number}") for number in itertools.count(2))
                trainer.run = next(path for path in itertools.chain([run], numbers) if claim(path))
            files.make_folder(trainer.run)
            trainer.lock = FileLock(trainer.run / LOCK)
            with trainer.locked():
                files.clean(trainer.run)
                if any(path.name != LOCK for path in trainer.run.iterdir()):
                    raise CheckpointError(
                        f"{run} exists already, and nothing is overwritten: continue it with "
                        f"--resume {run}, or choose another --name"
                    )
                trainer.write_config()
        trainer.run = Path(group.share(str(trainer.run))[0])
        return trainer

    @classmethod
    def resume(
        cls, run: Path, config: TrainConfig, dataset: Dataset, model: GPT | None = None,
        group: Group = ALONE,
    ) -> "Trainer":  # fmt: skip
        """Return a run at its last checkpoint, or at its start if it has none, ready to train."""
        start = time.perf_counter()
        trainer = cls.at_last_checkpoint(run, config, dataset, model, MAY_CHANGE, group)
        with trainer.locked():
            evaluated = trainer.val_loss is not None
            if trainer.step > config.max_iters or (trainer.step == config.max_iters and evaluated):
                raise ValueError(
                    f"{run} has already taken {counted(trainer.step, 'step')}; "
                    f"to train further, give a --max-iters above {trainer.step}"
                )
            if group.rank == 0:
                files.clean(run)
                metrics.keep_before(run, trainer.step)
                trainer.write_config()
        # Until a save is timed: it takes up to twice as long as loading.
        trainer.save_seconds = 2 * (time.perf_counter() - start)
        return trainer

    @classmethod
    def at_last_checkpoint(
        cls,
        run: Path,
        config: TrainConfig,
        dataset: Dataset,
        model: GPT | None = None,
        may_change: Container[str] = MAY_CHANGE_UNTRAINED,
        group: Group = ALONE,
    ) -> "Trainer":
        """Return a run at its last checkpoint without changing its folder, for evaluation.

        model: it gets the parameters of the checkpoint; without one, a tg.GPT does. may_change: the
        settings that may differ from the checkpoint's.
        """
        if not checkpoint.steps_in(run / CHECKPOINTS):
            return cls(run, config, dataset, model, group)
        folder, state = runs.last_checkpoint(run)
        check_same_run(run, config, dataset, state, may_change)
        saved = GPT.load(folder, config.backend)
        runs.check_vocabulary(folder, saved, dataset.tokenizer)
        if model is None:
            model = saved
        model.params = saved.params
        trainer = cls(run, config, dataset, model, group)
        own, params = trainer.optimizer, trainer.model.params
        averaged = {name: params[name] for name in params if name not in trainer.matrices}
        first, second = checkpoint.load_optimizer(folder, params, averaged)
        own.first = trainer.shards.own(first)
        own.second = trainer.shards.own(second)
        trainer.step, trainer.val_loss, own.steps = state.step, state.val_loss, state.step
        trainer.saved = state.step, state.val_loss
        for purpose, rng in trainer.generators.items():
            rng.bit_generator.state = state.generators[purpose]
        return trainer

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Lock the run against other processes, until this object or its process ends.

        The lock is released at once if an exception is raised in the with block.
        """
        try:
            if self.group.rank == 0:
                self.lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"{self.run} is being trained by another process") from None
        try:
            yield
        except BaseException:
            self.lock.release()
            raise

    def warm_up(self) -> None:
        """Compile the training step before it is timed, and compare the weights of all ranks."""
        if self.is_warm:
            return
        self.is_warm = True
        self.group.in_turn(functools.partial(self.engine.warm_up, self.optimizer))
        if self.group.size > 1:
            digest = hashlib.sha256(self.weights.data).hexdigest()
            self.group.compare({"the step to start at": self.step, "weights": digest})

    def write_config(self) -> None:
        """Write config.json."""
        files.write_file(self.run / CONFIG, checkpoint.to_json(asdict(self.config)))

    def __iter__(self) -> Iterator[Metrics]:
        """Take the remaining steps and yield the metrics of each."""
        self.warm_up()
        while True:
            if self.evaluation_is_due():
                if self.val_loss is None:
                    start = time.perf_counter()
                    self.val_loss = self.evaluate()
                    self.evaluation_seconds = time.perf_counter() - start
                self.save()
            if self.step >= self.config.max_iters:
                yield self.record(Metrics(self.step, None, self.val_loss, None, None, None))
                return
            yield self.advance()

    def advance(self) -> Metrics:
        """Take one step: batches, their loss and gradients, clipping, and the update."""
        config, engine, generators = self.config, self.engine, self.generators
        start = time.perf_counter()
        starts = self.starts()
        dropout = engine.draw(generators["dropout"])
        # Overflow is detected and located below, so NumPy's warnings would only repeat it.
        with np.errstate(all="ignore"):
            losses, grads = self.gradients.run(functools.partial(self.batch, starts), dropout)
            parts = self.group.share([losses, engine.sums_of_squares(grads)])
            loss = engine.mean([each for part, _ in parts for each in part], config.tokens_per_step)
            norm = math.sqrt(math.fsum(each for _, part in parts for each in part))
            problem = f"loss {loss}, norm of the gradients {norm}"
            if not math.isfinite(loss) or not math.isfinite(norm):
                self.stop(problem, self.first_not_finite(starts, dropout))
            squared = {name: grads[name] for name in self.optimizer.second}
            name = optimizer.overflowing_square(squared, norm, config.grad_clip)
            if name := self.first_of(name):
                self.stop(problem, f"the square of the gradient of {name}, which AdamW averages")
            learning_rate = optimizer.learning_rate_at(self.step, config)
            engine.update(self.optimizer, grads, norm, learning_rate, config.grad_clip, self.own)
            if self.group.size > 1:
                self.gradients.exchange.send_weights(self.weights)
        self.step_seconds.append(time.perf_counter() - start)
        speed = config.tokens_per_step / self.step_seconds[-1]
        row = Metrics(self.step, loss, self.val_loss, learning_rate, norm, speed)
        # The step counts before its metrics are written: if writing fails, save() still works.
        self.step, self.val_loss = self.step + 1, None
        return self.record(row)

    def starts(self) -> np.ndarray:
        """Return where the sequences of the next step begin in the training split, (B,)."""
        if self.epochs:
            return self.epochs.starts_of_step(self.step)
        sizes = self.config.sequences_per_step, self.config.block_size
        return batches.random_starts(self.dataset.train, *sizes, self.generators["data"])

    def batch(self, starts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and targets (B, T) of one of the batches of a step."""
        size = self.config.batch_size
        own = starts[number * size : (number + 1) * size]
        return batches.cut(self.dataset.train, own, self.config.block_size)

    def first_not_finite(self, starts: np.ndarray, dropout: Any) -> str:
        """Describe the first tensor of a step that is not finite, on the first rank that has it."""
        own, size = self.gradients.own, self.config.batch_size
        tokens, _ = batches.cut(
            self.dataset.train, starts[own.start * size : own.stop * size], self.config.block_size
        )
        masks = self.engine.masks((len(starts), self.config.block_size), dropout)
        all_batches = self.config.gradient_accumulation_steps
        masks = {
            name: np.split(mask, all_batches)[own.start : own.stop] for name, mask in masks.items()
        }
        place = self.model.first_not_finite(
            tokens,
            {name: np.concatenate(parts) for name, parts in masks.items()},
            self.gradients.grads[0],
        )
        return self.first_of(place)

    def first_of(self, place: str) -> str:
        """Return the text of the first rank whose text is not empty, or ""."""
        return next((each for each in self.group.share(place) if each), "")

    def stop(self, problem: str, place: str) -> None:
        """Raise NotFiniteError. place: the first tensor that is not finite."""
        last = "There is no checkpoint yet"
        if self.saved:
            last = f"The last good checkpoint is {self.checkpoint_of(self.saved[0])}"
        raise NotFiniteError(
            f"at step {self.step}: {problem}. The first tensor that is not finite is {place}. "
            f"{last}; a lower learning rate, a longer warm-up or gradient clipping may help"
        )

    def advice(self) -> str:
        """Return how to resume the run; its folder may be out of reach of this rank."""
        if not self.saved:
            return "there is no checkpoint yet"
        command = f"tinygpt train --resume {shlex.quote(str(self.run))}"
        return f"resume with {command}, from the checkpoint of step {self.saved[0]:,}"

    def checkpoint_of(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.run / CHECKPOINTS / f"{step:06d}"

    def evaluation_is_due(self) -> bool:
        """Return whether the validation loss is evaluated before the next step."""
        return self.step % self.config.eval_interval == 0 or self.step == self.config.max_iters

    def seconds_left(self) -> float:
        """Estimate the time left from the latest steps and the latest evaluation."""
        end, interval = self.config.max_iters, self.config.eval_interval
        # One at each remaining multiple of the interval, and one at the end.
        evaluations = end // interval - math.ceil(self.step / interval) + 1 + (end % interval > 0)
        step_seconds = statistics.median(self.step_seconds) if self.step_seconds else 0.0
        return (end - self.step) * step_seconds + evaluations * self.evaluation_seconds

    def seconds_to_next_save(self) -> float:
        """Estimate the time until the run could stop and be saved after one more step.

        An evaluation that comes before the step is counted, with its save.
        """
        step = statistics.median(self.step_seconds) if self.step_seconds else 0.0
        # Until an evaluation is timed: for the same tokens, it takes less time than training does.
        evaluation = self.evaluation_seconds or (step * len(self.val) / self.config.tokens_per_step)
        save = self.save_seconds + self.plot_seconds
        seconds = evaluation + save if self.evaluation_is_due() else 0.0
        return seconds + step + save if self.step < self.config.max_iters else seconds

    def evaluate(self, split: np.ndarray | None = None) -> float:
        """Return the mean loss in nats over all tokens of a split, in order, without dropout.

        split: (M,) tokens; by default the validation split, or its part of eval_tokens. Raise
        NotFiniteError if the loss, or an activation of the first sequence, is not finite, so that
        every checkpoint saved after an evaluation is good.
        """
        split = self.val if split is None else split
        losses: list[tuple[int, float, int]] = []
        place = ""
        with np.errstate(all="ignore"):
            for number, (tokens, targets) in enumerate(
                batches.sequences(split, self.config.block_size)
            ):
                if number % self.group.size != self.group.rank:
                    continue
                if number == 0 and (place := self.model.first_not_finite(tokens[:1], {}, {})):
                    break
                loss = self.engine.loss(tokens, targets)
                losses.append((number, loss * targets.size, targets.size))
                if not math.isfinite(loss):
                    place = self.model.first_not_finite(tokens, {}, {})
                    break
        parts = self.group.share([losses, place])
        # In the order of the text, so that the sum does not depend on the number of ranks.
        ordered = sorted(tuple(each) for part, _ in parts for each in part)
        total = sum(loss for _, loss, _ in ordered)
        if place := next((place for _, place in parts if place), ""):
            grown = "the weights have grown too large"
            self.stop(f"validation loss {total}" if ordered else grown, place)
        return total / sum(count for _, _, count in ordered)

    def save(self) -> None:
        """Write a checkpoint, and remove those that are no longer kept."""
        if self.saved == (self.step, self.val_loss):
            return
        start = time.perf_counter()
        averages = self.averages()
        if self.group.rank == 0:
            self.write_checkpoint(averages)
        self.group.share(None)  # From here on all ranks know that it is complete.
        self.saved = self.step, self.val_loss
        self.save_seconds = time.perf_counter() - start

    def averages(self) -> Tensors:
        """Return the optimizer's running means of all ranks on the first one, by their names."""
        names, found = list(self.model.params), Tensors()
        averaged = [name for name in names if name not in self.matrices]
        own = self.optimizer
        for moment, pieces, which in (
            ("first", own.first, names),
            ("second", own.second, averaged),
        ):
            whole = self.gradients.exchange.collect(pieces, which)
            found |= {f"{moment}.{name}": tensor for name, tensor in whole.items()}
        return found

    def write_checkpoint(self, averages: Tensors) -> None:
        """Write a checkpoint with these running means."""
        checkpoints = self.run / CHECKPOINTS
        # A run that was stopped before an evaluation was saved without its loss.
        files.remove_folder(self.checkpoint_of(self.step))
        metrics.sync(self.run)
        rngs = {name: rng.bit_generator.state for name, rng in self.generators.items()}
        data = self.dataset
        state = State(self.step, self.val_loss, self.config, rngs, data.name, data.sha256)
        checkpoint.save_checkpoint(
            checkpoints,
            self.model.config,
            self.model.params,
            data.tokenizer.files(),
            averages,
            state,
        )
        try:
            checkpoint.prune(checkpoints, self.config.keep_best)
        except OSError as error:
            self.note(f"{checkpoints / checkpoint.BEST} cannot be written: {error.strerror}")

    def plot(self) -> None:
        """Plot the losses. If that fails, training continues without the plot."""
        if self.group.rank > 0:
            return
        start = time.perf_counter()
        try:
            metrics.plot_losses(self.run)
        except Exception as error:  # matplotlib may raise anything.
            self.note(f"{metrics.PLOT} was not drawn: {type(error).__name__}: {error}")
        self.plot_seconds = time.perf_counter() - start

    def note(self, note: str) -> None:
        """Add a note to be shown to the user once."""
        if note not in self.notes:
            self.notes.append(note)

    def new_notes(self) -> list[str]:
        """Return the notes added since the last call."""
        new, self.notes_shown = self.notes[self.notes_shown :], len(self.notes)
        return new

    def record(self, row: Metrics) -> Metrics:
        """Write a line of metrics, and update the plot after an evaluation."""
        if self.group.rank > 0:
            return row
        metrics.record(self.run, row)
        if row.val_loss is not None:
            self.plot()
        return row


def claim(folder: Path) -> bool:
    """Create a folder, and return False if it exists already."""
    files.make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def check_same_run(
    run: Path, config: TrainConfig, dataset: Dataset, state: State, may_change: Container[str]
) -> None:
    """Raise CheckpointError unless a checkpoint has this data, and this configuration.

    may_change: the settings that may differ.
    """
    if state.data_sha256 != dataset.sha256:
        raise CheckpointError(
            f"{run} was trained on {state.data_name} (SHA-256 {state.data_sha256[:12]}…), but "
            f"{dataset.name} has another text (SHA-256 {dataset.sha256[:12]}…)"
        )
    for field in fields(TrainConfig):
        was, asked = getattr(state.config, field.name), getattr(config, field.name)
        if field.name not in may_change and was != asked:
            raise CheckpointError(
                f"{run} was trained with {as_flag(field.name, was)}, which cannot be changed; "
                f"to train with {as_flag(field.name, asked)}, start a new run"
            )
