"""Training step, attention, sampling and generation: candidates, agreement, rounds and results."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.optional import needs
from helpers.toy_jobs import TINY, entry

from benchmarks import experiments
from benchmarks.experiments import Entry, Experiment
from benchmarks.harness.process import WorkerError
from benchmarks.harness.rounds import Comparison, DisagreementError
from benchmarks.models import gpt2, tinygpt, workloads
from benchmarks.worker import named
from benchmarks.worker.jobs import WARM_UP_STEPS, Job
from tinygpt_np.compiled.simd.vectors import LANES
from tinygpt_np.model.decoder import Decoder
from tinygpt_np.model.gpt import GPT

pytestmark = pytest.mark.slow  # Whole runs, in several processes.

SIZES = {"batch": 5, "time": 7, "n_head": 6, "n_kv_head": 2, "head_size": 4}
TOKENS = 11


# Agreement, rounds and results


def compare(*entries: Entry) -> Comparison:
    return experiments.compare(Experiment("toys", {}, entries, 1, 1, 2), 1, lambda _: None)


def test_candidates_that_agree_are_timed_and_one_that_fails_says_why(
    toys: None,
) -> None:
    absent = replace(entry("absent", True), by="no_package")
    found = compare(
        entry("a", agreement=[2.0, 3.0]), entry("b", True, agreement=[2.0001, 3.0]),
        entry("c", True), entry("d", True, fails_at=1), absent,
    )  # fmt: skip
    assert [(row["rung"], len(row["turns"])) for row in found.record["rows"]] == [
        ("a", 1), ("b", 1), ("c", 1), ("d", 0),
    ]  # fmt: skip
    assert [limit["name"] for limit in found.record["limits"]] == ["peak"]
    assert found.record["flops"] == 1  # The toy's FLOPs are the threads of its environment.
    failed = found.record["rows"][-1]
    assert failed["failed"] == "ArithmeticError: the toy is broken"
    assert "in step" in failed["traceback"]
    assert found.left_out == {"no_package": "not installed: pip install '.[bench]'"}
    with pytest.raises(WorkerError, match="a: ArithmeticError: the toy is broken"):
        compare(entry("a", fails_at=1), entry("b"))  # The first must run.


@pytest.mark.parametrize("theirs", [2.01, float("nan")])
def test_a_candidate_that_computes_something_else_is_refused(toys: None, theirs: float) -> None:
    message = rf"b does not compute the same as a: {theirs}, {theirs}, not 2, 2$"
    with pytest.raises(DisagreementError, match=message):
        compare(entry("a", agreement=[2.0]), entry("b", True, agreement=[theirs]))


def test_ctrl_c_writes_the_complete_rounds_and_starts_nothing_else(
    tmp_path: Path, toys: None
) -> None:
    path = tmp_path / "all.json"
    stopped = Experiment("toys", {}, [entry("a", interrupts_at=WARM_UP_STEPS + 5)], 9, 1, 2)
    found = [stopped, replace(stopped, name="next")]
    assert not experiments.run("train", found, {"threads": 1}, path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert not written["complete"]
    assert [(found["name"], found["rounds"]) for found in written["cases"]] == [("toys", 2)]


def test_training_and_sampling_run_and_are_written(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(workloads.WORKLOADS, "cpu", TINY)
    monkeypatch.setattr(experiments, "TOKENS", TOKENS)
    monkeypatch.setattr(experiments, "find_spec", Mock(return_value=None))  # Without PyTorch.
    train, sample = tmp_path / "train.json", tmp_path / "sample.json"
    assert experiments.train(["cpu", "cpu"], 1, None, "numpy", "numba", train)
    assert experiments.sample(1, 2, sample)
    (step,), parts = (json.loads(path.read_text())["cases"] for path in (train, sample))
    assert (step["name"], step["rounds"], len(step["rows"])) == ("tiny", 2, 1)
    assert step["rows"][0]["fraction"][0] > 0
    assert step["rows"][0]["memory"] > 1e6
    names = [f"sample, {part}" for part in ("all 11 tokens", "the first 4", "the other 7")]
    assert [part["name"] for part in parts] == names
    assert [row["rung"] for row in parts[0]["rows"]] == ["recompute", "NumPy", "Numba"]


def test_the_parts_of_a_sequence_are_the_means_of_their_tokens() -> None:
    record = {"rounds": 2, "rows": [{"rung": "ours", "turns": [[1.0, 1.0, 2.0, 4.0], None]}]}
    parts = experiments.parts_of(record, first=2, tokens=4)
    turns = [part["rows"][0]["turns"] for part in parts]
    assert turns == [[[2.0], None], [[1.0], None], [[3.0], None]]


# Jobs


def steps(job: Job, count: int) -> list[list[float]]:
    return [job.agreement(job.step(*job.draw())) for _ in range(count)]


def test_compiled_training_and_attention_on_threads_do_the_same_work() -> None:
    expected, found = (
        steps(tinygpt.train(asdict(TINY), 1, backend, "numba"), 3) for backend in ("numpy", "numba")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    expected, found = (steps(tinygpt.attention(SIZES, n, "numpy"), 1) for n in (1, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("backend", "cached"), [("numpy", True), ("numpy", False), ("numba", True)]
)
def test_a_turn_after_the_warm_up_is_the_sequence_that_generate_makes(
    backend: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GPT(TINY.config)
    model.params = workloads.sampling_params(TINY)
    expected = [int(t) for t in model.generate(np.zeros(1, np.int64), TOKENS, seed=workloads.SEED)]
    norms = tinygpt.sample(asdict(TINY), TOKENS, "numpy", True).agreement(None)
    if not cached:
        monkeypatch.setattr(Decoder, "read", None)
    job = tinygpt.sample(asdict(TINY), TOKENS, backend, cached)
    found = [int(job.step()) for _ in range(WARM_UP_STEPS + 2 * TOKENS)]
    assert found[WARM_UP_STEPS:] == 2 * expected  # The sequences follow one another.
    assert job.agreement(None) == pytest.approx(norms, rel=1e-5)
    assert len(norms) == 4


# Generation from a GPT-2 checkpoint

SMALL = replace(gpt2.CONFIG, vocab_size=90, block_size=40, n_layer=2, n_head=2, n_embd=16)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "CONFIG", SMALL)
    monkeypatch.setattr(gpt2, "LENGTHS", {"text": (5, 7), "first": (9, 1)})


def test_transformers_generates_the_same_text_from_the_checkpoint(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("transformers")
    names: list[list[str]] = []

    def run(benchmark: str, found: Iterable[Experiment], *options: Any) -> bool:
        assert (benchmark, *options) == ("pretrained", {"threads": 2}, None)
        for experiment in found:
            names.append([each.name for each in experiment.entries])
            jobs = [named(each.build)(**each.options) for each in experiment.entries[:2]]
            ours, theirs = (job.agreement(job.step()) for job in jobs)
            assert ours == theirs
            assert len(ours) == experiment.tokens
        return True

    monkeypatch.setattr(experiments, "run", run)
    assert experiments.pretrained(2, 3, None)
    # Reading all weights bounds a text, but not a first token.
    assert names == [["ours", "transformers", "read weights"], ["ours", "transformers"]]


def test_reading_reads_every_weight_once_per_token_and_flops_are_those_of_the_products(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.models import reading

    before, sizes = reading.read, list[int]()

    def watched(values: np.ndarray, total: np.ndarray, times: int) -> None:
        values[...] = 1
        total[...] = 0
        before(values, total, times)
        assert total.sum() == values.size
        sizes.append(values.size)

    monkeypatch.setattr(reading, "read", watched)
    reading.read_weights("", 5, 3, 2).step()
    assert len(sizes) == 3 * 2
    params = GPT(SMALL).params
    weights = sum(param.size for param in params.values())
    assert weights - 2 * 8 * LANES < sum(sizes) / 3 <= weights
    blocks = sum(p.size for n, p in params.items() if p.ndim == 2 and n.startswith("h."))
    assert gpt2.flops(5, 7) == 2 * (11 * blocks + 7 * params["wte.weight"].size)


# Workloads


def test_the_flops_of_a_step_are_two_for_each_multiply_add_of_its_loops() -> None:
    L, H, C, T, B, V = 2, 3, 12, 5, 4, 11
    assert (TINY.n_layer, TINY.n_head, TINY.n_embd, TINY.tokens) == (L, H, C, B * T)
    weights = L * (C * 3 * C + C * C + 2 * C * 4 * C) + C * V
    pairs = L * B * H * sum(range(1, T + 1))  # of a query and a visible key
    # y, dx and dweight; scores, y, dprobs, dv, dq and dk.
    assert workloads.step_flops(TINY) == 2 * (3 * B * T * weights + 6 * pairs * C // H)


def test_batches_are_the_same_for_all_and_new_in_each_step() -> None:
    (first, targets), (second, _) = itertools.islice(workloads.batches(TINY), 2)
    assert first.shape == targets.shape == (4, 5)
    assert np.array_equal(first[:, 1:], targets[:, :-1])
    assert not np.array_equal(first, second)
    assert np.array_equal(first, next(workloads.batches(TINY))[0])
