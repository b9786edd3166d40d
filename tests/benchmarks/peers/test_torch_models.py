"""PyTorch's models do the same work: same weights, same batches, same losses."""

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from helpers.optional import needs
from helpers.toy_jobs import TINY

from benchmarks.harness.jobs import Job
from benchmarks.models import tinygpt

needs("torch")
pytorch: Any = importlib.import_module("benchmarks.peers.torch_models")
SIZES = {"batch": 5, "time": 7, "n_head": 3, "head_size": 4}


def agreement(job: Job, steps: int) -> Sequence[float]:
    return [number for _ in range(steps) for number in job.agreement(job.step(*job.draw()))]


def test_losses_and_norms_of_five_steps_are_ours() -> None:
    expected = agreement(tinygpt.train(asdict(TINY), 1, "numpy", "numba"), 5)
    found = agreement(pytorch.train(asdict(TINY), 1, compiled=False), 5)
    assert found == pytest.approx(expected, rel=2e-4)


def test_logits_to_sample_from_are_ours() -> None:
    expected = tinygpt.sample(asdict(TINY), 9, "numpy", cached=False).agreement(None)
    found = pytorch.sample(asdict(TINY), 9, 1).agreement(None)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_sampled_text_has_its_length_and_begins_anew_from_the_seed() -> None:
    job = pytorch.sample(asdict(TINY), 9, 1)
    drawn = [int(job.step()) for _ in range(2 + 9 + 9)]
    assert drawn[:2] == drawn[2:4]
    assert drawn[2:11] == drawn[11:]


@pytest.mark.parametrize("from_qkv", [True, False])
def test_attention_and_its_gradient_are_ours(from_qkv: bool) -> None:
    expected = agreement(tinygpt.attention(SIZES, 1, "numpy"), 1)
    found = agreement(pytorch.attention(SIZES, 1, from_qkv), 1)
    assert found == pytest.approx(expected, rel=1e-6)
