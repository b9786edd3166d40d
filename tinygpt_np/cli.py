"""The front door: one subcommand per job, with flags made from the dataclasses below."""

import contextlib
import io
import itertools
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tinygpt_np import data, lecture, metrics, sample, train
from tinygpt_np.config import PRESETS, TrainConfig, expected_band
from tinygpt_np.gradcheck.command import run_mutants, run_suite
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.metrics import Metrics
from tinygpt_np.train import Trainer

DESCRIPTION = "A GPT whose every gradient is written by hand in NumPy."
# Seconds between lines of progress where the output is no terminal, and a bar cannot be drawn.
QUIET_INTERVAL = 10.0
A_LONG_TIME = 10**9  # seconds; no longer time left is shown


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which run, and where its defaults come from."""

    preset: Literal["cpu", "lecture-small", "lecture", "smoke"] = "cpu"
    """Where the defaults below come from; every flag overrides its own."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The run is written to runs/NAME; without it, to runs/PRESET, or runs/PRESET-2 and so on."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Continue this run (a path, or a name under runs/) with its own settings.
    --max-iters may be raised, and --data may say where the same text lies now."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Which):
    """Train a GPT on a text, from the start or from where a run stopped (--resume)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Write text with a trained model, character by character."""

    run: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """A run (a path, or a name under runs/) or a checkpoint; by default the run saved last."""
    prompt: str = ""
    """The text to go on from."""
    tokens: int = 500
    """How many characters to write."""
    endless: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write until Ctrl-C."""
    temperature: float = 1.0
    """Below 1 the likely gets likelier, above 1 the unlikely does; 0 is --greedy."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Draw from the K likeliest characters only."""
    greedy: tyro.conf.FlagCreatePairsOff[bool] = False
    """Always take the likeliest character."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """The same seed writes the same text."""
    skip_unknown: tyro.conf.FlagCreatePairsOff[bool] = False
    """Drop characters of the prompt that the model has never seen."""


@dataclass(frozen=True, kw_only=True)
class Lecture:
    """Run a chapter of the lecture; without one, list them."""

    chapter: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[CHAPTER]")] = None
    """Its number or its name, such as 4 or bigram."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run all chapters in order."""


