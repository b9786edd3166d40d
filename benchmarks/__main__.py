"""The command line: ``python -m benchmarks COMMAND``. Exits with 2 if a request is invalid."""

import argparse
import io
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks import (
    campaign,
    cases,
    clock,
    estimates,
    experiments,
    kernels,
    machine,
    products,
    scaling,
    speedrun,
    tokenizers,
    update,
)
from benchmarks.candidates import PEERS
from benchmarks.cases import sweeps
from benchmarks.cases.shapes import MICRO_BATCHES, SHAPES, USUAL
from benchmarks.cases.sweeps import Sweep
from benchmarks.harness import compare
from benchmarks.harness.figures import new_file
from benchmarks.harness.process import WorkerError
from benchmarks.harness.rounds import DisagreementError
from benchmarks.mine import source, template
from benchmarks.models.workloads import WORKLOADS
from benchmarks.plan import Plan
from tinygpt_np.machine import usable_cores
from tinygpt_np.text.corpus import TINYSHAKESPEARE_SHA256, DataError, load
from tinygpt_np.text.tokenizers import TokenizerError

PROGRAM = "python -m benchmarks"
FEW = 5  # rounds; the intervals of fewer say nothing
STOPPED = 130  # exit code after Ctrl-C or SIGTERM


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    for stream in (sys.stdout, sys.stderr):  # Print ? for ▲ in a terminal that lacks it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Results are kept.
    asked = vars(make_parser().parse_args(arguments or ["--help"]))
    command = asked.pop("command")
    try:
        complete = COMMANDS[command](**asked)
    except (DisagreementError, WorkerError, OSError, TokenizerError, DataError) as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        complete = False
    sys.exit(0 if complete else STOPPED)


def run_kernels(
    operations: list[str], rungs: str | None, shapes: list[str] | None, sizes: Sweep | None,
    threads: list[int] | None, rounds: int | None, quick: bool, asm: bool, counters: bool,
    peers: list[str], llmc: Path | None,
    json: Path, csv: Path | None, cache: str, before: dict[str, Any] | None, mine: list[str],
    start_from: list[str] | None,
) -> bool:  # fmt: skip
    """Run the ladders; exit with 1 if a kernel is slower than before."""
    known = cases.OPERATIONS  # As choices, argparse of Python 3.11 would refuse an empty list.
    if unknown := [name for name in operations if name not in known]:
        refuse(f"an operation must be one of {', '.join(known)}, not {unknown[0]}")
    if start_from is not None:
        return write_template(*start_from)
    if "llmc" in peers and llmc is None:
        refuse("--peers llmc needs --llmc DIR, a checkout of llm.c")
    if sizes is not None and len(shapes or ()) > 1:
        refuse(f"--sizes needs one of --shapes, not {' '.join(shapes or ())}")
    if before is not None and rounds is not None and rounds < FEW:
        refuse(f"--compare needs at least --rounds {FEW}, not {rounds}")
    try:
        own = source.find_all(mine, operations or known)
    except ValueError as error:
        refuse(f"argument --mine: {error}")
    plan = Plan(
        operations=operations
        or [*dict.fromkeys(each.operation for each in own)]
        or (cases.GPT2 if quick else known),
        shapes=tuple(dict.fromkeys(shapes or ((USUAL,) if quick or sizes else SHAPES))),
        threads=sorted(set(threads or (1, usable_cores()))),
        rounds=rounds or (kernels.QUICK_ROUNDS if quick else kernels.ROUNDS),
        trained_only=(rungs or ("trained" if sizes else "all")) == "trained",
        asm=asm,
        counters=counters,
        peers=tuple(dict.fromkeys(peers)),
        llmc=None if llmc is None else str(llmc),
        csv=None if csv is None else str(csv),
        cache=cache,
        sweep=sizes,
        mine=own,
    )
    plan = feasible(plan)
    if before and (then := before["options"].get("cache", "hot")) != cache:
        refuse(f"the result to compare with has {then} caches, not {cache} ones")
    if before and not {record["operation"] for record in before["cases"]} & {*plan.operations}:
        refuse("the result to compare with has none of the requested operations")
    found = kernels.run(plan, json, before)
    if found["complete"] and before is not None:
        slower = compare.show(compare.differences(before, found), Console(highlight=False))
        sys.exit(int(slower))
    return found["complete"]


