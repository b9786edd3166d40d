"""Causal attention, compiled: a few rows of scores at a time, and of these only what is visible.

Forward, for a tile of ROWS queries: their scores with every key that one of them sees; the softmax
of each row (all of it is there, so its maximum needs no second thoughts); and the sum over the
values. What stays is, per query, the largest score and one over the total of the exps, by which
the backward makes the same probabilities again, to the last bit.

Backward, for a tile of queries: scores, probs and dprobs with every key, so that dq is a whole
product. probs and dscores of a stripe of queries stay until dk and dv can be added up, over
all of the stripe at once. The mean that the softmax's backward subtracts is Σ_s dprobs·probs of
these very numbers (see softmax.py): Σ_d dy·y, which is the same but for rounding, would not cancel
where one probability is 1 and its dscore 0.
Source: Dao et al., "FlashAttention" (2022), algorithms 1 and 4.
"""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import exact, kernel
from tinygpt_np.compiled.kernels.elementary import exp
from tinygpt_np.compiled.kernels.matmul import (
    PANEL,
    PANELS,
    PLAIN,
    TRANSPOSED,
    make_room,
    pack,
    packed_size,
    padded,
    tile_product,
)
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.simd.vectors import (
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

# Queries of a stripe: whole tiles, and whole vectors.
RANK = 2 * ROWS * LANES
NO_MASK = np.zeros((0, 0, 0, 0), dtype=np.float32)
VECTOR = 4 * LANES
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-np.inf)


