"""`tinygpt train`: start or resume a run, and show its progress."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.nanogpt import is_nanogpts, value_of
from tinygpt_np.cli.output import announced, print_facts, write
from tinygpt_np.cli.signals import interrupts
from tinygpt_np.config import DEFAULT_PRESET, PRESETS, Preset, TrainConfig
from tinygpt_np.model.sampling import stream_text
from tinygpt_np.training import metrics, report, runs
from tinygpt_np.training.trainer import Trainer

# Seconds between lines of progress if the output is not a terminal and has no progress bar.
QUIET_INTERVAL = 10.0


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The run to start or resume."""

    preset: Preset = DEFAULT_PRESET
    """Recipe that sets the defaults of the flags below."""
    name: Annotated[str | None, Argument("NAME")] = None
    """Write the run to runs/NAME; by default runs/PRESET, or runs/PRESET-2 and so on."""
    resume: Annotated[str | None, Argument("RUN")] = None
    """Resume this run (a path, or a name in runs/) with its own settings and learning rate
    schedule. Only --max-iters, --threads and --keep-best can be changed; --data may give a new
    path to the same data."""
    eval_only: Switch = False
    """Only evaluate a model (--init-from) or a run (--resume); nothing is written."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, RunFlags):
    """Train a GPT on a text, or resume a run (--resume)."""

    typed: tuple[str, ...] = ()

    @staticmethod
    def hint(words: str) -> str:
        """Return advice about unexpected arguments."""
        if words.endswith(".py"):
            return "config files are not run; give their settings as flags"
        return f"to use a text, give --data {words}"

    @classmethod
    def defaults(cls, argv: list[str]) -> "Train":
        """Return the settings of --preset, of nanoGPT for its flags, or of the run to resume.

        They must be known before the flags are parsed, because --help shows them. --max-iters also
        sets the default of --lr-decay-iters; a run that is resumed keeps its schedule.
        """
        resume, preset = value_of(argv, "resume"), value_of(argv, "preset")
        if resume is not None:
            return cls(**asdict(runs.read_config(runs.find_run(resume))))
        if preset not in PRESETS:  # It is not given, or the parser will reject it.
            preset = "cpu" if is_nanogpts(argv) else DEFAULT_PRESET
        settings = asdict(PRESETS[preset])
        with contextlib.suppress(TypeError, ValueError):  # Not given, or the parser will reject it.
            settings["lr_decay_iters"] = max(int(cast(Any, value_of(argv, "max_iters"))), 0)
        return cls(**settings, preset=cast(Any, preset))

    def execute(self, console: Console) -> None:
        """Train, evaluate, and print a sample."""
        config = TrainConfig(**{f.name: getattr(self, f.name) for f in fields(TrainConfig)})
        with announced(config.backend, console):
            trainer = self.open_run(config)
            before = report.before_evaluation if self.eval_only else report.before_training
            print_facts(console, before(trainer))
            trainer.warm_up()
        if self.eval_only:
            print_facts(console, report.evaluation(trainer))
            return
        val_loss = train_and_save(trainer, console)
        if val_loss is None:
            console.print(f"stopped before step {trainer.step} and saved; resume with")
            command = f"tinygpt train --resume {shlex.quote(str(trainer.run))}"
            console.print(f"  {escape(command)}", soft_wrap=True)
            sys.exit(130)
        print_facts(console, report.after_training(trainer, val_loss))
        show_sample(trainer, console)
        files = ", ".join((runs.CONFIG, metrics.METRICS, metrics.PLOT, f"{runs.CHECKPOINTS}/"))
        command = f"tinygpt sample {shlex.quote(str(trainer.run))} --endless"
        print_facts(console, [("written", f"{trainer.run}/ with {files}"), ("next", command)])

    def open_run(self, config: TrainConfig) -> Trainer:
        """Return the run to start, resume or evaluate."""
        name = self.name
        if self.resume is not None:
            run = runs.find_run(self.resume)
            if name is not None or self.preset != DEFAULT_PRESET:
                problem = f"--resume resumes {run}; leave out --name and --preset"
                raise UsageError(problem, "tinygpt train")
            resume = Trainer.at_last_checkpoint if self.eval_only else Trainer.resume
            return resume(run, *runs.inputs(config, self.typed, run))
        if name is not None and (name in ("", ".", "..") or Path(name).name != name):
            problem = f"--name must be the name of a new folder in runs/, not {name!r}"
            raise UsageError(problem, "tinygpt train")
        run, inputs = runs.RUNS / (name or self.preset), runs.inputs(config, self.typed)
        if self.eval_only:
            return Trainer(run, *inputs)
        return Trainer.start(run, *inputs, numbered=name is None)


def train_and_save(trainer: Trainer, console: Console) -> float | None:
    """Train and return the final validation loss, or None after an interrupt."""
    with interrupts() as interrupted:
        try:
            train(trainer, console, interrupted)
        except BrokenPipeError:
            trainer.save()
            raise BrokenPipeError(
                f"the reader of the output has gone; training stopped at step {trainer.step:,} and "
                f"is saved: resume it with tinygpt train --resume {trainer.run}"
            ) from None
        except OSError:
            trainer.save()  # The terminal was closed, or the disk is full.
            raise
        if trainer.step >= trainer.config.max_iters and trainer.val_loss is not None:
            return trainer.val_loss
        trainer.save()
        trainer.plot()
        show_notes(trainer, console)
        return None


def train(trainer: Trainer, console: Console, interrupted: Callable[[], bool]) -> None:
    """Train until the end or an interrupt, and show the progress."""
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
            if interrupted():
                return


def show_sample(trainer: Trainer, console: Console) -> None:
    """Print a sample between two rules. If that fails, the run is complete all the same."""
    console.rule("sample")
    try:
        model, tokenizer = trainer.model, trainer.dataset.tokenizer
        write(stream_text(model.decoder(1), tokenizer, "", 300, seed=trainer.config.seed))
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        trainer.note(f"no sample was written: {type(error).__name__}: {error}")
        show_notes(trainer, console)
    console.rule()


def show_notes(trainer: Trainer, console: Console) -> None:
    """Print the notes of a run that have not been shown yet."""
    for note in trainer.new_notes():
        console.print(f"[bold]note[/bold]  {escape(note)}", soft_wrap=True)