def feasible(plan: kernels.Plan) -> kernels.Plan:
    """Return a plan without the sizes of a sweep that are too large; refuse invalid shapes."""
    for operation in plan.operations:
        for option, named in (("shapes", plan.shapes), ("sizes", plan.shapes_of(operation))):
            try:
                [cases.sizes(operation, shape) for shape in named]
            except ValueError as error:
                refuse(f"argument --{option}: {error}")
    obstacles = estimates.obstacles(plan)
    for names, reason in obstacles.items() if plan.sweep is None else ():
        refuse(f"argument --shapes: {' '.join(names)} {reason}")
    plan = replace(plan, skipped=tuple(obstacles))
    if not plan.cases:
        refuse(f"argument --sizes: all are too large: {next(estimates.in_words(obstacles))}")
    for line in estimates.in_words(obstacles):
        print(f"left out: {line}", file=sys.stderr)
    return plan


def write_template(operation: str, language: str = "numba", *more: str) -> bool:
    """Write a file to start from, and print the command that measures its kernels."""
    known = (("an operation", cases.OPERATIONS), ("a language", tuple(template.SUFFIXES)))
    for (what, names), given in zip(known, (operation, language), strict=True):
        if given not in names:
            refuse(f"argument --template: {what} must be one of {', '.join(names)}, not {given}")
    if more:
        refuse(f"argument --template: expected OPERATION and LANGUAGE, not also {more[0]}")
    try:
        path, arguments = template.write(operation, language, Path())
    except FileExistsError as error:
        refuse(f"argument --template: {error.filename} exists already, and nothing is overwritten")
    print(f"written {path}; measure it with\n  {PROGRAM} kernels {arguments} --quick")
    return True


def show_side_by_side(paths: list[Path], html: Path | None) -> bool:
    """Show two results side by side, and write their page if asked for."""
    # Imported here because only this needs jinja2.
    from benchmarks.render import side_by_side

    try:
        results = [side_by_side.load(each) for each in paths]
    except ValueError as error:
        OneLineParser(prog=f"{PROGRAM} side-by-side").error(str(error))
    stems = [each.stem for each in paths]
    names = stems if len({*stems}) == len(paths) else [str(each) for each in paths]
    shown = side_by_side.view(results, names)
    side_by_side.show(shown, Console(highlight=False))
    if html is not None:
        side_by_side.write(shown, html)
    return True


def run_speedrun(data: str, seeds: list[int], quick: bool, record: bool, **asked: Any) -> bool:
    """Train recipes in turns; a record needs all of tiny Shakespeare and several seeds."""
    if record and (quick or len({*seeds}) < len(speedrun.SEEDS)):
        rule = f"needs at least {len(speedrun.SEEDS)} seeds, and all steps"
        refuse(f"--record {rule}: leave out --quick and --seeds", "speedrun")
    if record and load(data).sha256 != TINYSHAKESPEARE_SHA256:
        refuse(f"--record needs tinyshakespeare, not {data}", "speedrun")
    if record and (machine.commit() or "+").endswith("+"):
        refuse("--record needs a commit without changes", "speedrun")
    return speedrun.run(data=data, seeds=seeds, quick=quick, record=record, **asked)


def refuse(reason: str, command: str = "kernels") -> NoReturn:
    """Exit because a request is invalid."""
    OneLineParser(prog=f"{PROGRAM} {command}").error(reason)


