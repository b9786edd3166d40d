"""The ladders of kernels: each rung is checked, then timed against the others and the limits."""

import secrets
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ROOT, cases
from benchmarks.cases.sweeps import Sweep
from benchmarks.harness import compare
from benchmarks.harness.analysis import BANDWIDTHS, MINE
from benchmarks.harness.compare import CASE
from benchmarks.harness.figures import new_file
from benchmarks.harness.limits import MachineLimits, open_limit
from benchmarks.harness.process import NO_ANSWER, Fork, Process, WorkerError
from benchmarks.harness.rounds import OURS, Candidate, Comparison, DisagreementError, Say, counted
from benchmarks.harness.session import Session, session
from benchmarks.mine.source import Kernel
from benchmarks.render import report, sweep
from benchmarks.render.cells import label
from benchmarks.worker.counters import why_none

RUNGS, MACHINE = "benchmarks.worker.rungs:Rungs", "benchmarks.worker.limits:Limits"
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("torch", "llmc", "numpy")
# The modules with the rungs of each.
SOURCES = {OURS: "benchmarks.ladders"} | {
    name: f"benchmarks.peers.{name}_kernels" for name in PEERS
}
ROUNDS, QUICK_ROUNDS, LIMIT_ROUNDS = 9, 6, 3
# Seconds of samples after which a slow rung takes no more than the least number of turns.
PATIENCE = 1.0
# Seconds after which a rung counts as hanging: at the gate, where it is compiled, and in a turn.
OPEN_TIMEOUT, TURN_TIMEOUT = 300.0, 60.0

CaseNames = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """A request for a run.

    sweep: sizes in place of shapes, the first of which gives the sizes that are not swept. skipped:
    cases that are left out. llmc: the folder of a checkout of llm.c, if that is a peer. csv: a file
    for all rows. cache: "hot" or "cold" (see clock.py). mine: kernels of the user. ladders: a
    module in place of ours.
    """

    operations: Sequence[str]
    shapes: Sequence[str]
    threads: Sequence[int]
    rounds: int
    trained_only: bool = False
    asm: bool = False
    counters: bool = False
    peers: Sequence[str] = ()
    llmc: str | None = None
    csv: str | None = None
    cache: str = "hot"
    sweep: Sweep | None = None
    skipped: Sequence[CaseNames] = ()
    mine: Sequence[Kernel] = ()
    ladders: str | None = None

    @property
    def cases(self) -> list[CaseNames]:
        """Operation, direction and shape of each case."""
        found = [
            (operation, direction, shape)
            for operation in self.operations
            for direction in self.directions(operation)
            for shape in self.shapes_of(operation)
        ]
        return [case for case in found if case not in self.skipped]

    def directions(self, operation: str) -> Sequence[str]:
        """Return the directions to measure: those that the user has kernels for, or all."""
        own = {each.direction for each in self.mine if each.operation == operation}
        return [each for each in cases.directions(operation) if not own or each in own]

    def shapes_of(self, operation: str) -> Sequence[str]:
        """Return the shapes of an operation."""
        if self.sweep is None:
            return self.shapes
        return self.sweep.shapes(cases.swept(operation), self.shapes[0])


Peers = dict[tuple[str, int], Process]  # by name and threads


@dataclass(frozen=True)
class Processes:
    """Those from which rungs and limits are forked."""

    ours: Process
    limits: Process
    peers: Peers


def run(
    plan: Plan, path: Path | None, before: dict[str, Any] | None = None, benchmark: str = "kernels"
) -> dict[str, Any]:
    """Run the ladders, show each case when it is done, and write the result and a page to `path`.

    Cases with a kernel whose time seems to differ from the result `before` are measured again.
    Return the result; "complete" is False after Ctrl-C. Raises DisagreementError if one of our
    rungs is wrong. A benchmark of another name shows no tables and writes no page.
    """
    quiet = benchmark != "kernels" or plan.sweep is not None
    options = asdict(plan) | {"mine": [kernel.name for kernel in plan.mine]}
    with session(benchmark, options, path, quiet) as run:
        found = run.found
        found |= {"seed": secrets.randbits(32), "peers": {}, "limits": [], "again": []}
        if plan.counters and (reason := why_none()):
            run.errors.print(f"no counters: {reason}")
            plan = replace(plan, counters=False)
        with start(plan, run) as processes:
            run.say("limits of the machine")
            caches, cold = found["machine"]["caches"], plan.cache == "cold"
            with closing(MachineLimits(processes.limits, caches, plan.threads, cold)) as machine:
                found["limits"] = machine.measure(LIMIT_ROUNDS, run.say)
                if not run.quiet:
                    with run.hidden() as console:
                        report.show_limits(found, console)
                complete = run_cases(processes, plan, plan.cases, run, "cases", machine)
        suspects = compare.suspects(before, found) if complete and before is not None else []
        if suspects:
            seem = f"{len(suspects)} cases seem to differ from before: once more"
            run.console.print(f"\n[bold]{seem}[/bold]")
            with start(replace(plan, peers=()), run) as processes:
                complete = run_cases(processes, plan, suspects, run, "again")
        found["complete"] = complete
    bad = [
        f"{label(row)}, {' '.join(record[name] for name in CASE)}: {reason}"
        for record in (*found["cases"], *found["again"])
        for row in record["rows"]
        if row["by"] not in PEERS  # A peer's failure is only shown.
        if (reason := row.get("wrong") or row.get("failed"))
    ]
    if bad:
        raise DisagreementError("wrong or failed:\n  " + "\n  ".join(bad))
    return found


