"""The ladders of kernels: each rung is checked, then timed against the others and the limits."""

import contextlib
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import ROOT, cases
from benchmarks.harness import compare, report
from benchmarks.harness.compare import CASE
from benchmarks.harness.rounds import (
    OURS,
    Candidate,
    Comparison,
    DisagreementError,
    Say,
    time_left,
)
from benchmarks.harness.session import Session, session
from benchmarks.harness.statistics import estimate
from benchmarks.harness.worker import Process, WorkerError

RUNGS = "benchmarks.harness.rungs:Rungs"
LADDERS = "benchmarks.ladders"
OPTIONS: dict[str, Any] = {}
PEERS = ("torch", "llmc", "numpy")
RESULTS = ROOT / "benchmarks" / "results"
ROUNDS, QUICK_ROUNDS, LIMIT_ROUNDS = 9, 6, 5
# Seconds of samples after which a slow rung takes no more than the least number of turns.
PATIENCE = 1.5
LIMITS = ("peak", "triad", "update")

CaseNames = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """A request for a run. llmc: the folder of a checkout of llm.c, if that is a peer."""

    operations: Sequence[str]
    shapes: Sequence[str]
    threads: Sequence[int]
    rounds: int
    last_only: bool = False
    asm: bool = False
    peers: Sequence[str] = ()
    llmc: str | None = None

    @property
    def cases(self) -> list[CaseNames]:
        """Operation, direction and shape of each case."""
        return [
            (operation, direction, shape)
            for operation in self.operations
            for direction in cases.directions(operation)
            for shape in self.shapes
        ]


@dataclass
class Processes:
    """The worker processes: ours has the ladders and the limits; peers by name and threads."""

    ours: Process
    peers: dict[tuple[str, int], Process] = field(default_factory=dict[tuple[str, int], Process])

    def leave_out(self, name: str) -> None:
        """End the processes of a peer."""
        for key in [key for key in self.peers if key[0] == name]:
            self.peers.pop(key).close()


