"""Whole models: the training step, attention, sampling, and generation from a GPT-2 checkpoint.

Each candidate is a job in its own process. All start from the same weights, must agree on the
results of their first steps, and take turns in rounds with the machine's peak.
"""

import functools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.process import Process
from benchmarks.harness.rounds import OURS, Candidate, Comparison, DisagreementError, Say
from benchmarks.harness.session import Parts, session
from benchmarks.models import gpt2, workloads
from benchmarks.models.workloads import WORKLOADS
from tinygpt_np.model.gpt import GPT

JOBS, MACHINE = "benchmarks.worker.jobs:Jobs", "benchmarks.worker.limits:Limits"
TINYGPT, TORCH = "benchmarks.models.tinygpt", "benchmarks.peers.torch_models"
# Numbers that candidates agree on differ by at most this fraction.
SAME = 1e-3
ATTENTION_ROUNDS, SAMPLE_ROUNDS, PRETRAINED_ROUNDS = 15, 9, 7
# Those of the workload gpt-384, and with groups of queries that share keys and values.
ATTENTION = {"batch": 8, "time": 256, "n_head": 6, "n_kv_head": 6, "head_size": 64}
ATTENTIONS = {"attention": ATTENTION, "grouped queries": {**ATTENTION, "n_kv_head": 2}}
TOKENS = 500  # sampled in a turn


@dataclass(frozen=True)
class Entry:
    """A candidate before it is started: the "module:function" that builds its job, and options.

    warm_up: seconds of steps before its first turn. reference: whether it is no rung of ours.
    trained: whether references are compared with it.
    """

    name: str
    build: str
    options: dict[str, Any]
    reference: bool = False
    warm_up: float = 1.0
    by: str = OURS
    trained: bool = False


@dataclass(frozen=True)
class Experiment:
    """Candidates that do the same work, the first of which must run. tokens: per step.

    samples: steps per turn; None for as many as fill it. parts: splits the record into those shown.
    """

    name: str
    about: dict[str, Any]
    entries: Sequence[Entry]
    rounds: int
    tokens: int
    samples: int | None = None
    parts: Parts = lambda record: [record]


def train(
    work: Sequence[str], threads: int, rounds: int | None, backend: str, matmul: str,
    json: Path | None,
) -> bool:  # fmt: skip
    """Time training steps."""
    options = {"threads": threads, "backend": backend, "matmul": matmul}
    found: list[Experiment] = []
    for workload in (WORKLOADS[name] for name in dict.fromkeys(work)):
        about = asdict(workload)
        peer = {"workload": about, "threads": threads}
        entries = [
            Entry("ours", f"{TINYGPT}:train", {"workload": about, **options}, trained=True),
            Entry("PyTorch", f"{TORCH}:train", {**peer, "compiled": False}, True, by="torch"),
            Entry("torch.compile", f"{TORCH}:train", {**peer, "compiled": True}, True, by="torch"),
        ]
        chosen = rounds or workload.rounds
        found.append(Experiment(workload.name, about, entries, chosen, workload.tokens))
    return run("train", found, options, json)


def attention(threads: int, rounds: int | None, backend: str, json: Path | None) -> bool:
    """Time causal attention, forward and backward, and PyTorch's fused kernel."""
    build = f"{TORCH}:attention"
    found: list[Experiment] = []
    for name, sizes in ATTENTIONS.items():
        common: dict[str, Any] = {"sizes": sizes, "threads": threads}
        entries = [
            Entry("ours", f"{TINYGPT}:attention", {**common, "backend": backend}, trained=True),
            Entry("SDPA", build, {**common, "from_qkv": True}, True, by="torch"),
            Entry("SDPA, split", build, {**common, "from_qkv": False}, True, by="torch"),
        ]
        tokens = sizes["batch"] * sizes["time"]
        found.append(Experiment(name, sizes, entries, rounds or ATTENTION_ROUNDS, tokens))
    return run("attention", found, {"threads": threads, "backend": backend}, json)


def sample(threads: int, rounds: int | None, json: Path | None) -> bool:
    """Time sampling token by token: recomputing the context as nanoGPT does, cached, compiled.

    Until the context is full, cached keys and values are valid for the next token; after that all
    positions shift, and only the last block and the head can be cut short.
    """
    workload = WORKLOADS["cpu"]
    about, build = asdict(workload), f"{TINYGPT}:sample"
    common: dict[str, Any] = {"workload": about, "tokens": TOKENS}
    peer = {**common, "threads": threads}
    # They warm up while they are built, so that a turn starts with a sequence.
    entries = [
        Entry("recompute", build, {**common, "backend": "numpy", "cached": False}, warm_up=0),
        Entry("NumPy", build, {**common, "backend": "numpy", "cached": True}, warm_up=0),
        Entry("Numba", build, {**common, "backend": "numba", "cached": True}, warm_up=0,
              trained=True),
        Entry("PyTorch", f"{TORCH}:sample", peer, True, warm_up=0, by="torch"),
    ]  # fmt: skip
    parts = functools.partial(parts_of, first=workload.block_size - 1, tokens=TOKENS)
    chosen = rounds or SAMPLE_ROUNDS
    found = Experiment("sample", about, entries, chosen, 1, TOKENS, parts)
    return run("sample", [found], {"threads": threads}, json)


