"""The candidates of a case, each in a fork: rungs, kernels of the user, peers, controls, limits."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.analysis import BANDWIDTHS, MINE
from benchmarks.harness.limits import open_limit
from benchmarks.harness.process import NO_ANSWER, Fork, Process, WorkerError
from benchmarks.harness.rounds import OURS, Candidate, Comparison, Say
from benchmarks.plan import Plan

RUNGS, MACHINE = "benchmarks.worker.rungs:Rungs", "benchmarks.worker.limits:Limits"
PEERS = ("torch", "llmc", "numpy")
# Seconds of samples after which a slow rung takes no more than the least number of turns.
PATIENCE = 1.0
# Seconds after which a rung counts as hanging: at the gate, where it is compiled, and in a turn.
OPEN_TIMEOUT, TURN_TIMEOUT = 300.0, 60.0

Peers = dict[tuple[str, int], Process]  # by name and threads


@dataclass(frozen=True)
class Processes:
    """Those from which rungs and limits are forked."""

    ours: Process
    limits: Process
    peers: Peers


def run_case(processes: Processes, comparison: Comparison, plan: Plan, say: Say) -> None:
    """Check and time the rungs, the peers, the controls and the limits in one case."""
    case = {**comparison.about}
    begun = processes.ours.ask("begin", **case)
    comparison.about |= begun["case"] | {"caches": plan.cache}
    open_ours(processes.ours, comparison, begun["rungs"], plan, say)
    open_mine(processes.ours, comparison, plan, say)
    open_peers(processes.peers, comparison, case, say)
    open_controls(comparison, say)
    # The peak of one thread tells how many CPUs several threads had.
    for count in sorted({1, *(each.about["threads"] for each in comparison.candidates)}):
        for name in ("peak", *BANDWIDTHS):
            open_limit(processes.limits, comparison, name, count, begun["case"]["working_set"])
    comparison.take_rounds(plan.rounds, say)
    if plan.asm:
        read_code(comparison, say)
    if plan.counters:
        read_counters(comparison, say)
    say("checking again")
    for each in (*comparison.candidates, *comparison.controls):
        if each.timed:
            each.about |= each.ask("close", timeout=OPEN_TIMEOUT)


def read_code(comparison: Comparison, say: Say) -> None:
    """Look at the machine code of each rung but those of peers, and sample where it spends time."""
    for each in comparison.candidates:
        if each.timed and each.about["by"] not in PEERS:
            say(f"sampling {each.name}")
            each.about |= each.ask("asm", timeout=TURN_TIMEOUT, name=each.about["rung"])


def read_counters(comparison: Comparison, say: Say) -> None:
    """Count instructions, cycles and cache misses of each rung, in turns that are not timed."""
    for each in comparison.candidates:
        if each.timed:
            say(f"counting {each.name}")
            found = each.ask("count", timeout=TURN_TIMEOUT)
            if reason := found.pop("reason", None):
                comparison.left_out["counters"] = f"no counters: {reason}"
            each.about |= found


def open_ours(
    ours: Process, comparison: Comparison, rungs: list[dict[str, Any]], plan: Plan, say: Say
) -> None:
    """Open the rungs of a ladder."""
    if plan.trained_only:
        rungs = [rung for rung in rungs if rung["reference"] or rung["trained"]]
    for rung in rungs:
        counts = [1] if rung["threads"] == "one" else plan.threads
        for count in counts:
            if count == 1 and rung["threads"] == "several":
                continue
            say(f"checking {rung['rung']}")
            about = {**rung, "by": OURS, "threads": count}
            candidate = open_rung(ours, about, comparison.candidates)
            if (seconds := candidate.about.get("compile_seconds")) is not None:
                ours.ask("claim", name=rung["rung"], seconds=seconds)


def open_mine(ours: Process, comparison: Comparison, plan: Plan, say: Say) -> None:
    """Open the user's kernels for a case."""
    case = comparison.about["operation"], comparison.about["direction"]
    for kernel in plan.mine:
        if (kernel.operation, kernel.direction) == case:
            ours.ask("bring", **asdict(kernel))
            for count in plan.threads if kernel.parallel else [1]:
                say(f"checking {kernel.name}")
                about: dict[str, Any] = {"rung": kernel.name, "by": MINE, "threads": count}
                about |= {"reference": True, "trained": False, "able": True}
                if hangs(open_rung(ours, about, comparison.candidates)):
                    break


def open_peers(peers: Peers, comparison: Comparison, case: dict[str, Any], say: Say) -> None:
    """Open the rungs of the peers; one whose process exits is left out."""
    for (name, count), process in peers.items():
        if name in comparison.left_out:
            continue
        say(f"checking {name}")
        absent = {"rung": name, "reference": True, "trained": False}
        absent |= {"able": False, "offered": False}
        try:
            offered = process.ask("begin", **case)["rungs"]
        except WorkerError as error:
            comparison.left_out[name] = error.reason
            continue
        for rung in offered or [absent]:
            about = {**rung, "by": name, "threads": count}
            open_rung(process, about, comparison.candidates)


def open_controls(comparison: Comparison, say: Say) -> None:
    """Open a rung once more for each number of threads of ours, of each peer and of the user's."""
    controlled = {
        (each.about["by"], each.about["threads"]): each
        for each in comparison.candidates
        if each.timed and (each.about["trained"] or each.about["by"] != OURS)
    }
    for each in controlled.values():
        assert isinstance(each.process, Fork)
        say(f"opening {each.name} once more")
        open_rung(each.process.parent, {**each.about}, comparison.controls)


def open_rung(process: Process, about: dict[str, Any], into: list[Candidate]) -> Candidate:
    """Add a rung, and open it in a fork of its own unless it is too slow for the case."""
    fork = process.fork(about["rung"]) if about["able"] else None
    candidate = Candidate(fork, about, False, PATIENCE, TURN_TIMEOUT)
    into.append(candidate)
    if fork is not None:
        candidate.open(timeout=OPEN_TIMEOUT, name=about["rung"], threads=about["threads"])
    return candidate


def hangs(candidate: Candidate) -> bool:
    """Return whether a candidate did not answer in time."""
    return candidate.about.get("failed", "").startswith(NO_ANSWER)
