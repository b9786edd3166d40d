from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_twins import normals, plain, wide

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import linear
from tinygpt_np.compiled.simd.vectors import FUSED

_, normal = normals(23)
# (N, C, K)
SHAPES = [
    (1, 1, 1), (2, 3, 5), (13, 65, 17), (7, 16, 64), (97, 33, 65), (200, 193, 130),
    # As large as GPT-2: a head of a vocabulary, rows, widths, and depths past those of a block.
    (7, 5, 33001), (65541, 2, 3), (523, 5, 7), (3, 771, 20), (5, 4099, 3), (5, 3, 4099),
]  # fmt: skip
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
biased = pytest.mark.parametrize("has_bias", [True, False])
tied = pytest.mark.parametrize("is_tied", [True, False])
# Besides a rounding for each term of a sum.
PRODUCT = 0 if FUSED else 1


def inputs(
    shape: tuple[int, int, int], has_bias: bool, is_tied: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, weight (the token embedding's transpose, if tied), bias."""
    rows, width, outputs = shape
    weight = normal(outputs, width).T if is_tied else normal(width, outputs)
    return normal(rows, width), weight, normal(outputs) if has_bias else None


@shapes
@biased
@tied
def test_results_are_the_truth_but_for_rounding(
    shape: tuple[int, int, int], has_bias: bool, is_tied: bool
) -> None:
    rows, width, outputs = shape
    x, weight, bias = inputs(shape, has_bias, is_tied)
    dy = normal(rows, outputs)
    y, saved = linear.forward(x, weight, bias)
    dx, dweight, dbias = linear.backward(dy, saved)
    d, a, b, shift = wide(dy, x, weight, np.zeros(1) if bias is None else bias)
    # A sum of C products, to the bias.
    bound = gamma(width + PRODUCT) * (abs(a) @ abs(b) + abs(shift))
    assert_within(y, plain(ops.linear.forward)(a, b, shift)[0], bound)
    truth = plain(ops.linear.backward)(d, (a, b, False))
    assert_within(dx, truth[0], gamma(outputs + PRODUCT) * (abs(d) @ abs(b.T)))
    assert_within(dweight, truth[1], gamma(rows + PRODUCT) * (abs(a.T) @ abs(d)))
    assert dweight.flags.c_contiguous
    assert (dbias is None) == (not has_bias)
    if dbias is not None:
        assert_within(dbias, truth[2], gamma(rows) * abs(d).sum(axis=0))


def test_column_sums_are_added_to_what_is_there() -> None:
    dy, start = normal(37, 19), normal(19)
    dbias = start.copy()
    linear.add_column_sums(dy, dbias)
    d, before = wide(dy, start)
    assert_within(dbias, before + d.sum(axis=0), gamma(37) * (abs(before) + abs(d).sum(axis=0)))


@tied
def test_no_matrix_that_lies_well_is_copied(is_tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[np.ndarray] = []

    def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, room: Any) -> None:
        taken.extend((a, b))

    monkeypatch.setattr(linear, "matmul", matmul)
    x, weight, _ = inputs((5, 7, 3), False, is_tied)
    dy = normal(5, 3)
    linear.backward(dy, linear.forward(x, weight)[1])
    lying = (x, weight, dy, weight, x, dy)
    for given, array in zip(taken, lying, strict=True):
        assert np.shares_memory(given, array)


def test_a_bias_is_added_to_each_row() -> None:
    x, bias, y = normal(5, 19), normal(19), np.full((5, 19), np.nan, np.float32)
    linear.add_bias(x, bias, y)
    np.testing.assert_array_equal(y, x + bias)
