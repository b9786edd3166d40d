"""Whole models: the training step, attention, sampling, and generation from a GPT-2 checkpoint.

Each candidate is a job in its own process. All start from the same weights, must agree on the
results of their first steps, and take turns in rounds with the machine's peak.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.rounds import OURS, Candidate, Comparison, DisagreementError, Say
from benchmarks.harness.session import session
from benchmarks.harness.worker import Process, WorkerError
from benchmarks.models import gpt2, tinygpt, workloads
from benchmarks.models.workloads import Workload
from tinygpt_np.model.gpt import GPT

JOBS = "benchmarks.harness.jobs:Jobs"
TINYGPT, TORCH = "benchmarks.models.tinygpt", "benchmarks.peers.torch_models"
# Numbers that candidates agree on differ by at most this fraction.
SAME = 1e-3
# The largest error of float32 logits relative to their norm.
LOGITS = 1e-5
ATTENTION_ROUNDS, SAMPLE_ROUNDS, PRETRAINED_ROUNDS = 15, 9, 7
# Those of the workload gpt-384.
ATTENTION = {"batch": 8, "time": 256, "n_head": 6, "head_size": 64}
SAMPLED, TOKENS = "cpu", 500


@dataclass(frozen=True)
class Entry:
    """A candidate before it is started: the "module:function" that builds its job, and options.

    warm_up: seconds of steps before its first turn. reference: whether it is no rung of ours.
    """

    name: str
    build: str
    options: dict[str, Any]
    reference: bool = False
    warm_up: float = 1.0
    by: str = OURS


@dataclass(frozen=True)
class Experiment:
    """Candidates that do the same work, the first of which must run. tokens: per step.

    samples: steps per turn; None for as many as fill it.
    """

    name: str
    about: dict[str, Any]
    entries: Sequence[Entry]
    rounds: int
    tokens: int
    samples: int | None = None


def training(
    workload: Workload, threads: int, rounds: int | None, ours: dict[str, Any], pytorch: bool
) -> Experiment:
    """Return the training step of a workload. ours: backend and matmul of our side."""
    common = {"workload": asdict(workload), "threads": threads}
    entries = [Entry("ours", f"{TINYGPT}:train", {**common, **ours})]
    if pytorch:
        entries += [
            Entry(name, f"{TORCH}:train", {**common, "compiled": compiled}, True, by="torch")
            for name, compiled in (("PyTorch", False), ("torch.compile", True))
        ]
    return Experiment(
        workload.name, asdict(workload), entries, rounds or workload.rounds, workload.tokens
    )


def attention(
    sizes: dict[str, int], threads: int, rounds: int | None, backend: str, pytorch: bool
) -> Experiment:
    """Return causal attention, forward and backward, compared with PyTorch's fused kernel."""
    common: dict[str, Any] = {"sizes": sizes, "threads": threads}
    entries = [Entry("ours", f"{TINYGPT}:attention", {**common, "backend": backend})]
    if pytorch:
        entries += [
            Entry(name, f"{TORCH}:attention", {**common, "from_qkv": packed}, True, by="torch")
            for name, packed in (("SDPA", True), ("SDPA, split", False))
        ]
    tokens = sizes["batch"] * sizes["time"]
    return Experiment("attention", sizes, entries, rounds or ATTENTION_ROUNDS, tokens)


def sampling(
    workload: Workload, tokens: int, threads: int, rounds: int | None, pytorch: bool
) -> Experiment:
    """Return sampling token by token: recomputing the context as nanoGPT does, cached, compiled.

    Until the context is full, cached keys and values are valid for the next token; after that all
    positions shift, and only the last block and the head can be cut short.
    """
    common: dict[str, Any] = {"workload": asdict(workload), "tokens": tokens}
    # They warm up while they are built, so that a turn starts with a sequence.
    entries = [
        Entry(
            name, f"{TINYGPT}:sample", {**common, "backend": backend, "cached": cached}, warm_up=0
        )
        for name, backend, cached in (
            ("recompute", "numpy", False),
            ("NumPy", "numpy", True),
            ("Numba", "numba", True),
        )
    ]
    if pytorch:
        options = {**common, "threads": threads}
        entries.append(Entry("PyTorch", f"{TORCH}:sample", options, True, 0, "torch"))
    about = asdict(workload)
    return Experiment("sample", about, entries, rounds or SAMPLE_ROUNDS, 1, samples=tokens)


def generation(folder: Path, threads: int, rounds: int | None, peer: bool) -> list[Experiment]:
    """Return generation from a GPT-2 checkpoint, compared with transformers' cached generate.

    A whole text is one step, so the time to the first token is included.
    """
    found: list[Experiment] = []
    for name, (prompt, count) in gpt2.LENGTHS.items():
        options = {"folder": str(folder), "prompt": prompt, "count": count, "threads": threads}
        entries = [Entry("ours", f"{TINYGPT}:generate", options)]
        if peer:
            build = "benchmarks.peers.transformers_models:generate"
            entries.append(Entry("transformers", build, options, True, by="transformers"))
        if count > 1:
            build = "benchmarks.models.reading:read_weights"
            entries.append(Entry("read weights", build, options, True))
        about = {"prompt": prompt, "count": count}
        found.append(Experiment(name, about, entries, rounds or PRETRAINED_ROUNDS, count))
    return found


