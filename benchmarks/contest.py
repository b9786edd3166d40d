"""Runs contests: our side against others at one work, with the machine's peak as the limit."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import machine, report
from benchmarks.rounds import Measured, measure
from benchmarks.workers import Side

# Seconds between lines of progress where there is no terminal to show it in one.
QUIET_INTERVAL = 10.0
# From so many other processes at work on, on average, ratios say little.
BUSY = 0.5


@dataclass(frozen=True)
class Contest:
    """about: the sizes, for the record. sides: ours first. tokens: of a step."""

    name: str
    about: dict[str, Any]
    sides: Sequence[Side]
    rounds: int
    tokens: int


class Progress:
    """Says what is going on: in place on a terminal, else a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, -QUIET_INTERVAL
        # Drawn seldom, for whoever is measured needs the CPU.
        self.status = console.status("", refresh_per_second=2)

    def say(self, what: str) -> None:
        if self.console.is_terminal:
            self.status.update(escape(what))
        elif time.monotonic() - self.last >= QUIET_INTERVAL:
            self.last = time.monotonic()
            self.console.print(escape(what))


def check_json(path: Path) -> None:
    """Raises ValueError unless a new file can be written there."""
    try:
        with path.open("x"):
            pass
        path.unlink()
    except FileExistsError:
        raise ValueError(f"{path} exists already, and nothing is overwritten") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def run(
    benchmark: str,
    contests: Sequence[Contest],
    threads: int,
    options: dict[str, Any],
    path: Path | None,
) -> bool:
    """Runs the contests, shows each when it is over, and writes all of it to `path`.

    Returns whether it came to its end; Ctrl-C does not lose what was measured until then, nor does
    an error.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    facts = machine_facts(errors)
    progress = Progress(errors)
    found: list[dict[str, Any]] = []
    complete = False
    try:
        for contest in contests:
            measured = run_one(contest, threads, progress)
            found.append({**report.summarise(measured, contest.tokens), "name": contest.name})
            found[-1] |= {"about": contest.about, "load_after": machine.load()}
            report.show(found[-1], console)
            if measured.stopped:
                break
        else:
            complete = True
    finally:
        if found:
            whole = {"benchmark": benchmark, "complete": complete, "threads": threads, **options}
            write(path, {**whole, "machine": facts, "contests": found})
    return complete


def machine_facts(errors: Console) -> dict[str, Any]:
    """On what it will be measured; says so if other processes are at work."""
    facts = machine.facts()
    if (load := facts["load"]) is not None and load > BUSY:
        errors.print(
            f"other processes are at work (load {load}); they slow down some sides more than others"
        )
    return facts


def write(path: Path | None, found: dict[str, Any]) -> None:
    """Writes it as JSON to a new file, if there is one to write to."""
    if path is not None:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(found, indent=1) + "\n")


def run_one(contest: Contest, threads: int, progress: Progress) -> Measured:
    peak = Side(report.PEAK, "benchmarks.peak:build", {"threads": threads})
    with progress.status:
        return measure(
            [*contest.sides, peak],
            threads,
            contest.rounds,
            lambda what: progress.say(f"{contest.name}: {what}"),
        )
