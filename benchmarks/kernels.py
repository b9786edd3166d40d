"""The ladders of kernels: each rung is checked, then timed against the others and the limits."""

import secrets
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.candidates import MACHINE, PEERS, RUNGS, Peers, Processes, hangs, run_case
from benchmarks.harness import compare
from benchmarks.harness.compare import CASE
from benchmarks.harness.figures import new_file
from benchmarks.harness.limits import MachineLimits
from benchmarks.harness.process import Process, WorkerError
from benchmarks.harness.rounds import OURS, Comparison, DisagreementError, counted
from benchmarks.harness.session import Session, session
from benchmarks.plan import CaseNames, Plan
from benchmarks.render import report, sweep
from benchmarks.render.cells import label
from benchmarks.worker.counters import why_none

RESULTS = ROOT / "benchmarks" / "results"
# The modules with the rungs of each.
SOURCES = {OURS: "benchmarks.ladders"} | {
    name: f"benchmarks.peers.{name}_kernels" for name in PEERS
}
ROUNDS, QUICK_ROUNDS, LIMIT_ROUNDS = 9, 6, 3


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
            counts = sorted({1, *plan.threads})  # A ladder has rungs of one thread.
            with closing(MachineLimits(processes.limits, caches, counts, cold)) as machine:
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
