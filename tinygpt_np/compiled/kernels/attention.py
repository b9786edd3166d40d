"""Causal attention, compiled: ROWS queries at a time, with scores for visible keys only.

Forward, for a tile of queries: the scores of all keys that one of them sees, the softmax of each
row, and the weighted sum of the values. Each query's largest score and 1/Σ exp are saved, from
which the backward computes the same probabilities, to the last bit.

Backward, for a tile of queries: scores, probs and dprobs of all keys, and dq as one matmul. probs
and dscores of a stripe of queries are kept until they are added to dk and dv at once. The mean that
the softmax's backward subtracts is Σ_s dprobs·probs of these very numbers (see ops/softmax.py):
Σ_d dy·y, which is equal but for rounding, would not cancel where one probability is 1.
Source: Dao et al., "FlashAttention" (2022), algorithms 1 and 4.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled.cache import inner, kernel
from tinygpt_np.compiled.kernels.elementary import exp
from tinygpt_np.compiled.kernels.matmul import (
    PANEL,
    PANELS,
    PLAIN,
    TRANSPOSED,
    matrix,
    matrix_of,
    moved,
    pack,
    pack_all,
    packed_size,
    padded,
    tile_matmul,
)
from tinygpt_np.compiled.kernels.matmul import make_scratch as make_matmul_scratch
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import Arena, Matrix, workspace
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


class Scratch(NamedTuple):
    """A thread's scratch memory for attention over T tokens.

    tiles (ROWS + 2, ·): scores of ROWS queries, and two rows for numbers per query.
    stripes (2, RANK, ·): probs and dscores of a stripe of queries.
    panels (3, ·): packed keys and values.
    """

    matmul: np.ndarray
    tiles: np.ndarray
    stripes: np.ndarray
    panels: np.ndarray


def make_tiles(arena: Arena, time: int) -> np.ndarray:
    """Return memory for a tile of scores of up to `time` keys, and two further rows."""
    row = time + -time % LANES
    # An odd number of vectors, so that rows do not all fall on the same lines of the L1 cache.
    return arena.zeros(ROWS + 2, row + LANES * (row // LANES % 2 == 0))


def make_scratch(arena: Arena, time: int, head_size: int) -> Scratch:
    """Return one thread's scratch memory for attention over `time` tokens."""
    tiles = make_tiles(arena, time)
    stripes = arena.zeros(2, RANK, tiles.shape[1])
    size = max(packed_size(head_size, time), packed_size(time, head_size))
    return Scratch(make_matmul_scratch(arena), tiles, stripes, arena.zeros(3, size))


@inner
def matmul_columns(
    height: Any, a: Any, panels: Any, end: Any, depth: Any, columns: Any, c: Any, scratch: Any
) -> None:
    """Up to ROWS rows of A times the first `end` columns of packed B, in whole vectors."""
    for column in range(0, end, PANEL):
        panel = matrix(panels + 4 * column * depth, padded(min(PANEL, columns - column)))
        width = (min(end - column, PANEL) + LANES - 1) // LANES * LANES
        tile_matmul(
            height, a, False, panel, matrix(scratch, 0), moved(c, 0, column), width, depth,
            matrix(panels, 0), scratch,
        )  # fmt: skip


@inner
def matmul_rows(
    height: Any, a: Any, panels: Any, end: Any, depth: Any, columns: Any, c: Any, scratch: Any
) -> None:
    """The first `end` columns of up to ROWS rows of A times as many rows of packed B."""
    for column in range(0, columns, PANEL):
        width = min(PANEL, columns - column)
        tile_matmul(
            height, a, False, matrix(panels + 4 * column * depth, padded(width)),
            matrix(scratch, 0), moved(c, 0, column), width, end, matrix(panels, 0), scratch,
        )  # fmt: skip


