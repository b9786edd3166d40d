"""The clock of the kernel benchmark against a plain C program and timeit, which have their own."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import ladders
from benchmarks.harness.analysis import Interval, estimate, medians, ratio
from benchmarks.harness.limits import MEMORY, limits_of
from benchmarks.harness.process import Process, WorkerError
from benchmarks.harness.rounds import Candidate, Comparison, Say
from benchmarks.harness.session import session
from benchmarks.render.cells import GIGA, interval, milliseconds, number, several
from benchmarks.render.report import table_of

LIMITS, PROGRAM = "benchmarks.worker.limits:Limits", "benchmarks.worker.protocols:Program"
TIMEIT = "benchmarks.worker.protocols:Timeit"
ROUNDS = 9
# One that computes, one whose arrays settle in the caches slowly, and one that moves memory.
KERNELS = (
    ("matmul", "forward", "cpu"), ("softmax", "forward", "gpt2"), ("adamw", "update", "lecture"),
)  # fmt: skip
# The medians of two clocks should differ by less than this factor.
SAME = 1.1

Pair = tuple[Candidate, Candidate]  # of this clock and of another


def run(threads: int, rounds: int | None, json: Path | None) -> bool:
    """Measure limits and kernels in turns with the other clocks, and show and write the result."""
    options = {"threads": threads, "rounds": rounds or ROUNDS}
    with session("clock", options, json) as run, ExitStack() as started:

        def process(name: str, serve: str, **options: Any) -> Process:
            return started.enter_context(closing(Process(name, serve, options, threads)))

        limits, program = process("limits", LIMITS), process("C", PROGRAM)
        rungs = process("rungs", TIMEIT, source="benchmarks.ladders", seed=0, options={})
        comparison = started.enter_context(closing(Comparison({})))
        with comparison.until_interrupted():
            try:
                program.ask("compile")
                caches = run.found["machine"]["caches"]
                add(comparison, pairs_of_limits(limits, program, caches, threads))
            except WorkerError as error:
                run.found["left_out"]["C"] = error.reason
            add(comparison, pairs_of_kernels(rungs, run.say))
            comparison.take_rounds(options["rounds"], run.say)
        run.found["results"] = results(comparison.record)
        run.found["complete"] = not comparison.stopped
        with run.hidden() as console:
            show(run.found["results"], console)
    return run.found["complete"]


def add(comparison: Comparison, pairs: Iterator[Pair]) -> None:
    """Add pairs to a comparison."""
    for here, there in pairs:
        comparison.candidates.append(here)
        comparison.controls.append(there)


def pairs_of_limits(
    limits: Process, program: Process, caches: dict[str, int], threads: int
) -> Iterator[Pair]:
    """Yield the peak on one thread and on all, and the triad in L2 and in memory on one thread."""
    counts = sorted({1, threads})
    wanted: list[tuple[str, int, str | None, int]] = [("peak", each, None, 0) for each in counts]
    for name, where, size in limits_of(caches, 1, cold=False):
        if where in ("L2", MEMORY):
            wanted.append((name, 1, where, size))
    for name, count, where, size in wanted:
        said = ", ".join(filter(None, (name, where, several(count))))
        about = {"rung": said, "unit": "GB/s" if where else "GFLOP/s"}
        request: dict[str, Any] = {"name": name, "threads": count, "size": size}
        yield opened(limits, about, **request), opened(program, about, **request)


def pairs_of_kernels(rungs: Process, say: Say) -> Iterator[Pair]:
    """Yield the kernel of training on one thread and NumPy's of each of KERNELS.

    Both clocks measure them in the same process.
    """
    for operation, direction, shape in KERNELS:
        case: dict[str, Any] = {"operation": operation, "direction": direction, "shape": shape}
        rungs.ask("begin", **case)
        for rung in ladders.rungs(operation):
            trained = rung.trained and rung.threads == "one"
            if direction in rung.runners and (trained or rung.name == "NumPy"):
                about = {"rung": f"{operation} {direction} {shape}, {rung.name}", "unit": "ms"}
                say(f"checking {about['rung']}")
                here = opened(rungs, about, name=rung.name, threads=1)
                yield here, Candidate(here.process, {**about}, timed=True, do="timeit")


def opened(process: Process, about: dict[str, Any], **request: Any) -> Candidate:
    """Return a candidate that was opened in a fork."""
    candidate = Candidate(process.fork(about["rung"]), {**about})
    candidate.open(**request)
    return candidate


def results(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the medians of each pair, and the time of the other clock divided by that of ours.

    Times of limits are per FLOP or byte.
    """
    found: list[dict[str, Any]] = []
    for pair in zip(record["rows"], record["controls"], strict=True):
        here, there = map(per_unit, pair)
        if both := ratio(there, here):
            times = {"here": estimate(medians(here["turns"]))}
            times["there"] = estimate(medians(there["turns"]))
            found.append({"name": here["rung"], "unit": here["unit"], **times, "ratio": both})
    return found


def per_unit(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the seconds per FLOP or byte, if it has an amount of these."""
    amount: float = row.get("amount", 1.0)
    turns: list[list[float] | None] = row["turns"]
    return {**row, "turns": [turn and [each / amount for each in turn] for turn in turns]}


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Show both figures of each pair, their ratio, and whether it is close to 1."""
    title = "here: this clock; there: a plain C program or timeit, in the same rounds"
    table = table_of(title, "", "here", "there", "time there / here", "10 %")
    close = 0
    for each in results:
        same = 1 / SAME <= each["ratio"].median <= SAME
        close += same
        figures = [in_units(each[part], each["unit"]) for part in ("here", "there")]
        words = "yes" if same else "[red]no[/red]"
        name = f"{each['name']}, {each['unit']}"
        table.add_row(name, *figures, interval(each["ratio"]), words)
    console.print(table)
    console.print(f"{close} of {len(results)} are within 10 %")


def in_units(seconds: Interval, unit: str) -> str:
    """Return the seconds of a step in milliseconds, or those of a FLOP or byte as a rate."""
    return milliseconds(seconds.median) if unit == "ms" else number(1 / seconds.median / GIGA)
