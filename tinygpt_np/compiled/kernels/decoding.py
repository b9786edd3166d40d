"""Decoding: the next tokens of some sequences through a whole GPT, in one call.

A row's bits do not depend on other rows: matmuls sum in the order of the depth (see matmul.py), and
every other sum stays within a row. So rows may be read at once or one after another, by any thread.

The cache holds keys and values as the matmuls take them, so that nothing is packed again for a new
token: for each sequence and head, keys (D, M) and values (M, D) in panels. A new position is a
column of the keys' panels and a row of the values'. Weights are packed in panels too, except those
of large models, which are read in place: packing them takes as long as generating many tokens.

Threads split the work in one of two ways (Split). With a long prompt each thread reads some of its
rows. With a few tokens each thread computes some heads, and some columns of every matmul.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3.
"""

from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import embedding, few_rows, gelu, gelu_exact, layer_norm
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.matmul import (
    PANEL,
    PLAIN,
    make_scratch,
    matmul_at,
    matrix,
    matrix_of,
    moved,
    pack,
    packed_size,
    padded,
    start_of,
    transpose,
)
from tinygpt_np.compiled.simd.barrier import wait_for_all
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import load

# Columns are split between threads at multiples of this: whole vectors, unrolled or not.
UNIT = 64
# The matrices of a block, in the order of Weights.addresses.
Q, KV, ATTENTION_OUT, UP, DOWN = range(5)


class Weights(NamedTuple):
    """A GPT's weights: L layers, C channels, M positions, V tokens.

    Matrices are given by address and by stride in bytes: `addresses` (L, 5) and `strides` (5,) of
    Q, KV, ATTENTION_OUT, UP and DOWN, and `head`. They are packed or, if form is PLAIN, as they
    are, the head transposed. Norms are pairs of scale and bias.
    """

    tokens: np.ndarray  # (V, C)
    positions: np.ndarray  # (M, C)
    norms: np.ndarray  # (L, 4, C)
    addresses: np.ndarray  # (L, 5)
    strides: np.ndarray  # (5,)
    form: int
    q_bias: np.ndarray  # (L, 1, C), as all biases
    kv_bias: np.ndarray
    out_bias: np.ndarray
    up_bias: np.ndarray
    down_bias: np.ndarray
    final_norm: np.ndarray  # (2, C)
    head: int
    head_stride: int
    exact_gelu: bool


class Cache(NamedTuple):
    """The keys and values of B sequences, packed: (L, B, H, size) each."""

    keys: np.ndarray
    values: np.ndarray


class Buffers(NamedTuple):
    """A thread's activations, one row for each token that is read. `heads` may be `normed`."""

    x: np.ndarray
    mid: np.ndarray
    normed: np.ndarray
    q: np.ndarray
    kv: np.ndarray
    heads: np.ndarray
    hidden: np.ndarray
    activated: np.ndarray
    mean: np.ndarray
    rstd: np.ndarray
    tiles: np.ndarray
    scratch: np.ndarray


class Split(NamedTuple):
    """The split of one call's work between threads, which wait for each other at counter.

    By columns: thread `thread` of `columns` threads, which share x, mid, heads and activated.
    By rows: each of `rows` threads calls with its own rows of one sequence.
    """

    thread: int
    columns: int
    rows: int
    counter: np.ndarray


NO_SPLIT = Split(0, 1, 1, np.zeros(1, np.int64))


def make_cache(n_layer: int, batch: int, n_head: int, capacity: int, size: int) -> Cache:
    """Return a cache for `batch` sequences of up to `capacity` tokens."""
    arena, shape = Arena(), (n_layer, batch, n_head)
    keys = arena.zeros(*shape, packed_size(size, capacity))
    return Cache(keys, arena.zeros(*shape, packed_size(capacity, size)))


def make_buffers(arena: Arena, rows: int, width: int, capacity: int) -> Buffers:
    """Return a thread's buffers for `rows` tokens at once of sequences of up to `capacity`."""
    zeros = arena.zeros
    x, mid, normed, q = zeros(4, rows, width)
    kv, hidden, activated = (zeros(rows, times * width) for times in (2, 4, 4))
    mean, rstd = zeros(2, rows)
    tiles = make_tiles(arena, capacity)
    scratch = make_scratch(arena)
    return Buffers(x, mid, normed, q, kv, normed, hidden, activated, mean, rstd, tiles, scratch)