@inner
def hide(values: Any, visible: Any, end: Any, hidden: Any) -> None:
    """Set the values from `visible` to `end`, in whole vectors, to `hidden`."""
    for block in range(visible // LANES * LANES, end, LANES):
        place = values + 4 * block
        store_vector(place, first_lanes(load_vector(place), visible - block, hidden))


@inner
def largest_visible(scores: Any, visible: Any, end: Any) -> Any:
    """Return the largest of the first `visible` scores; set those from there to `end` to -inf."""
    hide(scores, visible, end, MINUS_INFINITY)
    largest = load_vector(scores)
    for place in range(scores + VECTOR, scores + 4 * visible, VECTOR):
        largest = at_least(load_vector(place), largest)
    return largest_of(largest)


@inner
def exponentials(scores: Any, end: Any, largest: Any, scale: Any) -> Any:
    """Replace scores by exp(scale·(scores - largest)); return their sum."""
    total = all_lanes(ZERO)
    for place in range(scores, scores + 4 * end, VECTOR):
        found = exp((load_vector(place) - largest) * scale)
        store_vector(place, found)
        total = total + found
    return sum_of(total)


@inner
def multiply_by(values: Any, factors: Any, count: Any) -> None:
    """values *= factors, `count` of each, at addresses."""
    aligned = 4 * (count // LANES * LANES)
    for place in range(0, aligned, VECTOR):
        store_vector(values + place, load_vector(values + place) * load_vector(factors + place))
    for place in range(aligned, 4 * count, 4):
        store(values + place, load(values + place) * load(factors + place))


@inner
def scale_row(values: Any, count: Any, factor: Any) -> None:
    """values *= factor, `count` numbers at an address."""
    aligned = 4 * (count // LANES * LANES)
    for place in range(values, values + aligned, VECTOR):
        store_vector(place, load_vector(place) * factor)
    for place in range(values + aligned, values + 4 * count, 4):
        store(place, load(place) * factor)


@inner
def recompute_probs(
    scores: Any, dprobs: Any, stats: Any, scale: Any, visible: Any, end: Any
) -> Any:  # fmt: skip
    """Turn the scores of one query into its probabilities, in place; return Σ dprobs·probs.

    Both become 0 from `visible` to `end`.
    """
    largest, inverse = load(stats), load(stats + 4)
    total, aligned = all_lanes(ZERO), visible // LANES * LANES
    for place in range(0, 4 * aligned, VECTOR):
        prob = exp((load_vector(scores + place) - largest) * scale) * inverse
        store_vector(scores + place, prob)
        total = fma(prob, load_vector(dprobs + place), total)
    for block in range(aligned, end, LANES):
        place, count = 4 * block, visible - block
        prob = exp((load_vector(scores + place) - largest) * scale) * inverse
        prob = first_lanes(prob, count, ZERO)
        dprob = first_lanes(load_vector(dprobs + place), count, ZERO)
        store_vector(scores + place, prob)
        store_vector(dprobs + place, dprob)
        total = fma(prob, dprob, total)
    return sum_of(total)


@inner
def softmax_backward(probs: Any, dprobs: Any, mean: Any, scale: Any, end: Any) -> None:
    """Turn dprobs of one query into dscores, in place."""
    for place in range(0, 4 * end, VECTOR):
        dscore = load_vector(probs + place) * (load_vector(dprobs + place) - mean) * scale
        store_vector(dprobs + place, dscore)


@linked
def attend(
    q: Matrix, rows: Any, start: Any, keys: Any, values: Any, time: Any, size: Any, mask: Any,
    y: Matrix, stats: Any, tiles: Matrix, scratch: Any,
) -> None:  # fmt: skip
    """Attend from the queries of one head at positions start, start + 1, … to the keys up to each.

    q, y (rows, D); keys (D, T) and values (T, D) packed, for T = time; mask: the address of the
    dropout mask (rows, T), or 0. stats (rows, 2) is written unless its address is 0.
    """
    scale = np.float32(1 / math.sqrt(size))
    inverses, largests = moved(tiles, ROWS, 0).address, moved(tiles, ROWS + 1, 0).address
    for row in range(0, rows, ROWS):
        height = min(ROWS, rows - row)
        end = start + row + height
        matmul_columns(height, moved(q, row, 0), keys, end, size, time, tiles, scratch)
        # Two loops, so that one row's arithmetic can overlap with the end of another's.
        for i in range(height):
            largest = largest_visible(moved(tiles, i, 0).address, start + row + i + 1, end)
            store(largests + 4 * i, largest)
        for i in range(height):
            place, largest = moved(tiles, i, 0).address, load(largests + 4 * i)
            total = exponentials(place, end, largest, scale)
            store(inverses + 4 * i, ONE / total)
            if stats:
                store(stats + 8 * (row + i), largest)
                store(stats + 8 * (row + i) + 4, ONE / total)
            if mask:
                multiply_by(place, mask + 4 * (row + i) * time, start + row + i + 1)
        matmul_rows(height, tiles, values, end, time, size, moved(y, row, 0), scratch)
        for i in range(height):
            scale_row(moved(y, row + i, 0).address, size, load(inverses + 4 * i))


@inner
def head_of(array: Any, number: Any, time: Any, n_head: Any, size: Any) -> Any:
    """Return one head's columns of one sequence's rows of an array (B·T, ·), as a Matrix."""
    return moved(matrix_of(array), number // n_head * time, number % n_head * size)


@inner
def key_and_value_of(
    qkv: Any, number: Any, time: Any, n_head: Any, n_kv_head: Any, size: Any
) -> Any:
    """Return the keys and the values (T, D) of one of the B·J heads of qkv or dqkv."""
    key = moved(head_of(qkv, number, time, n_kv_head, size), 0, n_head * size)
    return key, moved(key, 0, n_kv_head * size)


@inner
def mask_of(mask: Any, number: Any, time: Any) -> Any:
    """Return the address of one head's mask (T, T), or 0 without dropout."""
    return mask.ctypes.data + 4 * number * time * time if mask.shape[0] > 0 else 0


@kernel
def forward_heads(
    qkv: Any, n_head: Any, n_kv_head: Any, mask: Any, y: Any, stats: Any, first: Any, end: Any,
    scratch: Any,
) -> None:  # fmt: skip
    """qkv (N, E), mask (B, H, T, T) or with B = 0 for none -> y (N, C), stats (B, H, T, 2).

    Only the heads of keys and values from `first` to `end` of the B·J of all sequences, with the
    queries that share each.
    """
    time, size, group = stats.shape[2], y.shape[1] // n_head, n_head // n_kv_head
    panels = matrix_of(scratch.panels)
    keys, values = panels.address, panels.address + panels.stride
    for shared in range(first, end):
        k, v = key_and_value_of(qkv, shared, time, n_head, n_kv_head, size)
        pack_all(k, TRANSPOSED, size, time, keys)
        pack_all(v, PLAIN, time, size, values)
        for number in range(shared * group, (shared + 1) * group):
            attend(
                head_of(qkv, number, time, n_head, size), time, 0, keys, values, time, size,
                mask_of(mask, number, time), head_of(y, number, time, n_head, size),
                stats.ctypes.data + 8 * number * time, matrix_of(scratch.tiles),
                scratch.matmul.ctypes.data,
            )  # fmt: skip


@inner
def add_stripe(
    stripe: Any, origin: Any, rank: Any, b: Any, size: Any, c: Any, unset: Any, scratch: Any
) -> None:
    """Add stripeᵀ·B to C, for the keys that a stripe of queries sees; B is (T, D), C (T, D).

    Rows of C from `unset` on start from zero.
    """
    for column in range(0, size, PANEL):
        width = min(PANEL, size - column)
        panel = matrix(scratch + 4 * PANELS, padded(width))
        pack(moved(b, origin, column), PLAIN, width, rank, panel.address)
        for key in range(0, origin + rank, ROWS):
            height, skipped = min(ROWS, origin + rank - key), max(key - origin, 0)
            target = moved(c, key, column)
            start = matrix(scratch, 0) if key >= unset else target
            tile_matmul(
                height, moved(stripe, skipped, key), True, moved(panel, skipped, 0), start, target,
                width, rank - skipped, matrix(panel.address, 0), scratch,
            )  # fmt: skip


@linked
def backward_head(
    dy: Matrix, q: Matrix, dq: Matrix, dk: Matrix, dv: Matrix, fresh: Any, time: Any, size: Any,
    mask: Any, stats: Any, scratch: Any, tiles: Any, stripes: Matrix, panels: Matrix,
) -> None:  # fmt: skip
    """One head of queries of one sequence, of which dy, q and dq are (T, D).

    panels: Kᵀ, Vᵀ and K, packed. dk and dv (T, D) are added to, or if they are fresh, set.
    """
    scale = np.float32(1 / math.sqrt(size))
    probs, dscores, means = stripes, moved(stripes, RANK, 0), tiles
    keys_t = panels.address
    values_t, keys = keys_t + panels.stride, keys_t + 2 * panels.stride
    for origin in range(0, time, RANK):
        rank = min(RANK, time - origin)
        for row in range(0, rank, ROWS):
            height, query = min(ROWS, rank - row), origin + row
            p, ds, end = moved(probs, row, 0), moved(dscores, row, 0), query + height
            matmul_columns(height, moved(q, query, 0), keys_t, end, size, time, p, scratch)
            matmul_columns(height, moved(dy, query, 0), values_t, end, size, time, ds, scratch)
            # Two loops, so that one row's arithmetic can overlap with the end of another's.
            for i in range(height):
                p_row, ds_row, visible = moved(p, i, 0), moved(ds, i, 0), query + i + 1
                if mask:
                    multiply_by(ds_row.address, mask + 4 * (query + i) * time, visible)
                mean = recompute_probs(
                    p_row.address, ds_row.address, stats + 8 * (query + i), scale, visible, end
                )
                store(means + 4 * i, mean)
            for i in range(height):
                p_row, ds_row, visible = moved(p, i, 0), moved(ds, i, 0), query + i + 1
                softmax_backward(p_row.address, ds_row.address, load(means + 4 * i), scale, end)
                if mask:
                    multiply_by(p_row.address, mask + 4 * (query + i) * time, visible)
            matmul_rows(height, ds, keys, end, time, size, moved(dq, query, 0), scratch)
        # No earlier stripe and no earlier head of the group sees the keys from `unset` on.
        unset = origin if fresh else time
        add_stripe(probs, origin, rank, dy, size, dv, unset, scratch)
        add_stripe(dscores, origin, rank, q, size, dk, unset, scratch)


@kernel
def backward_heads(
    dy: Any, qkv: Any, n_head: Any, n_kv_head: Any, mask: Any, stats: Any, dqkv: Any, first: Any,
    end: Any, scratch: Any,
) -> None:  # fmt: skip
    """dy (N, C), and the forward's arguments and stats -> dqkv (N, E).

    Only the heads of keys and values from `first` to `end`, as in the forward. One call, so one
    thread, adds the gradients of all queries of such a head, in order: the sums have the same bits
    on any number of threads.
    """
    time, size, group = stats.shape[2], dy.shape[1] // n_head, n_head // n_kv_head
    panels = matrix_of(scratch.panels)
    for shared in range(first, end):
        k, v = key_and_value_of(qkv, shared, time, n_head, n_kv_head, size)
        dk, dv = key_and_value_of(dqkv, shared, time, n_head, n_kv_head, size)
        pack_all(k, TRANSPOSED, size, time, panels.address)
        pack_all(v, TRANSPOSED, size, time, panels.address + panels.stride)
        pack_all(k, PLAIN, time, size, panels.address + 2 * panels.stride)
        for number in range(shared * group, (shared + 1) * group):
            backward_head(
                head_of(dy, number, time, n_head, size), head_of(qkv, number, time, n_head, size),
                head_of(dqkv, number, time, n_head, size), dk, dv, number == shared * group, time,
                size, mask_of(mask, number, time), stats.ctypes.data + 8 * number * time,
                scratch.matmul.ctypes.data, scratch.tiles.ctypes.data,
                matrix(scratch.stripes.ctypes.data, 4 * scratch.stripes.shape[2]), panels,
            )  # fmt: skip


def forward(
    qkv: np.ndarray,
    batch: int,
    n_head: int,
    mask: np.ndarray | None = None,
    n_kv_head: int | None = None,
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """qkv (N, E), batch B, n_head H, mask (B, H, T, T) or None, n_kv_head J or None -> y (N, C), saved."""  # noqa: E501
    qkv = floats(qkv, "attention.forward: qkv")  # (N, E)
    kv_heads = n_head if n_kv_head is None else n_kv_head
    time, size = len(qkv) // batch, qkv.shape[1] // (n_head + 2 * kv_heads)
    kept = NO_MASK if mask is None else floats(mask, "attention.forward: mask")  # (B, H, T, T)
    y = np.empty((len(qkv), n_head * size), np.float32)  # (N, C)
    stats = np.empty((batch, n_head, time, 2), np.float32)  # (B, H, T, 2)
    scratch = workspace.get(make_scratch, time, size)
    forward_heads(qkv, n_head, kv_heads, kept, y, stats, 0, batch * kv_heads, scratch)
    return y, (qkv, n_head, kv_heads, kept, stats)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dqkv (N, E)."""
    qkv, n_head, kv_heads, mask, stats = saved
    dy = floats(dy, "attention.backward: dy")  # (N, C)
    dqkv = np.empty_like(qkv)  # (N, E)
    scratch = workspace.get(make_scratch, stats.shape[2], dy.shape[1] // n_head)
    end = len(stats) * kv_heads
    backward_heads(dy, qkv, n_head, kv_heads, mask, stats, dqkv, 0, end, scratch)
    return dqkv