def run(
    plan: Plan,
    path: Path | None,
    before: dict[str, Any] | None = None,
    benchmark: str = "kernels",
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the ladders, show each case when it is done, and write the result and a page to `path`.

    Cases with a kernel that seems slower than in the result `before` are measured again. Return the
    result; "complete" is False after Ctrl-C. Raises DisagreementError if one of our rungs is wrong.
    quiet: show no tables and write no page.
    """
    with session(benchmark, asdict(plan), path, with_page=not quiet) as run:
        found = run.found
        found |= {"seed": secrets.randbits(32), "peers": {}, "limits": [], "again": []}
        with start(plan, run) as processes:
            measure_limits(processes.ours, plan.threads, found, run.progress.say)
            if not quiet:
                with run.progress.hidden():
                    report.show_limits(found, run.console)
            complete = run_cases(processes, plan, plan.cases, run, "cases", quiet)
        if complete and before is not None:
            complete = run_again(plan, compare.suspects(before, found), run)
        found["complete"] = complete
    if names := wrong(found):
        raise DisagreementError(f"WRONG: {'; '.join(names)}")
    return found


def run_again(plan: Plan, suspects: Sequence[CaseNames], run: Session) -> bool:
    """Measure cases again in a new process; return whether this was completed."""
    if not suspects:
        return True
    alone = replace(plan, peers=())
    run.console.print(f"\n[bold]{len(suspects)} cases seem slower than before: once more[/bold]")
    with start(alone, run) as processes:
        return run_cases(processes, alone, suspects, run, "again")


def run_cases(
    processes: Processes, plan: Plan, names: Sequence[CaseNames], run: Session, into: str,
    quiet: bool = False,
) -> bool:  # fmt: skip
    """Compare case after case; return whether this was completed."""
    began = time.monotonic()
    for number, case in enumerate(names):
        spent = time.monotonic() - began
        left = f", {time_left(spent / number * (len(names) - number))}" if number else ""
        where = f"{number + 1}/{len(names)}{left}: {' '.join(case)}"
        comparison = run_case(
            processes, case, plan, lambda text, where=where: run.progress.say(f"{where}, {text}")
        )
        for name in comparison.left_out:
            processes.leave_out(name)
        if not run.add(comparison, into, quiet):
            return False
    return True


@contextmanager
def start(plan: Plan, run: Session) -> Generator[Processes]:
    """Start the processes, and end them afterwards. A peer that does not start is left out."""
    options = {"source": LADDERS, "seed": run.found["seed"], "options": OPTIONS}
    processes = Processes(Process("ours", RUNGS, options, max(plan.threads)))
    try:
        for name in plan.peers:
            run.progress.say(f"starting {name}")
            start_peer(processes, plan, name, run.found)
        yield processes
    finally:
        processes.ours.close()
        for process in processes.peers.values():
            process.close()


def start_peer(processes: Processes, plan: Plan, name: str, found: dict[str, Any]) -> None:
    """Start a process per number of threads, which most libraries read when they are loaded."""
    for threads in plan.threads:
        options = {"source": source_of(name), "seed": found["seed"]}
        options |= {"options": options_of(plan, name, threads)}
        processes.peers[name, threads] = Process(name, RUNGS, options, threads)
        try:
            about = processes.peers[name, threads].ask("about")
            found["peers"][f"{name} ×{threads}"] = about
        except WorkerError as error:
            found["left_out"][name] = str(error)
            processes.leave_out(name)
            return


def source_of(name: str) -> str:
    """Return the module with the rungs of a peer."""
    return f"benchmarks.peers.{name}_kernels"


def options_of(plan: Plan, name: str, threads: int) -> dict[str, Any]:
    """Return the options that a peer is set up with."""
    return {"threads": threads} | ({"folder": plan.llmc} if name == "llmc" else {})


def measure_limits(ours: Process, threads: Sequence[int], found: dict[str, Any], say: Say) -> None:
    """Measure the peak, the bandwidth of each cache and of memory, and a matmul by BLAS."""
    comparison = Comparison({})
    for count in threads:
        for about in working_sets(found["machine"]["caches"], count):
            say(f"limits of the machine: {about['name']}, threads: {count}")
            limit = Candidate(ours, {**about, "threads": count})
            limit.open("open_limit", name=about["name"], threads=count, size=about["size"])
            comparison.limits.append(limit)
    comparison.take_rounds(LIMIT_ROUNDS, say)
    for limit in comparison.record["limits"]:
        rates = [limit["amount"] / min(turn) for turn in limit["turns"]]
        found["limits"].append({**limit, "rate": estimate(rates)})


def working_sets(caches: dict[str, int], threads: int) -> list[dict[str, Any]]:
    """Return the limits; the arrays of a triad fill half of a cache, or four times the last one.

    All caches except the last are private to a thread.
    """
    *own, last = caches.items()
    sizes = {name: capacity // 2 * threads for name, capacity in own}
    sizes |= {last[0]: last[1] // 2, "memory": 4 * last[1]}
    triads = [{"name": "triad", "size": size, "where": name} for name, size in sizes.items()]
    return [
        {"name": "peak", "size": 0, "where": None},
        *triads,
        {"name": "BLAS", "size": 0, "where": None},
    ]


def run_case(processes: Processes, names: CaseNames, plan: Plan, say: Say) -> Comparison:
    """Check and time the rungs, the peers, the controls and the limits in one case.

    Raises WorkerError if our own process exits; a peer that does is left out from then on.
    """
    case: dict[str, str] = dict(zip(CASE, names, strict=True))
    begun = processes.ours.ask("begin", **case)
    comparison = Comparison({**case, **begun["case"]})
    with comparison.until_interrupted():
        open_ours(processes.ours, comparison, begun["rungs"], plan, say)
        open_peers(processes, comparison, case, plan, say)
        for count in sorted({each.about["threads"] for each in comparison.candidates}):
            size = comparison.about["working_set"]
            comparison.add_limits(processes.ours, LIMITS, count, size)
        comparison.take_rounds(plan.rounds, say)
    return comparison


def open_ours(
    ours: Process, comparison: Comparison, rungs: list[dict[str, Any]], plan: Plan, say: Say
) -> None:
    """Open the rungs of a ladder, and the last one for each number of threads as a control."""
    ladder = [rung for rung in rungs if not rung["reference"]]
    if plan.last_only:
        last = [rung for rung in ladder if rung["threads"] == "one"][-1:] + ladder[-1:]
        rungs = [rung for rung in rungs if rung["reference"] or rung in last]
    controlled: dict[int, Candidate] = {}
    for rung in rungs:
        for count in threads_of(rung, plan.threads):
            say(f"checking {rung['rung']}")
            candidate = open_rung(ours, {**rung, "by": OURS, "threads": count}, plan.asm)
            comparison.candidates.append(candidate)
            if candidate.key is not None and not rung["reference"]:
                controlled[count] = candidate
    for candidate in controlled.values():
        comparison.controls.append(open_rung(ours, {**candidate.about}, False))


def open_rung(
    process: Process, about: dict[str, Any], asm: bool, required: bool = True
) -> Candidate:
    """Open a rung unless it is too slow for the case."""
    candidate = Candidate(process, about, required, PATIENCE)
    if about["able"]:
        candidate.open(name=about["rung"], threads=about["threads"])
        if asm and candidate.key is not None:
            about["packed"] = process.ask("packed", name=about["rung"])
    return candidate


def threads_of(rung: dict[str, Any], threads: Sequence[int]) -> list[int]:
    """Return the numbers of threads that a rung is timed with."""
    if rung["threads"] == "one":
        return [1]
    return [count for count in threads if count > 1 or rung["threads"] == "any"]


def open_peers(
    processes: Processes, comparison: Comparison, case: dict[str, str], plan: Plan, say: Say
) -> None:
    """Open the rungs of the peers; one whose process exits is left out."""
    for (name, count), process in processes.peers.items():
        if name in comparison.left_out or count not in plan.threads:
            continue
        say(f"checking {name}")
        common = {"by": name, "threads": count}
        try:
            rungs = process.ask("begin", **case)["rungs"]
            for rung in rungs:
                candidate = open_rung(process, {**rung, **common}, False, required=False)
                comparison.candidates.append(candidate)
            if not rungs:
                absent = {"rung": name, "reference": True, "able": False, "offered": False}
                comparison.candidates.append(Candidate(process, {**absent, **common}))
        except WorkerError as error:
            comparison.left_out[name] = str(error)


def new_path() -> Path:
    """Return where results go by default: a file named after the time."""
    with contextlib.suppress(OSError):  # The error shows when the file is tried.
        RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"kernels-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"


def wrong(found: dict[str, Any]) -> list[str]:
    """Return which of our rungs were wrong, and in which case; a wrong peer is only shown."""
    return [
        f"{row['rung']}, {' '.join(record[name] for name in CASE)}"
        for record in (*found["cases"], *found["again"])
        for row in record["rows"]
        if row.get("wrong") and row["by"] == OURS
    ]