@contextmanager
def start(plan: Plan, run: Session) -> Generator[Processes]:
    """Start our process and those of the peers that can be started, and end them afterwards."""
    with ExitStack() as started:

        def process(name: str, serve: str, about: dict[str, Any], threads: int) -> Process:
            return started.enter_context(closing(Process(name, serve, about, threads)))

        def rungs(name: str, threads: int, options: dict[str, Any]) -> Process:
            source = plan.ladders if name == OURS and plan.ladders else SOURCES[name]
            about = {"source": source, "seed": run.found["seed"], "options": options}
            return process(name, RUNGS, about | cache, threads)

        most, cache = max(plan.threads), {"cache": plan.cache}
        found = Processes(rungs(OURS, most, {}), process("limits", MACHINE, cache, most), Peers())
        for name in plan.peers:
            run.say(f"starting {name}")
            more = {"folder": plan.llmc} if name == "llmc" else {}
            try:  # A process per number of threads, which most libraries read when loaded.
                for count in plan.threads:
                    peer = rungs(name, count, {"threads": count, **more})
                    found.peers[name, count] = peer
                    run.found["peers"][f"{name} ×{count}"] = peer.ask("about")
            except WorkerError as error:
                run.found["left_out"][name] = error.reason
        yield found


def run_cases(
    processes: Processes, plan: Plan, names: Sequence[CaseNames], run: Session, into: str,
    machine: MachineLimits | None = None,
) -> bool:  # fmt: skip
    """Compare case after case, and measure the limits of the machine now and then.

    Return whether this was completed.
    """
    last = {case[:2]: case for case in names}  # of each direction
    for number, (case, progress) in enumerate(counted(names), 1):
        comparison = Comparison(dict(zip(CASE, case, strict=True)), run.found["left_out"])
        where = f"{progress}: {' '.join(case)}"

        def say(text: str, where: str = where) -> None:
            run.say(f"{where}, {text}")

        with closing(comparison), comparison.until_interrupted():
            run_case(processes, comparison, plan, say)
        going = run.add(comparison, into)
        if plan.sweep is not None and into == "cases" and (case == last[case[:2]] or not going):
            with run.hidden() as console:
                sweep.show(run.found, case[:2], console)
        if not going:
            return False
        plan = without_hanging(plan, comparison)
        if machine is not None and number % max(1, len(names) // LIMIT_ROUNDS) == 0:
            run.found["limits"] = machine.measure(1, run.say)
    return True


def without_hanging(plan: Plan, comparison: Comparison) -> Plan:
    """Return a plan without the user's kernels that hang: this takes minutes in each case."""
    hanging = {each.name for each in comparison.candidates if hangs(each)}
    for name in {each.name for each in plan.mine} & hanging:
        comparison.left_out[name] = "it hangs, so it is not run in the other cases"
    return replace(plan, mine=[each for each in plan.mine if each.name not in hanging])


def hangs(candidate: Candidate) -> bool:
    """Return whether a candidate did not answer in time."""
    return candidate.about.get("failed", "").startswith(NO_ANSWER)


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


def new_files(path: Path) -> Path:
    """Return the path of a result, or raise ValueError if it cannot be written, or its page."""
    if path.suffix != ".json":
        raise ValueError(f"must be a file that ends in .json, not {path}")
    for suffix in (".html", ".svg"):
        new_file(path.with_suffix(suffix))
    return new_file(path)


def checkout(folder: Path) -> Path:
    """Return a checkout of llm.c, or raise ValueError if a folder is none."""
    if not (folder / "train_gpt2.c").is_file():
        raise ValueError(f"must be a checkout of llm.c: {folder} has no train_gpt2.c")
    return folder
