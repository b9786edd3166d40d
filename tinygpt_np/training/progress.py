"""Train a run to its end with a progress display; save it on an interrupt or at a time limit."""

import math
import time
from collections.abc import Callable
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from tinygpt_np import machine
from tinygpt_np.training import report
from tinygpt_np.training.signals import interrupts
from tinygpt_np.training.trainer import Trainer

# Seconds between lines of progress if the output is not a terminal and has no progress bar.
QUIET_INTERVAL = 10.0
# Why training stops after a step.
Reason = Literal["", "interrupt", "time limit"]


def train_and_save(
    trainer: Trainer, console: Console, command: str, minutes: float = math.inf
) -> float | Reason:
    """Train and return the final validation loss, or why training was stopped before its end.

    command: the one that resumes the run. minutes: the time after which this process should have
    saved the run and stopped, counted from its start.
    """
    with interrupts(quiet=trainer.group.rank > 0) as interrupted:
        try:
            reason = train(trainer, console, lambda: why_stop(trainer, interrupted, minutes))
        except OSError as error:
            if trainer.group.size > 1:  # To save, all ranks would have to take part.
                raise
            trainer.save()  # The terminal was closed, or the disk is full.
            if not isinstance(error, BrokenPipeError):
                raise
            raise BrokenPipeError(
                f"the reader of the output has gone; training stopped at step {trainer.step:,} and "
                f"is saved: resume it with {command}"
            ) from None
        if trainer.step >= trainer.config.max_iters and trainer.val_loss is not None:
            return trainer.val_loss
        trainer.save()
        trainer.plot()
        show_notes(trainer, console)
        return reason


def why_stop(trainer: Trainer, interrupted: Callable[[], bool], minutes: float) -> Reason:
    """Return why training stops after this step, or "" if it continues.

    It stops if another step would probably not end and be saved before the time limit. At least one
    step is taken, so that a run that is resumed again and again makes progress. All ranks stop for
    the reason of any of them.
    """
    end_of_next = machine.minutes_running() + trainer.seconds_to_next_save() / 60
    found = trainer.group.share([interrupted(), end_of_next > minutes])
    if any(asked for asked, _ in found):
        return "interrupt"
    return "time limit" if any(late for _, late in found) else ""


def train(trainer: Trainer, console: Console, stop: Callable[[], Reason]) -> Reason:
    """Train until the end or until stop() gives a reason, and return it; show the progress."""
    counts = TextColumn("{task.completed}/{task.total}  {task.fields[status]}")
    columns = (TextColumn("{task.fields[doing]}"), BarColumn(None), counts)
    bar = Progress(*columns, console=console, disable=not console.is_terminal, expand=True)
    total, val_loss, shown = trainer.config.max_iters, trainer.val_loss, time.monotonic()
    with bar:
        task = bar.add_task("", total=total, completed=trainer.step, doing="evaluating", status="")
        for row in trainer:
            evaluated = row.val_loss is not None
            val_loss = row.val_loss if evaluated else val_loss
            status = report.progress(trainer, row, val_loss)
            doing = "evaluating" if trainer.evaluation_is_due() else "training"
            doing = "finished" if row.loss is None else doing
            bar.update(task, completed=trainer.step, doing=doing, status=status)
            show_notes(trainer, console)
            if bar.disable and (evaluated or time.monotonic() - shown > QUIET_INTERVAL):
                shown = time.monotonic()
                console.print(f"step {row.step}  {status}", soft_wrap=True)
            if reason := stop():
                return reason
    return ""


def show_notes(trainer: Trainer, console: Console) -> None:
    """Print the notes of a run that have not been shown yet."""
    for note in trainer.new_notes():
        console.print(f"[bold]note[/bold]  {escape(note)}", soft_wrap=True)
