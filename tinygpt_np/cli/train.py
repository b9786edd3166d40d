"""`tinygpt train`: start or resume a run, and show its progress."""

import contextlib
import math
import shlex
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast

from rich.console import Console
from rich.markup import escape

from tinygpt_np import machine
from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.nanogpt import is_nanogpts, value_of
from tinygpt_np.cli.output import announced, print_facts, write
from tinygpt_np.config import DEFAULT_PRESET, PRESETS, Preset, TrainConfig, require_positive
from tinygpt_np.model.sampling import stream_text
from tinygpt_np.training import metrics, report, runs
from tinygpt_np.training.progress import show_notes, train_and_save
from tinygpt_np.training.ranks.group import Group, start
from tinygpt_np.training.trainer import Trainer


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
    max_minutes: float | None = None
    """Stop and save the run before it has taken this many minutes, counted from the start of the
    process: after the last step that is expected to end in time. The exit code is 0, as that of a
    finished run."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, RunFlags):
    """Train a GPT on a text, or resume a run (--resume)."""

    typed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_minutes is not None:
            require_positive(self, "max_minutes")
            if self.eval_only:
                raise ValueError("max_minutes limits training; leave it out with eval_only")

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
            trainer = self.open_run(config, start())
            show_notes(trainer, console)
            before = report.before_evaluation if self.eval_only else report.before_training
            print_facts(console, before(trainer))
            trainer.warm_up()
        if self.eval_only:
            print_facts(console, report.evaluation(trainer))
            return
        command = f"tinygpt train --resume {shlex.quote(str(trainer.run))}"
        ended = train_and_save(trainer, console, command, self.max_minutes or math.inf)
        if isinstance(ended, str):
            limit = ended == "time limit"
            after = f" after {machine.minutes_running():.1f} minutes" if limit else ""
            console.print(f"stopped before step {trainer.step}{after} and saved; resume with")
            console.print(f"  {escape(command)}", soft_wrap=True)
            if not limit:
                sys.exit(130)
            return
        print_facts(console, report.after_training(trainer, ended))
        if trainer.group.rank == 0:
            show_sample(trainer, console)
        files = ", ".join((runs.CONFIG, metrics.METRICS, metrics.PLOT, f"{runs.CHECKPOINTS}/"))
        command = f"tinygpt sample {shlex.quote(str(trainer.run))} --endless"
        print_facts(console, [("written", f"{trainer.run}/ with {files}"), ("next", command)])

    def open_run(self, config: TrainConfig, group: Group) -> Trainer:
        """Return the run to start, resume or evaluate."""
        name = self.name
        if self.eval_only:  # A model may be evaluated on more ranks than could train it.
            config = replace(config, gradient_accumulation_steps=group.size)
        if self.resume is not None:
            run = runs.find_run(self.resume)
            if name is not None or self.preset != DEFAULT_PRESET:
                problem = f"--resume resumes {run}; leave out --name and --preset"
                raise UsageError(problem, "tinygpt train")
            resume = Trainer.at_last_checkpoint if self.eval_only else Trainer.resume
            return resume(run, *runs.inputs(config, self.typed, run), group=group)
        if name is not None and (name in ("", ".", "..") or Path(name).name != name):
            problem = f"--name must be the name of a new folder in runs/, not {name!r}"
            raise UsageError(problem, "tinygpt train")
        run, inputs = runs.RUNS / (name or self.preset), runs.inputs(config, self.typed)
        if self.eval_only:
            return Trainer(run, *inputs, group)
        return Trainer.start(run, *inputs, numbered=name is None, group=group)


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
