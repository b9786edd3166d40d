"""Reading texts on: the newest tokens of some texts through a whole GPT, in one call.

A row's bits do not depend on the rows beside it: products add up in the order of the depth (see
matmul.py), and what goes along a row begins and ends with it. So rows may be read at once or one by
one, and by any thread.

Keys and values are kept as the products take them, so that nothing is packed again for a token: of
a text and a head the keys (D, M) and the values (M, D), both in panels. A new place is a column of
the keys' panels, and a row of the values'.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiling import kernel
from tinygpt_np.kernels import gelu, gelu_exact, layer_norm
from tinygpt_np.kernels.attention import attend, make_tiles
from tinygpt_np.kernels.linear import add_bias
from tinygpt_np.kernels.matmul import (
    PACKED,
    PANEL,
    PLAIN,
    make_room,
    matmul,
    pack,
    packed_size,
    padded,
    transpose,
)
from tinygpt_np.kernels.memory import Arena


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


@kernel
def read_texts(
    tokens: Any, start: Any, tables: Any, weights: Any, final: Any, exact: Any, cache: Any,
    first: Any, logits: Any, buffers: Any,
) -> None:  # fmt: skip
    """tokens (B, n) of the places from start on -> logits (B, V) of the token after the last.

    tables: of tokens (V, C) and of places (M, C). weights: of all blocks, see read_block. final:
    norm (2, C) and head, packed. cache: what stands before start in the first text is number
    `first` there. If logits is (0, V), keys and values are kept and nothing else is asked for.
    buffers: of make_buffers; as many texts go together as fit in them.
    """
    texts, count = tokens.shape
    wte, wpe = tables
    norm, head = final
    x, _, normed, _, _, _, _, mean, rstd, _, room = buffers
    n_layer, asked = cache[0].shape[0], min(logits.shape[0], 1)
    nothing = room[:0].reshape((0, 1))
    together = max(x.shape[0] // count, 1)
    for low in range(0, texts, together):
        high = min(low + together, texts)
        embed(tokens[low:high], start, wte, wpe, x)
        for layer in range(n_layer):
            wanted = asked if layer == n_layer - 1 else count
            read_block(
                high - low, count, start, wanted, wpe.shape[0], weights, layer, exact, cache,
                first + low, buffers,
            )  # fmt: skip
        if asked:
            y, into = normed[: high - low], logits[low:high]
            layer_norm.forward_rows(x[: high - low], norm[0], norm[1], y, mean, rstd)
            matmul(y, False, head, PACKED, nothing, into, room)


@kernel
def embed(tokens: Any, start: Any, wte: Any, wpe: Any, x: Any) -> None:
    """Writes wte[token] + wpe[place] to the first rows of x, text by text. tokens (B, n)."""
    texts, count = tokens.shape
    for text in range(texts):
        for i in range(count):
            n, v, t = text * count + i, tokens[text, i], start + i
            for c in range(x.shape[1]):
                x[n, c] = wte[v, c] + wpe[t, c]


@kernel
def read_block(
    texts: Any, count: Any, start: Any, wanted: Any, capacity: Any, weights: Any, layer: Any,
    exact: Any, cache: Any, first: Any, buffers: Any,
) -> None:  # fmt: skip
    """Of x the first texts·count rows go in, and the last `wanted` of each text come out.

    wanted: count, 1, or 0. weights: of all layers the norms (L, 4, C), then packed weights and
    biases, (L, 1, ·) each: of q, of k and v, and of the three products after attention.
    exact: the form of GELU. capacity: places in the cache.
    """
    norms, q_w, q_b, kv_w, kv_b, out_w, out_b, up_w, up_b, down_w, down_b = weights
    x, mid, normed, q, kv, hidden, activated, mean, rstd, tiles, room = buffers
    keys, values, norm = cache[0][layer], cache[1][layer], norms[layer]
    rows, n_head, width = texts * count, keys.shape[1], x.shape[1]
    size = width // n_head
    layer_norm.forward_rows(x[:rows], norm[0], norm[1], normed[:rows], mean, rstd)
    matmul(normed[:rows], False, kv_w[layer], PACKED, kv_b[layer], kv[:rows], room)
    for text in range(texts):
        latest = kv[text * count : (text + 1) * count]
        keep(latest, start, capacity, keys[first + text], values[first + text])
    if wanted == 0:
        return
    if wanted < count:
        gather_last(texts, count, x)
        gather_last(texts, count, normed)
    rows = texts * wanted
    matmul(normed[:rows], False, q_w[layer], PACKED, q_b[layer], q[:rows], room)
    heads, stride = normed, 4 * width
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
    matmul(heads[:rows], False, out_w[layer], PACKED, mid[:rows], mid[:rows], room)
    layer_norm.forward_rows(mid[:rows], norm[2], norm[3], normed[:rows], mean, rstd)
    matmul(normed[:rows], False, up_w[layer], PACKED, up_b[layer], hidden[:rows], room)
    if exact:
        # Row by row, for how a value comes out may depend on its place in what is given at once.
        for n in range(rows):
            gelu_exact.forward_values(hidden[n], activated[n])
    else:
        gelu.forward_values(hidden[:rows].reshape(-1), activated[:rows].reshape(-1))
    add_bias(mid[:rows], down_b[layer, 0], x[:rows])
    matmul(activated[:rows], False, down_w[layer], PACKED, x[:rows], x[:rows], room)


@kernel
def gather_last(texts: Any, count: Any, x: Any) -> None:
    """Moves the last of every `count` rows of x to its beginning."""
    for text in range(texts):
        for c in range(x.shape[1]):
            x[text, c] = x[(text + 1) * count - 1, c]


@kernel
def keep(kv: Any, start: Any, capacity: Any, keys: Any, values: Any) -> None:
    """Puts kv (n, 2C), of the places from start on, into one text's keys and values (H, ·)."""
    count, stride, width = kv.shape[0], 4 * kv.shape[1], kv.shape[1] // 2
    size = width // keys.shape[0]
    for head in range(keys.shape[0]):
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
