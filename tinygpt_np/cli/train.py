"""`tinygpt train`: from the start or from where a run stopped, with its progress shown."""

import contextlib
import math
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.nanogpt import value_of
from tinygpt_np.cli.output import announced, print_facts, write
from tinygpt_np.config import PRESETS, TrainConfig, counted, expected_band
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import checkpoint
from tinygpt_np.text import corpus, dataset, tokenizers
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import engine, metrics, runs, sample
from tinygpt_np.training import trainer as train
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import Trainer

# Seconds between lines of progress where the output is no terminal, and a bar cannot be drawn.
QUIET_INTERVAL = 10.0
A_LONG_TIME = 10**9  # seconds; no longer time left is shown


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which run, and where its defaults come from."""

    preset: Literal[
        "cpu", "lecture-small", "lecture", "smoke", "gpt2-124m", "finetune-shakespeare"
    ] = "cpu"
    """The recipe that gives the defaults below; flags override them."""
    name: Annotated[str | None, Argument("NAME")] = None
    """The run is written to runs/NAME; without it, to runs/PRESET, or runs/PRESET-2 and so on."""
    resume: Annotated[str | None, Argument("RUN")] = None
    """Continue this run (a path, or a name under runs/) with its own settings and learning-rate
    schedule. --max-iters may be raised, --data may say where the same data is now, --threads is
    free."""
    eval_only: Switch = False
    """Only print the loss of a model (--init-from) or of a run (--resume); nothing is written."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Which):
    """Train a GPT on a text, from the start or from where a run stopped (--resume)."""

    typed: tuple[str, ...] = ()

    @staticmethod
    def hint(words: str) -> str:
        """Return what to do about arguments that are not expected."""
        if words.endswith(".py"):
            return "config files are not run; give their settings as flags"
        return f"a text is given as --data {words}"


def train_defaults(argv: list[str]) -> Train:
    """Return the defaults of `tinygpt train`: those of --preset, or of the run to --resume.

    They must be known before the flags are read, so that --help shows them and flags override them.
    A new run whose --max-iters is given decays its learning rate until then, unless
    --lr-decay-iters says otherwise; a resumed one keeps the schedule that it was started with.
    """
    if argv[:1] != ["train"]:
        return Train()
    resume, preset = value_of(argv, "resume"), value_of(argv, "preset")
    if resume is not None:
        return Train(**asdict(runs.read_config(runs.find_run(resume))))
    if preset not in PRESETS:  # None, or a word that the parser is going to refuse.
        preset = "cpu"
    settings = asdict(PRESETS[preset])
    with contextlib.suppress(TypeError, ValueError):  # Not given, or refused by the parser later.
        settings["lr_decay_iters"] = max(int(cast(Any, value_of(argv, "max_iters"))), 0)
    return Train(**settings, preset=cast(Any, preset))


def run_train(job: Train, console: Console) -> None:
    config = TrainConfig(**{f.name: getattr(job, f.name) for f in fields(TrainConfig)})
    with announced(config.backend, console):
        trainer = start(job, config) if job.resume is None else resume(job.resume, job, config)
        print_facts(console, to_evaluate(trainer) if job.eval_only else introduction(trainer))
        trainer.warm_up()
    if job.eval_only:
        print_facts(console, evaluation(trainer))
        return
    with interrupts() as interrupted:
        try:
            follow(trainer, console, interrupted)
        except BrokenPipeError:
            trainer.save()
            raise BrokenPipeError(
                f"the reader of the output has gone; training stopped at step {trainer.step:,} and "
                f"is saved: continue it with tinygpt train --resume {trainer.run}"
            ) from None
        except OSError:
            trainer.save()  # The terminal has gone, or the disk is full.
            raise
        val_loss = trainer.val_loss if trainer.step >= config.max_iters else None
        if val_loss is None:
            trainer.save()
            trainer.draw()
            show_notes(trainer, console)
    if val_loss is None:
        console.print(f"stopped before step {trainer.step} and saved; continue with")
        console.print(
            f"  tinygpt train --resume {escape(shlex.quote(str(trainer.run)))}", soft_wrap=True
        )
        sys.exit(130)
    print_facts(console, conclusion(trainer, val_loss))
    console.rule("sample")
    try:
        write(sample.stream(trainer.model, trainer.dataset.tokenizer, "", 300, seed=config.seed))
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # The run is complete and saved.
        trainer.note(f"no sample was written: {type(error).__name__}: {error}")
        show_notes(trainer, console)
    console.rule()
    files = ", ".join((runs.CONFIG, metrics.METRICS, metrics.PICTURE, f"{runs.CHECKPOINTS}/"))
    written = ("written", f"{trainer.run}/ with {files}")
    print_facts(
        console, [written, ("next", f"tinygpt sample {shlex.quote(str(trainer.run))} --endless")]
    )


