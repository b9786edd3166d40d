"""Matrix product: C = start + A·B, with A read where it lies and B in packed panels.

B is cut into panels of PANEL columns; in a panel the numbers lie in the order in which the register
tile (vectors.py) reads them. Panels are made on the way, a block of DEPTH rows at a time (it stays
in the cache nearest to the core while all of A passes by), or once beforehand, where many products
have the same B. Rows of A are shared out evenly to tiles of up to ROWS rows.

Each sum is one chain in the order of the depth, c = fma(a, b, c), wherever its tile lies: the bits
do not depend on the sizes of blocks, on what was packed when, or on the number of threads. The
error is at most K·eps·Σ|a||b| (K the depth), as for any order.

`start` is nothing (0 rows), a bias (1 row, added to all), or a matrix, which may be C itself.
Tried on products of the presets, on cores shared with others; how much faster, medians of pairs:
tiles of 6 x 64 instead of 14 x 32, 1.2; pages of 2 MiB (memory.py), 1.06 to 1.17; fetching the tile
of C below ahead of its turn, 1.04; an A whose rows lie across memory turned round first instead of
read there, up to 1.5 where it is large; STRIPE of 192 rows instead of 96, 1.07. Without effect
beyond the noise: DEPTH from 96 to 384, STRETCH from 256 to 768, STRIPE beyond 192, arrays that
begin at different places in a page. Slower: copying a number of A to all lanes within the
multiply-add, 0.5 to 0.9 (the loads become the limit).
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), sec. 4-6.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiling import exact
from tinygpt_np.kernels.linking import linked
from tinygpt_np.kernels.memory import Arena
from tinygpt_np.kernels.vectors import (
    LANES,
    ROWS,
    VECTORS,
    copy_vector,
    load,
    make_tile,
    store,
    transpose_block,
)

# The forms of B: as it is (K, N), transposed (N, K), or in panels.
PLAIN, TRANSPOSED, PACKED = 0, 1, 2
PANEL = LANES * VECTORS
DEPTH, STRETCH = 256, 512
# Up to so many rows of A a panel is read once or twice only, and packing it would cost more.
FEW_ROWS = 2 * ROWS

# Rows of a transposed A that are turned round at once.
STRIPE = 32 * ROWS

# A thread's own memory for what is packed on the way: zeros to start from, a tile at the edge of C,
# a panel, and a stripe of A turned round; in numbers, as are the places where they begin.
EDGE, PANELS = PANEL, PANEL + ROWS * LANES
STRIPES = PANELS + DEPTH * PANEL
ROOM = STRIPES + STRIPE * STRETCH

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
def copy_block(
    source: Any, source_stride: Any, target: Any, target_stride: Any, rows: Any, columns: Any
) -> None:
    for row in range(rows):
        for column in range(columns):
            value = load(source + row * source_stride + 4 * column)
            store(target + row * target_stride + 4 * column, value)


@linked
def tile_product(
    height: Any, a: Any, a_stride: Any, panel: Any, panel_stride: Any,
    start: Any, start_stride: Any, c: Any, c_stride: Any, width: Any, depth: Any, room: Any,
) -> None:  # fmt: skip
    """Up to ROWS rows of A times one panel, or some of its columns from a whole vector on.

    The last panel goes in two halves or vector by vector; an incomplete one goes through `room`.
    """
    column = 0
    while column < width:
        b, count = panel + 4 * column, min(width - column, PANEL)
        s, s_stride, t, t_stride = start + 4 * column, start_stride, c + 4 * column, c_stride
        if count == PANEL:
            wide(height, a, a_stride, b, panel_stride, s, s_stride, t, t_stride, depth)
        elif count >= HALF:
            count = HALF
            half(height, a, a_stride, b, panel_stride, s, s_stride, t, t_stride, depth)
        else:
            count = min(count, LANES)
            if count < LANES:
                s, s_stride, t, t_stride = room + 4 * EDGE, 4 * LANES, room + 4 * EDGE, 4 * LANES
                copy_block(start + 4 * column, start_stride, s, s_stride, height, count)
            narrow(height, a, a_stride, b, panel_stride, s, s_stride, t, t_stride, depth)
            if count < LANES:
                copy_block(t, t_stride, c + 4 * column, c_stride, height, count)
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
        whole = width // LANES * LANES
        for row in range(depth):
            source, target = b + row * b_stride, panel + row * stride
            for column in range(0, 4 * whole, 4 * LANES):
                copy_vector(source + column, target + column)
            for column in range(4 * whole, 4 * width, 4):
                store(target + column, load(source + column))
    for row in range(depth):
        for column in range(4 * width, stride, 4):
            store(panel + row * stride + column, np.float32(0))


@exact
def panel_product(
    a: Any, a_stride: Any, panel: Any, panel_stride: Any, start: Any, start_stride: Any,
    c: Any, c_stride: Any, rows: Any, width: Any, depth: Any, room: Any,
) -> None:  # fmt: skip
    """Rows of A times one panel."""
    tiles = (rows + ROWS - 1) // ROWS
    for tile in range(tiles):
        row = rows * tile // tiles
        tile_product(
            rows * (tile + 1) // tiles - row, a + row * a_stride, a_stride, panel, panel_stride,
            start + row * start_stride, start_stride, c + row * c_stride, c_stride, width, depth,
            room,
        )  # fmt: skip


@exact
def stretch_product(
    a: Any, a_stride: Any, low: Any, high: Any, b: Any, b_stride: Any, form: Any, column: Any,
    width: Any, depth: Any, few: Any, start: Any, start_stride: Any, c: Any, c_stride: Any,
    rows: Any, room: Any,
) -> None:  # fmt: skip
    """Rows of A, from low to high in the depth, times the panel of B that begins at a column."""
    blocks = (high - low + DEPTH - 1) // DEPTH
    for block in range(blocks):
        k, end = low + (high - low) * block // blocks, low + (high - low) * (block + 1) // blocks
        panel, panel_stride = room + 4 * PANELS, padded(width)
        corner = at(b, b_stride, form, k, column)
        if form == PACKED:
            panel = b + 4 * column * depth + k * panel_stride
        elif form == PLAIN and width == PANEL and few:
            panel, panel_stride = corner, b_stride
        else:
            pack(corner, b_stride, form, width, end - k, panel)
        if k > low:
            start, start_stride = c, c_stride
        panel_product(
            a + 4 * (k - low), a_stride, panel, panel_stride, start, start_stride, c, c_stride,
            rows, width, end - k, room,
        )  # fmt: skip


@linked
def product(
    a: Any, a_stride: Any, across: Any, b: Any, b_stride: Any, form: Any,
    start: Any, start_stride: Any, start_step: Any, c: Any, c_stride: Any,
    rows: Any, columns: Any, depth: Any, room: Any,
) -> None:  # fmt: skip
    """matmul by addresses and strides in bytes; start_step is 4, or 0 where all start from zero."""
    stripe = STRIPE if across else rows
    stretches = (depth + STRETCH - 1) // STRETCH
    for stretch in range(stretches):
        low, high = depth * stretch // stretches, depth * (stretch + 1) // stretches
        if low > 0:
            start, start_stride, start_step = c, c_stride, 4
        for row in range(0, rows, stripe):
            height = min(stripe, rows - row)
            a_part, a_part_stride = a + row * a_stride + 4 * low, a_stride
            if across:
                a_part, a_part_stride = room + 4 * STRIPES, 4 * STRETCH
                source = a + low * a_stride + 4 * row
                transpose(source, a_stride, height, high - low, a_part, a_part_stride)
            for column in range(0, columns, PANEL):
                stretch_product(
                    a_part, a_part_stride, low, high, b, b_stride, form, column,
                    min(PANEL, columns - column), depth, rows <= FEW_ROWS,
                    start + row * start_stride + column * start_step, start_stride,
                    c + row * c_stride + 4 * column, c_stride, height, room,
                )  # fmt: skip


@exact
def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, room: Any) -> None:
    """c (M, N) = start + a·b; a is (M, K), or (K, M) if across; start (0, N), (1, N) or (M, N).

    b is (K, N), (N, K) if form is TRANSPOSED, or what pack_matrix made of it, as (1, size).
    All are C-contiguous float32; room is of make_room. c may be start, but no other.
    """
    depth = a.shape[0] if across else a.shape[1]
    origin, stride, step = start.ctypes.data, 4 * start.shape[1], 4
    if start.shape[0] == 0:
        origin, stride, step = room.ctypes.data, 0, 0
    elif start.shape[0] == 1:
        stride = 0
    product(
        a.ctypes.data, 4 * a.shape[1], across, b.ctypes.data, 4 * b.shape[1], form,
        origin, stride, step, c.ctypes.data, 4 * c.shape[1], c.shape[0], c.shape[1], depth,
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
