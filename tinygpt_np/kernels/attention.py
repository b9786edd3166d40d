"""Causal attention, compiled: a few rows of scores at a time, and of these only what is visible.

Forward, for a tile of ROWS queries: their scores with every key that one of them sees; the softmax
of each row (all of it is there, so its maximum needs no second thoughts); and the sum over the
values. What stays is, per query, the logarithm of its softmax's total: probs = exp(score - total)
give the probabilities again when the backward needs them.

Backward, for a tile of keys, transposed: scores and dprobs with every query that sees them, so that
dv and dk are whole products. dscores of a stripe of keys stay until dq can be added up, over all
of the stripe at once. `delta` is Σ_d dy·y of a query, which is what Σ_s dprobs·probs comes to (see
softmax.py).
Source: Dao et al., "FlashAttention" (2022), algorithms 1 and 4.
"""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiling import exact, kernel
from tinygpt_np.kernels.arrays import floats
from tinygpt_np.kernels.elementary import exp
from tinygpt_np.kernels.linking import linked
from tinygpt_np.kernels.matmul import (
    PANEL,
    PANELS,
    PLAIN,
    TRANSPOSED,
    make_room,
    pack,
    packed_size,
    padded,
    tile_product,
    transpose,
)
from tinygpt_np.kernels.memory import Arena, workspace
from tinygpt_np.kernels.vectors import (
    LANES,
    ROWS,
    all_lanes,
    at_least,
    first_lanes,
    fma,
    largest_of,
    load,
    load_vector,
    store,
    store_vector,
    sum_of,
)

# Keys of a stripe: whole tiles, and whole vectors.
RANK = 2 * ROWS * LANES
NO_MASK = np.zeros((0, 0, 0, 0), dtype=np.float32)
VECTOR = 4 * LANES
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-np.inf)


