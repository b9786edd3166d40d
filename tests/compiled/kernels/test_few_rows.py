"""Matmuls of a few rows: the bits of matmul.py, or right within rounding if transposed."""

import numpy as np
import pytest

from tinygpt_np.compiled.kernels import few_rows, matmul
from tinygpt_np.compiled.simd.memory import Arena, Matrix

EPS = float(np.finfo(np.float32).eps)
# Depths and columns below, at and above the sizes of blocks and vectors.
DEPTHS, COLUMNS = (1, 8, 9, 77, 131), (1, 15, 16, 64, 83)
every_size = pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [(rows, depth, columns) for rows in (1, 3) for depth in DEPTHS for columns in COLUMNS]
    + [(2, 4099, 3), (2, 5, 33_001)],
)


def operands(rows: int, depth: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows * depth * columns)
    shapes = (rows, depth), (depth, columns), (rows, columns)
    a, b, start = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return a, b, start


def guarded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy whose rows are followed by NaN, and the array that holds both."""
    whole = np.full((len(values) + 1, values.shape[1] + 3), np.nan, np.float32)
    whole[:-1, :-3] = values
    return whole[:-1, :-3], whole


def matrix(array: np.ndarray) -> Matrix:
    return Matrix(array.ctypes.data, array.strides[0])


@every_size
def test_the_bits_are_those_of_matmul_and_nothing_else_is_written(
    rows: int, depth: int, columns: int
) -> None:
    a, b, start = operands(rows, depth, columns)
    c, whole = guarded(start)
    few_rows.matmul(matrix(a), matrix(b), matrix(c), rows, columns, depth)
    scratch = matmul.make_scratch(Arena())
    matmul.matmul(a, False, b, matmul.PLAIN, start, start, scratch)
    np.testing.assert_array_equal(c, start)
    assert np.isnan(whole[-1]).all()
    assert np.isnan(whole[:, -3:]).all()


@every_size
def test_a_transposed_matmul_is_right_and_each_row_has_the_bits_it_has_alone(
    rows: int, depth: int, columns: int
) -> None:
    a, b, start = operands(rows, depth, columns)
    transposed = np.ascontiguousarray(b.T)

    def computed(a: np.ndarray) -> np.ndarray:
        c, whole = guarded(start[: len(a)])
        few_rows.matmul_transposed(matrix(a), matrix(transposed), matrix(c), len(a), columns, depth)
        assert np.isnan(whole[-1]).all()
        assert np.isnan(whole[:, -3:]).all()
        return c

    found = computed(a)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    bound = (depth + 1) * EPS * (np.abs(a64) @ np.abs(b64))
    assert (np.abs(found - a64 @ b64) <= bound).all()
    for row in range(rows):
        np.testing.assert_array_equal(computed(a[row : row + 1])[0], found[row])
