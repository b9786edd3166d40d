"""Matrix product: C = start + A·B, with A read in place and B in packed panels.

B is cut into panels of PANEL columns, in which numbers have the order in which the register tile
(simd/tile.py) reads them. Panels are packed on the way, or once beforehand where many matmuls use
the same B. For each block of STRETCH steps of the depth and GROUP columns, STRIPE rows of A, which
stay in the L2 cache, are multiplied by all panels, DEPTH steps at a time, in tiles of up to ROWS
rows. Meanwhile the next rows of A, or rows of B that are packed next, are prefetched. An A across
the depth is copied in strips: of a tile's rows each, or all STRIPE rows next to each other.

Each sum is one chain in the order of the depth, c = fma(a, b, c). So its bits do not depend on the
sizes of blocks, on packing, or on the number of threads. The error is at most K·eps·Σ|a||b| (K the
depth), as for any order.

`start` is nothing (0 rows), a bias (1 row, added to all), or a matrix, which may be C itself.
Sizes and prefetching were chosen by measurement; see compiled/README.md. Those that depend on the
processor are in simd/blocks.py.
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), sec. 4-6.
"""

from typing import Any, NamedTuple, cast

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types

from tinygpt_np.compiled.cache import inner, strict
from tinygpt_np.compiled.simd.blocks import Blocks, chosen
from tinygpt_np.compiled.simd.linking import MATRIX, linked
from tinygpt_np.compiled.simd.memory import LINE, Arena, Matrix
from tinygpt_np.compiled.simd.tile import FETCHED, make_tile
from tinygpt_np.compiled.simd.vectors import (
    INT,
    LANES,
    ROWS,
    VECTORS,
    Emitter,
    copy_vector,
    intrinsic,
    load,
    store,
    transpose_block,
)

# The forms of B: as it is (K, N), transposed (N, K), or packed in panels.
PLAIN, TRANSPOSED, PACKED = 0, 1, 2
PANEL = LANES * VECTORS
# Steps of the depth in a block, and in a stretch of blocks; columns packed at once, and half of
# those in a group that was packed beforehand; rows of A at once.
DEPTH, STRETCH, GROUP, STRIPE = 256, 512, FETCHED, 32 * ROWS
# B is not packed if it is read only once or twice, for at most FEW_ROWS.
FEW_ROWS = 2 * ROWS
# From a transposed B of more than SMALL numbers, C is computed transposed for at most MOST_TURNED
# rows, TURNED numbers at once, because packing B would take longer.
SMALL, MOST_TURNED, TURNED = 1 << 17, 256, 1 << 17

# A thread's scratch memory: zeros to start from, the sizes of simd/blocks.py, a tile at the edge of
# C, panels, a part of C transposed, and a stripe of A in strips. Offsets in numbers.
SIZES = PANEL
EDGE = SIZES + LINE
PANELS = EDGE + ROWS * LANES
TURNS = PANELS + STRETCH * GROUP
STRIPES = TURNS + TURNED

