"""Matrix product: C = start + A·B, with A read where it lies and B in packed panels.

B is cut into panels of PANEL columns; in a panel the numbers lie in the order in which the register
tile (tile.py) reads them. Panels are made on the way, or once beforehand where many products have
the same B. STRIPE rows of A at a time, which stay in the second cache, go past all panels, DEPTH
steps of the depth at a time. Rows are shared out evenly to tiles of up to ROWS rows.

Each sum is one chain in the order of the depth, c = fma(a, b, c), wherever its tile lies: the bits
do not depend on the sizes of blocks, on what was packed when, or on the number of threads. The
error is at most K·eps·Σ|a||b| (K the depth), as for any order.

`start` is nothing (0 rows), a bias (1 row, added to all), or a matrix, which may be C itself.
Tried on products of the presets, on cores shared with others; how much faster, medians of pairs:
tiles of 6 x 64 instead of 14 x 32, 1.2; pages of 2 MiB (memory.py), 1.06 to 1.17. Asking for the
tile of C below a row at a time instead of all of it at once, 1.05 to 1.10 (all at once was 1.04
itself: its 24 lines from afar take every place in which the next steps could wait for theirs);
also for a share of the next panel with each tile, 1.03 to 1.08 more (of one still to be packed, for
the rows it is packed from, 1.0 to 1.08); together they bring operands from afar to within a tenth
of ones close by. An A across memory copied row by row and read by a tile for it, instead of turned
round, 1.03 to 1.2. A stripe at a time past the panels, instead of all rows past each panel, 1.03 to
1.1 where there are 512 rows.
Without effect beyond the noise: DEPTH from 96 to 384, STRETCH from 256 to 768, STRIPE of 96 or 288,
GROUP of 256 or 1024, two steps of the depth between two jumps or eight, a stride of panels known to
the compiler, arrays that begin at different places in a page, asking for lines of this panel ahead.
Slower: copying a number of A to all lanes within the multiply-add, 0.5 to 0.9 (the loads become the
limit). What is left: the loop alone, with all it reads close by, makes 96 % of the peak on a quiet
core, and 80 % beside a neighbour on the same core, with whom it shares the places to start from.
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), sec. 4-6.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import LINE, Arena
from tinygpt_np.compiled.simd.tile import make_tile
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    ROWS,
    VECTORS,
    copy_vector,
    load,
    store,
    transpose_block,
)

# The forms of B: as it is (K, N), transposed (N, K), or in panels.
PLAIN, TRANSPOSED, PACKED = 0, 1, 2
PANEL = LANES * VECTORS
# At once: steps of the depth in a block, and in a stretch of blocks; columns packed; rows of A.
DEPTH, STRETCH, GROUP, STRIPE = 256, 512, 8 * PANEL, 32 * ROWS
# Up to so many rows of A a panel is read once or twice only, and packing it would cost more.
FEW_ROWS = 2 * ROWS

# A thread's own memory for what is packed on the way: zeros to start from, a tile at the edge of C,
# panels, and a stripe of A, whose rows do not all begin on the same few lines of a cache; in
# numbers, as are the places where they begin.
EDGE, PANELS = PANEL, PANEL + ROWS * LANES
STRIPES = PANELS + STRETCH * GROUP
ROOM = STRIPES + (STRIPE + LANES) * STRETCH

HALF = LANES * max(VECTORS // 2, 1)
wide, half, narrow = make_tile(VECTORS), make_tile(HALF // LANES), make_tile(1)


def make_room(arena: Arena) -> np.ndarray:
    """Memory for one thread's products, (ROOM,) float32."""
    return arena.zeros(ROOM)


def packed_size(depth: int, columns: int) -> int:
    """How many numbers the panels of a (depth, columns) matrix hold."""
    return depth * (columns + -columns % LANES)


