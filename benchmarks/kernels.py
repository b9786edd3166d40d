"""Ladders of kernels: each rung is checked, timed in turns with the others, and held against what
the machine can do.
"""

import contextlib
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import compare, figures, kernels_table, ladders, machine, page, summary, tasks
from benchmarks.climb import OURS, Say, Team, climb, rounded
from benchmarks.contest import Progress, machine_facts
from benchmarks.rounds import DisagreementError
from benchmarks.standing import stand
from benchmarks.workers import ROOT, Process, WorkerError

BENCH = "benchmarks.bench:Bench"
LADDERS = "benchmarks.ladders"
OPTIONS: dict[str, Any] = {}
PEERS = ("torch", "llmc", "numpy")
RESULTS = ROOT / "benchmarks" / "results"
ROUNDS, QUICK_ROUNDS, LIMIT_ROUNDS = 9, 6, 5


@dataclass(frozen=True)
class Plan:
    """What is asked for. llmc: the folder of a checkout of llm.c, where that is a peer."""

    operations: Sequence[str]
    shapes: Sequence[str]
    threads: Sequence[int]
    rounds: int
    last_only: bool = False
    asm: bool = False
    peers: Sequence[str] = ()
    llmc: str | None = None

    @property
    def tasks(self) -> list[tuple[str, str, str]]:
        return [
            (operation, direction, shape)
            for operation in self.operations
            for direction in tasks.directions(operation)
            for shape in self.shapes
        ]


