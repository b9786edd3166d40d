"""A training step of GPT-2 124M on 1 to 1024 machines: measured here, predicted for a network.

The time to compute is measured on this machine, network.py predicts the rest, and two_ranks.py
checks the predictions with two ranks on this machine.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import network, two_ranks
from benchmarks.harness import mpi
from benchmarks.harness.process import Process
from benchmarks.harness.rounds import counted
from benchmarks.harness.session import Session, session
from benchmarks.models.workloads import Workload, step_flops
from benchmarks.network import Job, Machine, Network, Reduction
from benchmarks.render import scaling as shown
from tinygpt_np.compiled.engine import micro_batch_count
from tinygpt_np.config import PRESETS
from tinygpt_np.machine import available_memory
from tinygpt_np.storage.parameters import param_count, param_shapes

MOST_MACHINES = 1024
# nanoGPT's recipe; its accumulation, and others that show how it matters.
RECIPE, VOCAB = PRESETS["gpt2-124m"], 50257
ACCUMULATIONS = (8, RECIPE.gradient_accumulation_steps, 160, 1024)
GIGABITS, LATENCY_US = (10.0, 100.0), 20.0
REDUCTIONS: tuple[Reduction, ...] = ("exact", "fast")
# The measured sequences have at most this many tokens, and there are at most two, or one for
# each thread. The time of a larger batch is in proportion to its FLOPs.
MEASURED_BLOCK, FEWEST_SEQUENCES = 256, 2
# Turns of what is measured once; pairs of runs that are compared.
TURNS, PAIRS = 5, 3
# The part of a micro-batch that the backward takes: two products for each of the forward.
BACKWARD = 2 / 3
# Parameters whose gradients are complete only at the end of the backward.
LATE = ("wte.weight", "wpe.weight")
# Bytes for which the reduction is timed, besides those of the gradients. A rank holds four arrays.
SIZES, ARRAYS = tuple(4096 * 4**power for power in range(9)), 4
WORKER = "benchmarks.worker.gradients:Gradients"


@dataclass(frozen=True)
class Measured:
    """The machine as it was measured at a small batch, and `factor`, the FLOPs of the whole one."""

    sizes: Workload
    machine: Machine
    factor: float

    @property
    def scaled(self) -> Machine:
        """The machine with the accumulation step of the whole batch."""
        return replace(self.machine, step=self.factor * self.machine.step)


def run(
    gigabits: Sequence[float], latency_us: float, accumulation: Sequence[int], batch_size: int,
    block_size: int, threads: int, rounds: int, json: Path,
) -> bool:  # fmt: skip
    """Measure, predict, check; show and write each part; return whether this was completed."""
    accumulation, gigabits = sorted({*accumulation}), sorted({*gigabits})
    options: dict[str, Any] = {
        "gigabits": gigabits, "latency_us": latency_us, "accumulation": accumulation,
        "batch_size": batch_size, "block_size": block_size, "threads": threads, "rounds": rounds,
    }  # fmt: skip
    with session("scaling", options, json) as run:
        results = run.found["results"] = dict[str, Any]()
        sizes = workload(batch_size, block_size, VOCAB)
        measured = measure(sizes, accumulation[-1], threads, run)
        results["compute"] = asdict(measured)
        jobs = [job(sizes, steps, threads) for steps in accumulation]
        networks = {each: Network(latency_us / 1e6, each * 1e9 / 8) for each in gigabits}
        results["predictions"] = predictions = predicted(jobs, measured.scaled, networks)
        results["begins"] = beginnings = starts(jobs, measured.scaled, networks)
        plot = json.with_suffix(".svg")
        shown.write_plot(predictions, plot)
        with run.hidden() as console:
            shown.assumptions(results["compute"], asdict(sizes), jobs[0], options, console)
            shown.predictions(predictions, console)
            shown.beginnings(beginnings, console)
        run.tell(f"written {plot}")
        if reason := mpi.missing(threads):
            run.found["left_out"]["reduction"] = reason
        else:
            results["reduction"] = rows = list[dict[str, Any]]()
            for row in reductions(threads, jobs[0].size, run):
                rows.append(row)
            with run.hidden() as console:
                shown.reductions(rows, console)
            check(rows, rounds, run)
        run.found["complete"] = True
    return run.found["complete"]


def workload(batch_size: int, block_size: int, vocab_size: int) -> Workload:
    """Return GPT-2 124M, with a batch and a vocabulary."""
    shape = RECIPE.n_layer, RECIPE.n_head, RECIPE.n_embd, block_size
    return Workload("GPT-2 124M", *shape, batch_size, vocab_size, TURNS)


def job(sizes: Workload, accumulation: int, threads: int) -> Job:
    """Return the work of a step of a model in float32.

    A thread runs several micro-batches one after the other; gradients are complete with the last.
    """
    shapes, count = param_shapes(sizes.config), param_count(sizes.config)
    late = sum(rows * columns for rows, columns in (shapes[name] for name in LATE))
    rounds = -(-micro_batch_count(sizes.batch_size, sizes.block_size) // threads)
    return Job(accumulation, 4 * count, late / count, BACKWARD / rounds)


def measure(sizes: Workload, batches: int, threads: int, run: Session) -> Measured:
    """Measure an accumulation step of `batches`, or a smaller one; medians of the turns."""
    sequences = min(sizes.batch_size, max(FEWEST_SEQUENCES, threads))
    smaller = workload(sequences, min(sizes.block_size, MEASURED_BLOCK), sizes.vocab_size)
    turns: list[dict[str, float]] = []
    with closing(Process("compute", WORKER, {}, threads)) as process:
        run.say("building the model and compiling")
        process.ask("open", workload=asdict(smaller), threads=threads, batches=batches)
        for _, progress in counted(range(TURNS)):
            run.say(f"computing, turn {progress}")
            turns.append(process.ask("turn"))
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return Measured(smaller, Machine(**medians), step_flops(sizes) / step_flops(smaller))


def predicted(
    jobs: Iterable[Job], machine: Machine, networks: Mapping[float, Network]
) -> list[dict[str, Any]]:
    """Return a row for each job, network, reduction and number of machines that divides the job."""
    rows: list[dict[str, Any]] = []
    for each in jobs:
        alone = network.predict(each, 1, machine, next(iter(networks.values())))
        for gigabits, between in networks.items():
            for reduction in REDUCTIONS:
                for ranks in network.divisors(each.accumulation, MOST_MACHINES):
                    found = network.predict(each, ranks, machine, between, reduction)
                    about = {"accumulation": each.accumulation, "gigabits": gigabits}
                    parts = {"seconds": found.total, "share": found.share}
                    parts["efficiency"] = network.efficiency(alone, found)
                    rows.append({**about, "reduction": reduction, **asdict(found), **parts})
    return rows


def starts(
    jobs: Iterable[Job], machine: Machine, networks: Mapping[float, Network]
) -> list[dict[str, Any]]:
    """Return a row for each job and network: where communication begins to dominate."""
    rows: list[dict[str, Any]] = []
    for each in jobs:
        counts = network.divisors(each.accumulation, MOST_MACHINES)
        for gigabits, between in networks.items():
            steps = [network.predict(each, ranks, machine, between) for ranks in counts]
            worst, first = max(steps, key=lambda step: step.share), network.begins(steps)
            even = network.break_even(each, machine, between)
            rows.append({
                "accumulation": each.accumulation, "gigabits": gigabits,
                "from": first and first.ranks, "share": worst.share, "ranks": worst.ranks,
                "break_even": even,
                "times_as_fast": network.speed_to_dominate(each, worst.ranks, machine, between)
                if worst.ranks > 1 else None,
            })  # fmt: skip
    return rows


def reductions(cores: int, size: int, run: Session) -> Iterable[dict[str, Any]]:
    """Yield the times of each size that fits in memory, over 2, 4, 8 … ranks."""
    ranks = 2
    while ranks <= cores:
        sizes = [each for each in (*SIZES, size) if 2 * ARRAYS * ranks * each < available_memory()]
        command = [sys.executable, "-m", "benchmarks.worker.reduction", *map(str, sizes)]
        run.say(f"reduction over {ranks} ranks")
        with mpi.running(mpi.under_mpirun(ranks, command), threads=1) as lines:
            for line, (_, progress) in zip(lines, counted(sizes), strict=False):
                yield json.loads(line)
                run.say(f"reduction over {ranks} ranks, size {progress}")
        ranks *= 2


def check(rows: Sequence[Mapping[str, Any]], pairs: int, run: Session) -> None:
    """Compare two ranks with one, and the prediction with what they take."""
    pair = [(row["size"], row["exchange"]) for row in rows if row["ranks"] == two_ranks.RANKS]
    _, per_byte = network.fit(pair)
    between = network.network_of(per_byte, two_ranks.RANKS)
    sizes = workload(two_ranks.BATCH_SIZE, two_ranks.BLOCK_SIZE, len(two_ranks.characters()))
    work = job(sizes, two_ranks.ACCUMULATION, 1)
    two, one = (
        measure(sizes, work.accumulation * threads // two_ranks.RANKS, threads, run).scaled
        for threads in (two_ranks.RANKS, 1)
    )
    expected = two_ranks.expected(work, two, one, between)
    tokens = work.accumulation * sizes.tokens
    speeds = {name: list[list[float]]() for name in two_ranks.COMMANDS}
    found: dict[str, Any] = {"expected": expected, "tokens": tokens, "speeds": speeds}
    run.found["results"]["check"] = found
    try:
        for name, progress in counted([*two_ranks.COMMANDS] * pairs):
            run.say(f"check, run {progress}: {name}")
            speeds[name].append(two_ranks.speeds(name))
    finally:  # Also after Ctrl-C.
        if all(speeds.values()):
            with run.hidden() as console:
                shown.check(found, console)
