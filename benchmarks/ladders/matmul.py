"""Matrix product C = A·B, in the three directions of a linear layer: A or B may lie transposed.

Gains over the rung before on one thread, as forward / dx / dweight, at lecture unless said:

Python      lists; at cpu 0.07 GFLOP/s.
loops       compiled: 34 to 45 at cpu. Numbers of B are a row apart from step to step, or of A, or
            each sum waits for itself: no vectors.
reordered   9 / 8 / 13: the innermost loop runs along memory. For dx it did so already; there its
            sums may be regrouped.
blocked     1.5 / 1.8 / 1.6; 0.9 to 1.0 at cpu, where B fits into the second cache as it is.
packed      1.0 / 0.7 / 1.1, 0.6 to 0.9 at cpu: a step back, for copying costs and the loop is the
            same. But B now lies the same way in all directions, for one loop to be made good.
four by four  2.7 / 2.6 / 2.3: until here each multiply-add loaded two vectors and stored one, which
            was the limit; now 16 of them load eight and store four.
tile        2.1 / 2.4 / 1.9: sums in registers, and wider vectors than Numba chooses.
trained     1.0 / 1.0 / 1.1, 1.0 at cpu, 1.03 to 1.15 at gpt2: blocks for the caches and asking
            ahead are for matrices that are far away.
parallel    1.7 / 1.4 / 1.1 on two threads; 0.6 to 0.8 at cpu, where waking one takes longer. The
            same kernel on rows of C; each thread packs B for itself.

Tried without gain, as speeds beside the rung that does it otherwise, so below 1 is slower:
regrouped sums in "loops" 1.0 forward and for dweight (for dx they are "reordered"); "reordered"
without fused multiply-adds 1.0; blocks as views of columns 0.15, for the compiler cannot know then
that rows are contiguous; blocks of 128 x 512 to 128 x 1024 0.9 to 1.2, of 256 x 1024 0.8; a panel
of 32 columns with its sums in a small array, in the hope of registers, 0.3 of "packed"; four steps
of one row 0.5 and eight 0.5 of "four by four"; all of B packed before "trained" 1.0.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way, direct
from tinygpt_np.compiled.cache import exact, kernel
from tinygpt_np.compiled.kernels import matmul as trained
from tinygpt_np.compiled.kernels.matmul import PANEL, PLAIN, ROWS, TRANSPOSED, make_room, matmul
from tinygpt_np.compiled.simd.memory import Arena

# How A and B lie in each direction, in the words of kernels/matmul.py: across and form.
LIE = {"forward": (False, PLAIN), "dx": (False, TRANSPOSED), "dweight": (True, PLAIN)}
NOTHING = np.zeros((0, 1), np.float32)
# A block of B: 128 KiB, which stay in the second cache, and a row of it and one of C in the first.
DEPTH, WIDTH = 64, 512
# Rows of a transposed B in a block.
MANY = 64


def in_python(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    columns = b.T.tolist()
    for i, row in enumerate(a.tolist()):
        c[i] = [sum(map(operator.mul, row, column)) for column in columns]


@exact
def loops(a: Any, b: Any, c: Any) -> None:
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@kernel
def reordered(a: Any, b: Any, c: Any) -> None:
    c[...] = 0
    for i in range(c.shape[0]):
        for k in range(a.shape[1]):
            for j in range(c.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@kernel
def dots(a: Any, stored: Any, c: Any) -> None:
    """Here the loops lie right as they were; only, their sums may be regrouped."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * stored[j, k]
            c[i, j] = total


@kernel
def blocked(a: Any, b: Any, c: Any) -> None:
    c[...] = 0
    for first in range(0, c.shape[1], WIDTH):
        for low in range(0, a.shape[1], DEPTH):
            for i in range(c.shape[0]):
                row = c[i, first : first + WIDTH]
                for k in range(low, min(low + DEPTH, a.shape[1])):
                    factor, source = a[i, k], b[k, first : first + WIDTH]
                    for j in range(row.size):
                        row[j] += factor * source[j]


