"""Causal attention, compiled: stripes of scores, of which only what is visible is ever made.

Forward, for RANK queries at a time: their scores with every visible key, tile by tile; the softmax
of each row (all of a row is there, so its maximum needs no second thoughts); and the sum over the
values. What stays is, per query, the logarithm of its softmax's total: probs = exp(score - total)
give the probabilities again when the backward needs them.

Backward, for RANK keys at a time, transposed: scores and dprobs with every query that sees them,
so that dv and dk are whole products and only dq is added up. `delta` is Σ_d dy·y of a query, which
is what Σ_s dprobs·probs comes to (see softmax.py).
Source: Dao et al., "FlashAttention" (2022), algorithms 1 and 4.
"""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiling import kernel
from tinygpt_np.kernels.arrays import floats
from tinygpt_np.kernels.elementary import exp, maximum
from tinygpt_np.kernels.matmul import (
    PANEL,
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
from tinygpt_np.kernels.vectors import LANES, ROWS

# Rows of a stripe: whole tiles, and whole vectors.
RANK = ROWS * LANES
NO_MASK = np.zeros((0, 0, 0, 0), dtype=np.float32)


def make_rooms(arena: Arena, time: int, head_size: int) -> tuple[np.ndarray, ...]:
    """Memory for one thread's attention over `time` tokens: room, stripes, turned, panels."""
    row = time + -time % LANES
    size = max(packed_size(head_size, time), packed_size(time, head_size))
    stripes, turned = arena.zeros(4, RANK, row), arena.zeros(row, RANK)
    return make_room(arena), stripes, turned, arena.zeros(4, size)


@kernel
def pack_all(b: Any, stride: Any, form: Any, depth: Any, columns: Any, panels: Any) -> None:
    """Packs all panels of a matrix at an address, of (depth, columns) once it is packed."""
    for column in range(0, columns, PANEL):
        corner = b + column * (stride if form == TRANSPOSED else 4)
        width = min(PANEL, columns - column)
        pack(corner, stride, form, width, depth, panels + 4 * column * depth)


@kernel
def tiles_product(
    height: Any, a: Any, a_stride: Any, panels: Any, first: Any, depth: Any, whole_depth: Any,
    start: Any, start_stride: Any, c: Any, c_stride: Any, columns: Any, room: Any,
) -> None:  # fmt: skip
    """Up to ROWS rows of A times the rows of B from first to first + depth, all its panels."""
    for column in range(0, columns, PANEL):
        width = min(PANEL, columns - column)
        stride = padded(width)
        tile_product(
            height, a, a_stride, panels + 4 * column * whole_depth + first * stride, stride,
            start + (4 * column if start_stride > 0 else 0), start_stride, c + 4 * column,
            c_stride, width, depth, room,
        )  # fmt: skip


@kernel
def forward_texts(
    qkv: Any, n_head: Any, mask: Any, y: Any, log_total: Any, room: Any, stripes: Any, panels: Any
) -> None:
    """qkv (N, 3C), mask (B, H, T, T) or with B = 0 for none -> y (N, C), log_total (B, H, T)."""
    batch, _, time = log_total.shape
    width = y.shape[1]
    size = width // n_head
    stride, y_stride, row_stride = 12 * width, 4 * width, 4 * stripes.shape[2]
    scale = np.float32(1 / math.sqrt(size))
    scores, inverses = stripes[0], stripes[1, 0]
    zeros, at_scores = room.ctypes.data, scores.ctypes.data
    keys, values = panels[0].ctypes.data, panels[1].ctypes.data
    for text in range(batch):
        for head in range(n_head):
            q = qkv.ctypes.data + text * time * stride + 4 * head * size
            k, v = q + 4 * width, q + 8 * width
            out = y.ctypes.data + text * time * y_stride + 4 * head * size
            pack_all(k, stride, TRANSPOSED, size, time, keys)
            pack_all(v, stride, PLAIN, time, size, values)
            for origin in range(0, time, RANK):
                rows = min(RANK, time - origin)
                for column in range(0, origin + rows, PANEL):
                    panel_width = min(PANEL, time - column)
                    for row in range(0, rows, ROWS):
                        height = min(ROWS, rows - row)
                        # What the tile's last query sees of this panel, in whole vectors.
                        seen = (origin + row + height - column + LANES - 1) // LANES * LANES
                        if seen > 0:
                            tile_product(
                                height, q + (origin + row) * stride, stride,
                                keys + 4 * column * size, padded(panel_width), zeros, 0,
                                at_scores + row * row_stride + 4 * column, row_stride,
                                min(seen, panel_width), size, room.ctypes.data,
                            )  # fmt: skip
                for row in range(rows):
                    end = origin + row + 1
                    total = softmax_row(scores[row, :end], scale)
                    log_total[text, head, end - 1] = total[1]
                    inverses[row] = np.float32(1) / total[0]
                    if mask.shape[0] > 0:
                        multiply(scores[row, :end], mask[text, head, end - 1])
                    # To the end of the row's tile.
                    scores[row, end : origin + min(rows, row - row % ROWS + ROWS)] = 0
                for row in range(0, rows, ROWS):
                    height = min(ROWS, rows - row)
                    tiles_product(
                        height, at_scores + row * row_stride, row_stride, values, 0,
                        origin + row + height, time, zeros, 0,
                        out + (origin + row) * y_stride, y_stride, size, room.ctypes.data,
                    )  # fmt: skip
                for row in range(rows):
                    place = text * time + origin + row
                    scale_row(y[place, head * size : (head + 1) * size], inverses[row])


@kernel
def softmax_row(scores: Any, scale: Any) -> Any:
    """exp(scale·(scores - largest)) in place; their sum, and the logarithm of the total."""
    largest = scores[0]
    for i in range(scores.shape[0]):
        largest = maximum(largest, scores[i])
    total = np.float32(0)
    for i in range(scores.shape[0]):
        value = exp((scores[i] - largest) * scale)
        scores[i] = value
        total += value
    return total, largest * scale + np.float32(math.log(total))


@kernel
def multiply(values: Any, mask: Any) -> None:
    for i in range(values.shape[0]):
        values[i] *= mask[i]


@kernel
def scale_row(values: Any, factor: Any) -> None:
    for i in range(values.shape[0]):
        values[i] *= factor


@kernel
def backward_texts(
    dy: Any, qkv: Any, n_head: Any, mask: Any, y: Any, log_total: Any, dqkv: Any,
    room: Any, stripes: Any, turned: Any, panels: Any,
) -> None:  # fmt: skip
    """dy (N, C) and what the forward was given and gave -> dqkv (N, 3C)."""
    batch, _, time = log_total.shape
    width = y.shape[1]
    size = width // n_head
    stride, y_stride, row_stride = 12 * width, 4 * width, 4 * stripes.shape[2]
    scale = np.float32(1 / math.sqrt(size))
    probs, dscores, kept, delta = stripes[0], stripes[1], stripes[2], stripes[3, 0]
    zeros = room.ctypes.data
    queries_t, dy_t = panels[0].ctypes.data, panels[1].ctypes.data
    queries, dys = panels[2].ctypes.data, panels[3].ctypes.data
    turned_stride = 4 * turned.shape[1]
    dropped = mask.shape[0] > 0
    for text in range(batch):
        for head in range(n_head):
            q = qkv.ctypes.data + text * time * stride + 4 * head * size
            k, v = q + 4 * width, q + 8 * width
            dq = dqkv.ctypes.data + text * time * stride + 4 * head * size
            dk, dv = dq + 4 * width, dq + 8 * width
            dout = dy.ctypes.data + text * time * y_stride + 4 * head * size
            pack_all(q, stride, TRANSPOSED, size, time, queries_t)
            pack_all(dout, y_stride, TRANSPOSED, size, time, dy_t)
            pack_all(q, stride, PLAIN, time, size, queries)
            pack_all(dout, y_stride, PLAIN, time, size, dys)
            for i in range(time):
                row, first = text * time + i, head * size
                delta[i] = product_sum(dy[row, first : first + size], y[row, first : first + size])
            for origin in range(0, time, RANK):
                rows = min(RANK, time - origin)
                for column in range(origin // PANEL * PANEL, time, PANEL):
                    panel_width = min(PANEL, time - column)
                    panel_stride = padded(panel_width)
                    for row in range(0, rows, ROWS):
                        height = min(ROWS, rows - row)
                        # The tile's first key is seen from here on, in whole vectors.
                        skipped = max((origin + row) // LANES * LANES - column, 0)
                        if skipped < panel_width:
                            place = row * row_stride + 4 * (column + skipped)
                            panel = 4 * column * size + 4 * skipped
                            tile_product(
                                height, k + (origin + row) * stride, stride, queries_t + panel,
                                panel_stride, zeros, 0, probs.ctypes.data + place, row_stride,
                                panel_width - skipped, size, room.ctypes.data,
                            )  # fmt: skip
                            tile_product(
                                height, v + (origin + row) * stride, stride, dy_t + panel,
                                panel_stride, zeros, 0, dscores.ctypes.data + place, row_stride,
                                panel_width - skipped, size, room.ctypes.data,
                            )  # fmt: skip
                if dropped:
                    transpose(
                        mask[text, head].ctypes.data + 4 * origin, 4 * time, rows, time,
                        kept.ctypes.data, row_stride,
                    )  # fmt: skip
                for row in range(rows):
                    key = origin + row
                    probs[row, origin:key] = 0
                    dscores[row, origin:key] = 0
                    undo_softmax(
                        probs[row, key:time], dscores[row, key:time], kept[row, key:time], dropped,
                        scale, log_total[text, head, key:], delta[key:],
                    )  # fmt: skip
                for row in range(0, rows, ROWS):
                    height, first = min(ROWS, rows - row), origin + row
                    place = row * row_stride + 4 * first
                    tiles_product(
                        height, probs.ctypes.data + place, row_stride, dys, first, time - first,
                        time, zeros, 0, dv + first * stride, stride, size, room.ctypes.data,
                    )  # fmt: skip
                    tiles_product(
                        height, dscores.ctypes.data + place, row_stride, queries, first,
                        time - first, time, zeros, 0, dk + first * stride, stride, size,
                        room.ctypes.data,
                    )  # fmt: skip
                transpose(
                    dscores.ctypes.data + 4 * origin, row_stride, time - origin, rows,
                    turned.ctypes.data, turned_stride,
                )  # fmt: skip
                add_dq(
                    turned, origin, rows, time, k + origin * stride, dq, stride, size,
                    room.ctypes.data,
                )  # fmt: skip


@kernel
def add_dq(
    turned: Any, origin: Any, rows: Any, time: Any, k: Any, dq: Any, stride: Any, size: Any,
    room: Any,
) -> None:  # fmt: skip
    """dq of the queries from origin on, by the keys of one stripe; the first stripe begins it."""
    turned_stride = 4 * turned.shape[1]
    for column in range(0, size, PANEL):
        width = min(PANEL, size - column)
        panel = room + 4 * (PANEL + ROWS * LANES)
        pack(k + 4 * column, stride, PLAIN, width, rows, panel)
        for row in range(origin, time, ROWS):
            height = min(ROWS, time - row)
            c = dq + row * stride + 4 * column
            start, start_stride = (room, 0) if origin == 0 else (c, stride)
            tile_product(
                height, turned.ctypes.data + (row - origin) * turned_stride, turned_stride,
                panel, padded(width), start, start_stride, c, stride, width,
                min(rows, row + height - origin), room,
            )  # fmt: skip


@kernel
def product_sum(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@kernel
def undo_softmax(
    probs: Any, dscores: Any, kept: Any, dropped: Any, scale: Any, log_total: Any, delta: Any
) -> None:
    """Of one key: scores become probabilities (what dropout kept of them), dprobs dscores."""
    if dropped:
        for i in range(probs.shape[0]):
            value = exp(probs[i] * scale - log_total[i])
            dscores[i] = value * (dscores[i] * kept[i] - delta[i]) * scale
            probs[i] = value * kept[i]
    else:
        for i in range(probs.shape[0]):
            value = exp(probs[i] * scale - log_total[i])
            dscores[i] = value * (dscores[i] - delta[i]) * scale
            probs[i] = value


def forward(
    qkv: np.ndarray, batch: int, n_head: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """qkv (N, 3C), batch B, n_head H, mask (B, H, T, T) or None -> y (N, C), saved."""
    qkv = floats(qkv, "attention.forward: qkv")  # (N, 3C)
    time, width = len(qkv) // batch, qkv.shape[1] // 3
    kept = NO_MASK if mask is None else floats(mask, "attention.forward: mask")  # (B, H, T, T)
    room, stripes, _, panels = workspace.get(make_rooms, time, width // n_head)
    y = np.empty((len(qkv), width), np.float32)  # (N, C)
    log_total = np.empty((batch, n_head, time), np.float32)  # (B, H, T)
    forward_texts(qkv, n_head, kept, y, log_total, room, stripes, panels)
    # y is the caller's, who may write into it.
    return y, (qkv, n_head, kept, y.copy(), log_total)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dqkv (N, 3C)."""
    qkv, n_head, mask, y, log_total = saved
    dy = floats(dy, "attention.backward: dy")  # (N, C)
    dqkv = np.empty_like(qkv)  # (N, 3C)
    rooms = workspace.get(make_rooms, log_total.shape[2], y.shape[1] // n_head)
    backward_texts(dy, qkv, n_head, mask, y, log_total, dqkv, *rooms)
    return dqkv