def make_tiles(arena: Arena, time: int) -> np.ndarray:
    """Return memory for a tile of scores of up to `time` keys, and two further rows."""
    row = time + -time % LANES
    # So that its rows do not all fall on the same few lines of the nearest cache.
    return arena.zeros(ROWS + 2, row + LANES * (row // LANES % 2 == 0))


def make_rooms(arena: Arena, time: int, head_size: int) -> tuple[np.ndarray, ...]:
    """Memory for one thread's attention over `time` tokens: room, tiles, stripes, panels."""
    tiles = make_tiles(arena, time)
    stripes = arena.zeros(2, RANK, tiles.shape[1])
    size = max(packed_size(head_size, time), packed_size(time, head_size))
    return make_room(arena), tiles, stripes, arena.zeros(3, size)


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
def hide(values: Any, visible: Any, end: Any, hidden: Any) -> None:
    """Set the values from `visible` to `end`, in whole vectors, to `hidden`."""
    for block in range(visible // LANES * LANES, end, LANES):
        place = values + 4 * block
        store_vector(place, first_lanes(load_vector(place), visible - block, hidden))


@exact
def largest_seen(scores: Any, visible: Any, end: Any) -> Any:
    """The largest of the first `visible` scores; those from there to `end` become -inf."""
    hide(scores, visible, end, MINUS_INFINITY)
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
def recompute_probs(
    scores: Any, dprobs: Any, stats: Any, scale: Any, visible: Any, end: Any
) -> Any:  # fmt: skip
    """Turn the scores of one query into its probabilities, in place; return Σ dprobs·probs.

    Both become 0 from `visible` to `end`.
    """
    largest, inverse = load(stats), load(stats + 4)
    total, whole = all_lanes(ZERO), visible // LANES * LANES
    for place in range(0, 4 * whole, VECTOR):
        prob = exp((load_vector(scores + place) - largest) * scale) * inverse
        store_vector(scores + place, prob)
        total = fma(prob, load_vector(dprobs + place), total)
    for block in range(whole, end, LANES):
        place, count = 4 * block, visible - block
        prob = exp((load_vector(scores + place) - largest) * scale) * inverse
        prob = first_lanes(prob, count, ZERO)
        dprob = first_lanes(load_vector(dprobs + place), count, ZERO)
        store_vector(scores + place, prob)
        store_vector(dprobs + place, dprob)
        total = fma(prob, dprob, total)
    return sum_of(total)


@exact
def undo_softmax(probs: Any, dprobs: Any, mean: Any, scale: Any, end: Any) -> None:
    """Turn dprobs of one query into dscores, in place."""
    for place in range(0, 4 * end, VECTOR):
        dscore = load_vector(probs + place) * (load_vector(dprobs + place) - mean) * scale
        store_vector(dprobs + place, dscore)


@linked
def attend(
    q: Any, q_stride: Any, rows: Any, start: Any, keys: Any, values: Any, time: Any, size: Any,
    kept: Any, y: Any, y_stride: Any, stats: Any, tiles: Any, row_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Attend from rows of queries of one head, at places from `start` on, to all keys up to theirs.

    q, y (rows, D); keys (D, T) and values (T, D) packed, for T = time; kept: of (rows, T) what
    dropout keeps, or 0. stats (rows, 2) is written unless it is 0.
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
            if stats:
                store(stats + 8 * (row + i), largest)
                store(stats + 8 * (row + i) + 4, ONE / total)
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
    stats: Any, room: Any, tiles: Any, row_stride: Any, panels: Any, panels_stride: Any,
) -> None:  # fmt: skip
    """One head of one text, by addresses; kept is 0 without dropout."""
    keys, values = panels, panels + panels_stride
    pack_all(k, stride, TRANSPOSED, size, time, keys)
    pack_all(v, stride, PLAIN, time, size, values)
    attend(
        q, stride, time, 0, keys, values, time, size, kept, y, y_stride, stats, tiles, row_stride,
        room,
    )  # fmt: skip


@kernel
def forward_texts(
    qkv: Any, n_head: Any, mask: Any, y: Any, stats: Any, first: Any, end: Any, room: Any,
    tiles: Any, panels: Any,
) -> None:  # fmt: skip
    """qkv (N, 3C), mask (B, H, T, T) or with B = 0 for none -> y (N, C), stats (B, H, T, 2).

    Of the B·H heads of all texts, those from `first` to `end`.
    """
    time, width = stats.shape[2], y.shape[1]
    size = width // n_head
    stride = 12 * width
    for number in range(first, end):
        text, head = number // n_head, number % n_head
        q = qkv.ctypes.data + text * time * stride + 4 * head * size
        forward_head(
            q, q + 4 * width, q + 8 * width, stride, time, size,
            mask.ctypes.data + 4 * number * time * time if mask.shape[0] > 0 else 0,
            y.ctypes.data + 4 * (text * time * width + head * size), 4 * width,
            stats.ctypes.data + 8 * number * time, room.ctypes.data, tiles.ctypes.data,
            4 * tiles.shape[1], panels.ctypes.data, 4 * panels.shape[1],
        )  # fmt: skip


@exact
def add_stripe(
    stripe: Any, row_stride: Any, origin: Any, rank: Any, b: Any, b_stride: Any, size: Any, c: Any,
    c_stride: Any, room: Any,
) -> None:  # fmt: skip
    """Add stripeᵀ·B to C, for the keys that a stripe of queries sees; B is (T, D), C (T, D).

    Keys that only this stripe and later ones see begin at zero.
    """
    for column in range(0, size, PANEL):
        width = min(PANEL, size - column)
        panel, panel_stride = room + 4 * PANELS, padded(width)
        pack(b + origin * b_stride + 4 * column, b_stride, PLAIN, width, rank, panel)
        for key in range(0, origin + rank, ROWS):
            height, skipped = min(ROWS, origin + rank - key), max(key - origin, 0)
            there = c + key * c_stride + 4 * column
            start, start_stride = (room, 0) if key >= origin else (there, c_stride)
            tile_product(
                height, stripe + skipped * row_stride + 4 * key, row_stride, True,
                panel + skipped * panel_stride, panel_stride, start, start_stride, there, c_stride,
                width, rank - skipped, panel, 0, room,
            )  # fmt: skip


@linked
def backward_head(
    dy: Any, q: Any, dq: Any, y_stride: Any, time: Any, size: Any, kept: Any, stats: Any, room: Any,
    tiles: Any, stripes: Any, row_stride: Any, panels: Any, panels_stride: Any,
) -> None:  # fmt: skip
    """One head of one text, by addresses; kept is 0 without dropout."""
    scale, stride = np.float32(1 / math.sqrt(size)), 3 * y_stride
    k, v, dk, dv = q + y_stride, q + 2 * y_stride, dq + y_stride, dq + 2 * y_stride
    probs, dscores, means = stripes, stripes + RANK * row_stride, tiles
    keys_t, values_t, keys = panels, panels + panels_stride, panels + 2 * panels_stride
    pack_all(k, stride, TRANSPOSED, size, time, keys_t)
    pack_all(v, stride, TRANSPOSED, size, time, values_t)
    pack_all(k, stride, PLAIN, time, size, keys)
    for origin in range(0, time, RANK):
        rank = min(RANK, time - origin)
        for row in range(0, rank, ROWS):
            height, query = min(ROWS, rank - row), origin + row
            p, ds, end = probs + row * row_stride, dscores + row * row_stride, query + height
            to_columns(
                height, q + query * stride, stride, keys_t, 0, end, size, time, p, row_stride,
                room,
            )  # fmt: skip
            to_columns(
                height, dy + query * y_stride, y_stride, values_t, 0, end, size, time, ds,
                row_stride, room,
            )  # fmt: skip
            # Row by row in each of the two, so that one row need not wait for another's end.
            for i in range(height):
                here, there, visible = p + i * row_stride, ds + i * row_stride, query + i + 1
                if kept:
                    multiply(there, kept + 4 * (query + i) * time, visible)
                mean = recompute_probs(here, there, stats + 8 * (query + i), scale, visible, end)
                store(means + 4 * i, mean)
            for i in range(height):
                here, there, visible = p + i * row_stride, ds + i * row_stride, query + i + 1
                undo_softmax(here, there, load(means + 4 * i), scale, end)
                if kept:
                    multiply(here, kept + 4 * (query + i) * time, visible)
            by_rows(
                height, ds, row_stride, keys, 0, end, time, size, dq + query * stride, stride,
                room,
            )  # fmt: skip
        add_stripe(probs, row_stride, origin, rank, dy, y_stride, size, dv, stride, room)
        add_stripe(dscores, row_stride, origin, rank, q, stride, size, dk, stride, room)


@kernel
def backward_texts(
    dy: Any, qkv: Any, n_head: Any, mask: Any, stats: Any, dqkv: Any, first: Any, end: Any,
    room: Any, tiles: Any, stripes: Any, panels: Any,
) -> None:  # fmt: skip
    """dy (N, C), what the forward was given, and its stats -> dqkv (N, 3C); heads first to end."""
    time, width = stats.shape[2], dy.shape[1]
    size = width // n_head
    for number in range(first, end):
        text, head = number // n_head, number % n_head
        rows = 4 * (text * time * width + head * size)
        place = 12 * text * time * width + 4 * head * size
        backward_head(
            dy.ctypes.data + rows, qkv.ctypes.data + place, dqkv.ctypes.data + place, 4 * width,
            time, size, mask.ctypes.data + 4 * number * time * time if mask.shape[0] > 0 else 0,
            stats.ctypes.data + 8 * number * time, room.ctypes.data, tiles.ctypes.data,
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
    stats = np.empty((batch, n_head, time, 2), np.float32)  # (B, H, T, 2)
    forward_texts(qkv, n_head, kept, y, stats, 0, batch * n_head, room, tiles, panels)
    return y, (qkv, n_head, kept, stats)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dqkv (N, 3C)."""
    qkv, n_head, mask, stats = saved
    dy = floats(dy, "attention.backward: dy")  # (N, C)
    dqkv = np.empty_like(qkv)  # (N, 3C)
    rooms = workspace.get(make_rooms, stats.shape[2], dy.shape[1] // n_head)
    backward_texts(dy, qkv, n_head, mask, stats, dqkv, 0, len(stats) * n_head, *rooms)
    return dqkv
