"""Whether verdicts hold: runs of the same code, also next to busy processes, and of slowed code.

A ▲ is wrong if the median ratio of the row in all quiet runs is below 1, and a ▼ if it is above 1.
Between two runs of the same code any difference is wrong. A rung that does part of its work twice
must be found slower. Results are kept in a folder, so that a campaign can be continued.
"""

import dataclasses
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import kernels
from benchmarks.harness import compare, figures
from benchmarks.harness.analysis import FASTER, SAME, SLOWER
from benchmarks.harness.figures import USUAL
from benchmarks.harness.rounds import counted
from benchmarks.plan import Plan
from benchmarks.render.cells import gain_of, label, number
from benchmarks.render.report import SIGNS, UNRESOLVED, table_of
from benchmarks.worker import slowed
from tinygpt_np.machine import usable_cores

OPERATIONS = (slowed.OPERATION, "gelu")
NAME, BUSY = "verdicts", "while True: pass"

Result = dict[str, Any]
Results = Mapping[int, Sequence[Result]]  # by the number of busy processes


def run(folder: Path, runs: int, busy: int, rounds: int) -> bool:
    """Take the runs that a folder lacks, and show what is wrong in all; exit with 1 if any is."""
    folder.mkdir(parents=True, exist_ok=True)
    # The threads of PyTorch spin, while ours sleep.
    peers = ["torch" if find_spec("torch") else "numpy"]
    plan = Plan(OPERATIONS, ("cpu",), sorted({1, usable_cores()}), rounds, peers=peers)
    # The second of the slowed runs is what --compare measures again.
    plans = {folder / f"{busy}-busy-same-{number:02}.json": plan for number in range(1, runs + 1)}
    of_slowed = dataclasses.replace(plan, ladders=slowed.__name__)
    plans |= {folder / f"{busy}-busy-slowed-{number}.json": of_slowed for number in (1, 2)}
    console = Console(highlight=False)
    with processes(busy):
        for path, progress in counted([path for path in plans if not path.exists()]):
            console.print(f"run {progress}: {path.name}")
            found = kernels.run(plans[path], None, benchmark=NAME)
            if not found["complete"]:
                return False
            figures.write(path, found)
    sys.exit(int(not show(load(folder, "same"), load(folder, "slowed"), console)))


def folder_of(path: Path) -> Path:
    """Return a folder for a campaign, or raise ValueError if it holds something else."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"must be a folder, not the file {path}")
    for kind in ("same", "slowed"):
        load(path, kind)
    return path


def load(folder: Path, kind: str) -> Results:
    """Return the results of runs of the same or of slowed code."""
    found: dict[int, list[Result]] = {}
    for path in sorted(folder.glob(f"*-busy-{kind}-*.json")):
        found.setdefault(int(path.name.split("-")[0]), []).append(figures.read(path, NAME))
    return dict(sorted(found.items()))


@contextmanager
def processes(count: int) -> Generator[None]:
    """Keep CPUs busy with `count` processes."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def show(same: Results, of_slowed: Results, console: Console) -> bool:
    """Show what was found and what is wrong; return whether nothing is."""
    return all(
        [
            show_verdicts(same, console),
            show_alarms([run for runs in same.values() for run in runs], console),
            *(show_detection(busy, same.get(busy, []), runs, console)
              for busy, runs in of_slowed.items()),
        ]
    )  # fmt: skip


def show_verdicts(same: Results, console: Console) -> bool:
    """Show how often each row got which verdict; return whether none is wrong."""
    table = table_of("verdicts", "row", "ratio", *(f"{busy} busy" for busy in same))
    signs, said, wrong = SIGNS | {"unresolved": UNRESOLVED}, 0, 0
    found = {busy: verdicts_of(runs) for busy, runs in same.items()}
    for name, quiet in found[min(found)].items():
        ratio = statistics.median(ratio for _, ratio in quiet)
        counts = {busy: Counter(word for word, _ in each[name]) for busy, each in found.items()}
        mistakes = sum(each[SLOWER if ratio >= 1 else FASTER] for each in counts.values())
        wrong += mistakes
        said += sum(each[FASTER] + each[SLOWER] for each in counts.values())
        cells = [
            " ".join(f"{each[word]}{sign}" for word, sign in signs.items() if each[word])
            for each in counts.values()
        ]
        mark = "[red]WRONG[/red] " if mistakes else ""
        table.add_row(mark + escape(name), number(ratio), *cells)
    console.print(table)
    console.print(f"{wrong} of {said} ▲ and ▼ are wrong")
    return not wrong


def verdicts_of(runs: Iterable[Result]) -> dict[str, list[tuple[str, float]]]:
    """Return the verdicts and median ratios of each row that is compared with another."""
    found: dict[str, list[tuple[str, float]]] = {}
    for record in (record for run in runs for record in run["cases"]):
        case = " ".join(record[part] for part in compare.CASE)
        for row in (USUAL | row for row in record["rows"]):
            if (ratio := gain_of(row)) is not None:
                word = "unresolved" if row.get("unresolved") else row["verdict"]
                name = f"{case} {label(row)}, {row['by']}"
                found.setdefault(name, []).append((word, ratio[0]))
    return found


def show_alarms(runs: Sequence[Result], console: Console) -> bool:
    """Compare each run with the next; return whether no difference is found."""
    alarms = 0
    for index, old in enumerate(runs):
        new, again = (runs[(index + further) % len(runs)] for further in (1, 2))
        if different := differences(old, new, again):
            alarms += 1
            console.print(f"{index + 1} and the next differ: {escape(', '.join(different))}")
    console.print(f"{alarms} of {len(runs)} comparisons of the same code find a difference")
    return not alarms


def show_detection(
    busy: int, same: Sequence[Result], of_slowed: Sequence[Result], console: Console
) -> bool:
    """Compare runs with those of slowed code; return whether all slowed rungs are found."""
    expected = {
        " ".join((*(record[part] for part in compare.CASE), slowed.RUNG))
        for record in of_slowed[0]["cases"]
        if record["operation"] == slowed.OPERATION
    }
    found = [differences(old, *of_slowed) for old in same]
    hits = sum(each.get(name) == SLOWER for each in found for name in expected)
    others = [name for each in found for name in each if name not in expected]
    console.print(
        f"{busy} busy: {hits} of {len(same) * len(expected)} slowed rungs are found,"
        f" and {len(others)} others {escape(', '.join(others))}"
    )
    return hits == len(same) * len(expected) and not others


def differences(old: Result, new: Result, again: Result) -> dict[str, str]:
    """Return the rows that are slower or faster than before, also when measured again."""
    suspects = compare.suspects(old, new)
    repeated = [
        each for each in again["cases"]
        if tuple(each[part] for part in compare.CASE) in suspects
    ]  # fmt: skip
    found = compare.differences(old, {**new, "again": repeated})
    return {each.row.name: each.verdict for each in found if each.verdict != SAME}
