"""The report of a training step on many machines: assumptions, tables, sentences, a picture."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import network, two_ranks
from benchmarks.harness.analysis import Interval
from benchmarks.network import BUCKET, Job
from benchmarks.render import sweep_plot
from benchmarks.render.cells import GIGA, milliseconds, number
from benchmarks.render.report import table_of
from benchmarks.render.sweep import TRAINED, Line, Panel
from tinygpt_np.config import PRESETS, counted
from tinygpt_np.training.ranks.order import HALVINGS

Row = Mapping[str, Any]
# Networks in a table, so that it fits a window of 80 columns.
ABREAST = 2
RECIPE = PRESETS["gpt2-124m"].gradient_accumulation_steps
TICKS = [2**power for power in range(11)]


def assumptions(compute: Row, sizes: Row, job: Job, options: Row, console: Console) -> None:
    """Show what was measured, and all that is assumed."""
    console.print(f"[bold]{sizes['name']}[/bold], {job.size / 1e6:.0f} MB of float32 gradients")
    for line in assumed(compute, sizes, job, options):
        console.print(f"- {escape(line)}")


def assumed(compute: Row, sizes: Row, job: Job, options: Row) -> Iterator[str]:
    """Yield what was measured, and each assumption."""
    small, machine, factor = compute["sizes"], compute["machine"], compute["factor"]
    batch = f"B={small['batch_size']}, T={small['block_size']}"
    threads = f"{options['threads']} thread{'s' * (options['threads'] != 1)}"
    yield (
        f"Measured here on {threads}: an accumulation step of {batch} takes "
        f"{number(machine['step'])} s, packing the weights, once in a step, "
        f"{number(machine['packing'])} s, the update {number(machine['update'])} s, and adding "
        f"gradients {number(machine['adding'] * GIGA)} s per GB."
    )
    if factor != 1:
        yield (
            f"Scaled: an accumulation step of B={sizes['batch_size']}, T={sizes['block_size']} has "
            f"{number(factor)} times as many FLOPs, and is taken to last that many times as long: "
            f"{number(machine['step'] * factor)} s."
        )
    yield (
        "All machines are like this one. None waits for another that is slower, and data, "
        "evaluation and checkpoints take no time."
    )
    yield (
        f"A message takes {options['latency_us']:g} µs (--latency-us) and its bytes divided by the "
        "bandwidth. Each machine sends and receives at full speed at the same time, to and from "
        "any other. Its messages follow each other, and take no time of its cores."
    )
    yield (
        f"Gradients go to their owners, who have equal parts, in messages of at most "
        f"{BUCKET >> 20} MB. They can travel during the backward of a thread's last micro-batch "
        f"({job.window:.0%} of an accumulation step), but not those of the embeddings, "
        f"{job.late:.0%} of the bytes, which are complete last."
    )
    yield (
        f"For the fixed order of the sum, the accumulation steps are halved up to {HALVINGS} "
        "times. A machine whose steps begin within such a part sends several partial sums, and "
        "has as many gradients in memory. With --reduction fast MPI adds in any order, and each "
        "machine sends one sum."
    )
    yield (
        "Then each machine adds what it has received, updates its part of the weights, and sends "
        "it to all. None of this is hidden."
    )


def predictions(rows: Sequence[Row], console: Console) -> None:
    """Show the predicted times, in a table for each number of accumulation steps."""
    every = sorted({row["gigabits"] for row in rows})
    for accumulation, group in itertools.groupby(rows, key=lambda row: row["accumulation"]):
        found = {(row["gigabits"], row["reduction"], row["ranks"]): row for row in group}
        for start in range(0, len(every), ABREAST):
            networks = every[start : start + ABREAST]
            columns = [
                head for each in networks
                for head in (f"{each:g} Gb/s\nstep s", "\ncomm.", "\neff.", "\nfast")
            ]  # fmt: skip
            title = f"{accumulation:,} accumulation steps of which each machine has a part"
            table = table_of(title, "\nmachines", "\neach", "\nsums", *columns)
            for ranks in sorted({ranks for *_, ranks in found}):
                cells: list[str] = []
                for each in networks:
                    row, fast = (found[each, name, ranks] for name in ("exact", "fast"))
                    cells += [number(row["seconds"]), share(row["share"])]
                    cells += [share(row["efficiency"]), share(fast["efficiency"])]
                first = found[networks[0], "exact", ranks]
                table.add_row(f"{ranks:,}", f"{first['steps']:,}", str(first["sums"]), *cells)
            console.print()
            console.print(table, crop=False)
    console.print(
        "each: accumulation steps of a machine. sums: partial sums that it sends at most. comm.: "
        "communication that is not hidden, as a fraction of the step. eff.: speedup over one "
        "machine, divided by their number. fast: the same with --reduction fast. More machines "
        "than accumulation steps have no work.",
        style="dim",
    )


def share(fraction: float) -> str:
    """Return a percentage, with a digit after the point if it is small."""
    if not fraction:
        return "–"
    digits = 0 if fraction >= 0.0995 else 1
    return f"{fraction:.{digits}%}" if fraction >= 0.001 else "<0.1%"


def beginnings(rows: Sequence[Row], console: Console) -> None:
    """Say where communication begins to dominate, and how accumulation moves that point."""
    console.print("\n[bold]Where communication takes more than half of the step[/bold]")
    for row in rows:
        console.print(escape(begins(row)), soft_wrap=True)
    for line in moves(rows):
        console.print(escape(line), soft_wrap=True)


def begins(row: Row) -> str:
    """Return where communication begins to dominate."""
    case = f"{row['accumulation']:,} accumulation steps at {row['gigabits']:g} Gb/s"
    most = f"{100 * row['share']:.2g}% of the step on {row['ranks']:,} machines"
    if row["from"] is not None:
        return f"- {case}: from {row['from']:,} machines on; {most}"
    if row["times_as_fast"] is None:
        return f"- {case}: never, because only one machine has work"
    faster = f"half if machines were {number(row['times_as_fast'])} times as fast"
    return f"- {case}: never; at most {most}; {faster}"


def moves(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how accumulation moves the point, for each network."""
    for gigabits in sorted({row["gigabits"] for row in rows}):
        group = [row for row in rows if row["gigabits"] == gigabits]
        points = ", ".join(
            f"{row['break_even']:,.0f} machines with {row['accumulation']:,}" for row in group
        )
        first, last = group[0], group[-1]
        line = (
            f"At {gigabits:g} Gb/s communication would take half of the step, if accumulation "
            f"steps could be divided, on {points} of them."
        )
        if len(group) > 1:
            more = last["accumulation"] / first["accumulation"]
            moved = last["break_even"] / first["break_even"]
            line += (
                f" So {number(more)} times as many accumulation steps allow {number(moved)} times "
                "as many machines"
            )
            line += "." if moved > 0.8 * more else ": the messages of a machine increase, too."
        yield line
    yield (
        "More machines than accumulation steps have no work, so that accumulation also limits "
        "the number of machines."
    )


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the step times and efficiencies with the fixed order to a new SVG file."""
    with path.open("x", encoding="utf-8") as file:
        file.write(sweep_plot.draw([*panels(rows)]))


def panels(rows: Iterable[Row]) -> Iterator[Panel]:
    """Yield a panel of step times and one of efficiencies for each network."""
    exact = [row for row in rows if row["reduction"] == "exact"]
    for gigabits in sorted({row["gigabits"] for row in exact}):
        lines = {name: dict[int, Line]() for name in ("seconds", "efficiency")}
        for row in (row for row in exact if row["gigabits"] == gigabits):
            steps = row["accumulation"]
            kind = TRAINED if steps == RECIPE else str(steps)
            for name, found in lines.items():
                line = found.setdefault(steps, Line(f"{steps:,} accumulation steps", kind, 1))
                value: float = row[name]
                line.speeds[row["ranks"]] = Interval(value, value, value, 0.0)
        at = f"at {gigabits:g} Gb/s"
        shown = {name: [*found.values()] for name, found in lines.items()}
        yield Panel("a step", at, "machines", "seconds", TICKS, shown["seconds"])
        yield Panel("efficiency", at, "machines", "speedup / machines", TICKS, shown["efficiency"])


def reductions(rows: Sequence[Row], console: Console) -> None:
    """Show the measured times of reductions on this machine, with the fitted model."""
    for ranks, group in itertools.groupby(rows, key=lambda row: row["ranks"]):
        table = table_of(
            f"\nreduction over {ranks} ranks on this machine, ms (fitted)",
            "bytes", "MPI_Allreduce", "(fit)", "exchange", "(fit)",
        )  # fmt: skip
        found, fits = list(group), dict[str, tuple[float, float]]()
        for name in ("allreduce", "exchange"):
            fits[name] = network.fit([(row["size"], row[name]) for row in found])
        for row in found:
            cells: list[str] = []
            for name, (latency, per_byte) in fits.items():
                cells += [milliseconds(row[name])]
                cells += [f"({milliseconds(latency + per_byte * row['size'])})"]
            table.add_row(f"{row['size']:,}", *cells)
        console.print(table)
        for name, (latency, per_byte) in fits.items():
            speed = number(1 / per_byte / GIGA) if per_byte else "∞"
            console.print(f"{name}: {number(latency * 1e6)} µs + bytes / ({speed} GB/s)")
    console.print("exchange: to the owners, who add in a fixed order, and back", style="dim")


def check(found: Row, console: Console) -> None:
    """Show two ranks against one process, and measured against predicted steps."""
    heads = ("tokens/s", "step s", "predicted s", "predicted / measured")
    table = table_of("\ncheck on this machine", "", *heads)
    for name, runs in found["speeds"].items():
        every = [speed for speeds in runs for speed in speeds]
        middle = statistics.median(every)
        seconds, expected = found["tokens"] / middle, found["expected"][name]
        spread = f"{number(middle)} ({number(min(every))}–{number(max(every))})"
        table.add_row(name, spread, number(seconds), number(expected), number(expected / seconds))
    console.print(table)
    console.print(verdict(two_ranks.ratios(found["speeds"])))


def verdict(ratios: Sequence[float]) -> str:
    """Return whether two ranks are fast enough."""
    middle, enough = statistics.median(ratios), two_ranks.ENOUGH
    pairs = f"median of {counted(len(ratios), 'pair')}, {number(min(ratios))}–{number(max(ratios))}"
    said = "at least" if middle >= enough else "LESS than"
    return f"two ranks have {middle:.3f} of the speed ({pairs}): {said} {enough}"
