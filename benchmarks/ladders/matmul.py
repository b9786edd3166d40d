"""Matrix product C = A·B in the three directions of a linear layer, where A or B is transposed.

Speedups are over the rung before on one thread, as forward / dx / dweight, at lecture unless
noted. Python reaches 0.07 GFLOP/s at cpu.

loops: 34 to 45 at cpu. Elements of A or B are a row apart from step to step, or each addition
    waits for the one before: no vectors.
reordered: 9 / 8 / 13. For dx the innermost loop runs along memory already; there its sums may be
    reordered.
blocked: 1.5 / 1.8 / 1.6; 0.9 to 1.0 at cpu, where B fits L2 as it is.
packed: 1.0 / 0.7 / 1.1, 0.6 to 0.9 at cpu. A step back, because copying costs; but B now has one
    layout in all directions, so that one loop can be optimised.
four by four: 2.7 / 2.6 / 2.3. Until here each multiply-add loaded two vectors and stored one,
    which was the limit; now 16 of them load eight and store four.
tile: 2.1 / 2.4 / 1.9. Vectors are wider than Numba chooses, too.
trained: 1.0 / 1.0 / 1.1, 1.0 at cpu, 1.03 to 1.15 at gpt2. Cache blocking and prefetching are for
    matrices that do not fit the caches.
parallel: 1.7 / 1.4 / 1.1 on two threads; 0.6 to 0.8 at cpu, where waking up a thread takes
    longer. Each thread packs B for itself.

Tried without gain; speeds relative to the rung that does it otherwise:

- Reordered sums in "loops": 1.0 forward and for dweight (for dx they are "reordered").
- "reordered" without fused multiply-adds: 1.0.
- Blocks as views of columns: 0.15, because the compiler cannot know that rows are contiguous.
- Blocks of 128 x 512 to 128 x 1024: 0.9 to 1.2; of 256 x 1024: 0.8.
- A panel of 32 columns with its sums in a small array, hoping for registers: 0.3 of "packed".
- Four steps of one row: 0.5 of "four by four"; eight: 0.5.
- Packing all of B before "trained": 1.0.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Runner, compiled_only, contiguous
from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels import matmul as trained
from tinygpt_np.compiled.kernels.matmul import PANEL, PLAIN, ROWS, TRANSPOSED, make_scratch, matmul
from tinygpt_np.compiled.simd.memory import Arena

# The layouts of A and B in each direction, as the arguments of the kernel: across and form.
LAYOUTS = {"forward": (False, PLAIN), "dx": (False, TRANSPOSED), "dweight": (True, PLAIN)}
NOTHING = np.zeros((0, 1), np.float32)
# A block of B: 128 KiB, which stays in L2, and a row of it and one of C in L1.
DEPTH, WIDTH = 64, 512
# Rows of a transposed B in a block.
MANY = 64


def in_python(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """a (M, K), b (K, N) -> c (M, N)."""
    columns = b.T.tolist()
    for i, row in enumerate(a.tolist()):
        c[i] = [sum(map(operator.mul, row, column)) for column in columns]


def sums(a: Any, b: Any, c: Any) -> None:
    """a (M, K), b (K, N) -> c (M, N)."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


loops, reordered_sums = strict(sums), kernel(sums)


