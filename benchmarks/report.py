"""What a contest came to, as values for JSON and as a table."""

import statistics
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import summary
from benchmarks.rounds import Measured

PEAK = "peak"


def summarise(measured: Measured, tokens: int) -> dict[str, Any]:
    """Everything that was measured, and for each side what follows from it. tokens: of a step.

    In "seconds" stands the list of the steps of each round; in "summary", unless no round was
    whole, the median over rounds and the extremes over steps.
    """
    sides: dict[str, dict[str, Any]] = {
        name: {**ready, "memory": measured.memory.get(name), "seconds": measured.turns[name]}
        for name, ready in measured.ready.items()
    }
    names = [name for name in sides if name != PEAK]
    found: dict[str, Any] = {"sides": sides, "left_out": measured.left_out}
    found |= {"rounds": min((len(turns) for turns in measured.turns.values()), default=0)}
    found |= {"stopped": measured.stopped}
    if not found["rounds"]:
        return found
    limit = None
    if PEAK in sides:
        limit = summary.peak(measured.turns[PEAK], sides[PEAK]["flops"])
    for name in names:
        sides[name]["summary"] = numbers(measured.turns[name], sides[name]["flops"], tokens, limit)
    ours, others = names[0], names[1:]
    for name in others:
        ratio = summary.ratio(measured.turns[name], measured.turns[ours])
        sides[name]["summary"]["ratio"] = asdict(ratio)
    found["peak_flops_per_second"] = limit
    if others:
        found["better"] = min(others, key=lambda name: sides[name]["summary"]["median"])
    return found


def numbers(turns: summary.Turns, flops: float, tokens: int, limit: float | None) -> dict[str, Any]:
    """Of one side: seconds of a step, tokens a second, FLOPs a second, and their share of peak."""
    median = statistics.median(summary.of_rounds(turns))
    steps = [seconds for turn in turns for seconds in turn]
    return {
        "median": median,
        "min": min(steps),
        "max": max(steps),
        "tokens_per_second": tokens / median,
        "flops_per_second": flops / median,
        "share_of_peak": flops / median / limit if limit else None,
    }


def preface(found: dict[str, Any], console: Console) -> bool:
    """Says who was left out and whether it was stopped; tells if there is a round to show."""
    for reason in found["left_out"].values():
        console.print(f"[yellow]left out:[/yellow] {escape(reason)}")
    if found["stopped"]:
        console.print(f"[bold]stopped after {found['rounds']} whole rounds[/bold]")
    return bool(found["rounds"])


def show(found: dict[str, Any], console: Console) -> None:
    """The table of one contest."""
    if not preface(found, console):
        return
    sides = {name: side for name, side in found["sides"].items() if name != PEAK}
    ours = next(iter(sides))
    table = Table(title=f"{found['name']}: {found['rounds']} rounds", title_justify="left")
    table.add_column("")
    for name in sides:
        table.add_column(escape(name), justify="right")
    rows = [cells(side, name == ours) for name, side in sides.items()]
    for label in rows[0]:
        table.add_row(label, *(row[label] for row in rows))
    console.print(table)
    console.print(verdict(found, ours))


def cells(side: dict[str, Any], ours: bool) -> dict[str, str]:
    """A side's column, from top to bottom."""
    what = side["summary"]
    share = what["share_of_peak"]
    return {
        "ms a step": f"{what['median'] * 1e3:.1f}",
        "min – max": f"{what['min'] * 1e3:.1f} – {what['max'] * 1e3:.1f}",
        "tokens/s": f"{what['tokens_per_second']:,.0f}",
        "GFLOP/s": f"{what['flops_per_second'] / 1e9:.1f}",
        "of peak": "" if share is None else f"{share:.0%}",
        "memory, MB": f"{side['memory'] / 1e6:,.0f}",
        "warm-up, s": f"{side['warm_up_seconds']:.1f}",
        "time by ours": "1" if ours else by(what["ratio"]),
    }


def by(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} – {ratio['high']:.2f})"


def verdict(found: dict[str, Any], ours: str) -> str:
    """The lines below the table: the limit, and against whom we are measured."""
    lines: list[str] = []
    if found["peak_flops_per_second"]:
        lines.append(f"measured peak: {found['peak_flops_per_second'] / 1e9:.0f} GFLOP/s")
    if "better" in found:
        ratio = found["sides"][found["better"]]["summary"]["ratio"]
        lines.append(
            f"the best of the others, {escape(found['better'])}, takes {by(ratio)} times as long "
            f"as {escape(ours)};\nthe interval holds the true median with {ratio['coverage']:.1%}"
        )
    return "\n".join(lines)
