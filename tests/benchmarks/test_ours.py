"""Our side, in NumPy, at a tiny size."""

import itertools
from dataclasses import asdict

import numpy as np
import pytest
from helpers.errors import relative_error
from toys import TINY

from benchmarks import ours, works
from benchmarks.worker import Job
from tinygpt_np import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.ops import attention

SIZES = {"batch": 5, "time": 7, "n_head": 3, "head_size": 4}


def losses(job: Job, steps: int) -> list[float]:
    return [job.agreement(job.step(*job.draw()))[0] for _ in range(steps)]


def test_a_step_is_a_step_of_training() -> None:
    model = GPT(TINY.config, seed=works.SEED)
    optimizer = AdamW(model.params, 0.9, 0.99, 0.1)
    expected: list[float] = []
    for tokens, targets in itertools.islice(works.batches(TINY), 3):
        loss, grads = model.loss_and_grads(tokens, targets)
        optimizer.update(model.params, clip(grads, global_norm(grads), 1.0), 1e-3)
        expected.append(loss)
    job = ours.train(asdict(TINY), threads=1, backend="numpy", matmul="numba")
    assert losses(job, 3) == expected


def test_a_step_tells_the_norm_before_clipping() -> None:
    model = GPT(TINY.config, seed=works.SEED)
    _, grads = model.loss_and_grads(*next(works.batches(TINY)))
    job = ours.train(asdict(TINY), threads=1, backend="numpy", matmul="numba")
    assert job.agreement(job.step(*job.draw()))[1] == global_norm(grads)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_threads_of_attention_share_all_texts(threads: int) -> None:
    qkv, dy = works.attention_inputs(**SIZES)
    y, saved = attention.forward(qkv, SIZES["batch"], SIZES["n_head"])
    dqkv = attention.backward(dy, saved)
    found = ours.attention(SIZES, threads, "numpy").step()
    assert relative_error(np.concatenate([y for y, _ in found]), y) < 1e-6
    assert relative_error(np.concatenate([dqkv for _, dqkv in found]), dqkv) < 1e-6


def test_attention_agrees_on_the_norms_of_its_output_and_its_gradient() -> None:
    qkv, dy = works.attention_inputs(**SIZES)
    y, saved = attention.forward(qkv, SIZES["batch"], SIZES["n_head"])
    expected = works.norms([y], [attention.backward(dy, saved)])
    job = ours.attention(SIZES, 2, "numpy")
    assert job.agreement(job.step()) == pytest.approx(expected, rel=1e-6)