@kernel
def reordered(a: Any, b: Any, c: Any) -> None:
    """a (M, K), b (K, N) -> c (M, N)."""
    c[...] = 0
    for i in range(c.shape[0]):
        for k in range(a.shape[1]):
            for j in range(c.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@kernel
def blocked(a: Any, b: Any, c: Any) -> None:
    """a (M, K), b (K, N) -> c (M, N)."""
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
def blocked_sums(a: Any, b: Any, c: Any) -> None:
    """a (M, K), b (K, N) -> c (M, N)."""
    for first in range(0, c.shape[1], MANY):
        block = b.T[first : first + MANY].T
        reordered_sums(a, block, c[:, first : first + MANY])


@kernel
def add_row(factors: Any, panel: Any, row: Any) -> None:
    """factors (K,), panel (K, W), row (W,): row += factors · panel."""
    for k in range(factors.size):
        for j in range(row.size):
            row[j] += factors[k] * panel[k, j]


@kernel
def add_four_rows(a: Any, panel: Any, rows: Any, first: Any, last: Any) -> None:
    """a (4, K), panel (K, W), rows (4, M): columns first to last of rows += a · panel, 4 by 4."""
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
    """a (N, K), panel (K, WIDTH), c (N, M): WIDTH columns of c from `first` += a · panel."""
    for i in range(c.shape[0]):
        add_row(a[i], panel, c[i, first : first + WIDTH])


@kernel
def four_by_four(a: Any, panel: Any, c: Any, first: Any) -> None:
    """a (N, K), panel (K, WIDTH), c (N, M): WIDTH columns of c from `first` += a · panel."""
    whole, last = c.shape[0] // 4 * 4, first + WIDTH
    for i in range(0, whole, 4):
        add_four_rows(a[i : i + 4], panel, c[i : i + 4], first, last)
    for i in range(whole, c.shape[0]):
        add_row(a[i], panel, c[i, first:last])


def over_panels(add: Any) -> Any:
    """Return a product that copies blocks of B into a contiguous panel."""

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


@strict
def tiled(a: Any, across: Any, b: Any, form: Any, c: Any, panels: Any, scratch: Any) -> None:
    """a (M, K), b (K, N) -> c (M, N); a is (K, M) if across, b (N, K) if form is TRANSPOSED."""
    trained.pack_matrix(b, form, panels)
    depth = a.shape[0] if across else a.shape[1]
    rows_of_a, rows_of_c = trained.matrix_of(a), trained.matrix_of(c)
    # Nothing is prefetched: the address to prefetch is in cache already.
    zeros = trained.matrix(scratch.ctypes.data, 0)
    for first in range(0, c.shape[1], PANEL):
        width = min(PANEL, c.shape[1] - first)
        for row in range(0, c.shape[0], ROWS):
            panel = trained.matrix(panels.ctypes.data + 4 * first * depth, trained.padded(width))
            part = trained.moved(rows_of_a, 0, row) if across else trained.moved(rows_of_a, row, 0)
            trained.tile_matmul(
                min(ROWS, c.shape[0] - row), part, across, panel, zeros,
                trained.moved(rows_of_c, row, first), width, depth, zeros, scratch.ctypes.data,
            )  # fmt: skip


def by_layout(
    prepare: Callable[[Call, bool, int], Callable[[], Any]], *compiled: Any
) -> dict[str, Runner]:
    """Return runners of a function that prepares a step, given the layouts of A and B."""

    def runner(layout: tuple[bool, int]) -> Runner:
        return Runner(lambda call: prepare(call, *layout), compiled)

    return {direction: runner(layout) for direction, layout in LAYOUTS.items()}


def as_views(function: Callable[..., Any], *work: tuple[int, int]) -> dict[str, Runner]:
    """Return runners of a function of A, B, C and scratch; transposed operands are views."""

    def prepare(call: Call, across: bool, form: int) -> Callable[[], Any]:
        a, b, c = call.arrays.values()
        memory = [np.empty(shape, np.float32) for shape in work]
        operands = a.T if across else a, b.T if form == TRANSPOSED else b
        return functools.partial(function, *operands, c, *memory)

    return by_layout(prepare, *compiled_only(function))


def on_tiles(call: Call, across: bool, form: int) -> Callable[[], Any]:
    """Return a step by register tiles over packed panels."""
    a, b, c = call.arrays.values()
    arena = Arena()
    panels = arena.zeros(1, trained.packed_size(len(a) if across else a.shape[1], c.shape[1]))
    return functools.partial(tiled, a, across, b, form, c, panels, make_scratch(arena))


def as_in_training(call: Call, across: bool, form: int) -> Callable[[], Any]:
    """Return a step by the kernel of training that splits the rows of C between threads."""
    a, b, c = call.arrays.values()
    arena = Arena()

    def part(rows: slice) -> Callable[[], Any]:
        own, scratch = a[:, rows] if across else a[rows], make_scratch(arena)
        if own.flags.c_contiguous:
            return functools.partial(matmul, own, across, b, form, NOTHING, c[rows], scratch)
        columns, own = own, arena.zeros(*own.shape)

        def copy_and_multiply() -> None:
            # matmul takes contiguous arrays only. The copy is timed.
            np.copyto(own, columns)
            matmul(own, across, b, form, NOTHING, c[rows], scratch)

        return copy_and_multiply

    return call.share(len(c), part)


TRAINED = contiguous(by_layout(as_in_training, matmul))
RUNGS = [
    Rung("Python", "Lists and loops, one element at a time.", as_views(in_python), max_flops=3e7),
    Rung("loops", "The loops compiled as written: a sum for each element of C.", as_views(loops)),
    Rung("reordered",
         "The innermost loop runs along memory and is vectorised: rows of B are added to one of C.",
         as_views(reordered) | {"dx": as_views(reordered_sums)["dx"]}),
    Rung("blocked", "A block of B at a time, which stays in cache while all rows of A use it.",
         as_views(blocked) | {"dx": as_views(blocked_sums)["dx"]}),
    Rung("packed", "The block is copied to a contiguous panel, whatever the layout of B.",
         as_views(packed, (DEPTH, WIDTH))),
    Rung("four by four",
         "Four rows of the panel are added to four rows of C at once: more uses per load.",
         as_views(grouped, (DEPTH, WIDTH))),
    Rung("tile",
         "A tile of C stays in registers for the whole depth: multiply-adds and loads only.",
         contiguous(by_layout(on_tiles, tiled))),
    Rung("trained", "Blocked for each cache, with prefetching.", TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the rows of C split between threads.",
         TRAINED, threads="several", trained=True),
    Rung("NumPy", "np.dot, a BLAS.", as_views(np.dot), threads="any", reference=True),
]  # fmt: skip
