"""The matmul kernel: the bits of one chain per sum, in every form and at every edge."""

import ctypes
import mmap
from itertools import pairwise

import numpy as np
import pytest
from helpers.kernel_chains import Guarded, chain
from helpers.kernel_twins import normals, poisoned

from tinygpt_np.compiled.kernels.matmul import (
    DEPTH,
    EDGE,
    FEW_ROWS,
    GROUP,
    HALF,
    MOST_TURNED,
    PACKED,
    PANEL,
    PANELS,
    PLAIN,
    SIZES,
    SMALL,
    STRETCH,
    STRIPE,
    STRIPES,
    TRANSPOSED,
    TURNED,
    make_scratch,
    matmul,
    pack_columns,
    pack_matrix,
    packed_size,
)
from tinygpt_np.compiled.simd.blocks import Blocks
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, ROWS

_, normal = normals(21)


def around(*sizes: int) -> list[int]:
    return sorted({size + more for size in sizes for more in (-1, 0, 1) if size + more > 0})


# A B that is neither read in place nor packed at once, and a C that is transposed in two parts.
COLUMNS = 2 * GROUP + PANEL + 21
LARGE = SMALL // COLUMNS + 1, COLUMNS
assert (MOST_TURNED - 6) * COLUMNS > TURNED

# Two ways: a small B is packed or not, and A is copied tile by tile or as it is.
OTHER_BLOCKS = [Blocks(0, 1), Blocks(1 << 17, 1 << 20)]

# (M, K, N), one of them awkward at a time; then scratch that is used to its end, and all three past
# several blocks.
SHAPES = [
    *((rows, 37, PANEL + LANES + 3) for rows in around(1, ROWS, FEW_ROWS, STRIPE)),
    *(
        (FEW_ROWS + 1, depth, 65)
        for depth in [*around(1, 4, DEPTH), 17, STRETCH + 1, 2 * STRETCH + 1]
    ),
    *((7, 11, columns) for columns in [*around(1, LANES, HALF, PANEL), 65, PANEL + HALF + 5]),
    # As large as GPT-2: a head of a vocabulary, rows, depths.
    *((7, 5, 33001), (65541, 2, 3), (5, 4099, 3)),
    (STRIPE, STRETCH, 5),
    (STRIPE + 1, 19, GROUP + PANEL + 5),
    (STRIPE + 7, STRETCH + 9, 2 * PANEL + HALF + LANES + 5),
    (MOST_TURNED + 1, *LARGE),
    (MOST_TURNED - 6, *LARGE),
    (FEW_ROWS + 1, STRETCH + 9, COLUMNS),
]


def packed(b: np.ndarray, form: int) -> np.ndarray:
    """Pack b (K, N), which is kept in a form, by columns, the last part first."""
    matrix = b if form == PLAIN else np.ascontiguousarray(b.T)
    panels = poisoned(1, packed_size(*b.shape))
    edges = [*range(0, b.shape[1], 2 * PANEL), b.shape[1]]
    for first, end in reversed(list(pairwise(edges))):
        pack_columns(matrix, form, len(b), first, end, panels)
    return panels


def assert_chain(
    a: np.ndarray, b: np.ndarray, start: np.ndarray, is_c: bool = False, sizes: Blocks | None = None
) -> None:
    """Check c = start + a·b in every form, of arrays between NaN, into NaN between numbers."""
    truth = chain(a, b, start if len(start) else np.zeros((1, 1), np.float32))
    transposed = np.ascontiguousarray(b.T)
    forms = [(b, PLAIN), (transposed, TRANSPOSED), (packed(b, PLAIN), PACKED)]
    for across in (False, True):
        for operand, form in forms:
            left = Guarded(np.ascontiguousarray(a.T) if across else a, np.nan)
            right, begin = Guarded(operand, np.nan), Guarded(start, np.nan)
            c = Guarded(start if is_c else poisoned(len(a), b.shape[1]), 12345)
            scratch = Guarded(make_scratch(Arena(), sizes), np.nan)
            scratch.array[EDGE:] = np.nan  # Left there by earlier matmuls.
            first = c.array if is_c else begin.array
            matmul(left.array, across, right.array, form, first, c.array, scratch.array)
            np.testing.assert_array_equal(c.array, truth)
            assert all(each.is_intact() for each in (left, right, begin))
            assert c.surroundings_are_intact()
            assert scratch.surroundings_are_intact()
            # The zeros that sums start from, and the sizes.
            np.testing.assert_array_equal(scratch.array[:EDGE], scratch.values[:EDGE])
            assert not scratch.array[:SIZES].any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["nothing", "bias", "matrix", "c itself"])
