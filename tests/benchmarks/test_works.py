"""Sizes and FLOPs of what is trained."""

import itertools

import numpy as np
import pytest
from toys import TINY

from benchmarks import works
from benchmarks.works import WORKS, Work
from tinygpt_np.storage.parameters import param_shapes


def counted_multiply_adds(work: Work) -> int:
    """Those of a training step, by going through the loops of its matrix products one by one."""
    C, V = work.n_embd, work.vocab_size
    head_size, N = C // work.n_head, work.batch_size * work.block_size
    block = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)]
    count = 0
    for fan_in, fan_out in [*(block * work.n_layer), (C, V)]:
        for _ in itertools.product(range(N), range(fan_in), range(fan_out)):
            count += 3  # y, dx and dweight
    heads = work.n_layer * work.batch_size * work.n_head
    for _, query, key in itertools.product(
        range(heads), range(work.block_size), range(work.block_size)
    ):
        if key <= query:
            for _ in range(head_size):
                count += 2  # scores and y
                count += 4  # dprobs, dv, dq and dk
    return count


def test_the_flops_of_a_step_are_two_for_each_multiply_add_of_its_loops() -> None:
    assert works.step_flops(TINY) == 2 * counted_multiply_adds(TINY)


@pytest.mark.parametrize("name", WORKS)
def test_parameters_that_multiply_are_all_matrices_but_the_positions(name: str) -> None:
    shapes = param_shapes(WORKS[name].config)
    matrices = [s for n, s in shapes.items() if len(s) == 2 and n != "wpe.weight"]
    assert works.multiplying_params(WORKS[name]) == sum(rows * cols for rows, cols in matrices)


def test_targets_are_the_tokens_that_follow() -> None:
    tokens, targets = next(works.batches(TINY))
    assert tokens.shape == targets.shape == (4, 5)
    assert np.array_equal(tokens[:, 1:], targets[:, :-1])


def test_every_side_draws_the_same_batches() -> None:
    for (ours, _), (theirs, _) in itertools.islice(
        zip(works.batches(TINY), works.batches(TINY), strict=True), 3
    ):
        assert np.array_equal(ours, theirs)


def test_each_step_has_a_batch_of_its_own() -> None:
    (first, _), (second, _) = itertools.islice(works.batches(TINY), 2)
    assert not np.array_equal(first, second)


def test_norms_do_not_depend_on_how_numbers_are_grouped() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6))
    assert works.norms([x]) == pytest.approx(works.norms([x[:, 1:].T, x[:, :1]]), rel=1e-14)
