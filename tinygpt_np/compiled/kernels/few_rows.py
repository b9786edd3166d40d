"""Products of a few rows with a matrix from far memory: each of its numbers is read once, in order.

A token that is read alone is one row: of each weight it takes a multiply-add, and the time is that
of reading the weights. The tiles of matmul.py go down the columns of a matrix, a few hundred bytes
of each row; so memory is read in pieces, unless the weights were packed for it. Here DEPTH rows of
the matrix are read from end to end, side by side, and added to the sums, which stay in the cache.

A sum is one chain in the order of the depth, as in matmul.py, and has the same bits. Of a matrix
that lies transposed each row gives a sum by itself: LANES·CHAINS of them, brought together at the
end, in an order that is always the same.
Measured on a token of GPT-2 124M, whose weights are 498 MB, on a core that reads 26 GB/s: the tiles
on weights as they lie 53 ms, on packed ones 22 (and 700 to pack them), this 22 from a mapped file
and 21 from pages of 2 MiB.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    all_lanes,
    load,
    load_vector,
    multiply_add,
    store,
    store_vector,
    sum_of,
)

# Up to so many rows; with more, a tile uses what it has loaded more often.
MOST = 32
DEPTH, CHAINS = 8, 4
# Bytes of a vector, and of a row that go together.
STEP = 4 * LANES
CHUNK = 2048


@exact
def product(
    a: Any, a_stride: Any, b: Any, b_stride: Any, c: Any, c_stride: Any, rows: Any, columns: Any,
    depth: Any,
) -> None:  # fmt: skip
    """c (M, N) += a (M, K) · b (K, N), by addresses and strides in bytes."""
    whole = 4 * (columns // LANES * LANES)
    for first in range(0, depth // DEPTH * DEPTH, DEPTH):
        w = b + first * b_stride
        for chunk in range(0, whole, CHUNK):
            # Of so much all rows take their share while it lies in the nearest cache.
            end = min(chunk + CHUNK, whole)
            for row in range(rows):
                x, y = a + row * a_stride + 4 * first, c + row * c_stride
                x0, x1, x2, x3 = load(x), load(x + 4), load(x + 8), load(x + 12)
                x4, x5, x6, x7 = load(x + 16), load(x + 20), load(x + 24), load(x + 28)
                for at in range(chunk, end, STEP):
                    here = w + at
                    total = multiply_add(x0, load_vector(here), load_vector(y + at))
                    total = multiply_add(x1, load_vector(here + b_stride), total)
                    total = multiply_add(x2, load_vector(here + 2 * b_stride), total)
                    total = multiply_add(x3, load_vector(here + 3 * b_stride), total)
                    total = multiply_add(x4, load_vector(here + 4 * b_stride), total)
                    total = multiply_add(x5, load_vector(here + 5 * b_stride), total)
                    total = multiply_add(x6, load_vector(here + 6 * b_stride), total)
                    total = multiply_add(x7, load_vector(here + 7 * b_stride), total)
                    store_vector(y + at, total)
        for row in range(rows):
            x, y = a + row * a_stride + 4 * first, c + row * c_stride
            for at in range(whole, 4 * columns, 4):
                for k in range(DEPTH):
                    value = multiply_add(load(x + 4 * k), load(w + k * b_stride + at), load(y + at))
                    store(y + at, value)
    for k in range(depth // DEPTH * DEPTH, depth):
        w = b + k * b_stride
        for row in range(rows):
            x, y = load(a + row * a_stride + 4 * k), c + row * c_stride
            for at in range(0, whole, STEP):
                store_vector(y + at, multiply_add(x, load_vector(w + at), load_vector(y + at)))
            for at in range(whole, 4 * columns, 4):
                store(y + at, multiply_add(x, load(w + at), load(y + at)))


@exact
def product_transposed(
    a: Any, a_stride: Any, b: Any, b_stride: Any, c: Any, c_stride: Any, rows: Any, columns: Any,
    depth: Any,
) -> None:  # fmt: skip
    """c (M, N) = a (M, K) · bᵀ, where b is (N, K); any number of rows, by addresses and strides."""
    whole = depth // (LANES * CHAINS) * LANES * CHAINS
    for column in range(columns):
        w = b + column * b_stride
        for row in range(rows):
            x = a + row * a_stride
            t0 = t1 = t2 = t3 = all_lanes(np.float32(0))
            for at in range(0, 4 * whole, CHAINS * STEP):
                t0 = multiply_add(load_vector(x + at), load_vector(w + at), t0)
                t1 = multiply_add(load_vector(x + at + STEP), load_vector(w + at + STEP), t1)
                t2 = multiply_add(
                    load_vector(x + at + 2 * STEP), load_vector(w + at + 2 * STEP), t2
                )
                t3 = multiply_add(
                    load_vector(x + at + 3 * STEP), load_vector(w + at + 3 * STEP), t3
                )
            total = sum_of((t0 + t1) + (t2 + t3))
            for at in range(4 * whole, 4 * depth, 4):
                total = multiply_add(load(x + at), load(w + at), total)
            store(c + row * c_stride + 4 * column, total)
