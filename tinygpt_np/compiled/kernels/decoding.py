"""Decoding: the next tokens of some sequences through a whole GPT, in one call.

A row's bits do not depend on other rows: matmuls sum in the order of the depth (see matmul.py), and
every other sum stays within a row. So rows may be read at once or one after another, by any thread.

The cache holds keys and values as the matmuls take them, so that nothing is packed again for a new
token: for each sequence and head, keys (D, M) and values (M, D) in panels. A new position is a
column of the keys' panels and a row of the values'. Weights are packed in panels too, except those
of large models, which are read in place: packing them takes as long as generating many tokens.

Threads split the work in one of two ways (Split). With a long prompt each thread reads some of its
rows. With a few tokens each thread computes some heads of keys and values, the queries that attend
to them, and some columns of every other matmul.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3.
"""

from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import (
    embedding,
    few_rows,
    gelu,
    gelu_exact,
    layer_norm,
    relu,
    relu_squared,
    rms_norm,
    rotary,
    silu,
    soft_cap,
    swiglu,
)
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.matmul import (
    PANEL,
    PLAIN,
    copy_rows,
    make_scratch,
    matmul_at,
    matrix,
    matrix_of,
    moved,
    pack,
    packed_size,
    padded,
    transpose,
)
from tinygpt_np.compiled.simd.barrier import wait_for_all
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import Arena, Matrix
from tinygpt_np.compiled.simd.vectors import LANES, load_lanes, store_lanes

# Columns are split between threads at multiples of this: whole vectors, unrolled or not.
UNIT = 64
# The matrices of a block, in the order of Weights.addresses. They are int64, because Numba compiles
# a function again for each literal integer that it is called with.
Q, KV, ATTENTION_OUT, UP, DOWN = (np.int64(number) for number in range(5))
# The activations, by the numbers in Weights.activation.
ACTIVATIONS = ("gelu", "gelu_exact", "relu", "relu_squared", "silu", "swiglu")
GELU, GELU_EXACT, RELU, RELU_SQUARED, SILU, SWIGLU = range(6)


class Weights(NamedTuple):
    """A GPT's weights and settings: L layers, C channels, M positions, V tokens.

    Matrices are given by address and by stride in bytes: `addresses` (L, 5) and `strides` (5,) of
    Q, KV, ATTENTION_OUT, UP and DOWN, and `head`. They are packed or, if form is PLAIN, as they
    are, the head transposed. `biases` are addresses too. Norms are pairs of scale and bias.
    """

    tokens: np.ndarray  # (V, C)
    positions: np.ndarray  # (M, C), or (0, C) with rotary positions
    norms: np.ndarray  # (L, 2, 2, C)
    addresses: np.ndarray  # (L, 5)
    strides: np.ndarray  # (5,)
    form: int
    biases: np.ndarray  # (L, 5)
    final_norm: np.ndarray  # (2, C)
    head: int
    head_stride: int
    block_size: int
    head_size: int
    cos: np.ndarray  # (M, D/2), or (0, D/2) with learned positions
    sin: np.ndarray
    interleaved: bool
    qk_norm: bool
    rms_norm: bool
    epsilon: float
    activation: int
    soft_cap: float


class Cache(NamedTuple):
    """The keys and values of B sequences, packed: (L, B, J, size) each."""

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
    stats: np.ndarray  # (2, ·)
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


NOTHING = Matrix(0, 0)
NO_SPLIT = Split(0, 1, 1, np.zeros(1, np.int64))


def make_cache(n_layer: int, batch: int, kv_heads: int, capacity: int, size: int) -> Cache:
    """Return a cache for `batch` sequences of up to `capacity` tokens."""
    arena, shape = Arena(), (n_layer, batch, kv_heads)
    keys = arena.zeros(*shape, packed_size(size, capacity))
    return Cache(keys, arena.zeros(*shape, packed_size(capacity, size)))


def make_buffers(
    arena: Arena, rows: int, capacity: int, width: int, kv_width: int, hidden_width: int, inner: int
) -> Buffers:
    """Return a thread's buffers for `rows` tokens at once of sequences of up to `capacity`."""
    zeros = arena.zeros
    x, mid, normed, q = zeros(4, rows, width)
    kv, hidden, activated = (zeros(rows, each) for each in (kv_width, hidden_width, inner))
    stats = zeros(2, rows)
    tiles = make_tiles(arena, capacity)
    scratch = make_scratch(arena)
    return Buffers(x, mid, normed, q, kv, normed, hidden, activated, stats, tiles, scratch)


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
            embed(tokens[low:high], start, weights.tokens, weights.positions, buffers.x)
        wait_for_all(split.counter.ctypes.data, split.columns)
        for layer in range(n_layer):
            of_each = wanted if layer == n_layer - 1 else count
            attention(
                high - low, count, start, of_each, weights, layer, cache, first + low, buffers,
                split,
            )  # fmt: skip
            if of_each:
                feed_forward((high - low) * of_each, weights, layer, buffers, split)
        if wanted:
            output_head(weights, logits[low:high], buffers, split)