def test_every_form_gives_the_bits_of_one_chain_and_writes_nothing_else(
    shape: tuple[int, int, int], kind: str
) -> None:
    rows, depth, columns = shape
    start = normal({"nothing": 0, "bias": 1}.get(kind, rows), columns)
    assert_chain(normal(rows, depth), normal(depth, columns), start, kind == "c itself")


@pytest.mark.parametrize("sizes", OTHER_BLOCKS, ids=str)
@pytest.mark.parametrize("rows", [ROWS + 1, LANES + ROWS - 1, STRIPE + 1, 2 * STRIPE + LANES - 1])
@pytest.mark.parametrize("depth", [1, STRETCH, STRETCH + 1])
def test_bits_do_not_depend_on_sizes_that_were_chosen_for_the_processor(
    sizes: Blocks, rows: int, depth: int
) -> None:
    assert_chain(normal(rows, depth), normal(depth, PANEL + LANES + 3), normal(0, 1), sizes=sizes)


@pytest.mark.parametrize("in_place", [0, 1 << 15])
@pytest.mark.parametrize("by_tiles", [1, 3, 1 << 20])
def test_the_sizes_decide_what_is_copied_and_how(in_place: int, by_tiles: int) -> None:
    rows, depth, columns = FEW_ROWS + 2, 3, 2 * PANEL
    a, b, c = normal(depth, rows), normal(depth, columns), poisoned(rows, columns)
    scratch = make_scratch(Arena(), Blocks(in_place, by_tiles))
    scratch[PANELS:] = np.nan
    matmul(a, True, b, PLAIN, normal(1, columns), c, scratch)
    panels = scratch[PANELS : PANELS + PANEL]
    np.testing.assert_array_equal(panels, np.nan if in_place else b[0, :PANEL])
    strip = ROWS if by_tiles <= depth else rows
    np.testing.assert_array_equal(scratch[STRIPES : STRIPES + strip], a[0, :strip])
    after = scratch[STRIPES + strip : STRIPES + strip + ROWS]
    np.testing.assert_array_equal(after, a[1, :ROWS] if by_tiles <= depth else np.nan)


def before_a_wall(array: np.ndarray) -> np.ndarray:
    """Return a copy that ends where a page begins that the process may not read."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + size), page, 0) == 0
    found = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes)
    found[...] = array.reshape(-1)
    return found.reshape(array.shape)


@pytest.mark.parametrize("sizes", OTHER_BLOCKS, ids=str)
@pytest.mark.parametrize("across", [False, True])
def test_nothing_is_read_after_the_end_of_an_array(sizes: Blocks, across: bool) -> None:
    for rows in (*around(ROWS, LANES), STRIPE + 1):
        a, b = normal(rows, 19), normal(19, PANEL + 3)
        arrays = (np.ascontiguousarray(a.T) if across else a, b, normal(1, PANEL + 3))
        left, right, start = map(before_a_wall, arrays)
        c, scratch = before_a_wall(poisoned(rows, PANEL + 3)), make_scratch(Arena(), sizes)
        matmul(left, across, right, PLAIN, start, c, scratch)
        np.testing.assert_array_equal(c, chain(a, b, start))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of", [0, 1, 2])
@pytest.mark.parametrize("rows", [ROWS, FEW_ROWS + 4])
def test_nan_and_infinity_come_through_and_go_no_further(of: int, number: float, rows: int) -> None:
    depth, columns = DEPTH + 3, PANEL + LANES + 3
    a, b, start = normal(rows, depth), normal(depth, columns), normal(rows, columns)
    # Zeros, whose product with infinity is NaN; and places inside and outside of whole vectors.
    a[2, :], b[:, 5] = 0, 0
    matrix = (a, b, start)[of]
    matrix[1, 4] = matrix[-1, -1] = number
    assert_chain(a, b, start)


@pytest.mark.parametrize("columns", [*around(1, LANES, HALF, PANEL), 5 * PANEL + HALF + 3])
@pytest.mark.parametrize("depth", [1, LANES + 3, DEPTH + 7])
def test_panels_are_the_same_from_any_form_in_any_parts_and_end_in_zeros(
    depth: int, columns: int
) -> None:
    b = normal(depth, columns)
    panels = Guarded(poisoned(1, packed_size(depth, columns)), 12345)
    pack_matrix(b, PLAIN, panels.array)
    assert np.isfinite(panels.array).all()
    assert panels.surroundings_are_intact()
    for form in (PLAIN, TRANSPOSED):
        np.testing.assert_array_equal(packed(b, form), panels.array)
