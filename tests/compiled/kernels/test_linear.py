"""Operands, column sums and biases; test_matmul.py and test_twins.py test the results."""

from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import normals, poisoned

from tinygpt_np.compiled.kernels import linear

_, normal = normals(23)


@pytest.mark.parametrize("is_tied", [True, False])
def test_contiguous_operands_are_not_copied_and_gradients_are_contiguous(
    is_tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[np.ndarray] = []

    def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, scratch: Any) -> None:
        taken.extend((a, b))

    monkeypatch.setattr(linear, "matmul", matmul)
    x, dy, weight = normal(5, 7), normal(5, 3), normal(3, 7).T if is_tied else normal(7, 3)
    _, dweight, dbias = linear.backward(dy, linear.forward(x, weight)[1])
    for given, array in zip(taken, (x, weight, dy, weight, x, dy), strict=True):
        assert np.shares_memory(given, array)
    assert dweight.flags.c_contiguous
    assert dbias is None


@pytest.mark.parametrize("rows", [37, 65541])
def test_column_sums_and_a_bias_are_added_row_by_row(rows: int) -> None:
    x, bias, y = normal(rows, 19), normal(19), poisoned(rows, 19)
    linear.add_bias(x, bias, y)
    np.testing.assert_array_equal(y, x + bias)
    expected = bias.copy()
    for row in x:
        expected += row
    linear.add_column_sums(x, bias)
    np.testing.assert_array_equal(bias, expected)
