"""Matmuls of a few rows: the bits of matmul.py, or right within rounding if transposed."""

from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, matrix, normals, wide
from numba import njit

from benchmarks.cases.rounding import gamma
from tinygpt_np.compiled.kernels import few_rows, matmul
from tinygpt_np.compiled.simd.memory import Arena

_, normal = normals(19)


@njit
def call_matmul(*arguments: Any) -> None:
    few_rows.matmul(*arguments)


@njit
def call_matmul_transposed(*arguments: Any) -> None:
    few_rows.matmul_transposed(*arguments)


# Depths and columns below, at and above the sizes of blocks and vectors.
@pytest.mark.parametrize("depth", [1, 8, 9, 131, 4099])
@pytest.mark.parametrize("columns", [1, 15, 16, 83, 2100])
def test_results_are_those_of_matmul_and_nothing_else_is_written(depth: int, columns: int) -> None:
    a, b, start = normal(3, depth), normal(depth, columns), normal(3, columns)
    whole = np.full((4, columns + 3), np.nan, np.float32)
    c = whole[:3, :columns]
    c[...] = start
    call_matmul(matrix(a), matrix(b), matrix(c), 3, columns, depth)
    scratch = matmul.make_scratch(Arena())
    matmul.matmul(a, False, b, matmul.PLAIN, start, start, scratch)
    np.testing.assert_array_equal(c, start)
    transposed, one = np.ascontiguousarray(b.T), np.empty((1, columns), np.float32)
    call_matmul_transposed(matrix(a), matrix(transposed), matrix(c), 3, columns, depth)
    a64, b64 = wide(a, b)
    assert_within(c, a64 @ b64, 2 * gamma(depth + 1) * (np.abs(a64) @ np.abs(b64)))
    for row in range(3):  # Each has the bits that it has alone.
        call_matmul_transposed(
            matrix(a[row : row + 1]), matrix(transposed), matrix(one), 1, columns, depth
        )
        np.testing.assert_array_equal(one[0], c[row])
    assert np.isnan(whole[-1]).all()
    assert np.isnan(whole[:, -3:]).all()