def start(job: Train, config: TrainConfig) -> Trainer:
    if job.name is not None and (job.name in ("", ".", "..") or Path(job.name).name != job.name):
        problem = f"--name must be the name of a new folder in runs/, not {job.name!r}"
        raise UsageError(problem, "tinygpt train")
    config, found, model = beginning(config, job.typed)
    run = runs.RUNS / (job.name or job.preset)
    if job.eval_only:
        return Trainer(run, config, found, model)
    return Trainer.start(run, config, found, model, numbered=job.name is None)


def beginning(
    config: TrainConfig, typed: Collection[str] = ()
) -> tuple[TrainConfig, Dataset, GPT | None]:
    """Return what a run starts from: its configuration, its data, and the model of --init-from.

    Raise ValueError if a setting in typed is not that of the model. A smaller block_size crops it.
    """
    if config.init_from == "scratch":
        return config, dataset.load(config), None
    model, tokenizer = runs.load(
        config.init_from, config.backend, config.dtype, config.tokenizer_path
    )
    if model.block_size > config.block_size:
        model = model.cropped(config.block_size)
    kept = train.shape_kept(model.config)
    has = kept | {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
    for name in [name for name in has if name in typed]:
        if (asked := getattr(config, name)) != has[name]:
            raise ValueError(
                f"{config.init_from} has {train.as_flag(name, has[name])}, which --init-from "
                f"keeps; leave out {train.as_flag(name, asked)}"
            )
    config = replace(config, **kept)
    model.config = config.gpt(model.vocab_size)  # With this run's dropout.
    return config, dataset.load(config, tokenizer), model


def resume(name: str, job: Train, config: TrainConfig) -> Trainer:
    run = runs.find_run(name)
    if job.name is not None or job.preset != "cpu":
        problem = f"--resume continues {run}; leave out --name and --preset"
        raise UsageError(problem, "tinygpt train")
    go_on = Trainer.at_last_checkpoint if job.eval_only else Trainer.resume
    saved = checkpoint.steps_in(run / runs.CHECKPOINTS)
    if not saved:
        return go_on(run, *beginning(config, job.typed))
    return go_on(run, config, dataset.load(config, tokenizers.load(saved[-1])))


def introduction(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield what training is about to do, in numbers that can be compared with what follows."""
    config, model = trainer.config, trainer.model
    memory = engine.memory_estimate(model.config, config)
    share = config.max_iters * config.tokens_per_step / len(trainer.dataset.train)
    passes = f"{share:.1f} passes" if share >= 0.1 else "less than 0.1 passes"
    yield "data", f"{trainer.dataset.name}: {trainer.dataset.about}"
    yield "model", f"{model_in_words(trainer)}; about {memory / 1e6:.0f} MB"
    per_step = counted(config.tokens_per_step, "token")
    if trainer.step == 0:
        steps = f"{counted(config.max_iters, 'step')} of {per_step}: {passes} over the text"
        yield "training", steps
    else:
        left = config.max_iters - trainer.step
        steps = f"{counted(left, 'more step')} of {per_step}, to step {config.max_iters:,}"
        yield "resumed", f"at step {trainer.step:,}"
        yield (
            "training",
            f"{steps}: {passes} over the text in all"
            if left
            else "no steps left, only the last evaluation",
        )
    if config.init_from != "scratch":
        yield "from", config.init_from
    elif trainer.step == 0:
        yield (
            "first loss",
            f"about ln {model.vocab_size} = {math.log(model.vocab_size):.2f}, "
            "that of a uniform guess",
        )
    for warning in train.warnings(trainer):
        yield "note", warning


def to_evaluate(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield what --eval-only is about to evaluate."""
    if trainer.step > 0:
        weights = f"{trainer.run}, at step {trainer.step:,}"
    elif trainer.config.init_from != "scratch":
        weights = trainer.config.init_from
    else:
        weights = "scratch: new random weights, not trained"
    yield "data", f"{trainer.dataset.name}: {trainer.dataset.about}"
    yield "model", model_in_words(trainer)
    yield "from", weights
    yield "evaluation", "nothing is trained or written"


def model_in_words(trainer: Trainer) -> str:
    """Return the size and shape of a model."""
    params = sum(param.size for param in trainer.model.params.values())
    return f"{params:,} parameters, {trainer.config.in_words()}"


def conclusion(trainer: Trainer, loss: float) -> Iterator[tuple[str, str]]:
    """Yield the validation loss, and whether it is what this preset gave when it was measured."""
    yield "validation", f"{in_words(trainer, loss)}, over the whole split"
    config = trainer.config
    if trainer.dataset.sha256 == corpus.TINYSHAKESPEARE_SHA256:  # Wherever it lay.
        config = replace(config, data="tinyshakespeare")
    best = trainer.run / runs.CHECKPOINTS / checkpoint.BEST
    if config.keep_best:
        with contextlib.suppress(checkpoint.CheckpointError):  # A file that cannot be read.
            state = checkpoint.state_of(checkpoint.read_json(best / checkpoint.STATE), best)
            if state.val_loss is not None and state.val_loss < loss:
                yield "best", f"{state.val_loss:.4f} at step {state.step:,}, kept in {best}"
    band = expected_band(config)
    if band is not None:
        verdict = "within" if band[0] <= loss <= band[1] else "outside"
        yield "", f"{verdict} the expected band, {band[0]:.3f} to {band[1]:.3f}"


def evaluation(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield the loss on both splits, of training on as many tokens as validation has."""
    val = trainer.dataset.val
    first = trainer.dataset.train[: len(val)]
    yield "validation", f"{in_words(trainer, trainer.evaluate())}, over the whole split"
    yield (
        "training",
        f"{in_nats(trainer, trainer.evaluate(first))}, over the first {len(first):,} tokens of the "
        "training split",
    )


def in_words(trainer: Trainer, loss: float) -> str:
    """Return a validation loss in two units; bits per character compare between tokenizers."""
    bits = trainer.dataset.bits_per_character(loss)
    return f"{in_nats(trainer, loss)}, {bits:.4f} bits per character"


def in_nats(trainer: Trainer, loss: float) -> str:
    """Return a loss in nats per character or per token."""
    token = "character" if trainer.config.tokenizer == "char" else "token"
    return f"{loss:.4f} nats per {token}"


def follow(trainer: Trainer, console: Console, interrupted: Callable[[], bool]) -> None:
    """Trains until the end or an interrupt, and shows how it goes."""
    bar = Progress(
        TextColumn("{task.fields[doing]}"),
        BarColumn(None),
        TextColumn("{task.completed}/{task.total}  {task.fields[status]}"),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )
    total, val_loss, shown = trainer.config.max_iters, trainer.val_loss, time.monotonic()
    with bar:
        doing, done = "validating", trainer.step
        task = bar.add_task("", total=total, completed=done, doing=doing, status="")
        for row in trainer:
            evaluated = row.val_loss is not None
            val_loss = row.val_loss if evaluated else val_loss
            status = describe(trainer, row, val_loss)
            doing = "validating" if trainer.evaluation_is_due() else "training"
            doing = "trained" if row.loss is None else doing
            bar.update(task, completed=trainer.step, doing=doing, status=status)
            show_notes(trainer, console)
            if bar.disable and (evaluated or time.monotonic() - shown > QUIET_INTERVAL):
                shown = time.monotonic()
                console.print(f"step {row.step}  {status}", soft_wrap=True)
            if interrupted():
                return


def show_notes(trainer: Trainer, console: Console) -> None:
    """Print the notes of a training that have not been shown yet."""
    for note in trainer.new_notes():
        console.print(f"[bold]note[/bold]  {escape(note)}", soft_wrap=True)


def describe(trainer: Trainer, row: Metrics, val_loss: float | None) -> str:
    """The losses, the pace, and the time left."""
    parts = [] if row.loss is None else [f"loss {row.loss:.3f}"]
    if val_loss is not None:
        parts.append(f"val {val_loss:.3f}")
    if trainer.step_seconds:
        seconds = statistics.median(trainer.step_seconds)
        parts.append(f"{trainer.config.tokens_per_step / seconds:,.0f} tokens/s")
    if row.loss is not None:
        parts.append(f"{timedelta(seconds=min(round(trainer.seconds_left()), A_LONG_TIME))} left")
    return "  ".join(parts)


@contextlib.contextmanager
def interrupts() -> Generator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a flag; a second one stops at once.

    SIGHUP comes when the terminal is closed, often twice: from the shell and from the system. A
    signal that is ignored stays so: nohup ignores SIGHUP, and a shell starts background jobs with
    SIGINT ignored.
    """
    seen: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none.

    def note(number: int, frame: object) -> None:
        if seen and number != hangup:
            raise KeyboardInterrupt
        seen.append(number)
        with contextlib.suppress(OSError):  # There may be no terminal any more.
            print(
                "\nfinishing this step and saving; press Ctrl-C again to stop at once",
                file=sys.stderr,
            )

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, hangup) if number is not None]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