@exact
def at(b: Any, stride: Any, form: Any, row: Any, column: Any) -> Any:
    """The address of a number of B."""
    if form == TRANSPOSED:
        return b + column * stride + 4 * row
    return b + row * stride + 4 * column


@exact
def padded(width: Any) -> Any:
    """Bytes of a row of a panel: whole vectors."""
    return 4 * ((width + LANES - 1) // LANES * LANES)


@exact
def copy_rows(
    source: Any, source_stride: Any, target: Any, target_stride: Any, rows: Any, columns: Any
) -> None:
    """Copies rows of numbers, by vectors as far as they go."""
    whole = columns // LANES * LANES
    for row in range(rows):
        here, there = source + row * source_stride, target + row * target_stride
        for column in range(0, 4 * whole, 4 * LANES):
            copy_vector(here + column, there + column)
        for column in range(4 * whole, 4 * columns, 4):
            store(there + column, load(here + column))


@linked
def tile_product(
    height: Any, a: Any, a_stride: Any, across: Any, panel: Any, panel_stride: Any,
    start: Any, start_stride: Any, c: Any, c_stride: Any, width: Any, depth: Any, fetch: Any,
    fetch_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Up to ROWS rows of A times one panel, or some of its columns from a whole vector on.

    The last panel goes in two halves or vector by vector; an incomplete one goes through `room`.
    fetch, fetch_stride: what to ask for meanwhile, see tile.py.
    """
    column = 0
    while column < width:
        b, count = panel + 4 * column, min(width - column, PANEL)
        s, s_stride, t, t_stride = start + 4 * column, start_stride, c + 4 * column, c_stride
        if count == PANEL:
            wide(height, a, a_stride, across, b, panel_stride, s, s_stride, t, t_stride, depth,
                 fetch, fetch_stride)  # fmt: skip
        elif count >= HALF:
            count = HALF
            half(height, a, a_stride, across, b, panel_stride, s, s_stride, t, t_stride, depth,
                 fetch, fetch_stride)  # fmt: skip
        else:
            count = min(count, LANES)
            if count < LANES:
                s, s_stride, t, t_stride = room + 4 * EDGE, 4 * LANES, room + 4 * EDGE, 4 * LANES
                copy_rows(start + 4 * column, start_stride, s, s_stride, height, count)
            narrow(height, a, a_stride, across, b, panel_stride, s, s_stride, t, t_stride, depth,
                   fetch, fetch_stride)  # fmt: skip
            if count < LANES:
                copy_rows(t, t_stride, c + 4 * column, c_stride, height, count)
        column += count


@linked
def transpose(
    source: Any, stride: Any, rows: Any, columns: Any, target: Any, target_stride: Any
) -> None:
    """source is (columns, rows); target becomes (rows, columns)."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for row in range(0, whole_rows, LANES):
        for column in range(0, whole_columns, LANES):
            transpose_block(
                source + column * stride + 4 * row, stride,
                target + row * target_stride + 4 * column, target_stride,
            )  # fmt: skip
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            value = load(source + column * stride + 4 * row)
            store(target + row * target_stride + 4 * column, value)


@linked
def pack(b: Any, b_stride: Any, form: Any, width: Any, depth: Any, panel: Any) -> None:
    """Packs `depth` rows of a panel of up to PANEL columns; what is missing in a vector is 0."""
    stride = padded(width)
    if form == TRANSPOSED:
        transpose(b, b_stride, depth, width, panel, stride)
    else:
        copy_rows(b, b_stride, panel, stride, depth, width)
    for row in range(depth):
        for column in range(4 * width, stride, 4):
            store(panel + row * stride + column, np.float32(0))


@exact
def panel_product(
    a: Any, a_stride: Any, across: Any, panel: Any, panel_stride: Any, start: Any,
    start_stride: Any, c: Any, c_stride: Any, rows: Any, width: Any, depth: Any,
    next_rows: Any, next_lines: Any, fetch: Any, fetch_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Rows of A times one panel; each tile fetches a share of what comes next.

    That is, from `fetch` on, next_rows rows of next_lines lines.
    """
    tiles = (rows + ROWS - 1) // ROWS
    for tile in range(tiles):
        row, line, rest = (
            rows * tile // tiles,
            tile * next_lines // tiles,
            tile * next_lines % tiles,
        )
        tile_product(
            rows * (tile + 1) // tiles - row, a + row * (4 if across else a_stride), a_stride,
            across, panel, panel_stride, start + row * start_stride, start_stride,
            c + row * c_stride, c_stride, width, depth,
            fetch + 4 * LINE * line + next_rows * rest // tiles * fetch_stride, fetch_stride, room,
        )  # fmt: skip


@exact
def stretch_product(
    a: Any, a_stride: Any, across: Any, panel: Any, panel_stride: Any, source: Any,
    source_stride: Any, form: Any, start: Any, start_stride: Any, c: Any, c_stride: Any, rows: Any,
    width: Any, depth: Any, room: Any,
) -> None:  # fmt: skip
    """Rows of A times one panel, a block of the depth at a time.

    source: where the panel that comes next lies in B, for it to be packed; for form PACKED it is
    there already, behind this one.
    """
    blocks = (depth + DEPTH - 1) // DEPTH
    for block in range(blocks):
        k, end = depth * block // blocks, depth * (block + 1) // blocks
        if k > 0:
            start, start_stride = c, c_stride
        here = panel + k * panel_stride
        fetch, fetch_stride = panel + end * panel_stride, 4 * LINE
        next_rows, next_lines = (end - k) * panel_stride // (4 * LINE), 1
        if form == PLAIN:
            fetch, fetch_stride = source + k * source_stride, source_stride
            next_rows, next_lines = end - k, (PANEL + LINE - 1) // LINE
        elif form == TRANSPOSED:
            fetch, fetch_stride = source + 4 * k, source_stride
            next_rows, next_lines = PANEL, (end - k + LINE - 1) // LINE
        panel_product(
            a + k * (a_stride if across else 4), a_stride, across, here, panel_stride, start,
            start_stride, c, c_stride, rows, width, end - k, next_rows, next_lines, fetch,
            fetch_stride, room,
        )  # fmt: skip


@exact
def pack_group(
    b: Any, b_stride: Any, form: Any, in_place: Any, low: Any, high: Any, first: Any, last: Any,
    room: Any,
) -> None:  # fmt: skip
    """Packs rows low to high of the panels from column first to last, but what is read in place."""
    for column in range(first, last, PANEL):
        width = min(PANEL, last - column)
        if not (in_place and width == PANEL):
            panel = room + 4 * (PANELS + (column - first) * (high - low))
            pack(at(b, b_stride, form, low, column), b_stride, form, width, high - low, panel)


@linked
def product(
    a: Any, a_stride: Any, across: Any, b: Any, b_stride: Any, form: Any,
    start: Any, start_stride: Any, start_step: Any, c: Any, c_stride: Any,
    rows: Any, columns: Any, depth: Any, room: Any,
) -> None:  # fmt: skip
    """matmul by addresses and strides in bytes; start_step is 4, or 0 where all start from zero."""
    in_place = form == PLAIN and rows <= FEW_ROWS
    # Where all rows pass by at once, each panel is packed just before.
    group = GROUP if rows > STRIPE else PANEL
    stretches = (depth + STRETCH - 1) // STRETCH
    for stretch in range(stretches):
        low, high = depth * stretch // stretches, depth * (stretch + 1) // stretches
        if low > 0:
            start, start_stride, start_step = c, c_stride, 4
        for first in range(0, columns, group):
            last = min(first + group, columns)
            if form != PACKED:
                pack_group(b, b_stride, form, in_place, low, high, first, last, room)
            for row in range(0, rows, STRIPE):
                height = min(STRIPE, rows - row)
                a_part, a_part_stride = a + row * a_stride + 4 * low, a_stride
                if across:
                    a_part, a_part_stride = room + 4 * STRIPES, 4 * (STRIPE + LANES)
                    source = a + low * a_stride + 4 * row
                    if first == 0 or rows > STRIPE:
                        copy_rows(source, a_stride, a_part, a_part_stride, high - low, height)
                for column in range(first, last, PANEL):
                    width = min(PANEL, last - column)
                    panel_stride = padded(width)
                    panel = room + 4 * (PANELS + (column - first) * (high - low))
                    if form == PACKED:
                        panel = b + 4 * column * depth + low * panel_stride
                    elif in_place and width == PANEL:
                        panel, panel_stride = at(b, b_stride, form, low, column), b_stride
                    stretch_product(
                        a_part, a_part_stride, across, panel, panel_stride,
                        at(b, b_stride, form, low, column + PANEL), b_stride,
                        form if group == PANEL else PACKED,
                        start + row * start_stride + column * start_step, start_stride,
                        c + row * c_stride + 4 * column, c_stride, height, width, high - low,
                        room,
                    )  # fmt: skip


@exact
def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, room: Any) -> None:
    """c (M, N) = start + a·b; a is (M, K), or (K, M) if across; start (0, N), (1, N) or (M, N).

    b is (K, N), (N, K) if form is TRANSPOSED, or what pack_matrix made of it, as (1, size).
    All are C-contiguous float32; room is of make_room. c may be start, but no other.
    """
    part_of_matmul(a, across, b, form, start, c, 0, c.shape[0], 0, c.shape[1], room)


@exact
def beginning(start: Any, room: Any) -> Any:
    """The address of what a product is added to, its stride, and its step from column to column."""
    if start.shape[0] == 0:
        return room.ctypes.data, 0, 0
    if start.shape[0] == 1:
        return start.ctypes.data, 0, 4
    return start.ctypes.data, 4 * start.shape[1], 4


@exact
def part_of_matmul(
    a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, top: Any, bottom: Any, left: Any,
    right: Any, room: Any,
) -> None:  # fmt: skip
    """Of c only rows top to bottom and columns left to right; left is a multiple of PANEL."""
    depth = a.shape[0] if across else a.shape[1]
    a_stride, b_stride, c_stride = 4 * a.shape[1], 4 * b.shape[1], 4 * c.shape[1]
    origin, stride, step = beginning(start, room)
    corner = at(b.ctypes.data, b_stride, form, 0, left)
    if form == PACKED:
        corner = b.ctypes.data + 4 * left * depth
    product(
        a.ctypes.data + top * (4 if across else a_stride), a_stride, across, corner, b_stride, form,
        origin + top * stride + left * step, stride, step,
        c.ctypes.data + top * c_stride + 4 * left, c_stride, bottom - top, right - left, depth,
        room.ctypes.data,
    )  # fmt: skip


@exact
def pack_matrix(matrix: Any, form: Any, panels: Any) -> None:
    """Packs all of B, (K, N) or (N, K) by its form, into panels of packed_size numbers."""
    depth, columns = matrix.shape
    if form == TRANSPOSED:
        columns, depth = matrix.shape
    pack_columns(matrix, form, depth, 0, columns, panels)


@exact
def pack_columns(matrix: Any, form: Any, depth: Any, first: Any, end: Any, panels: Any) -> None:
    """Packs the panels that begin at the columns from first (a multiple of PANEL) to end."""
    columns = matrix.shape[0] if form == TRANSPOSED else matrix.shape[1]
    for column in range(first, end, PANEL):
        width = min(PANEL, columns - column)
        pack(
            at(matrix.ctypes.data, 4 * matrix.shape[1], form, 0, column), 4 * matrix.shape[1],
            form, width, depth, panels.ctypes.data + 4 * column * depth,
        )  # fmt: skip