@kernel
def blocked_dots(a: Any, stored: Any, c: Any) -> None:
    for first in range(0, c.shape[1], MANY):
        dots(a, stored[first : first + MANY], c[:, first : first + MANY])


@kernel
def add_row(factors: Any, panel: Any, row: Any) -> None:
    """row += factors · panel."""
    for k in range(factors.size):
        for j in range(row.size):
            row[j] += factors[k] * panel[k, j]


@kernel
def add_four_rows(a: Any, panel: Any, rows: Any, first: Any, last: Any) -> None:
    """Four rows += A (4, steps) · panel: at once 16 multiply-adds, of 4 numbers of each."""
    row0, row1, row2, row3 = (rows[0, first:last], rows[1, first:last],
                              rows[2, first:last], rows[3, first:last])  # fmt: skip
    whole = a.shape[1] // 4 * 4
    for k in range(0, whole, 4):
        a00, a01, a02, a03 = a[0, k], a[0, k + 1], a[0, k + 2], a[0, k + 3]
        a10, a11, a12, a13 = a[1, k], a[1, k + 1], a[1, k + 2], a[1, k + 3]
        a20, a21, a22, a23 = a[2, k], a[2, k + 1], a[2, k + 2], a[2, k + 3]
        a30, a31, a32, a33 = a[3, k], a[3, k + 1], a[3, k + 2], a[3, k + 3]
        for j in range(row0.size):
            b0, b1, b2, b3 = panel[k, j], panel[k + 1, j], panel[k + 2, j], panel[k + 3, j]
            row0[j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
            row1[j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
            row2[j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
            row3[j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
    for i in range(4):
        add_row(a[i, whole:], panel[whole:], rows[i, first:last])


@kernel
def one_by_one(a: Any, panel: Any, c: Any, first: Any) -> None:
    """WIDTH columns of C from `first` on += A · panel."""
    for i in range(c.shape[0]):
        add_row(a[i], panel, c[i, first : first + WIDTH])


@kernel
def four_by_four(a: Any, panel: Any, c: Any, first: Any) -> None:
    whole, last = c.shape[0] // 4 * 4, first + WIDTH
    for i in range(0, whole, 4):
        add_four_rows(a[i : i + 4], panel, c[i : i + 4], first, last)
    for i in range(whole, c.shape[0]):
        add_row(a[i], panel, c[i, first:last])


def over_panels(add: Any) -> Any:
    """A product by blocks of B that are copied to one place, row behind row."""

    @kernel
    def product(a: Any, b: Any, c: Any, panel: Any) -> None:
        c[...] = 0
        for first in range(0, c.shape[1], WIDTH):
            for low in range(0, a.shape[1], DEPTH):
                block = b[low : low + DEPTH, first : first + WIDTH]
                for k in range(block.shape[0]):
                    for j in range(block.shape[1]):
                        panel[k, j] = block[k, j]
                add(a[:, low : low + DEPTH], panel, c, first)

    return product


packed, grouped = over_panels(one_by_one), over_panels(four_by_four)


@exact
def tiled(a: Any, across: Any, b: Any, form: Any, c: Any, panels: Any, room: Any) -> None:
    """a is (depth, M) if across; b is (columns, depth) if form is TRANSPOSED."""
    trained.pack_matrix(b, form, panels)
    depth, step = (a.shape[0], 4) if across else (a.shape[1], 4 * a.shape[1])
    # What is asked for ahead is what is there already.
    zeros = here = room.ctypes.data
    for first in range(0, c.shape[1], PANEL):
        width = min(PANEL, c.shape[1] - first)
        for row in range(0, c.shape[0], ROWS):
            trained.tile_product(
                min(ROWS, c.shape[0] - row), a.ctypes.data + row * step, 4 * a.shape[1], across,
                panels.ctypes.data + 4 * first * depth, trained.padded(width), zeros, 0,
                c.ctypes.data + 4 * (row * c.shape[1] + first), 4 * c.shape[1], width, depth,
                here, 0, here,
            )  # fmt: skip


def as_views(function: Callable[..., Any], *work: tuple[int, int]) -> dict[str, Way]:
    """A function of A, B, C and memory to work in; what lies transposed comes as a view."""
    own = (function,) if hasattr(function, "py_func") else ()

    def way(across: bool, form: int) -> Way:
        def prepare(call: Call) -> Callable[[], Any]:
            a, b, c = call.arrays.values()
            a, b = a.T if across else a, b.T if form == TRANSPOSED else b
            memory = [np.empty(shape, np.float32) for shape in work]
            return functools.partial(function, a, b, c, *memory)

        return Way(prepare, own)

    return {direction: way(*lie) for direction, lie in LIE.items()}


def as_they_lie(
    prepare: Callable[[Call, bool, int], Callable[[], Any]], *compiled: Any
) -> dict[str, Way]:
    """Of a `prepare` that is told how A and B lie."""

    def way(lie: tuple[bool, int]) -> Way:
        return Way(lambda call: prepare(call, *lie), compiled)

    return {direction: way(lie) for direction, lie in LIE.items()}


def on_tiles(call: Call, across: bool, form: int) -> Callable[[], Any]:
    a, b, c = call.arrays.values()
    arena = Arena()
    panels = arena.zeros(1, trained.packed_size(len(a) if across else a.shape[1], c.shape[1]))
    return functools.partial(tiled, a, across, b, form, c, panels, make_room(arena))


def as_in_training(call: Call, across: bool, form: int) -> Callable[[], Any]:
    a, b, c = call.arrays.values()
    return functools.partial(matmul, a, across, b, form, NOTHING, c, make_room(Arena()))


def in_shares(call: Call, across: bool, form: int) -> Callable[[], Any]:
    """Rows of C for each thread, never a part of the depth: then sums would need adding."""
    a, b, c = call.arrays.values()
    arena = Arena()

    def share(rows: slice) -> Callable[[], Any]:
        room = make_room(arena)
        if not across:
            return functools.partial(matmul, a[rows], across, b, form, NOTHING, c[rows], room)
        columns = a[:, rows]
        part = arena.zeros(*columns.shape)

        def copy_and_multiply() -> None:
            # matmul takes whole arrays only. The copy is part of what is timed.
            np.copyto(part, columns)
            matmul(part, across, b, form, NOTHING, c[rows], room)

        return copy_and_multiply

    return functools.partial(call.run_all, [share(rows) for rows in call.shares(len(c))])


def in_numpy(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    np.dot(a, b, out=c)


RUNGS = [
    Rung("Python", "Lists and loops, a number at a time.", as_views(in_python), most=3e7),
    Rung(
        "loops",
        "The loops compiled, as they are written: a sum for each number of C.",
        as_views(loops),
    ),
    Rung(
        "reordered",
        "The innermost loop runs along memory, with vectors: rows of B are added to a row of C.",
        as_views(reordered) | {"dx": direct(dots)},
    ),
    Rung(
        "blocked",
        "A block of B at a time, which stays in the cache while all rows of A go past.",
        as_views(blocked) | {"dx": direct(blocked_dots)},
    ),
    Rung(
        "packed",
        "The block is copied to where its rows lie one behind the other, whichever way B lay.",
        as_views(packed, (DEPTH, WIDTH)),
    ),
    Rung(
        "four by four",
        "Four rows of the block are added to four rows of C at once: what is loaded serves more.",
        as_views(grouped, (DEPTH, WIDTH)),
    ),
    Rung(
        "tile",
        "A tile of C stays in registers for the whole depth: nothing but multiply-adds and loads.",
        as_they_lie(on_tiles, tiled),
    ),
    Rung(
        "trained",
        "Blocked for each cache, and what comes next is asked for ahead.",
        as_they_lie(as_in_training, matmul),
    ),
    Rung(
        "parallel",
        "The same kernel, rows of C shared out to threads.",
        as_they_lie(in_shares, matmul),
        threads="several",
    ),
    Rung("NumPy", "np.dot, which is a BLAS.", as_views(in_numpy), threads="any", reference=True),
]
