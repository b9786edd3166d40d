"""Reading texts on: the newest tokens of some texts through a whole GPT, in one call.

A row's bits do not depend on the rows beside it: products add up in the order of the depth (see
matmul.py), and what goes along a row begins and ends with it. So rows may be read at once or one by
one, and by any thread.

Keys and values are kept as the products take them, so that nothing is packed again for a token: of
a text and a head the keys (D, M) and the values (M, D), both in panels. A new place is a column of
the keys' panels, and a row of the values'. So are the weights of a small model; those of a large
one are read where they lie, for a packed copy would take as much memory again, and as long to make
as many tokens. A long text is read by several threads, some of its rows each: between read_keys and
read_on, which a thread calls for its rows, all wait for each other. So are a few
tokens, of which each thread reads a part of every matrix (read_few).
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.kernels import few_rows, gelu, gelu_exact, layer_norm
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.linear import add_bias
from tinygpt_np.compiled.kernels.matmul import (
    PACKED,
    PANEL,
    PLAIN,
    beginning,
    make_room,
    pack,
    packed_size,
    padded,
    product,
    transpose,
)
from tinygpt_np.compiled.simd.barrier import wait_for_all
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import load

# Columns that go to a thread together.
UNIT = 64


def make_cache(
    n_layer: int, texts: int, n_head: int, capacity: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Room for keys and values of texts of up to `capacity` tokens: two of (L, B, H, size)."""
    arena, shape = Arena(), (n_layer, texts, n_head)
    keys = arena.zeros(*shape, packed_size(size, capacity))
    return keys, arena.zeros(*shape, packed_size(capacity, size))


def make_buffers(arena: Arena, rows: int, width: int, capacity: int) -> tuple[np.ndarray, ...]:
    """Memory for one thread that reads so many rows at once, of texts of up to `capacity`."""
    zeros = arena.zeros
    x, mid, normed, q = zeros(4, rows, width)
    kv, hidden, activated = (zeros(rows, times * width) for times in (2, 4, 4))
    mean, rstd = zeros(2, rows)
    tiles = make_tiles(arena, capacity)
    return x, mid, normed, q, kv, hidden, activated, mean, rstd, tiles, make_room(arena)


