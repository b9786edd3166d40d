from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_twins import normals, plain, poisoned, wide

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import linear
from tinygpt_np.compiled.simd.vectors import FUSED

_, normal = normals(23)
tied = pytest.mark.parametrize("is_tied", [True, False])
# Besides a rounding for each term of a sum.
PRODUCT = 0 if FUSED else 1


@tied
@pytest.mark.parametrize("shape", [
    (1, 1, 1), (2, 3, 5), (13, 65, 17), (200, 193, 130),
    # As large as GPT-2: a head of a vocabulary, rows, widths, and depths past those of a block.
    (7, 5, 33001), (65541, 2, 3), (3, 771, 20), (5, 4099, 3), (5, 3, 4099),
], ids=str)  # fmt: skip
def test_results_are_the_truth_but_for_rounding(shape: tuple[int, int, int], is_tied: bool) -> None:
    rows, width, outputs = shape
    x, dy = normal(rows, width), normal(rows, outputs)
    weight = normal(outputs, width).T if is_tied else normal(width, outputs)
    for bias in (normal(outputs), None):
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
        assert (dbias is None) == (bias is None)
        if dbias is not None:
            assert_within(dbias, truth[2], gamma(rows) * abs(d).sum(axis=0))


@tied
def test_contiguous_operands_are_not_copied(is_tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[np.ndarray] = []

    def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, scratch: Any) -> None:
        taken.extend((a, b))

    monkeypatch.setattr(linear, "matmul", matmul)
    x, dy, weight = normal(5, 7), normal(5, 3), normal(3, 7).T if is_tied else normal(7, 3)
    linear.backward(dy, linear.forward(x, weight)[1])
    for given, array in zip(taken, (x, weight, dy, weight, x, dy), strict=True):
        assert np.shares_memory(given, array)


def test_column_sums_and_a_bias_are_added_row_by_row() -> None:
    x, bias, y = normal(37, 19), normal(19), poisoned(37, 19)
    linear.add_bias(x, bias, y)
    np.testing.assert_array_equal(y, x + bias)
    expected = bias.copy()
    for row in x:
        expected += row
    linear.add_column_sums(x, bias)
    np.testing.assert_array_equal(bias, expected)