# Each takes the arguments of its command, and returns whether the run was completed.
COMMANDS: dict[str, Callable[..., bool]] = {
    "kernels": run_kernels,
    "side-by-side": show_side_by_side,
    "train": experiments.train,
    "update": update.run,
    "attention": experiments.attention,
    "matmul": products.run,
    "sample": experiments.sample,
    "pretrained": experiments.pretrained,
    "tokenizers": tokenizers.run,
    "speedrun": run_speedrun,
    "clock": clock.run,
    "scaling": scaling.run,
    "verdicts": campaign.run,
}


def make_parser() -> OneLineParser:
    """Return the parser of all commands."""
    text = "Measure speed, and compare it with other libraries."
    parser = OneLineParser(prog=PROGRAM, description=text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_kernels(commands)
    add_side_by_side(commands)

    def add(name: str, text: str, most: int = usable_cores()) -> Callable[..., Any]:
        add: Callable[..., Any] = commands.add_parser(name, help=text).add_argument
        said = f"threads of each candidate (default: {most})"
        add("--threads", type=within(int, 1, most), default=most, help=said)
        add("--rounds", type=within(int, 1), help="turns of each candidate")
        add("--json", type=path(new_file), metavar="FILE", help="a new file for the figures")
        return add

    backend: dict[str, Any] = {"choices": ["numba", "numpy"], "default": "numba"}
    step = add("train", "the training step, against PyTorch eager and compiled")
    step("--backend", **backend, help=argparse.SUPPRESS)
    works = list(WORKLOADS)
    step("--work", nargs="+", default=works, choices=works, metavar="WORK", help=", ".join(works))
    step("--matmul", choices=["numba", "blas"], default="numba", help="our matmuls")
    shares = add("update", "the optimizer's share of the training step, by AdamW and by Muon")
    presets = ", ".join(update.CHOICES)
    shares("--preset", nargs="+", default=["cpu"], choices=update.CHOICES, metavar="PRESET",
           help=presets)  # fmt: skip
    text = "causal attention, forward and backward, against PyTorch's SDPA"
    add("attention", text)("--backend", **backend, help=argparse.SUPPRESS)
    add("matmul", "the matmuls of training, against NumPy's BLAS", most=1)
    add("sample", "sampling, against recomputing the context and PyTorch")
    add("pretrained", "generation from a GPT-2 checkpoint, against transformers")
    add("clock", "the clock of kernels, against a plain C program and timeit")
    trained = add("tokenizers", "bits per character with characters, pieces and byte pairs")
    trained("--data", default="shakespeare", help="as in tinygpt train")
    trained("--gpt2", default="", metavar="PATH", help="files of GPT-2's tokenizer")
    text = "seconds of training with each tokenizer"
    trained("--seconds", type=within(float, 0.1), default=tokenizers.SECONDS, help=text)
    add_speedrun(commands)
    add_scaling(commands)
    text = "whether the verdicts of many runs of the same kernels agree; exits with 1 if not"
    verdicts = commands.add_parser("verdicts", help=text).add_argument
    text = "for the results; a new one, or one to go on with"
    verdicts("folder", type=path(campaign.folder_of), metavar="FOLDER", help=text)
    verdicts("--runs", type=within(int, 3), default=10, help="default: 10")
    text = "processes that keep a CPU busy meanwhile (default: 0)"
    verdicts("--busy", type=within(int, 0), default=0, help=text)
    text = f"turns per candidate (default: {kernels.QUICK_ROUNDS})"
    verdicts("--rounds", type=within(int, FEW), default=kernels.QUICK_ROUNDS, help=text)
    return parser


def add_kernels(commands: Any) -> None:
    """Add the command kernels."""
    text = "adders of kernels, from loops in Python to the kernel used in training"
    add = commands.add_parser(
        "kernels",
        help=f"l{text}",
        description=f"L{text}. Each rung is checked, then timed in turns with the others. Figures "
        "and a page are written to benchmarks/results/.",
    ).add_argument
    add("operations", nargs="*", metavar="OPERATION", help=", ".join(cases.OPERATIONS))
    text = "trained: the kernels of training only; default: all, with --sizes trained"
    add("--rungs", choices=["all", "trained"], help=text)
    letters = "; ".join(f"{name} {' '.join(cases.sizes(name, USUAL))}" for name in cases.OPERATIONS)
    text = (
        f"{', '.join(MICRO_BATCHES)}: a micro-batch of training; awkward: sizes that no "
        "vector or tile divides; default: all, with --quick cpu. Or sizes by letter, the others "
        f"being those of {USUAL} or of a shape in front: N=512,C=384 or lecture,K=64. The letters "
        f"are {letters}"
    )
    add("--shapes", nargs="+", metavar="SHAPE", help=text)
    letters = ", ".join(f"{name} {'='.join(cases.swept(name))}" for name in cases.OPERATIONS)
    text = (
        f"speed against size: {sweeps.FORMS}, or K=64:2048:x2 for one letter. Without a letter: "
        f"{letters}. The others are those of {USUAL} or of the one in --shapes"
    )
    add("--sizes", type=checked(sweeps.sweep), metavar="SIZES", help=text)
    threads = within(int, 1, usable_cores())
    add("--threads", type=threads, nargs="+", help="numbers of threads; default: 1 and all CPUs")
    text = f"turns per candidate (default: {kernels.ROUNDS}, --quick: {kernels.QUICK_ROUNDS})"
    add("--rounds", type=within(int, 1), help=text)
    add(
        "--quick",
        action="store_true",
        help="a minute: fewer rounds, the shape cpu, and GPT-2's operations",
    )
    text = "hot: steps find their arrays in the caches, as far as these fit (default); cold: before"
    text += " each step, other memory is written, twice as large as the caches"
    add("--cache", choices=["hot", "cold"], default="hot", help=text)
    add("--asm", action="store_true", help="also vector instructions, and the hottest loop")
    text = "also instructions per cycle and cache misses, where the system can count them"
    add("--counters", action="store_true", help=text)
    add("--peers", nargs="+", default=[], choices=PEERS, help="other libraries")
    text = "a checkout of llm.c, for the peer llmc"
    add("--llmc", type=path(kernels.checkout), metavar="DIR", help=text)
    text = "a new .json file for the figures; the page gets the same name"
    default = f"{kernels.RESULTS}/kernels-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    add("--json", type=path(kernels.new_files), default=default, metavar="FILE", help=text)
    text = "a new file for all rows as comma-separated values"
    add("--csv", type=path(new_file), metavar="FILE", help=text)
    text = "your own kernels, in .py, .c or .so files, in the same rounds; see the README"
    add("--mine", nargs="+", action="extend", default=[], metavar="FILE:FUNCTION[@DIRECTION]",
        help=text)  # fmt: skip
    languages = ", ".join(template.SUFFIXES)
    text = f"write a file to start from; LANGUAGE: {languages} (default: numba)"
    add("--template", dest="start_from", nargs="+", metavar=("OPERATION", "LANGUAGE"), help=text)
    text = "an earlier result; exits with 1 if a kernel is slower now"
    add("--compare", dest="before", type=path(compare.load), metavar="OLD", help=text)


def add_speedrun(commands: Any) -> None:
    """Add the command speedrun."""
    text = "seconds of training to a validation loss, against nanoGPT's recipe in PyTorch"
    add = commands.add_parser("speedrun", help=text, description=text).add_argument
    known, targets = [*speedrun.RECIPES, *speedrun.PEERS], " ".join(map(str, speedrun.TARGETS))
    text = f"{', '.join(known)} (default: {' '.join(speedrun.DEFAULT)})"
    add("--recipes", nargs="+", default=speedrun.DEFAULT, choices=known, metavar="RECIPE",
        help=text)  # fmt: skip
    add("--target", type=within(float, 0), nargs="+", metavar="LOSS", help=f"default: {targets}")
    text = f"default: {' '.join(map(str, speedrun.SEEDS))}"
    add("--seeds", type=within(int, 0, 2**32 - 1), nargs="+", default=speedrun.SEEDS,
        metavar="SEED", help=text)  # fmt: skip
    text = f"evaluations of the validation split in a run (default: {speedrun.EVALUATIONS})"
    add("--evaluations", type=within(int, 1), default=speedrun.EVALUATIONS, help=text)
    text = "as in tinygpt train (default: tinyshakespeare)"
    add("--data", default="tinyshakespeare", help=text)
    threads, most = within(int, 1, usable_cores()), usable_cores()
    add("--threads", type=threads, default=most, help=f"of each recipe (default: {most})")
    text = f"a minute: one seed, the first {speedrun.QUICK_TURNS} evaluations, and easy targets"
    add("--quick", action="store_true", help=text)
    text = "add the times to results/speedrun.json, and print its table for the README"
    add("--record", action="store_true", help=text)
    add("--json", type=path(new_file), metavar="FILE", help="a new file for the figures")


def add_scaling(commands: Any) -> None:
    """Add the command scaling."""
    text = "the training step of GPT-2 124M on 1 to 1024 machines, predicted for a network"
    add = commands.add_parser("scaling", help=text, description=text).add_argument
    speed = within(float, 0.001, 1e6)
    text = f"bandwidths in Gb/s (default: {' '.join(f'{each:g}' for each in scaling.GIGABITS)})"
    add("--gigabits", type=speed, nargs="+", default=scaling.GIGABITS, metavar="SPEED", help=text)
    text = f"microseconds of a message (default: {scaling.LATENCY_US:g})"
    add("--latency-us", type=within(float, 0, 1e6), default=scaling.LATENCY_US, help=text)
    steps, default = within(int, 1, 2**16), scaling.ACCUMULATIONS
    text = f"accumulation steps of all machines (default: {' '.join(map(str, default))})"
    add("--accumulation", type=steps, nargs="+", default=default, metavar="STEPS", help=text)
    recipe, size = scaling.RECIPE, within(int, 1, 10**6)
    text = "of an accumulation step (default: {})"
    for name in ("batch_size", "block_size"):
        value: int = getattr(recipe, name)
        add(f"--{name.replace('_', '-')}", type=size, default=value, help=text.format(value))
    most = usable_cores()
    text = f"threads of a machine (default: {most})"
    add("--threads", type=within(int, 1, most), default=most, help=text)
    text = f"pairs of runs in the check with two ranks (default: {scaling.PAIRS})"
    add("--rounds", type=within(int, 1), default=scaling.PAIRS, help=text)
    text = "a new .json file for the figures; the plot gets the same name"
    default = f"{kernels.RESULTS}/scaling-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    add("--json", type=path(kernels.new_files), default=default, metavar="FILE", help=text)


def add_side_by_side(commands: Any) -> None:
    """Add the command side-by-side."""
    text = "two results of kernels, of any machines, side by side"
    add = commands.add_parser("side-by-side", help=text, description=text).add_argument
    add("paths", nargs=2, type=Path, metavar="RESULT", help="a .json file that kernels wrote")
    add("--html", type=path(new_file), metavar="FILE", help="a new file for a page")


def within(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """Return a converter of arguments to numbers from `low` to `high`."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            rule = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"must be {rule}, not {text}")
        return value

    convert.__name__ = kind.__name__  # in the message about text that is no number
    return convert


def path(check: Callable[[Path], Any]) -> Callable[[str], Any]:
    """Return a converter of arguments to what `check` returns for a path; a ValueError is shown."""
    return checked(lambda text: check(Path(text)))


def checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a converter of arguments to what `check` returns; a ValueError is shown."""

    def convert(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


if __name__ == "__main__":
    main()