HALF = LANES * max(VECTORS // 2, 1)
wide, half, narrow = make_tile(VECTORS), make_tile(HALF // LANES), make_tile(1)


class Next(NamedTuple):
    """The block that will be needed next, of which tiles prefetch FETCHED numbers of each row.

    Its rows, or if `is_deep` their numbers, are those of the depth.
    """

    matrix: Matrix
    rows: int
    is_deep: int


def make_scratch(arena: Arena, blocks: Blocks | None = None) -> np.ndarray:
    """Return one thread's scratch memory for matmuls, flat; blocks: other sizes than chosen."""
    tiles, whole = STRIPE // ROWS * strip_size(ROWS), strip_size(STRIPE)
    scratch = arena.zeros(STRIPES + max(tiles, whole))
    scratch[SIZES:EDGE].view(np.int64)[: len(Blocks._fields)] = blocks or chosen()[0]
    return scratch


@inner
def strip_pitch(strip: Any) -> Any:
    """Return the distance from step to step of a strip of so many rows, in numbers.

    Steps of a wide strip are further apart, so that not all fall on the same lines of a cache.
    """
    return strip if strip == ROWS else strip + 8


@inner
def strip_size(strip: Any) -> Any:
    """Return the size of a strip in numbers; there is room for a vector that ends after it."""
    return STRETCH * strip_pitch(strip) + LANES


@intrinsic(types.int64, types.int64)
def load_size(emit: Emitter, address: Any) -> Any:
    """Load an int64."""
    return emit.load(emit.at(address), INT)


@inner
def blocks_of(scratch: Any) -> Any:
    """Return the sizes that are in scratch memory."""
    place = scratch + 4 * SIZES
    return Blocks(load_size(place), load_size(place + 8))


def packed_size(depth: int, columns: int) -> int:
    """Return how many numbers the panels of a (depth, columns) matrix hold."""
    return depth * (columns + -columns % LANES)


@intrinsic(MATRIX, types.int64, types.int64)
def matrix(emit: Emitter, address: Any, stride: Any) -> Any:
    """Return a Matrix of two integers."""
    empty: Any = ir.Constant(ir.ArrayType(INT, 2), cast(Any, ir).Undefined)
    return emit.builder.insert_value(emit.builder.insert_value(empty, address, 0), stride, 1)


@inner
def matrix_of(array: Any) -> Any:
    """Return a C-contiguous array (M, N) as a Matrix."""
    return matrix(array.ctypes.data, 4 * array.shape[1])


@intrinsic(MATRIX, MATRIX, types.int64, types.int64)
def moved(emit: Emitter, m: Any, row: Any, column: Any) -> Any:
    """Return the part of a Matrix that begins at a row and a column."""
    builder = emit.builder
    address, stride = builder.extract_value(m, 0), builder.extract_value(m, 1)
    offset = builder.add(builder.mul(row, stride), builder.mul(column, INT(4)))
    return builder.insert_value(m, builder.add(address, offset), 0)


@inner
def moved_operand(b: Any, form: Any, row: Any, column: Any) -> Any:
    """Return the part of B that begins at a row and a column; form is not PACKED."""
    if form == TRANSPOSED:
        return moved(b, column, row)
    return moved(b, row, column)


@inner
def padded(width: Any) -> Any:
    """Return the bytes of a panel's row: whole vectors."""
    return 4 * ((width + LANES - 1) // LANES * LANES)


@inner
def copy_rows(source: Any, target: Any, rows: Any, columns: Any) -> None:
    """Copy rows of numbers from one Matrix to another, by vectors where possible."""
    aligned = columns // LANES * LANES
    for row in range(rows):
        here, there = moved(source, row, 0).address, moved(target, row, 0).address
        for column in range(0, 4 * aligned, 4 * LANES):
            copy_vector(here + column, there + column)
        for column in range(4 * aligned, 4 * columns, 4):
            store(there + column, load(here + column))


@linked
def tile_matmul(
    height: Any, a: Matrix, across: Any, panel: Matrix, start: Matrix, c: Matrix, width: Any,
    depth: Any, fetch: Matrix, scratch: Any,
) -> None:  # fmt: skip
    """c (height, width) = start + a · panel, for up to ROWS rows and one panel or the end of one.

    The last panel is computed in two halves or vector by vector, an incomplete vector in scratch.
    fetch: see tile.py.
    """
    column = 0
    while column < width:
        b, s, t = moved(panel, 0, column), moved(start, 0, column), moved(c, 0, column)
        count = min(width - column, PANEL)
        if count == PANEL:
            wide(height, a, across, b, s, t, depth, fetch)
        elif count >= HALF:
            count = HALF
            half(height, a, across, b, s, t, depth, fetch)
        elif count >= LANES:
            count = LANES
            narrow(height, a, across, b, s, t, depth, fetch)
        else:
            edge = matrix(scratch + 4 * EDGE, 4 * LANES)
            copy_rows(s, edge, height, count)
            narrow(height, a, across, b, edge, edge, depth, fetch)
            copy_rows(edge, t, height, count)
        column += count


@linked
def transpose(source: Matrix, rows: Any, columns: Any, target: Matrix) -> None:
    """source (columns, rows) -> target (rows, columns)."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for row in range(0, whole_rows, LANES):
        for column in range(0, whole_columns, LANES):
            transpose_block(
                moved(source, column, row).address, source.stride,
                moved(target, row, column).address, target.stride,
            )  # fmt: skip
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            value = load(moved(source, column, row).address)
            store(moved(target, row, column).address, value)


@linked
def pack(b: Matrix, form: Any, width: Any, depth: Any, panel: Any) -> None:
    """Pack `depth` rows of a panel of up to PANEL columns; an incomplete vector ends in zeros."""
    target = matrix(panel, padded(width))
    if form == TRANSPOSED:
        transpose(b, depth, width, target)
    else:
        copy_rows(b, target, depth, width)
    for row in range(depth):
        for column in range(4 * width, target.stride, 4):
            store(panel + row * target.stride + column, np.float32(0))


@linked
def pack_all(b: Matrix, form: Any, depth: Any, columns: Any, panels: Any) -> None:
    """Pack a Matrix, of (depth, columns) once it is packed."""
    whole = 0
    if form == PLAIN:  # Several panels at once, because a long piece of a row is read faster.
        whole = columns // PANEL * PANEL
        for row in range(depth):
            source, target = moved(b, row, 0).address, panels + 4 * PANEL * row
            for column in range(0, 4 * whole, 4 * PANEL):
                for lane in range(0, 4 * PANEL, 4 * LANES):
                    copy_vector(source + column + lane, target + column * depth + lane)
    for column in range(whole, columns, PANEL):
        corner = moved_operand(b, form, 0, column)
        pack(corner, form, min(PANEL, columns - column), depth, panels + 4 * column * depth)


@inner
def copy_strips(source: Matrix, depth: Any, rows: Any, strip: Any, target: Any) -> None:
    """Copy `depth` rows of a Matrix, which are steps of the depth, in strips of their columns.

    The last vector of a step may reach into the next step, which is copied after it.
    """
    step, size = 4 * strip_pitch(strip), 4 * strip_size(strip)
    whole = (strip + LANES - 1) // LANES * LANES
    for k in range(depth):
        here, there, left = moved(source, k, 0).address, target + k * step, rows
        while left >= whole:
            for column in range(0, 4 * strip, 4 * LANES):
                copy_vector(here + column, there + column)
            here, there, left = here + 4 * strip, there + size, left - strip
        while left > 0:
            copy_rows(matrix(here, 0), matrix(there, 0), 1, min(strip, left))
            here, there, left = here + 4 * strip, there + size, left - strip


@inner
def panel_matmul(
    a: Any, across: Any, panel: Any, start: Any, c: Any, rows: Any, width: Any, depth: Any,
    following: Any, part: Any, parts: Any, strip: Any, scratch: Any,
) -> None:  # fmt: skip
    """Rows of A times one panel; each tile prefetches its share of this part of what comes next."""
    tiles = (rows + ROWS - 1) // ROWS
    base, inside, end = a.address, 0, 0  # `inside` counts rows from the start of the strip.
    for tile in range(tiles):
        row = end
        if across:
            end, own = min(row + ROWS, rows), matrix(base + 4 * inside, a.stride)
            inside += ROWS
            if inside == strip:
                base, inside = base + 4 * strip_size(strip), 0
        else:  # Tiles of about equal height.
            end, own = rows * (tile + 1) // tiles, moved(a, row, 0)
        fetched = following.rows * (part * tiles + tile) // (parts * tiles)
        tile_matmul(
            end - row, own, across, panel, moved(start, row, 0), moved(c, row, 0), width, depth,
            moved(following.matrix, fetched, 0), scratch,
        )  # fmt: skip


@inner
def stretch_matmul(
    a: Any, across: Any, panel: Any, start: Any, c: Any, rows: Any, width: Any, depth: Any,
    following: Any, part: Any, parts: Any, strip: Any, scratch: Any,
) -> None:  # fmt: skip
    """Rows of A times one panel, DEPTH steps of the depth at a time."""
    blocks = (depth + DEPTH - 1) // DEPTH
    for block in range(blocks):
        k, end = depth * block // blocks, depth * (block + 1) // blocks
        if k > 0:
            start = c
        later = Next(moved(following.matrix, 0, k), following.rows, 0)
        if following.is_deep:
            later = Next(moved(following.matrix, k, 0), end - k, 1)
        panel_matmul(
            moved(a, k, 0) if across else moved(a, 0, k), across, moved(panel, k, 0), start, c,
            rows, width, end - k, later, part, parts, strip, scratch,
        )  # fmt: skip


@inner
def next_block(
    a: Any, across: Any, b: Any, form: Any, row: Any, rows: Any, last: Any, columns: Any, low: Any,
    high: Any,
) -> Any:  # fmt: skip
    """Return what follows the stripe of A at `row` times the group of B that ends before `last`."""
    left = rows - row - STRIPE
    if left > 0 and across:
        return Next(moved(a, low, row + STRIPE), high - low, 1)
    if left > 0:
        return Next(moved(a, row + STRIPE, low), min(left, STRIPE), 0)
    if form == PLAIN and last < columns:
        return Next(moved(b, low, last), high - low, 1)
    return Next(moved_operand(b, form, low, last), columns - last, 0)


@linked
def matmul_at(
    a: Matrix, across: Any, b: Matrix, form: Any, start: Matrix, start_step: Any, c: Matrix,
    rows: Any, columns: Any, depth: Any, scratch: Any,
) -> None:  # fmt: skip
    """matmul by addresses; start_step is 1, or 0 if all columns start from one zero."""
    sizes = blocks_of(scratch)
    in_place = form == PLAIN and (rows <= FEW_ROWS or depth * columns <= sizes.in_place)
    group = 2 * GROUP if form == PACKED else GROUP
    stretches = (depth + STRETCH - 1) // STRETCH
    for stretch in range(stretches):
        low, high = depth * stretch // stretches, depth * (stretch + 1) // stretches
        if low > 0:
            start, start_step = c, 1
        strip = ROWS if high - low >= sizes.by_tiles else STRIPE
        for first in range(0, columns, group):
            last = min(first + group, columns)
            if form != PACKED:
                packed = first + (last - first) // PANEL * PANEL * in_place  # From this column on.
                pack_all(
                    moved_operand(b, form, low, packed), form, high - low, last - packed,
                    scratch + 4 * (PANELS + (packed - first) * (high - low)),
                )  # fmt: skip
            for row in range(0, rows, STRIPE):
                height = min(STRIPE, rows - row)
                stripe = moved(a, row, low)
                if across:
                    place = scratch + 4 * STRIPES
                    stripe = matrix(place, 4 * strip_pitch(strip))
                    if first == 0 or rows > STRIPE:
                        copy_strips(moved(a, low, row), high - low, height, strip, place)
                following = next_block(a, across, b, form, row, rows, last, columns, low, high)
                panels = (last - first + PANEL - 1) // PANEL
                for number in range(panels):
                    column, part, parts = first + number * PANEL, number, panels
                    width = min(PANEL, last - column)
                    panel = matrix(
                        scratch + 4 * (PANELS + number * PANEL * (high - low)), padded(width)
                    )
                    if form == PACKED:
                        panel = moved(matrix(b.address + 4 * column * depth, padded(width)), low, 0)
                        if row == 0 or row + STRIPE >= rows:  # The next panel, as rows.
                            place = panel.address + 4 * depth * PANEL
                            following = Next(matrix(place, 4 * (high - low)), PANEL, 0)
                            part, parts = 0, 1
                    elif in_place and width == PANEL:
                        panel = moved_operand(b, form, low, column)
                    stretch_matmul(
                        stripe, across, panel, moved(start, row, column * start_step),
                        moved(c, row, column), height, width, high - low, following, part, parts,
                        strip, scratch,
                    )  # fmt: skip


@linked
def turned_matmul(
    a: Matrix, b: Matrix, start: Matrix, start_step: Any, c: Matrix, rows: Any, columns: Any,
    depth: Any, scratch: Any,
) -> None:  # fmt: skip
    """matmul_at for a large TRANSPOSED B: Cᵀ = startᵀ + B·Aᵀ, in which A is packed instead of B."""
    turned, at_once = matrix(scratch + 4 * TURNS, 4 * rows), TURNED // rows
    for first in range(0, columns, at_once):
        width = min(at_once, columns - first)
        begin = matrix(scratch, 0)
        if start_step:
            begin = turned
            transpose(moved(start, 0, first), width, rows, turned)
        matmul_at(
            moved(b, first, 0), 0, a, TRANSPOSED, begin, start_step, turned, width, rows, depth,
            scratch,
        )  # fmt: skip
        transpose(turned, rows, width, moved(c, 0, first))


@strict
def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, scratch: Any) -> None:
    """c (M, N) = start + a·b; a is (M, K), or (K, M) if across; start (0, N), (1, N) or (M, N).

    b is (K, N), (N, K) if form is TRANSPOSED, or (1, size), packed by pack_matrix. All arrays are
    C-contiguous float32; scratch is of make_scratch. c may be start, but no other.
    """
    matmul_part(a, across, b, form, start, c, 0, c.shape[0], 0, c.shape[1], scratch)


@inner
def start_of(start: Any, scratch: Any) -> Any:
    """Return the Matrix that a matmul is added to, and its step from column to column, 0 or 1."""
    if start.shape[0] == 0:
        return matrix(scratch.ctypes.data, 0), 0
    if start.shape[0] == 1:
        return matrix(start.ctypes.data, 0), 1
    return matrix_of(start), 1


@strict
def matmul_part(
    a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, top: Any, bottom: Any, left: Any,
    right: Any, scratch: Any,
) -> None:  # fmt: skip
    """matmul, but of c only rows top to bottom and columns left (a multiple of PANEL) to right."""
    depth = a.shape[0] if across else a.shape[1]
    origin, step = start_of(start, scratch)
    operand = moved_operand(matrix_of(b), form, 0, left)
    if form == PACKED:
        operand = matrix(b.ctypes.data + 4 * left * depth, 4 * b.shape[1])
    rows, columns = bottom - top, right - left
    corner = moved(matrix_of(a), 0, top) if across else moved(matrix_of(a), top, 0)
    begin, target = moved(origin, top, left * step), moved(matrix_of(c), top, left)
    is_turned = form == TRANSPOSED and not across and depth * columns > SMALL
    if is_turned and FEW_ROWS < rows <= MOST_TURNED:
        turned_matmul(
            corner, operand, begin, step, target, rows, columns, depth, scratch.ctypes.data
        )
    else:
        matmul_at(
            corner, across, operand, form, begin, step, target, rows, columns, depth,
            scratch.ctypes.data,
        )  # fmt: skip


@strict
def pack_matrix(matrix: Any, form: Any, panels: Any) -> None:
    """Pack all of B, (K, N) or (N, K) by its form, into panels of packed_size numbers."""
    depth, columns = matrix.shape
    if form == TRANSPOSED:
        columns, depth = matrix.shape
    pack_columns(matrix, form, depth, 0, columns, panels)


@strict
def pack_columns(b: Any, form: Any, depth: Any, first: Any, end: Any, panels: Any) -> None:
    """Pack the panels that begin at the columns from first (a multiple of PANEL) to end."""
    corner = moved_operand(matrix_of(b), form, 0, first)
    pack_all(corner, form, depth, end - first, panels.ctypes.data + 4 * first * depth)