def make_tiles(arena: Arena, time: int) -> np.ndarray:
    """Memory for a tile of scores of up to `time` keys, and two rows beside it."""
    row = time + -time % LANES
    # So that its rows do not all fall on the same few lines of the nearest cache.
    return arena.zeros(ROWS + 2, row + LANES * (row // LANES % 2 == 0))


def make_rooms(arena: Arena, time: int, head_size: int) -> tuple[np.ndarray, ...]:
    """Memory for one thread's attention over `time` tokens: room, tiles, stripes, panels."""
    tiles = make_tiles(arena, time)
    stripes = arena.zeros(2, RANK, tiles.shape[1])
    size = max(packed_size(head_size, time), packed_size(time, head_size))
    return make_room(arena), tiles, stripes, arena.zeros(4, size)


@exact
def pack_all(b: Any, stride: Any, form: Any, depth: Any, columns: Any, panels: Any) -> None:
    """Packs all panels of a matrix at an address, of (depth, columns) once it is packed."""
    for column in range(0, columns, PANEL):
        corner = b + column * (stride if form == TRANSPOSED else 4)
        width = min(PANEL, columns - column)
        pack(corner, stride, form, width, depth, panels + 4 * column * depth)


@exact
def to_columns(
    height: Any, a: Any, a_stride: Any, panels: Any, first: Any, end: Any, depth: Any,
    columns: Any, c: Any, c_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Up to ROWS rows of A times the columns of B from first to end, in whole vectors."""
    for column in range(first // PANEL * PANEL, end, PANEL):
        skipped = max(first // LANES * LANES - column, 0)
        stride = padded(min(PANEL, columns - column))
        width = (min(end - column, PANEL) + LANES - 1) // LANES * LANES
        tile_product(
            height, a, a_stride, False, panels + 4 * (column * depth + skipped), stride, room, 0,
            c + 4 * (column + skipped), c_stride, width - skipped, depth, panels, 0, room,
        )  # fmt: skip


@exact
def by_rows(
    height: Any, a: Any, a_stride: Any, panels: Any, first: Any, end: Any, depth: Any,
    columns: Any, c: Any, c_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Up to ROWS rows of A, from `first` to `end`, times these rows of B, all its columns."""
    for column in range(0, columns, PANEL):
        width = min(PANEL, columns - column)
        stride = padded(width)
        tile_product(
            height, a + 4 * first, a_stride, False, panels + 4 * column * depth + first * stride,
            stride, room, 0, c + 4 * column, c_stride, width, end - first, panels, 0, room,
        )  # fmt: skip


@exact
def largest_seen(scores: Any, visible: Any, end: Any) -> Any:
    """The largest of the first `visible` scores; those from there to `end` become -inf."""
    for block in range(visible // LANES * LANES, end, LANES):
        place = scores + 4 * block
        store_vector(place, first_lanes(load_vector(place), visible - block, MINUS_INFINITY))
    largest = load_vector(scores)
    for place in range(scores + VECTOR, scores + 4 * visible, VECTOR):
        largest = at_least(load_vector(place), largest)
    return largest_of(largest)


@exact
def exponentials(scores: Any, end: Any, largest: Any, scale: Any) -> Any:
    """exp(scale·(scores - largest)) in place; their sum."""
    total = all_lanes(ZERO)
    for place in range(scores, scores + 4 * end, VECTOR):
        found = exp((load_vector(place) - largest) * scale)
        store_vector(place, found)
        total = total + found
    return sum_of(total)


@exact
def multiply(values: Any, factors: Any, count: Any) -> None:
    """values *= factors, `count` of each, at addresses."""
    whole = 4 * (count // LANES * LANES)
    for place in range(0, whole, VECTOR):
        store_vector(values + place, load_vector(values + place) * load_vector(factors + place))
    for place in range(whole, 4 * count, 4):
        store(values + place, load(values + place) * load(factors + place))


@exact
def scale_row(values: Any, count: Any, factor: Any) -> None:
    whole = 4 * (count // LANES * LANES)
    for place in range(values, values + whole, VECTOR):
        store_vector(place, load_vector(place) * factor)
    for place in range(values + whole, values + 4 * count, 4):
        store(place, load(place) * factor)


@exact
def product_sum(a: Any, b: Any, count: Any) -> Any:
    """Σ a·b, `count` of each, at addresses."""
    whole = 4 * (count // LANES * LANES)
    totals, rest = all_lanes(ZERO), ZERO
    for place in range(0, whole, VECTOR):
        totals = fma(load_vector(a + place), load_vector(b + place), totals)
    for place in range(whole, 4 * count, 4):
        rest += load(a + place) * load(b + place)
    return sum_of(totals) + rest


@exact
def undo_softmax(
    probs: Any, dscores: Any, share: Any, scale: Any, log_total: Any, delta: Any, first: Any,
    key: Any, time: Any,
) -> None:  # fmt: skip
    """Of one key: scores become probabilities (what dropout kept of them), dprobs dscores.

    share: what dropout keeps, or 0. Before the first query that sees the key stands 0, back to that
    of the tile's first key.
    """
    begin = first // LANES * LANES
    for place in range(4 * begin, 4 * time, VECTOR):
        prob = exp(load_vector(probs + place) * scale - load_vector(log_total + place))
        dprob = load_vector(dscores + place)
        used = prob
        if share:
            used = prob * load_vector(share + place)
            dprob = dprob * load_vector(share + place)
        store_vector(probs + place, used)
        dscore = prob * (dprob - load_vector(delta + place)) * scale
        store_vector(dscores + place, dscore)
    for block in range(begin, key, LANES):
        hide(probs + 4 * block, key - block)
        hide(dscores + 4 * block, key - block)


@exact
def hide(place: Any, count: Any) -> None:
    """The first `count` lanes become 0."""
    store_vector(place, first_lanes(ZERO, count, load_vector(place)))


@linked
def attend(
    q: Any, q_stride: Any, rows: Any, start: Any, keys: Any, values: Any, time: Any, size: Any,
    kept: Any, y: Any, y_stride: Any, log_total: Any, tiles: Any, row_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Rows of queries of one head, at places from `start` on, look at all keys up to their own.

    q, y (rows, D); keys (D, T) and values (T, D) packed, for T = time; kept: of (rows, T) what
    dropout keeps, or 0. log_total (rows,) is written unless it is 0.
    """
    scale = np.float32(1 / math.sqrt(size))
    inverses = tiles + ROWS * row_stride
    largests = inverses + row_stride
    for row in range(0, rows, ROWS):
        height = min(ROWS, rows - row)
        end = start + row + height
        to_columns(
            height, q + row * q_stride, q_stride, keys, 0, end, size, time, tiles, row_stride,
            room,
        )  # fmt: skip
        # Row by row in each of the two, so that one row need not wait for another's end.
        for i in range(height):
            largest = largest_seen(tiles + i * row_stride, start + row + i + 1, end)
            store(largests + 4 * i, largest)
        for i in range(height):
            place, largest = tiles + i * row_stride, load(largests + 4 * i)
            total = exponentials(place, end, largest, scale)
            store(inverses + 4 * i, ONE / total)
            if log_total:
                store(log_total + 4 * (row + i), largest * scale + np.float32(math.log(total)))
            if kept:
                multiply(place, kept + 4 * (row + i) * time, start + row + i + 1)
        by_rows(
            height, tiles, row_stride, values, 0, end, time, size, y + row * y_stride, y_stride,
            room,
        )  # fmt: skip
        for i in range(height):
            scale_row(y + (row + i) * y_stride, size, load(inverses + 4 * i))


@linked
def forward_head(
    q: Any, k: Any, v: Any, stride: Any, time: Any, size: Any, kept: Any, y: Any, y_stride: Any,
    log_total: Any, room: Any, tiles: Any, row_stride: Any, panels: Any, panels_stride: Any,
) -> None:  # fmt: skip
    """One head of one text, by addresses; kept is 0 without dropout."""
    keys, values = panels, panels + panels_stride
    pack_all(k, stride, TRANSPOSED, size, time, keys)
    pack_all(v, stride, PLAIN, time, size, values)
    attend(
        q, stride, time, 0, keys, values, time, size, kept, y, y_stride, log_total, tiles,
        row_stride, room,
    )  # fmt: skip


@kernel
def forward_texts(
    qkv: Any, n_head: Any, mask: Any, y: Any, log_total: Any, first: Any, end: Any, room: Any,
    tiles: Any, panels: Any,
) -> None:  # fmt: skip
    """qkv (N, 3C), mask (B, H, T, T) or with B = 0 for none -> y (N, C), log_total (B, H, T).

    Of the B·H heads of all texts, those from `first` to `end`.
    """
    time, width = log_total.shape[2], y.shape[1]
    size = width // n_head
    stride = 12 * width
    for number in range(first, end):
        text, head = number // n_head, number % n_head
        q = qkv.ctypes.data + text * time * stride + 4 * head * size
        forward_head(
            q, q + 4 * width, q + 8 * width, stride, time, size,
            mask.ctypes.data + 4 * number * time * time if mask.shape[0] > 0 else 0,
            y.ctypes.data + 4 * (text * time * width + head * size), 4 * width,
            log_total.ctypes.data + 4 * number * time, room.ctypes.data,
            tiles.ctypes.data, 4 * tiles.shape[1], panels.ctypes.data, 4 * panels.shape[1],
        )  # fmt: skip


@exact
def add_dq(
    dscores: Any, row_stride: Any, origin: Any, rank: Any, time: Any, k: Any, dq: Any,
    stride: Any, size: Any, room: Any,
) -> None:  # fmt: skip
    """dq of the queries from origin on, by the keys of one stripe; the first stripe begins it."""
    for column in range(0, size, PANEL):
        width = min(PANEL, size - column)
        panel = room + 4 * PANELS
        pack(k + origin * stride + 4 * column, stride, PLAIN, width, rank, panel)
        for row in range(origin, time, ROWS):
            height = min(ROWS, time - row)
            c = dq + row * stride + 4 * column
            start, start_stride = (room, 0) if origin == 0 else (c, stride)
            tile_product(
                height, dscores + 4 * row, row_stride, True, panel, padded(width), start,
                start_stride, c, stride, width, min(rank, row + height - origin), panel, 0, room,
            )  # fmt: skip


@linked
def backward_head(
    dy: Any, y: Any, q: Any, dq: Any, y_stride: Any, time: Any, size: Any, kept: Any,
    log_total: Any, room: Any, tiles: Any, stripes: Any, row_stride: Any, panels: Any,
    panels_stride: Any,
) -> None:  # fmt: skip
    """One head of one text, by addresses; kept is 0 without dropout."""
    scale, stride = np.float32(1 / math.sqrt(size)), 3 * y_stride
    k, v, dk, dv = q + y_stride, q + 2 * y_stride, dq + y_stride, dq + 2 * y_stride
    probs, dscores, turned = tiles, stripes, stripes + RANK * row_stride
    totals, delta = tiles + ROWS * row_stride, tiles + (ROWS + 1) * row_stride
    queries_t, dy_t = panels, panels + panels_stride
    queries, dys = panels + 2 * panels_stride, panels + 3 * panels_stride
    pack_all(q, stride, TRANSPOSED, size, time, queries_t)
    pack_all(dy, y_stride, TRANSPOSED, size, time, dy_t)
    pack_all(q, stride, PLAIN, time, size, queries)
    pack_all(dy, y_stride, PLAIN, time, size, dys)
    for i in range(time):
        store(delta + 4 * i, product_sum(dy + i * y_stride, y + i * y_stride, size))
        store(totals + 4 * i, load(log_total + 4 * i))
    for origin in range(0, time, RANK):
        rank = min(RANK, time - origin)
        if kept:
            transpose(kept + 4 * origin, 4 * time, rank, time, turned, row_stride)
        for row in range(0, rank, ROWS):
            height, key = min(ROWS, rank - row), origin + row
            here = dscores + row * row_stride
            to_columns(
                height, k + key * stride, stride, queries_t, key, time, size, time, probs,
                row_stride, room,
            )  # fmt: skip
            to_columns(
                height, v + key * stride, stride, dy_t, key, time, size, time, here, row_stride,
                room,
            )  # fmt: skip
            for i in range(height):
                share = turned + (row + i) * row_stride if kept else 0
                undo_softmax(
                    probs + i * row_stride, here + i * row_stride, share, scale, totals, delta,
                    key, key + i, time,
                )  # fmt: skip
            by_rows(
                height, probs, row_stride, dys, key, time, time, size, dv + key * stride, stride,
                room,
            )  # fmt: skip
            by_rows(
                height, here, row_stride, queries, key, time, time, size, dk + key * stride,
                stride, room,
            )  # fmt: skip
        add_dq(dscores, row_stride, origin, rank, time, k, dq, stride, size, room)


@kernel
def backward_texts(
    dy: Any, qkv: Any, n_head: Any, mask: Any, y: Any, log_total: Any, dqkv: Any, first: Any,
    end: Any, room: Any, tiles: Any, stripes: Any, panels: Any,
) -> None:  # fmt: skip
    """dy (N, C) and what the forward was given and gave -> dqkv (N, 3C), of heads first to end."""
    time, width = log_total.shape[2], y.shape[1]
    size = width // n_head
    for number in range(first, end):
        text, head = number // n_head, number % n_head
        rows = 4 * (text * time * width + head * size)
        place = 12 * text * time * width + 4 * head * size
        backward_head(
            dy.ctypes.data + rows, y.ctypes.data + rows, qkv.ctypes.data + place,
            dqkv.ctypes.data + place, 4 * width, time, size,
            mask.ctypes.data + 4 * number * time * time if mask.shape[0] > 0 else 0,
            log_total.ctypes.data + 4 * number * time, room.ctypes.data, tiles.ctypes.data,
            stripes.ctypes.data, 4 * tiles.shape[1], panels.ctypes.data, 4 * panels.shape[1],
        )  # fmt: skip


def forward(
    qkv: np.ndarray, batch: int, n_head: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """qkv (N, 3C), batch B, n_head H, mask (B, H, T, T) or None -> y (N, C), saved."""
    qkv = floats(qkv, "attention.forward: qkv")  # (N, 3C)
    time, width = len(qkv) // batch, qkv.shape[1] // 3
    kept = NO_MASK if mask is None else floats(mask, "attention.forward: mask")  # (B, H, T, T)
    room, tiles, _, panels = workspace.get(make_rooms, time, width // n_head)
    y = np.empty((len(qkv), width), np.float32)  # (N, C)
    log_total = np.empty((batch, n_head, time), np.float32)  # (B, H, T)
    forward_texts(qkv, n_head, kept, y, log_total, 0, batch * n_head, room, tiles, panels)
    # y is the caller's, who may write into it.
    return y, (qkv, n_head, kept, y.copy(), log_total)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dqkv (N, 3C)."""
    qkv, n_head, mask, y, log_total = saved
    dy = floats(dy, "attention.backward: dy")  # (N, C)
    dqkv = np.empty_like(qkv)  # (N, 3C)
    rooms = workspace.get(make_rooms, log_total.shape[2], y.shape[1] // n_head)
    heads = log_total.shape[0] * n_head
    backward_texts(dy, qkv, n_head, mask, y, log_total, dqkv, 0, heads, *rooms)
    return dqkv