def run(plan: Plan, path: Path, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measures it all, shows each task when it is done, and writes everything to `path`.

    before: the result of a run that this one is to be compared with; tasks in which a kernel seems
    slower than there are measured again. Returns what was written. "complete" is False after
    Ctrl-C, which keeps what was measured until then, as an error does.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    seed = secrets.randbits(32)
    found: dict[str, Any] = {"benchmark": "kernels", "complete": False, "seed": seed}
    found |= {"options": asdict(plan), "machine": machine_facts(errors)}
    found |= {"stories": {name: ladders.story(name) for name in plan.operations}}
    found |= {"peers": {}, "left_out": {}, "limits": [], "tasks": [], "again": []}
    progress = Progress(errors)
    try:
        with team_of(plan, seed, found, progress) as team, progress.status:
            found["left_out"] = team.left_out
            measure_limits(team.ours, plan.threads, found, progress.say)
            with console_free(progress):
                kernels_table.show_limits(found, console)
            complete = climb_all(team, plan, plan.tasks, found, "tasks", progress, console)
        if complete and before is not None:
            complete = climb_again(
                plan, compare.suspects(before, figures.figures(found)), found, progress, console
            )
        found["complete"] = complete
    except KeyboardInterrupt:
        if not found["limits"]:
            errors.print("stopped; nothing was measured yet")
    finally:
        found["load_after"] = machine.load()
        if found["limits"]:
            write_all(path, found, errors)
    if names := wrong(found):
        raise DisagreementError(f"WRONG: {'; '.join(names)}")
    return found


def climb_again(
    plan: Plan, suspects: Sequence[tuple[str, str, str]], found: dict[str, Any],
    progress: Progress, console: Console,
) -> bool:  # fmt: skip
    """The same tasks in a process of their own; returns whether it came to the end."""
    if not suspects:
        return True
    alone = replace(plan, peers=())
    console.print(f"\n[bold]{len(suspects)} tasks seem slower than before: once more[/bold]")
    with team_of(alone, found["seed"], found, progress) as team, progress.status:
        return climb_all(team, alone, suspects, found, "again", progress, console)


def write_all(path: Path, found: dict[str, Any], errors: Console) -> None:
    """Write the figures as JSON, and next to them the page to look at."""
    figures.write(path, figures.figures(found))
    page.write(found, path.with_suffix(".html"))
    for reason in found["left_out"].values():
        errors.print(f"[yellow]left out:[/yellow] {escape(reason)}")
    stopped = "" if found["complete"] else "stopped; "
    errors.print(f"{stopped}written {path} and {path.with_suffix('.html').name}", soft_wrap=True)


def climb_all(
    team: Team, plan: Plan, tasks: Sequence[tuple[str, str, str]], found: dict[str, Any], into: str,
    progress: Progress, console: Console,
) -> bool:  # fmt: skip
    """Task after task, into a list of what was found; returns whether it came to the end."""
    began = time.monotonic()
    for number, task in enumerate(tasks):
        spent = time.monotonic() - began
        left = minutes(spent / number * (len(tasks) - number)) if number else "…"
        where = f"{number + 1}/{len(tasks)}, {left}: {' '.join(task)}"
        climbed = climb(
            team, task, plan.threads, plan.last_only, plan.rounds, plan.asm,
            lambda what, where=where: progress.say(f"{where}, {what}"),
        )  # fmt: skip
        record = stand(climbed.record, found["machine"]["caches"])
        if record["rounds"] or not climbed.stopped:
            found[into].append(record)
            with console_free(progress):
                kernels_table.show(record, console)
        if climbed.stopped:
            return False
    return True


@contextmanager
def console_free(progress: Progress) -> Generator[None]:
    """Takes the line of progress away while a table is printed."""
    progress.status.stop()
    try:
        yield
    finally:
        progress.status.start()


def minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


@contextmanager
def team_of(plan: Plan, seed: int, found: dict[str, Any], progress: Progress) -> Generator[Team]:
    """The processes, started and ended. A peer that does not start is left out, with its reason."""
    ours = {"source": LADDERS, "seed": seed, "options": OPTIONS}
    team = Team(Process("ours", BENCH, ours, max(plan.threads)))
    try:
        for name in plan.peers:
            progress.say(f"starting {name}")
            start_peer(team, plan, name, seed, found)
        yield team
    finally:
        team.ours.close()
        for process in team.peers.values():
            process.close()


def start_peer(team: Team, plan: Plan, name: str, seed: int, found: dict[str, Any]) -> None:
    """A process for each number of threads, for most libraries take theirs when they start."""
    for threads in plan.threads:
        options = options_of(plan, name, threads)
        peer = {"source": source_of(name), "seed": seed, "options": options}
        team.peers[name, threads] = Process(name, BENCH, peer, threads)
        try:
            found["peers"][f"{name} ×{threads}"] = team.peers[name, threads].ask("about")
        except WorkerError as error:
            team.leave_out(name, str(error))
            return


def source_of(name: str) -> str:
    return f"benchmarks.peers.{name}_kernels"


def options_of(plan: Plan, name: str, threads: int) -> dict[str, Any]:
    return {"threads": threads} | ({"folder": plan.llmc} if name == "llmc" else {})


def measure_limits(ours: Process, threads: Sequence[int], found: dict[str, Any], say: Say) -> None:
    """The peak, the bandwidth of each cache and of memory, and a product of BLAS."""
    opened: list[tuple[dict[str, Any], int]] = []
    for count in threads:
        for about in working_sets(found["machine"]["caches"], count):
            say(f"limits of the machine: {about['name']}, threads: {count}")
            report = ours.ask("open_limit", threads=count, name=about["name"], size=about["size"])
            opened.append(({**about, "threads": count, "amount": report["amount"]}, report["key"]))
            opened[-1][0]["seconds"] = []
    for _ in range(LIMIT_ROUNDS):
        for about, key in opened:
            about["seconds"].append(rounded(ours.ask("turn", key=key)))
    for about, _ in opened:
        rates = [about["amount"] / min(turn) for turn in about["seconds"]]
        about["rate"] = asdict(summary.estimate(rates))
    found["limits"] = [about for about, _ in opened]


def working_sets(caches: dict[str, int], threads: int) -> list[dict[str, Any]]:
    """The limits; the triad's fill half of each cache, and four times the last.

    All caches but the last are each thread's own.
    """
    *own, last = caches.items()
    sizes = {name: room // 2 * threads for name, room in own}
    sizes |= {last[0]: last[1] // 2, "memory": 4 * last[1]}
    triads = [{"name": "triad", "size": size, "where": name} for name, size in sizes.items()]
    return [
        {"name": "peak", "size": 0, "where": None},
        *triads,
        {"name": "BLAS", "size": 0, "where": None},
    ]


def new_path() -> Path:
    """Where results go unless told otherwise: a file named after the time."""
    with contextlib.suppress(OSError):  # It is found out when the file is tried.
        RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"kernels-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"


def wrong(found: dict[str, Any]) -> list[str]:
    """Which of our rungs did not pass the gate, and where. A peer that did not is only shown."""
    return [
        f"{row['rung']}, {task['operation']} {task['direction']} {task['shape']}"
        for task in (*found["tasks"], *found["again"])
        for row in task["rows"]
        if row.get("wrong") and row["by"] == OURS
    ]