def run(
    benchmark: str, experiments: Sequence[Experiment], options: dict[str, Any], path: Path | None
) -> bool:
    """Run experiments, show each when it is done, and write the result; return if it completed."""
    with session(benchmark, options, path) as run:
        threads = options["threads"]
        run.found["complete"] = all(
            run.add(compare(each, threads, run.progress.say)) for each in experiments
        )
    return run.found["complete"]


def run_sampling(experiment: Experiment, options: dict[str, Any], path: Path | None) -> bool:
    """Check the logits, run the experiment, and show it for the whole sequence and its parts."""
    workload = Workload(**experiment.about)
    with session("sample", options, path) as run:
        for backend in ("numpy", "numba"):
            run.progress.say(f"checking logits, {backend}")
            check_logits(workload, backend)
        comparison = compare(experiment, options["threads"], run.progress.say)
        run.found["left_out"] |= comparison.left_out
        record = comparison.record
        if record["rounds"]:
            for part in parts_of(record, workload.block_size - 1, experiment.samples or 0):
                run.add_record(part)
        run.found["complete"] = not comparison.stopped
    return run.found["complete"]


def run_pretrained(threads: int, rounds: int | None, peer: bool, path: Path | None) -> bool:
    """Write a checkpoint with GPT-2's sizes and initial weights, and generate from it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "gpt2")
        GPT(gpt2.CONFIG, seed=workloads.SEED).save_pretrained(folder)
        experiments = generation(folder, threads, rounds, peer)
        return run("pretrained", experiments, {"threads": threads}, path)


def compare(experiment: Experiment, threads: int, say: Say) -> Comparison:
    """Start the candidates one after the other, check that they agree, and take the rounds.

    Raises WorkerError if the first does not run; others are left out. Raises DisagreementError if
    a candidate does not compute the same as the first.
    """
    about = {"name": experiment.name, "about": experiment.about, "tokens": experiment.tokens}
    comparison = Comparison(about)
    processes: list[Process] = []

    def start(name: str, serve: str, options: dict[str, Any]) -> Process:
        processes.append(Process(name, serve, options, threads))
        return processes[-1]

    def tell(text: str) -> None:
        say(f"{experiment.name}: {text}")

    try:
        with comparison.until_interrupted():
            for entry in experiment.entries:
                tell(f"warming up {entry.name}")
                add(comparison, entry, start(entry.name, JOBS, {}), threads, experiment.samples)
            rungs: dict[str, Any] = {"source": "benchmarks.ladders", "seed": 0, "options": {}}
            peak = start("peak", "benchmarks.harness.rungs:Rungs", rungs)
            comparison.add_limits(peak, ["peak"], threads, 0)
            comparison.take_rounds(experiment.rounds, tell)
    finally:
        for process in processes:
            process.close()
    return comparison


def add(
    comparison: Comparison, entry: Entry, process: Process, threads: int, samples: int | None
) -> None:
    """Open a job as a candidate, or leave it out if it fails and is not the first."""
    about = {"rung": entry.name, "by": entry.by, "threads": threads, "reference": entry.reference}
    first = comparison.candidates[0] if comparison.candidates else None
    candidate = Candidate(process, about, required=first is None)
    try:
        candidate.open(
            build=entry.build, options=entry.options, warm_up=entry.warm_up, samples=samples
        )
    except WorkerError as error:
        if first is None:
            raise
        comparison.left_out[entry.name] = str(error)
        return
    comparison.candidates.append(candidate)
    comparison.about.setdefault("flops", about.pop("flops"))
    if first is not None:
        check_agreement(first, candidate)


def check_agreement(first: Candidate, other: Candidate) -> None:
    """Raise DisagreementError unless the first results are the same; a candidate may have none."""
    ours, theirs = first.about["agreement"], other.about["agreement"]
    if theirs and not (
        len(ours) == len(theirs)
        # Written so that NaN fails.
        and all(abs(a - b) <= SAME * abs(a) for a, b in zip(ours, theirs, strict=True))
    ):
        raise DisagreementError(
            f"{other.name} does not compute the same as {first.name}: "
            f"{numbers(theirs)}, not {numbers(ours)}"
        )


def numbers(values: Sequence[float]) -> str:
    """Return numbers in one line."""
    return ", ".join(f"{value:.6g}" for value in values)


def check_logits(workload: Workload, backend: str) -> None:
    """Raise DisagreementError unless the cached decoder computes the logits of model.logits.

    It reads a sequence token by token until after the context is full; the truth is in float64.
    """
    truth, model = GPT(workload.config, dtype="float64"), tinygpt.sampler(workload, backend, True)
    truth.params = {name: param.astype(np.float64) for name, param in model.params.items()}
    size, read = workload.block_size, model.decoder(1)
    rng = np.random.default_rng(workloads.SEED)
    tokens = rng.integers(0, workload.vocab_size, (1, size + 2))
    for end in range(1, size + 3):
        found = read(tokens[:, end - 1 : end])
        if end in (1, 2, size // 2, size, size + 1, size + 2):
            expected = truth.logits(tokens[:, max(end - size, 0) : end])[:, -1]
            error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
            if not error <= LOGITS:
                raise DisagreementError(
                    f"WRONG: the logits in {backend} after {end} tokens have a relative error of "
                    f"{error:.1e}; {LOGITS:.0e} is allowed"
                )


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
