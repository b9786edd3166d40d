"""The last exercise: a GPT that computes its gradients with the learner's functions is trained.

It is the preset smoke with NumPy, and its loss should be in the expected band. Every backward that
the model calls is the learner's, except that of dropout, which returns its gradient unchanged: the
preset has no dropout. The forwards are those of ops/, or the learner's where they changed them.
"""

import functools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np import ops
from tinygpt_np.config import PRESETS, GPTConfig, expected_band
from tinygpt_np.learn.attempt import Attempt, described, read_file
from tinygpt_np.learn.checks import judged, read_text
from tinygpt_np.learn.course import TRAINED, Exercise, find
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.sources import MODELS
from tinygpt_np.model.gpt import GPT, Gradients
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.files import FileError, write_folder
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.text import dataset
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import report, runs
from tinygpt_np.training.progress import train_and_save
from tinygpt_np.training.trainer import NotFiniteError, Trainer

COMMAND = "tinygpt learn check training"
CONFIG = replace(PRESETS["smoke"], backend="numpy")
# In the learner's folder: the run, and in it the files that it was trained with.
RUN, CODE = Path("runs", "training"), "code"
OPERATIONS = [name for name in TRAINED if name not in MODELS]

Attempts = Mapping[str, Attempt]


def train(folder: Path, console: Console) -> Verdict:
    """Train with the learner's functions, and return whether the loss is in the expected band.

    A run that was interrupted is resumed, unless the files have changed since; any other one is
    kept, and a new one begins. Everything is printed except the problem of the verdict.
    """
    exercise = find("training")
    console.print(f"checking the files of {len(TRAINED)} exercises")
    if left := missing(folder):
        return Verdict(exercise, problem=what_is_left(left, folder))
    texts = {find(name).file: read_text(folder / find(name).file) for name in TRAINED}
    attempts, calls = read(folder, texts), Counter[str]()
    data = dataset.load(CONFIG)
    model = LearnersGPT(CONFIG.gpt(data.tokenizer.vocab_size), CONFIG.seed, attempts, calls)
    trainer = open_run(folder / RUN, model, data, texts)
    try:
        show(console, report.before_training(trainer))
        # The matrices are so small that the threads of BLAS would mostly wait for each other.
        with threadpool_limits(1, user_api="blas"):
            loss = train_and_save(trainer, console, COMMAND)
    except NotFiniteError as error:
        return Verdict(exercise, problem=str(error))
    except Exception as error:
        if problem := raised_by(error, attempts):
            return Verdict(exercise, problem=f"at step {trainer.step}, {problem}")
        raise
    finally:
        trainer.lock.release()
    show(console, [("calls", ", ".join(f"{name} {calls[name]:,}" for name in TRAINED))])
    if isinstance(loss, str):
        problem = f"stopped before step {trainer.step} and saved; {COMMAND} continues"
        return Verdict(exercise, problem=problem)
    show(console, report.after_training(trainer, loss))
    show(console, [("written", f"{trainer.run}/"), ("next", f"tinygpt sample {trainer.run}")])
    band = expected_band(trainer.config)
    assert band is not None  # The preset was measured on the corpus in the package.
    if band[0] <= loss <= band[1]:
        return Verdict(exercise)
    problem = f"the loss {loss:.4f} is outside the expected band, {band[0]:.3f} to {band[1]:.3f}"
    return Verdict(exercise, problem=problem)


def missing(folder: Path) -> list[Exercise]:
    """Return the exercises to solve before training, those without a file too."""
    return [exercise for exercise in map(find, TRAINED) if not is_solved(exercise, folder)]


def is_solved(exercise: Exercise, folder: Path) -> bool:
    """Return whether the file of an exercise, as it is now, solves it."""
    try:
        return judged(exercise, folder).ok
    except FileError:
        return False


def what_is_left(left: list[Exercise], folder: Path) -> str:
    """Return a sentence that names exercises to solve, and the command for the first one."""
    has_file = (folder / left[0].file).exists()
    names = ", ".join(each.name for each in left)
    return (
        f"training needs your backwards of {len(TRAINED)} exercises, and these are not solved yet: "
        f"{names}; continue with tinygpt learn {'check' if has_file else 'start'} {left[0].name}"
    )