@dataclass(frozen=True, kw_only=True)
class Gradcheck:
    """Hold every gradient written by hand against a numerical one; exit with 1 if one is wrong."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")
    ] = ()
    """An operation (softmax, attention, ...), block, bigram or gpt, in full; by default all."""
    method: Method = "complex"
    """The oracle: complex step, central differences, Richardson extrapolation, Taylor slope."""
    seed: int = 0
    """Of weights, inputs, upstream gradients and directions."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write what was found as JSON."""
    mutants: tyro.conf.FlagCreatePairsOff[bool] = False
    """Check the checks: plant every bug in turn, and see who notices it."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With --mutants: write the matrix of bugs and who noticed them as a page, too."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `tinygpt`. Exits with 1 and a line of explanation when something is wrong."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever the system's, as all texts here are; what is no text is shown escaped.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    console = Console(highlight=False)
    try:
        job = parse(argv)
        if isinstance(job, Train):
            run_train(job, console)
        elif isinstance(job, Sample):
            run_sample(job, console)
        elif isinstance(job, Gradcheck):
            run_gradcheck(job, console)
        else:
            run_lecture(job, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone (as `head` does); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError as error:
        fail(f"there is not enough memory: {error}")
    except (ValueError, RuntimeError, OSError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]tinygpt:[/bold red] {escape(message)}"
    )
    sys.exit(1)


def parse(argv: list[str]) -> Train | Sample | Gradcheck | Lecture:
    """The job on the command line."""
    jobs = {
        "train": train_defaults(argv),
        "sample": Sample(),
        "gradcheck": Gradcheck(),
        "lecture": Lecture(),
    }
    about = {name: (type(job).__doc__ or "").splitlines()[0] for name, job in jobs.items()}
    kind = tyro.extras.subcommand_type_from_defaults(jobs, about, prefix_names=False)
    return tyro.cli(kind, prog="tinygpt", description=DESCRIPTION, args=argv)


def train_defaults(argv: list[str]) -> Train:
    """The defaults of `tinygpt train`: those of --preset, or of the run that --resume names.

    They must be known before the flags are read, so that --help shows them and flags override them.
    """
    if argv[:1] != ["train"]:
        return Train()
    resume, preset = flag(argv, "--resume"), flag(argv, "--preset")
    if resume is not None:
        return Train(**asdict(train.read_config(sample.find_run(resume))))
    if preset not in PRESETS:  # None, or a word that the parser is going to refuse.
        preset = "cpu"
    return Train(**asdict(PRESETS[preset]), preset=cast(Any, preset))


def flag(argv: list[str], name: str) -> str | None:
    """The value of a flag, `--name value` or `--name=value`; the last one counts."""
    value = None
    for argument, following in itertools.pairwise([*argv, ""]):
        if argument == name:
            value = following
        elif argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
    return value


def run_train(job: Train, console: Console) -> None:
    config = TrainConfig(**{f.name: getattr(job, f.name) for f in fields(TrainConfig)})
    trainer = start(job, config) if job.resume is None else resume(job.resume, job, config)
    print_facts(console, introduction(trainer))
    with interrupts() as interrupted:
        follow(trainer, console, interrupted)
        val_loss = trainer.val_loss if trainer.step >= config.max_iters else None
        if val_loss is None:
            trainer.save()
            metrics.draw_losses(trainer.run)
    if val_loss is None:
        console.print(f"stopped before step {trainer.step}, and saved; go on with")
        console.print(f"  tinygpt train --resume {escape(str(trainer.run))}", soft_wrap=True)
        sys.exit(130)
    print_facts(console, conclusion(trainer, val_loss))
    console.rule("sample")
    write(sample.stream(trainer.model, trainer.tokenizer, "", 300, seed=config.seed))
    console.rule()
    files = ", ".join((train.CONFIG, metrics.METRICS, metrics.PICTURE, f"{train.CHECKPOINTS}/"))
    written = ("written", f"{trainer.run}/ with {files}")
    print_facts(console, [written, ("go on", f"tinygpt sample {trainer.run} --endless")])


def start(job: Train, config: TrainConfig) -> Trainer:
    if job.name is not None and (job.name in ("", ".", "..") or Path(job.name).name != job.name):
        raise ValueError(f"--name is the name of a folder to be made in runs/, not {job.name!r}")
    corpus = data.load(config.data)
    run = free_run(job.preset) if job.name is None else sample.RUNS / job.name
    return Trainer.start(run, config, corpus)


def free_run(preset: str) -> Path:
    """runs/<preset>, or the first of runs/<preset>-2, -3 … that is not taken."""
    names = itertools.chain([preset], (f"{preset}-{i}" for i in itertools.count(2)))
    return next(run for run in (sample.RUNS / name for name in names) if not run.exists())


def resume(name: str, job: Train, config: TrainConfig) -> Trainer:
    run = sample.find_run(name)
    if job.name is not None or job.preset != "cpu":
        raise ValueError(f"--resume goes on in {run}; leave out --name and --preset")
    return Trainer.resume(run, config, data.load(config.data))


def introduction(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """What is about to happen, in numbers that can be checked against what then comes."""
    config, vocab_size = trainer.config, trainer.tokenizer.vocab_size
    size, params = len(trainer.corpus.text), sum(p.size for p in trainer.model.params.values())
    memory = train.memory_estimate(trainer.model.config, config.tokens_per_step)
    passes = config.max_iters * config.tokens_per_step / len(trainer.train_ids)
    yield "data", f"{trainer.corpus.name}: {size:,} characters, {vocab_size} distinct"
    yield "model", f"{params:,} parameters, {shape_of(config)}; about {memory / 1e6:.0f} MB"
    yield (
        "training",
        f"{config.max_iters:,} steps of {config.tokens_per_step:,} tokens: "
        f"{passes:.1f} passes over the text",
    )
    if trainer.step == 0:
        yield (
            "first loss",
            f"about ln {vocab_size} = {math.log(vocab_size):.2f}, as for a blind guess",
        )
    else:
        yield "resumed", f"at step {trainer.step:,}"
    for warning in train.warnings(trainer):
        yield "note", warning


def shape_of(config: TrainConfig) -> str:
    return (
        f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} channels, "
        f"block {config.block_size}"
    )


def conclusion(trainer: Trainer, loss: float) -> Iterator[tuple[str, str]]:
    """The validation loss, beside what this preset gave on this corpus when it was measured."""
    yield "validation", f"{loss:.4f} nats per character, over the whole split"
    config = trainer.config
    if trainer.corpus.sha256 == data.TINYSHAKESPEARE_SHA256:  # Wherever it lay.
        config = replace(config, data="tinyshakespeare")
    band = expected_band(config)
    if band is not None:
        verdict = "within" if band[0] <= loss <= band[1] else "outside"
        yield "", f"{verdict} the band expected here, {band[0]:.3f} to {band[1]:.3f}"


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, text in facts:
        table.add_row(f"[bold]{name}[/bold]", Text(text, overflow="fold"))
    console.print(table)


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
            if bar.disable and (evaluated or time.monotonic() - shown > QUIET_INTERVAL):
                shown = time.monotonic()
                console.print(f"step {row.step}  {status}", soft_wrap=True)
            if interrupted():
                return


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
    """Turns the first Ctrl-C (or SIGTERM) into a flag; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        print("\nfinishing this step and saving; Ctrl-C again stops at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_sample(job: Sample, console: Console) -> None:
    if job.greedy and job.temperature not in (0, 1):
        raise ValueError(
            "--greedy takes the likeliest character, so --temperature has no say in it"
        )
    model, tokenizer = sample.load(sample.find_run(job.run))
    prompt = tokenizer.known(job.prompt) if job.skip_unknown else job.prompt
    temperature = 0.0 if job.greedy else job.temperature
    tokens = None if job.endless else job.tokens
    stream = sample.stream(model, tokenizer, prompt, tokens, temperature, job.top_k, job.seed)
    write(itertools.chain([prompt], stream))


def write(stream: Iterable[str]) -> None:
    """Writes text as it comes, as it is: no markup, no wrapping."""
    for text in stream:
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")


def run_gradcheck(job: Gradcheck, console: Console) -> None:
    if job.mutants:
        if job.method != "complex":
            raise ValueError("--mutants tries every oracle, so --method has no say in it")
        right = run_mutants(job.names, job.seed, job.json, job.html, console)
    elif job.html is not None:
        raise ValueError("--html shows the matrix of planted bugs; it goes with --mutants")
    else:
        right = run_suite(job.names, job.method, job.seed, job.json, console)
    if not right:
        sys.exit(1)


def run_lecture(job: Lecture, console: Console) -> None:
    if job.all and job.chapter is not None:
        raise ValueError(f"--all runs every chapter; leave out {job.chapter}, or leave out --all")
    if job.all:
        for chapter in lecture.chapters():
            console.rule(f"[bold]{chapter.number}  {chapter.title}[/bold]  {chapter.timestamp}")
            lecture.run(chapter)
    elif job.chapter is not None:
        lecture.run(lecture.find(job.chapter))
    else:
        table = Table("", box=None, pad_edge=False)
        table.add_column("name", no_wrap=True)
        table.add_column("starts at", no_wrap=True)
        table.add_column("chapter")
        for chapter in lecture.chapters():
            table.add_row(str(chapter.number), chapter.name, chapter.timestamp, chapter.title)
        console.print(table)
        console.print("\ntinygpt lecture bigram runs one, tinygpt lecture --all runs them all.")