@strict
def embed(tokens: Any, start: Any, table: Any, positions: Any, x: Any) -> None:
    """tokens (B, n) at the positions from start on -> the first B·n rows of x."""
    if positions.shape[0]:
        embedding.embed(tokens, start, table, positions, x)
    else:
        embedding.forward_rows(tokens.reshape(-1), table, x)


@strict
def attention(
    batch: Any, count: Any, start: Any, wanted: Any, weights: Any, layer: Any, cache: Any,
    first: Any, buffers: Any, split: Any,
) -> None:  # fmt: skip
    """The first batch·count rows of buffers.x -> batch·wanted rows of buffers.mid.

    wanted: count, 1 for the last row of each sequence, or 0 to keep keys and values only.
    """
    capacity, size, scratch = weights.block_size, weights.head_size, buffers.scratch
    rows, width, kv_heads = batch * count, buffers.x.shape[1], cache.keys.shape[2]
    thread, threads, counter = split.thread, split.columns, split.counter.ctypes.data
    first_head, end_head = kv_heads * thread // threads, kv_heads * (thread + 1) // threads
    turned = weights.qk_norm or weights.cos.size > 0  # A call with all weights takes time.

    x, normed, kv = buffers.x[:rows], buffers.normed[:rows], buffers.kv[:rows]
    low, high = first_head * size, end_head * size
    normalize(x, weights.norms[layer, 0], weights.rms_norm, weights.epsilon, normed, buffers.stats)
    linear(normed, KV, layer, weights, NOTHING, kv, kv_heads * size, low, high, scratch)
    if turned:
        turn(kv[:, low:high], count, start, weights)
    for sequence in range(batch):
        latest = kv[sequence * count : (sequence + 1) * count]
        keys, values = cache.keys[layer, first + sequence], cache.values[layer, first + sequence]
        keep(latest, start, capacity, keys, values, first_head, end_head)
    wait_for_all(counter, split.rows)
    if wanted == 0:
        return

    # Row n of what follows belongs to row (n + 1)·step - 1 of x.
    rows, step, place = batch * wanted, count // wanted, start + count - wanted
    if step > 1:
        copy_rows(ends(normed, step), matrix_of(normed), rows, width)
    normed, q, heads = buffers.normed[:rows], buffers.q[:rows], buffers.heads[:rows]
    group = width // size // kv_heads  # The queries of each head of keys and values.
    low, high = first_head * group * size, end_head * group * size
    linear(normed, Q, layer, weights, NOTHING, q, width, low, high, scratch)
    if turned:
        turn(q[:, low:high], wanted, place, weights)
    for sequence in range(batch):
        keys, values = cache.keys[layer, first + sequence], cache.values[layer, first + sequence]
        for head in range(first_head * group, end_head * group):
            attend(
                moved(matrix_of(q), sequence * wanted, head * size), wanted, place,
                keys[head // group].ctypes.data, values[head // group].ctypes.data, capacity, size,
                0, moved(matrix_of(heads), sequence * wanted, head * size), 0,
                matrix_of(buffers.tiles), scratch.ctypes.data,
            )  # fmt: skip
    wait_for_all(counter, threads)
    low, high = columns_of(width, thread, threads)
    mid = buffers.mid[:rows]
    linear(heads, ATTENTION_OUT, layer, weights, ends(x, step), mid, width, low, high, scratch)
    wait_for_all(counter, threads)


@strict
def feed_forward(rows: Any, weights: Any, layer: Any, buffers: Any, split: Any) -> None:
    """The first rows of buffers.mid -> those of buffers.x."""
    thread, threads, counter = split.thread, split.columns, split.counter.ctypes.data
    mid, normed, hidden = buffers.mid[:rows], buffers.normed[:rows], buffers.hidden[:rows]
    activated, y, scratch = buffers.activated[:rows], buffers.x[:rows], buffers.scratch
    width, inner = y.shape[1], activated.shape[1]

    normalize(
        mid, weights.norms[layer, 1], weights.rms_norm, weights.epsilon, normed, buffers.stats
    )
    low, high = columns_of(inner, thread, threads)
    linear(normed, UP, layer, weights, NOTHING, hidden, inner, low, high, scratch)
    activate(hidden, weights.activation, activated, low, high)
    wait_for_all(counter, threads)
    low, high = columns_of(width, thread, threads)
    linear(activated, DOWN, layer, weights, matrix_of(mid), y, width, low, high, scratch)
    wait_for_all(counter, threads)


@strict
def normalize(x: Any, norm: Any, is_rms_norm: Any, epsilon: Any, y: Any, stats: Any) -> None:
    """x (N, C), norm (2, C), scale and bias -> y (N, C)."""
    if is_rms_norm:
        rms_norm.forward_rows(x, norm[0], epsilon, y, stats[0])
    else:
        layer_norm.forward_rows(x, norm[0], norm[1], epsilon, y, stats[0], stats[1])


@strict
def turn(x: Any, count: Any, start: Any, weights: Any) -> None:
    """Normalize and rotate heads x (B·n, ·), at the positions from start on, as configured."""
    size, no_rstd = weights.head_size, weights.cos[:0]
    heads = x.shape[1] // size
    if weights.qk_norm:
        rms_norm.forward_heads(x, heads, size, weights.epsilon, no_rstd)
    if weights.cos.size:
        for row in range(0, x.shape[0], count):
            rotary.forward_heads(
                x[row : row + count], heads, size, weights.cos, weights.sin, weights.interleaved,
                start,
            )  # fmt: skip


@strict
def output_head(weights: Any, logits: Any, buffers: Any, split: Any) -> None:
    """The first B rows of buffers.x -> logits (B, V), a thread's columns of them."""
    rows, columns = logits.shape
    normed = buffers.normed[:rows]
    depth, head = normed.shape[1], matrix(weights.head, weights.head_stride)
    x, stats = buffers.x[:rows], buffers.stats
    normalize(x, weights.final_norm, weights.rms_norm, weights.epsilon, normed, stats)
    left, right = columns_of(columns, split.thread, split.columns)
    if weights.form == PLAIN:
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
    if weights.soft_cap:
        for row in range(rows):
            part = logits[row, left:right]
            soft_cap.forward_values(part, weights.soft_cap, part)


@strict
def add_rows(x: Any, bias: Any, y: Any, rows: Any, columns: Any) -> None:
    """y (M, N) = x (M, N) + bias (N,), by addresses."""
    for row in range(rows):
        source, target = moved(x, row, 0).address, moved(y, row, 0).address
        for column in range(0, columns, LANES):
            place, count = 4 * column, columns - column
            total = load_lanes(source + place, count) + load_lanes(bias + place, count)
            store_lanes(target + place, total, count)


@strict
def linear(
    x: Any, number: Any, layer: Any, weights: Any, skip: Any, y: Any, part: Any, left: Any,
    right: Any, scratch: Any,
) -> None:  # fmt: skip
    """y (N, M) = skip + bias + x (N, K) · weight, for the matrix of this number in a layer.

    skip: a Matrix, or NOTHING. Columns left to right of each part of y, which is `part` columns
    wide; all columns unless the weight is read in place and rows are few.
    """
    weight = matrix(weights.addresses[layer, number], weights.strides[number])
    linear_at(
        matrix_of(x), weight, weights.form, weights.biases[layer, number], skip, matrix_of(y),
        y.shape[0], y.shape[1], x.shape[1], part, left, right, scratch.ctypes.data,
    )  # fmt: skip


@linked
def linear_at(
    x: Matrix, weight: Matrix, form: Any, bias: Any, skip: Matrix, y: Matrix, rows: Any,
    columns: Any, depth: Any, part: Any, left: Any, right: Any, scratch: Any,
) -> None:  # fmt: skip
    """linear by addresses."""
    few = form == PLAIN and rows <= few_rows.MOST
    if right - left == part or not few:
        left, right, part = 0, columns, columns  # One part, so that the weight is read in order.
    for first in range(left, columns, part):
        start, target = matrix(bias + 4 * first, 0), moved(y, 0, first)
        if skip.address:
            add_rows(moved(skip, 0, first), start.address, target, rows, right - left)
            start = target
        if not few:
            matmul_at(x, False, weight, form, start, 1, target, rows, columns, depth, scratch)
            return
        if not skip.address:
            copy_rows(start, target, rows, right - left)
        few_rows.matmul(x, moved(weight, 0, first), target, rows, right - left, depth)


@strict
def ends(x: Any, step: Any) -> Any:
    """Return the last of every `step` rows of an array as a Matrix."""
    m = matrix_of(x)
    return matrix(m.address + (step - 1) * m.stride, step * m.stride)


@strict
def columns_of(total: Any, thread: Any, threads: Any) -> Any:
    """Return the first and last column of a thread, at multiples of UNIT."""
    units = (total + UNIT - 1) // UNIT
    first, end = units * thread // threads * UNIT, units * (thread + 1) // threads * UNIT
    return min(first, total), min(end, total)


@strict
def activate(x: Any, kind: Any, y: Any, left: Any, right: Any) -> None:
    """Columns left to right of y (M, F) = the activation of x (M, F or 2F)."""
    if kind == GELU and right - left == x.shape[1]:
        gelu.forward_values(x.reshape(-1), y.reshape(-1))
        return
    for row in range(x.shape[0]):
        # Row by row, because a value's bits may depend on its place among those of one call.
        source, target = x[row, left:right], y[row, left:right]
        if kind == GELU:
            gelu.forward_values(source, target)
        elif kind == GELU_EXACT:
            gelu_exact.forward_values(source, target)
        elif kind == RELU:
            relu.forward_values(source, target)
        elif kind == RELU_SQUARED:
            relu_squared.forward_values(source, target)
        elif kind == SILU:
            silu.forward_values(source, target)
        else:
            inner = y.shape[1]
            swiglu.forward_values(source, x[row, inner + left : inner + right], target)


@strict
def keep(kv: Any, start: Any, capacity: Any, keys: Any, values: Any, first: Any, end: Any) -> None:
    """Put kv (n, 2JD), at the positions from start on, into one sequence's cache (J, ·).

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