@exact
def read_texts(
    tokens: Any, start: Any, tables: Any, weights: Any, final: Any, exact: Any, cache: Any,
    first: Any, logits: Any, buffers: Any,
) -> None:  # fmt: skip
    """tokens (B, n) of the places from start on -> logits (B, V) of the token after the last.

    tables: of tokens (V, C) and of places (M, C). weights: of all blocks, see read_keys. final:
    norm (2, C) and head, see score. cache: what stands before start in the first text is number
    `first` there. If logits is (0, V), keys and values are kept and nothing else is asked for.
    buffers: of make_buffers; as many texts go together as fit in them.
    """
    texts, count = tokens.shape
    n_layer, asked = cache[0].shape[0], min(logits.shape[0], 1)
    capacity, together = tables[1].shape[0], max(buffers[0].shape[0] // count, 1)
    for low in range(0, texts, together):
        high = min(low + together, texts)
        embed(tokens[low:high], start, tables, buffers)
        for layer in range(n_layer):
            wanted = asked if layer == n_layer - 1 else count
            place = first + low
            read_keys(high - low, count, start, capacity, weights, layer, cache, place, buffers)
            read_on(
                high - low, count, start, wanted, capacity, weights, layer, exact, cache, place,
                buffers,
            )  # fmt: skip
        if asked:
            score(final, logits[low:high], buffers)


@exact
def score(final: Any, logits: Any, buffers: Any) -> None:
    """The first rows of x -> logits (B, V).

    final: norm (2, C); the head's address, its stride, and whether it is packed or, (V, C), as it
    is: the table of tokens.
    """
    norm, head, stride, form = final
    x, _, normed, _, _, _, _, mean, rstd, _, room = buffers
    rows, columns = logits.shape
    depth, y = normed.shape[1], normed[:rows]
    layer_norm.forward_rows(x[:rows], norm[0], norm[1], y, mean, rstd)
    if form == PACKED:
        multiply(y, head, stride, form, room[:0].reshape((0, 1)), logits, room)
    else:
        few_rows.product_transposed(
            y.ctypes.data, 4 * depth, head, stride, logits.ctypes.data, 4 * columns, rows, columns,
            depth,
        )  # fmt: skip


@exact
def multiply(a: Any, b: Any, stride: Any, form: Any, start: Any, c: Any, room: Any) -> None:
    """c (M, N) = start + a (M, K) · b, as matmul.matmul; b is an address, its stride in bytes.

    A matrix that is not packed is read in order where rows are few.
    """
    rows, columns = c.shape
    depth = a.shape[1]
    origin, start_stride, step = beginning(start, room)
    if form == PLAIN and rows <= few_rows.MOST:
        if origin != c.ctypes.data:
            for row in range(rows):
                for column in range(columns):
                    c[row, column] = load(origin + row * start_stride + step * column)
        few_rows.product(
            a.ctypes.data, 4 * depth, b, stride, c.ctypes.data, 4 * columns, rows, columns, depth
        )
        return
    product(
        a.ctypes.data, 4 * depth, False, b, stride, form, origin, start_stride, step,
        c.ctypes.data, 4 * columns, rows, columns, depth, room.ctypes.data,
    )  # fmt: skip


@exact
def embed(tokens: Any, start: Any, tables: Any, buffers: Any) -> None:
    """Writes wte[token] + wpe[place] to the first rows of x, text by text. tokens (B, n)."""
    wte, wpe = tables
    x = buffers[0]
    texts, count = tokens.shape
    for text in range(texts):
        for i in range(count):
            n, v, t = text * count + i, tokens[text, i], start + i
            for c in range(x.shape[1]):
                x[n, c] = wte[v, c] + wpe[t, c]


@exact
def read_keys(
    texts: Any, count: Any, start: Any, capacity: Any, weights: Any, layer: Any, cache: Any,
    first: Any, buffers: Any,
) -> None:  # fmt: skip
    """Norms the first texts·count rows of x, and keeps their keys and values in the cache.

    weights: of all layers the norms (L, 4, C); the addresses (L, 5) of five matrices, q, k with v,
    and those of the three products after attention, their strides (5,) in bytes, and whether they
    are packed or as they are; and the biases, (L, 1, ·) each. capacity: places in the cache.
    """
    norms, addresses, strides, form, _, kv_b, _, _, _ = weights
    x, _, normed, _, kv, _, _, mean, rstd, _, room = buffers
    norm, rows = norms[layer], texts * count
    layer_norm.forward_rows(x[:rows], norm[0], norm[1], normed[:rows], mean, rstd)
    multiply(normed[:rows], addresses[layer, 1], strides[1], form, kv_b[layer], kv[:rows], room)
    for text in range(texts):
        latest = kv[text * count : (text + 1) * count]
        keys, values = cache[0][layer, first + text], cache[1][layer, first + text]
        keep(latest, start, capacity, keys, values, 0, keys.shape[0])


@exact
def read_on(
    texts: Any, count: Any, start: Any, wanted: Any, capacity: Any, weights: Any, layer: Any,
    exact: Any, cache: Any, first: Any, buffers: Any,
) -> None:  # fmt: skip
    """After read_keys: of x the first texts·count rows go in, the last `wanted` of each come out.

    wanted: count, 1, or 0. exact: the form of GELU.
    """
    norms, addresses, strides, form, q_b, _, out_b, up_b, down_b = weights
    x, mid, normed, q, _, hidden, activated, mean, rstd, tiles, room = buffers
    if wanted == 0:
        return
    if wanted < count:
        gather_last(texts, count, x)
        gather_last(texts, count, normed)
    keys, values, norm = cache[0][layer], cache[1][layer], norms[layer]
    rows, n_head, width = texts * wanted, keys.shape[1], x.shape[1]
    size, stride, at = width // n_head, 4 * width, addresses[layer]
    multiply(normed[:rows], at[0], strides[0], form, q_b[layer], q[:rows], room)
    heads = normed
    for text in range(texts):
        for head in range(n_head):
            corner = text * wanted * stride + 4 * head * size
            attend(
                q.ctypes.data + corner, stride, wanted, start + count - wanted,
                keys[first + text, head].ctypes.data, values[first + text, head].ctypes.data,
                capacity, size, 0, heads.ctypes.data + corner, stride, 0, tiles.ctypes.data,
                4 * tiles.shape[1], room.ctypes.data,
            )  # fmt: skip
    add_bias(x[:rows], out_b[layer, 0], mid[:rows])
    multiply(heads[:rows], at[2], strides[2], form, mid[:rows], mid[:rows], room)
    layer_norm.forward_rows(mid[:rows], norm[2], norm[3], normed[:rows], mean, rstd)
    multiply(normed[:rows], at[3], strides[3], form, up_b[layer], hidden[:rows], room)
    if exact:
        # Row by row, for how a value comes out may depend on its place in what is given at once.
        for n in range(rows):
            gelu_exact.forward_values(hidden[n], activated[n])
    else:
        gelu.forward_values(hidden[:rows].reshape(-1), activated[:rows].reshape(-1))
    add_bias(mid[:rows], down_b[layer, 0], x[:rows])
    multiply(activated[:rows], at[4], strides[4], form, x[:rows], x[:rows], room)


@exact
def read_few(
    thread: Any, threads: Any, counter: Any, tokens: Any, start: Any, tables: Any, weights: Any,
    final: Any, exact: Any, cache: Any, logits: Any, shared: Any, own: Any,
) -> None:  # fmt: skip
    """A few tokens (B, n) of the places from start on -> logits (B, V), shared by all threads.

    As read_texts, of weights as they are; each thread calls it, and does its heads, its columns of
    each product, its tokens of the vocabulary. counter: where they wait for each other. shared: of
    make_buffers, for what all read; own: each thread's own.
    """
    norms, addresses, strides, _, q_b, kv_b, out_b, up_b, down_b = weights
    x, mid, heads, _, _, _, activated, _, _, _, _ = shared
    last, _, normed, q, kv, hidden, _, mean, rstd, tiles, room = own
    texts, count = tokens.shape
    rows, width, n_head, capacity = texts * count, x.shape[1], cache[0].shape[2], len(tables[1])
    x, mid, heads, activated = x[:rows], mid[:rows], heads[:rows], activated[:rows]
    normed, q, kv, hidden = normed[:rows], q[:rows], kv[:rows], hidden[:rows]
    size, stride, meet = width // n_head, 4 * width, counter.ctypes.data
    first, end = n_head * thread // threads, n_head * (thread + 1) // threads
    low, high = first * size, end * size
    left, right = share(width, thread, threads)
    top, bottom = share(4 * width, thread, threads)
    if thread == 0:
        embed(tokens, start, tables, shared)
    wait_for_all(meet, threads)
    for layer in range(norms.shape[0]):
        norm, at = norms[layer], addresses[layer]
        layer_norm.forward_rows(x, norm[0], norm[1], normed, mean, rstd)
        columns_of(normed, at[0], strides[0], q_b[layer], q, low, high)
        columns_of(normed, at[1], strides[1], kv_b[layer], kv, low, high)
        columns_of(normed, at[1], strides[1], kv_b[layer], kv, width + low, width + high)
        for text in range(texts):
            keys, values = cache[0][layer, text], cache[1][layer, text]
            latest = kv[text * count : (text + 1) * count]
            keep(latest, start, capacity, keys, values, first, end)
            for head in range(first, end):
                corner = text * count * stride + 4 * head * size
                attend(
                    q.ctypes.data + corner, stride, count, start, keys[head].ctypes.data,
                    values[head].ctypes.data, capacity, size, 0, heads.ctypes.data + corner,
                    stride, 0, tiles.ctypes.data, 4 * tiles.shape[1], room.ctypes.data,
                )  # fmt: skip
        wait_for_all(meet, threads)
        add_columns(x, out_b[layer, 0], mid, left, right)
        columns_of(heads, at[2], strides[2], mid, mid, left, right)
        wait_for_all(meet, threads)
        layer_norm.forward_rows(mid, norm[2], norm[3], normed, mean, rstd)
        columns_of(normed, at[3], strides[3], up_b[layer], hidden, top, bottom)
        for row in range(rows):
            if exact:
                gelu_exact.forward_values(hidden[row, top:bottom], activated[row, top:bottom])
            else:
                gelu.forward_values(hidden[row, top:bottom], activated[row, top:bottom])
        wait_for_all(meet, threads)
        add_columns(mid, down_b[layer, 0], x, left, right)
        columns_of(activated, at[4], strides[4], x, x, left, right)
        wait_for_all(meet, threads)
    norm, head, head_stride, _ = final
    for text in range(texts):
        for column in range(width):
            last[text, column] = x[(text + 1) * count - 1, column]
    layer_norm.forward_rows(last[:texts], norm[0], norm[1], normed[:texts], mean, rstd)
    left, right = share(logits.shape[1], thread, threads)
    few_rows.product_transposed(
        normed.ctypes.data, stride, head + left * head_stride, head_stride,
        logits.ctypes.data + 4 * left, 4 * logits.shape[1], texts, right - left, width,
    )  # fmt: skip


@exact
def share(total: Any, thread: Any, threads: Any) -> Any:
    """From where to where a thread's columns go: whole UNITs, however compilers unroll them."""
    units = (total + UNIT - 1) // UNIT
    first, end = units * thread // threads * UNIT, units * (thread + 1) // threads * UNIT
    return min(first, total), min(end, total)


@exact
def columns_of(a: Any, b: Any, stride: Any, start: Any, c: Any, left: Any, right: Any) -> None:
    """Columns left to right of c (M, N) = start + a·b; start is c itself or a bias (1, N)."""
    rows, depth, columns = a.shape[0], a.shape[1], c.shape[1]
    if start.ctypes.data != c.ctypes.data:
        for row in range(rows):
            for column in range(left, right):
                c[row, column] = start[0, column]
    few_rows.product(
        a.ctypes.data, 4 * depth, b + 4 * left, stride, c.ctypes.data + 4 * left, 4 * columns,
        rows, right - left, depth,
    )  # fmt: skip


@exact
def add_columns(x: Any, bias: Any, y: Any, left: Any, right: Any) -> None:
    """Columns left to right of y (M, N) = x + bias (N,)."""
    for row in range(x.shape[0]):
        for column in range(left, right):
            y[row, column] = x[row, column] + bias[column]


@exact
def gather_last(texts: Any, count: Any, x: Any) -> None:
    """Moves the last of every `count` rows of x to its beginning."""
    for text in range(texts):
        for c in range(x.shape[1]):
            x[text, c] = x[(text + 1) * count - 1, c]


@exact
def keep(kv: Any, start: Any, capacity: Any, keys: Any, values: Any, first: Any, end: Any) -> None:
    """Puts kv (n, 2C), of the places from start on, into one text's keys and values (H, ·).

    Of the heads from `first` to `end`.
    """
    count, stride, width = kv.shape[0], 4 * kv.shape[1], kv.shape[1] // 2
    size = width // keys.shape[0]
    for head in range(first, end):
        k = kv.ctypes.data + 4 * head * size
        v = k + 4 * width
        for column in range(start // PANEL * PANEL, start + count, PANEL):
            low, high = max(start, column), min(start + count, column + PANEL)
            panel = keys[head].ctypes.data + 4 * column * size
            transpose(
                k + (low - start) * stride, stride, size, high - low, panel + 4 * (low - column),
                padded(min(PANEL, capacity - column)),
            )  # fmt: skip
        for column in range(0, size, PANEL):
            panel_width = min(PANEL, size - column)
            panel = values[head].ctypes.data + 4 * column * capacity
            corner = panel + start * padded(panel_width)
            pack(v + 4 * column, stride, PLAIN, panel_width, count, corner)