def pretrained(threads: int, rounds: int | None, json: Path | None) -> bool:
    """Time generation from a GPT-2 checkpoint."""
    found = generation(threads, rounds or PRETRAINED_ROUNDS)
    return run("pretrained", found, {"threads": threads}, json)


def generation(threads: int, rounds: int) -> Iterator[Experiment]:
    """Yield generation from a checkpoint with GPT-2's sizes and initial weights, text by text."""
    peer = "benchmarks.peers.transformers_models:generate"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "gpt2")
        GPT(gpt2.CONFIG, seed=workloads.SEED).save_pretrained(folder)
        for name, (prompt, count) in gpt2.LENGTHS.items():
            about = {"prompt": prompt, "count": count}
            options = {"folder": str(folder), "threads": threads, **about}
            entries = [
                Entry("ours", f"{TINYGPT}:generate", options, trained=True),
                Entry("transformers", peer, options, True, by="transformers"),
            ]
            if count > 1:
                reading = "benchmarks.models.reading:read_weights"
                entries.append(Entry("read weights", reading, options, True))
            yield Experiment(name, about, entries, rounds, count)


def run(
    benchmark: str, experiments: Iterable[Experiment], options: dict[str, Any], path: Path | None
) -> bool:
    """Run experiments, show each when it is done, and write the result; return if it completed."""
    with session(benchmark, options, path) as run:
        run.found["complete"] = all(
            run.add(compare(each, options["threads"], run.say), parts=each.parts)
            for each in experiments
        )
    return run.found["complete"]


def compare(experiment: Experiment, threads: int, say: Say) -> Comparison:
    """Start the candidates one after the other, check that they agree, and take the rounds."""
    about = {"name": experiment.name, "about": experiment.about, "tokens": experiment.tokens}
    comparison = Comparison(about)

    def tell(text: str) -> None:
        say(f"{experiment.name}: {text}")

    with closing(comparison), comparison.until_interrupted():
        for entry in experiment.entries:
            if entry.by != OURS and find_spec(entry.by) is None:
                reason = "not installed: pip install '.[bench]'"
                comparison.left_out[entry.by] = reason
                continue
            tell(f"warming up {entry.name}")
            add(comparison, entry, threads, experiment.samples)
        about = {"name": "peak", "threads": threads}
        peak = Candidate(Process("peak", MACHINE, {}, threads), about)
        comparison.limits.append(peak)
        peak.open(name="peak", threads=threads, size=0)
        comparison.take_rounds(experiment.rounds, tell)
    return comparison


def add(comparison: Comparison, entry: Entry, threads: int, samples: int | None) -> None:
    """Start a job as a candidate; it must agree with the first."""
    about = {"rung": entry.name, "by": entry.by, "threads": threads}
    about |= {"reference": entry.reference, "trained": entry.trained}
    process = Process(entry.name, JOBS, {}, threads)
    candidate = Candidate(process, about, required=not comparison.candidates)
    comparison.candidates.append(candidate)
    candidate.open(build=entry.build, options=entry.options, warm_up=entry.warm_up, samples=samples)
    if not candidate.timed:
        return
    comparison.about.setdefault("flops", about.pop("flops"))
    theirs = np.array(about["agreement"])
    ours = np.array(comparison.candidates[0].about["agreement"])
    if theirs.size and not (
        # Written so that NaN fails.
        ours.shape == theirs.shape and np.all(np.abs(ours - theirs) <= SAME * np.abs(ours))
    ):
        said = (", ".join(f"{value:.6g}" for value in values) for values in (theirs, ours))
        different = f"{entry.name} does not compute the same as {comparison.candidates[0].name}"
        raise DisagreementError(f"{different}: {', not '.join(said)}")


def parts_of(record: dict[str, Any], first: int, tokens: int) -> list[dict[str, Any]]:
    """Return the record of sampling for the whole sequence, its first tokens, and the others."""
    parts = {f"all {tokens} tokens": slice(tokens), f"the first {first}": slice(first)}
    parts[f"the other {tokens - first}"] = slice(first, tokens)

    def cut(turn: list[float] | None, part: slice) -> list[float] | None:
        return None if turn is None else [sum(turn[part]) / len(turn[part])]

    return [
        {**record, "name": f"sample, {name}", "limits": [], "controls": []}
        | {"rows": [
            {**row, "turns": [cut(turn, part) for turn in row["turns"]]} for row in record["rows"]
        ]}
        for name, part in parts.items()
    ]  # fmt: skip