@strict
def read(
    tokens: Any, start: Any, weights: Any, cache: Any, first: Any, logits: Any, buffers: Any,
    split: Any,
) -> None:  # fmt: skip
    """tokens (B, n) at the positions from start on -> logits (B, V) of the token after the last.

    The cache holds what precedes them; the first sequence has number `first` there. If logits is
    (0, V), only keys and values are kept. As many sequences are read at once as fit in buffers.
    The named tuples are given as plain tuples, which Numba unboxes 1 µs faster each.
    """
    weights, cache, buffers, split = (
        Weights(*weights), Cache(*cache), Buffers(*buffers), Split(*split),
    )  # fmt: skip
    batch, count = tokens.shape
    n_layer, wanted = cache.keys.shape[0], min(logits.shape[0], 1)
    at_once = max(buffers.x.shape[0] // count, 1)
    for low in range(0, batch, at_once):
        high = min(low + at_once, batch)
        if split.thread == 0:
            embedding.embed(tokens[low:high], start, weights.tokens, weights.positions, buffers.x)
        wait_for_all(split.counter.ctypes.data, split.columns)
        for layer in range(n_layer):
            read_block(
                high - low, count, start, wanted if layer == n_layer - 1 else count, weights, layer,
                cache, first + low, buffers, split,
            )  # fmt: skip
        if wanted:
            output_head(weights, logits[low:high], buffers, split)


@strict
def read_block(
    batch: Any, count: Any, start: Any, wanted: Any, weights: Any, layer: Any, cache: Any,
    first: Any, buffers: Any, split: Any,
) -> None:  # fmt: skip
    """Replace the first batch·count rows of buffers.x by a block's output for batch·wanted rows.

    wanted: count, 1 for the last row of each sequence, or 0 to keep keys and values only.
    """
    thread, threads, counter = split.thread, split.columns, split.counter.ctypes.data
    norms, rows = weights.norms[layer], batch * count
    width, n_head, capacity = buffers.x.shape[1], cache.keys.shape[2], weights.positions.shape[0]
    size = width // n_head
    first_head, end_head = n_head * thread // threads, n_head * (thread + 1) // threads
    low, high = first_head * size, end_head * size
    mean, rstd, scratch, tiles = buffers.mean, buffers.rstd, buffers.scratch, buffers.tiles
    addresses, strides, form = weights.addresses[layer], weights.strides, weights.form

    x, normed, kv = buffers.x[:rows], buffers.normed[:rows], buffers.kv[:rows]
    layer_norm.forward_rows(x, norms[0], norms[1], layer_norm.EPSILON, normed, mean, rstd)
    b, bias = matrix(addresses[KV], strides[KV]), weights.kv_bias[layer]
    if threads == 1:
        matmul(normed, b, form, bias, kv, 0, 2 * width, scratch)
    else:
        matmul(normed, b, form, bias, kv, low, high, scratch)
        matmul(normed, b, form, bias, kv, width + low, width + high, scratch)
    for sequence in range(batch):
        latest = kv[sequence * count : (sequence + 1) * count]
        keys, values = cache.keys[layer, first + sequence], cache.values[layer, first + sequence]
        keep(latest, start, capacity, keys, values, first_head, end_head)
    wait_for_all(counter, split.rows)
    if wanted == 0:
        return

    # Row n of what follows belongs to row (n + 1)·step - 1 of x.
    rows, step = batch * wanted, count // wanted
    if step > 1:
        gather_last(rows, step, normed)
    normed, q, heads = buffers.normed[:rows], buffers.q[:rows], buffers.heads[:rows]
    mid, hidden, activated = buffers.mid[:rows], buffers.hidden[:rows], buffers.activated[:rows]
    b = matrix(addresses[Q], strides[Q])
    matmul(normed, b, form, weights.q_bias[layer], q, low, high, scratch)
    for sequence in range(batch):
        keys, values = cache.keys[layer, first + sequence], cache.values[layer, first + sequence]
        for head in range(first_head, end_head):
            attend(
                moved(matrix_of(q), sequence * wanted, head * size), wanted, start + count - wanted,
                keys[head].ctypes.data, values[head].ctypes.data, capacity, size, 0,
                moved(matrix_of(heads), sequence * wanted, head * size), 0,
                matrix_of(tiles), scratch.ctypes.data,
            )  # fmt: skip
    wait_for_all(counter, threads)
    left, right = columns_of(width, thread, threads)
    add_bias(x, step, weights.out_bias[layer, 0], mid, left, right)
    b = matrix(addresses[ATTENTION_OUT], strides[ATTENTION_OUT])
    matmul(heads, b, form, mid, mid, left, right, scratch)
    wait_for_all(counter, threads)
    layer_norm.forward_rows(mid, norms[2], norms[3], layer_norm.EPSILON, normed, mean, rstd)
    top, bottom = columns_of(4 * width, thread, threads)
    b = matrix(addresses[UP], strides[UP])
    matmul(normed, b, form, weights.up_bias[layer], hidden, top, bottom, scratch)
    apply_gelu(hidden, weights.exact_gelu, activated, top, bottom)
    wait_for_all(counter, threads)
    y = buffers.x[:rows]
    add_bias(mid, 1, weights.down_bias[layer, 0], y, left, right)
    b = matrix(addresses[DOWN], strides[DOWN])
    matmul(activated, b, form, y, y, left, right, scratch)
    wait_for_all(counter, threads)


@strict
def output_head(weights: Any, logits: Any, buffers: Any, split: Any) -> None:
    """The first B rows of buffers.x -> logits (B, V), a thread's columns of them."""
    rows, columns = logits.shape
    normed = buffers.normed[:rows]
    norm, depth = weights.final_norm, normed.shape[1]
    layer_norm.forward_rows(
        buffers.x[:rows], norm[0], norm[1], layer_norm.EPSILON, normed, buffers.mean, buffers.rstd
    )
    head = matrix(weights.head, weights.head_stride)
    if weights.form == PLAIN:
        left, right = columns_of(columns, split.thread, split.columns)
        few_rows.matmul_transposed(
            matrix_of(normed), moved(head, left, 0), moved(matrix_of(logits), 0, left), rows,
            right - left, depth,
        )  # fmt: skip
    else:
        scratch = buffers.scratch.ctypes.data
        matmul_at(
            matrix_of(normed), False, head, weights.form, matrix(scratch, 0), 0, matrix_of(logits),
            rows, columns, depth, scratch,
        )  # fmt: skip


@strict
def matmul(
    a: Any, b: Any, form: Any, start: Any, c: Any, left: Any, right: Any, scratch: Any
) -> None:
    """Columns left to right of c (M, N) = start + a (M, K) · b, a Matrix.

    All columns unless b is PLAIN and rows are few, when b is read in order.
    """
    rows, depth = a.shape
    origin, step = start_of(start, scratch)
    target = matrix_of(c)
    if form == PLAIN and rows <= few_rows.MOST:
        if origin.address != target.address:
            for row in range(rows):
                for column in range(left, right):
                    c[row, column] = load(moved(origin, row, step * column).address)
        few_rows.matmul(
            matrix_of(a), moved(b, 0, left), moved(target, 0, left), rows, right - left, depth
        )
    else:
        matmul_at(
            matrix_of(a), False, b, form, origin, step, target, rows, c.shape[1], depth,
            scratch.ctypes.data,
        )  # fmt: skip


@strict
def columns_of(total: Any, thread: Any, threads: Any) -> Any:
    """Return the first and last column of a thread, at multiples of UNIT."""
    units = (total + UNIT - 1) // UNIT
    first, end = units * thread // threads * UNIT, units * (thread + 1) // threads * UNIT
    return min(first, total), min(end, total)


@strict
def add_bias(x: Any, step: Any, bias: Any, y: Any, left: Any, right: Any) -> None:
    """Columns left to right of y (M, N) = every step-th row of x + bias (N,)."""
    # The loop vectorises because its index begins at 0; a negative one would mean the end.
    bias = bias[left:right]
    for row in range(y.shape[0]):
        source, target = x[(row + 1) * step - 1][left:right], y[row][left:right]
        for column in range(target.size):
            target[column] = source[column] + bias[column]


@strict
def apply_gelu(x: Any, exact: Any, y: Any, left: Any, right: Any) -> None:
    """Columns left to right of y (M, N) = GELU of those of x."""
    if not exact and right - left == x.shape[1]:
        gelu.forward_values(x.reshape(-1), y.reshape(-1))
        return
    for row in range(x.shape[0]):
        if exact:
            # Row by row, because a value's bits may depend on its place among those of one call.
            gelu_exact.forward_values(x[row, left:right], y[row, left:right])
        else:
            gelu.forward_values(x[row, left:right], y[row, left:right])


@strict
def gather_last(rows: Any, step: Any, x: Any) -> None:
    """Move every step-th row of x to the beginning."""
    for row in range(rows):
        for c in range(x.shape[1]):
            x[row, c] = x[(row + 1) * step - 1, c]


@strict
def keep(kv: Any, start: Any, capacity: Any, keys: Any, values: Any, first: Any, end: Any) -> None:
    """Put kv (n, 2C), at the positions from start on, into one sequence's cache (H, ·).

    Only the heads from `first` to `end`.
    """
    count, width = kv.shape[0], kv.shape[1] // 2
    size, rows = width // keys.shape[0], matrix_of(kv)
    for head in range(first, end):
        k, v = moved(rows, 0, head * size), moved(rows, 0, width + head * size)
        for column in range(start // PANEL * PANEL, start + count, PANEL):
            low, high = max(start, column), min(start + count, column + PANEL)
            panel = matrix(
                keys[head].ctypes.data + 4 * column * size, padded(min(PANEL, capacity - column))
            )
            transpose(moved(k, low - start, 0), size, high - low, moved(panel, 0, low - column))
        for column in range(0, size, PANEL):
            panel_width = min(PANEL, size - column)
            panel = values[head].ctypes.data + 4 * column * capacity
            corner = panel + start * padded(panel_width)
            pack(moved(v, 0, column), PLAIN, panel_width, count, corner)