def read(folder: Path, texts: Mapping[str, str]) -> dict[str, Attempt]:
    """Return the learner's functions by exercise. texts: the files, by name."""
    exercises = map(find, TRAINED)
    return {e.name: read_file(e, texts[e.file], str(folder / e.file)) for e in exercises}


class LearnersGPT(GPT):
    """A GPT whose backwards are a learner's.

    calls: how often each was called, by exercise.
    """

    def __init__(
        self, config: GPTConfig, seed: int, attempts: Attempts, calls: Counter[str]
    ) -> None:
        super().__init__(config, seed)
        self.ops = operations(attempts, calls)
        self.own = {name: counting(attempts[name].functions[1], name, calls) for name in MODELS}

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        """Return the gradient of every parameter, by name and in its dtype."""
        grads = self.own["gpt"](self, dlogits, saved)
        # A division by np.sqrt(n), for example, makes a gradient float64.
        return {name: np.asarray(grads[name], param.dtype) for name, param in self.params.items()}

    def block_backward(self, dy: np.ndarray, h: str, saved: Saved, grads: Gradients) -> np.ndarray:
        """Return dx, and store the gradients of the block's parameters in grads."""
        return self.own["block"](self, dy, h, saved, grads)


def operations(attempts: Attempts, calls: Counter[str]) -> SimpleNamespace:
    """Return the operations of ops/ with the learner's backwards.

    The learner's files that import an operation get the one with their backward.
    """
    own = SimpleNamespace(**{name: getattr(ops, name) for name in ops.__all__}, __all__=ops.__all__)
    replaced: dict[int, Any] = {id(ops): own}
    for name in OPERATIONS:
        ours, attempt = getattr(ops, name), attempts[name]
        forward, backward = attempt.functions[0], counting(attempt.functions[1], name, calls)
        # The forward of attention calls that of softmax, which the learner may have changed.
        if not attempt.is_own_forward and name != "attention":
            forward = ours.forward
        operation = SimpleNamespace(**{**vars(ours), "forward": forward, "backward": backward})
        replaced |= {id(ours): operation, id(ours.forward): forward, id(ours.backward): backward}
        setattr(own, name, operation)
    for attempt in attempts.values():
        module = attempt.module
        module.update({key: replaced[id(v)] for key, v in module.items() if id(v) in replaced})
    return own


def counting(function: Callable[..., Any], name: str, calls: Counter[str]) -> Callable[..., Any]:
    """Return a function that counts its calls under a name."""

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return function(*args, **kwargs)

    return counted


def open_run(run: Path, model: GPT, data: Dataset, texts: Mapping[str, str]) -> Trainer:
    """Return the newest run, if it is unfinished and was trained with these files, or a new one."""
    newest = max(runs_like(run), key=lambda each: (each / runs.CONFIG).stat().st_mtime, default=run)
    if is_unfinished(newest) and files_in(newest / CODE) == texts:
        return Trainer.resume(newest, CONFIG, data, model)
    trainer = Trainer.start(run, CONFIG, data, model, numbered=True)
    write_folder(trainer.run / CODE, {name: text.encode() for name, text in texts.items()})
    return trainer


def runs_like(run: Path) -> Iterator[Path]:
    """Yield the existing runs of this name, with or without a number."""
    return (path.parent for path in run.parent.glob(f"{run.name}*/{runs.CONFIG}"))


def is_unfinished(run: Path) -> bool:
    """Return whether a run can be resumed."""
    if not checkpoint.steps_in(run / runs.CHECKPOINTS):
        return (run / runs.CONFIG).exists()
    try:
        state = runs.last_checkpoint(run)[1]
    except CheckpointError:  # It is damaged.
        return False
    return state.step < CONFIG.max_iters or state.val_loss is None


def files_in(folder: Path) -> dict[str, str]:
    """Return the texts in a folder, which need not exist."""
    return {path.name: path.read_bytes().decode() for path in folder.glob("*.py")}


def raised_by(error: Exception, attempts: Attempts) -> str:
    """Return which line of the learner raised an exception, or "" if none did."""
    files = {attempt.module["__file__"] for attempt in attempts.values()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f"line {frame.lineno} of {frame.filename} {described(error)}"
    return ""


def show(console: Console, facts: report.Facts | list[tuple[str, str]]) -> None:
    """Print pairs of a name and a text in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, text in facts:
        table.add_row(Text(name, "bold"), Text(text, overflow="fold"))
    console.print(table)
