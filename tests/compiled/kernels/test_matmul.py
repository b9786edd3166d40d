"""The matmul kernel: the bits of one chain per sum, in every form and at every edge."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_chains import Guarded, chain
from helpers.kernel_twins import normals, poisoned
from numba import njit

from tinygpt_np.compiled.kernels.matmul import (
    DEPTH,
    FEW_ROWS,
    GROUP,
    HALF,
    PACKED,
    PANEL,
    PLAIN,
    STRETCH,
    STRIPE,
    TRANSPOSED,
    make_scratch,
    matmul,
    matmul_at,
    pack_columns,
    pack_matrix,
    packed_size,
)
from tinygpt_np.compiled.simd.memory import Arena, Matrix
from tinygpt_np.compiled.simd.vectors import FUSED, LANES, ROWS

_, normal = normals(21)


def around(*sizes: int) -> list[int]:
    return sorted({size + more for size in sizes for more in (-1, 0, 1) if size + more > 0})


# (M, K, N), one of them awkward at a time; then scratch that is used to its end, and all three past
# several blocks.
SHAPES = [
    *((rows, 37, PANEL + LANES + 3) for rows in around(1, ROWS, FEW_ROWS, STRIPE)),
    *(
        (FEW_ROWS + 1, depth, 65)
        for depth in [*around(1, 4, DEPTH), 17, STRETCH + 1, 2 * STRETCH + 1]
    ),
    *((7, 11, columns) for columns in [*around(1, LANES, HALF, PANEL), 65, PANEL + HALF + 5]),
    (STRIPE, STRETCH, 5),
    (STRIPE + 1, 19, GROUP + PANEL + 5),
    (STRIPE + 7, STRETCH + 9, 2 * PANEL + HALF + LANES + 5),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
BY_COLUMNS = -1
FORMS = (PLAIN, TRANSPOSED, PACKED, BY_COLUMNS)
STARTS = ("nothing", "bias", "matrix", "c itself")


def packed(b: np.ndarray, form: int) -> np.ndarray:
    """Pack b (K, N) in panels, the last part first, from b itself or from its transpose."""
    depth, columns = b.shape
    matrix = b if form == PLAIN else np.ascontiguousarray(b.T)
    panels = poisoned(1, packed_size(depth, columns))
    edges = [*range(0, columns, 2 * PANEL), columns]
    for first, end in reversed(list(pairwise(edges))):
        pack_columns(matrix, form, depth, first, end, panels)
    return panels


def in_form(b: np.ndarray, form: int) -> np.ndarray:
    """Return b (K, N) in a form of the second operand."""
    if form == TRANSPOSED:
        return np.ascontiguousarray(b.T)
    if form == PACKED:
        panels = poisoned(1, packed_size(*b.shape))
        pack_matrix(b, PLAIN, panels)
        return panels
    return packed(b, TRANSPOSED) if form == BY_COLUMNS else b


def start_of(kind: str, rows: int, columns: int) -> np.ndarray:
    return normal({"nothing": 0, "bias": 1}.get(kind, rows), columns)


def summand(start: np.ndarray) -> np.ndarray:
    return start if len(start) else np.zeros((1, 1), np.float32)


def used_scratch() -> np.ndarray:
    """Scratch memory in which earlier matmuls have left NaN."""
    scratch = make_scratch(Arena())
    scratch[PANEL:] = np.nan
    return scratch


@dataclass
class Call:
    """A matmul of guarded arrays: A, B, start and scratch between NaN, C between numbers."""

    a: Guarded
    b: Guarded
    start: Guarded
    c: Guarded
    scratch: Guarded


def call(a: np.ndarray, across: bool, b: np.ndarray, form: int, kind: str, start: Any) -> Call:
    """Run a matmul into an array of NaN."""
    c = start if kind == "c itself" else poisoned(len(a), b.shape[1])
    made = Call(
        Guarded(a.T if across else a, np.nan),
        Guarded(in_form(b, form), np.nan),
        Guarded(start, np.nan),
        Guarded(c, 12345),
        Guarded(used_scratch(), np.nan),
    )
    begin = made.c.array if kind == "c itself" else made.start.array
    form = PACKED if form == BY_COLUMNS else form
    matmul(made.a.array, across, made.b.array, form, begin, made.c.array, made.scratch.array)
    return made


def every_call(a: np.ndarray, b: np.ndarray, start: np.ndarray, kind: str) -> list[Call]:
    return [call(a, across, b, form, kind, start) for across in (False, True) for form in FORMS]


@shapes
@pytest.mark.parametrize("kind", STARTS)
def test_every_form_gives_the_bits_of_one_chain_and_writes_nothing_else(
    shape: tuple[int, int, int], kind: str
) -> None:
    rows, depth, columns = shape
    a, b, start = normal(rows, depth), normal(depth, columns), start_of(kind, rows, columns)
    truth = chain(a, b, summand(start))
    for made in every_call(a, b, start, kind):
        np.testing.assert_array_equal(made.c.array, truth)
        assert made.a.is_intact()
        assert made.b.is_intact()
        assert made.start.is_intact()
        assert made.c.surroundings_are_intact()
        assert made.scratch.surroundings_are_intact()
        # The zeros that sums start from.
        assert not made.scratch.array[:PANEL].any()


def test_a_chain_is_the_truth_within_rounding() -> None:
    a, b, start = normal(7, 300), normal(300, 65), normal(7, 65)
    wide, other, first = (each.astype(np.float64) for each in (a, b, start))
    # K roundings of a sum, and one of each product without fused multiply-adds.
    bound = gamma(300 if FUSED else 301) * (abs(wide) @ abs(other) + abs(first))
    assert_within(chain(a, b, start), wide @ other + first, bound)


@njit
def call_matmul_at(matrices: Any, across: Any, form: Any, shape: Any, scratch: Any) -> None:
    a, b, start, c = matrices
    rows, columns, depth = shape
    matmul_at(a, across, b, form, start, 1, c, rows, columns, depth, scratch.ctypes.data)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("form", [PLAIN, TRANSPOSED])
def test_matrices_may_be_parts_of_larger_ones(across: bool, form: int) -> None:
    rows, depth, columns = FEW_ROWS + 5, DEPTH + 3, 2 * PANEL + 5
    a, b, start = normal(rows, depth), normal(depth, columns), normal(rows, columns)
    kept = [a.T if across else a, b.T if form == TRANSPOSED else b, start, poisoned(rows, columns)]
    large: list[np.ndarray] = []
    for number, matrix in enumerate(kept):
        # NaN around what is read, a number around C; all four have different widths.
        around_it = np.pad(
            matrix, ((2, 3), (3 + number, 7)), constant_values=12345 if number == 3 else np.nan
        )
        large.append(np.ascontiguousarray(around_it))
    matrices = tuple(
        Matrix(m[2:, 3 + number :].ctypes.data, m.strides[0]) for number, m in enumerate(large)
    )
    call_matmul_at(matrices, across, form, (rows, columns, depth), used_scratch())
    expected = np.pad(chain(a, b, start), ((2, 3), (6, 7)), constant_values=12345)
    np.testing.assert_array_equal(large[3], expected)


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_the_rows_give_the_bits_of_the_whole(form: int) -> None:
    rows, depth, columns = STRIPE + 21, DEPTH + 5, PANEL + HALF + 3
    a, b, start = normal(rows, depth), normal(depth, columns), normal(rows, columns)
    for across in (False, True):
        whole = call(a, across, b, form, "matrix", start).c.array
        edges = [0, 1, ROWS + 1, ROWS + FEW_ROWS + 2, STRIPE + 3, rows]
        for first, end in pairwise(edges):
            part = call(a[first:end], across, b, form, "matrix", start[first:end])
            np.testing.assert_array_equal(part.c.array, whole[first:end])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of", ["a", "b", "start"])
@pytest.mark.parametrize("rows", [ROWS, FEW_ROWS + 4])
def test_nan_and_infinity_come_through_and_go_no_further(of: str, number: float, rows: int) -> None:
    depth, columns = DEPTH + 3, PANEL + LANES + 3
    a, b, start = normal(rows, depth), normal(depth, columns), normal(rows, columns)
    # Zeros, whose product with infinity is NaN; and places inside and outside of whole vectors.
    a[2, :], b[:, 5] = 0, 0
    matrix = {"a": a, "b": b, "start": start}[of]
    matrix[1, 4] = matrix[-1, -1] = number
    truth = chain(a, b, start)
    assert 0 < np.isfinite(truth).sum() < truth.size
    for made in every_call(a, b, start, "matrix"):
        np.testing.assert_array_equal(made.c.array, truth)


@pytest.mark.parametrize("columns", [*around(1, LANES, HALF, PANEL), 3 * PANEL + LANES + 1])
@pytest.mark.parametrize("depth", [1, LANES, LANES + 3])
def test_packing_fills_packed_size_numbers_and_no_more(depth: int, columns: int) -> None:
    b = normal(depth, columns)
    for form, matrix in ((PLAIN, b), (TRANSPOSED, np.ascontiguousarray(b.T))):
        panels = Guarded(poisoned(1, packed_size(depth, columns)), 12345)
        pack_matrix(matrix, form, panels.array)
        assert np.isfinite(panels.array).all()
        assert panels.surroundings_are_intact()


@pytest.mark.parametrize("columns", [LANES - 1, PANEL, 65, 5 * PANEL + HALF + 3])
def test_panels_are_the_same_from_any_form_and_in_any_parts(columns: int) -> None:
    b = normal(DEPTH + 7, columns)
    for form in (PLAIN, TRANSPOSED):
        np.testing.assert_array_equal(packed(b, form), in_form(b, PACKED))


def test_packing_a_part_leaves_the_other_panels_alone() -> None:
    depth, columns = 9, 3 * PANEL + 1
    panels = poisoned(1, packed_size(depth, columns))
    pack_columns(normal(depth, columns), PLAIN, depth, PANEL, 2 * PANEL, panels)
    written = np.isfinite(panels[0])
    assert written[depth * PANEL : 2 * depth * PANEL].all()
    assert written.sum() == depth * PANEL
