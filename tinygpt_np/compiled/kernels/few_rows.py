"""Matmuls of a few rows with a matrix that is not in the cache: each number is read once, in order.

A token that is read alone is one row. It uses each weight for one multiply-add, so the time is that
of reading the weights from memory. The tiles of matmul.py go down the columns of a matrix, a few
hundred bytes of each row, so unpacked weights are read in pieces. Here DEPTH rows of the matrix are
read from end to end, side by side, and added to the sums, which stay in the cache.

A sum is one chain in the order of the depth, as in matmul.py, and has the same bits. In a
transposed matrix each row gives one sum: LANES·CHAINS partial sums, added at the end in a fixed
order. compiled/README.md has the times.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.kernels.matmul import moved
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import Matrix
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

# Above this number of rows, tiles are faster, because they use each number they load more often.
MOST = 32
DEPTH, CHAINS = 8, 4
# Bytes of a vector, and of the part of a row that all rows of A use while it is in the L1 cache.
VECTOR = 4 * LANES
CHUNK = 2048


@linked
def matmul(a: Matrix, b: Matrix, c: Matrix, rows: Any, columns: Any, depth: Any) -> None:
    """c (M, N) += a (M, K) · b (K, N)."""
    aligned = 4 * (columns // LANES * LANES)
    stride = b.stride
    for first in range(0, depth // DEPTH * DEPTH, DEPTH):
        w = b.address + first * stride
        for chunk in range(0, aligned, CHUNK):
            end = min(chunk + CHUNK, aligned)
            for row in range(rows):
                x, y = moved(a, row, first).address, moved(c, row, 0).address
                x0, x1, x2, x3 = load(x), load(x + 4), load(x + 8), load(x + 12)
                x4, x5, x6, x7 = load(x + 16), load(x + 20), load(x + 24), load(x + 28)
                for offset in range(chunk, end, VECTOR):
                    v = w + offset
                    total = multiply_add(x0, load_vector(v), load_vector(y + offset))
                    total = multiply_add(x1, load_vector(v + stride), total)
                    total = multiply_add(x2, load_vector(v + 2 * stride), total)
                    total = multiply_add(x3, load_vector(v + 3 * stride), total)
                    total = multiply_add(x4, load_vector(v + 4 * stride), total)
                    total = multiply_add(x5, load_vector(v + 5 * stride), total)
                    total = multiply_add(x6, load_vector(v + 6 * stride), total)
                    total = multiply_add(x7, load_vector(v + 7 * stride), total)
                    store_vector(y + offset, total)
        for row in range(rows):
            x, y = moved(a, row, first).address, moved(c, row, 0).address
            for offset in range(aligned, 4 * columns, 4):
                for k in range(DEPTH):
                    weight = load(w + k * stride + offset)
                    store(y + offset, multiply_add(load(x + 4 * k), weight, load(y + offset)))
    for k in range(depth // DEPTH * DEPTH, depth):
        w = b.address + k * stride
        for row in range(rows):
            x, y = load(moved(a, row, k).address), moved(c, row, 0).address
            for offset in range(0, aligned, VECTOR):
                total = multiply_add(x, load_vector(w + offset), load_vector(y + offset))
                store_vector(y + offset, total)
            for offset in range(aligned, 4 * columns, 4):
                store(y + offset, multiply_add(x, load(w + offset), load(y + offset)))


@linked
def matmul_transposed(a: Matrix, b: Matrix, c: Matrix, rows: Any, columns: Any, depth: Any) -> None:
    """c (M, N) = a (M, K) · bᵀ for b (N, K); any number of rows."""
    aligned = depth // (LANES * CHAINS) * LANES * CHAINS
    for column in range(columns):
        w = moved(b, column, 0).address
        for row in range(rows):
            x = moved(a, row, 0).address
            t0 = t1 = t2 = t3 = all_lanes(np.float32(0))
            for offset in range(0, 4 * aligned, CHAINS * VECTOR):
                u, v = x + offset, w + offset
                t0 = multiply_add(load_vector(u), load_vector(v), t0)
                t1 = multiply_add(load_vector(u + VECTOR), load_vector(v + VECTOR), t1)
                t2 = multiply_add(load_vector(u + 2 * VECTOR), load_vector(v + 2 * VECTOR), t2)
                t3 = multiply_add(load_vector(u + 3 * VECTOR), load_vector(v + 3 * VECTOR), t3)
            total = sum_of((t0 + t1) + (t2 + t3))
            for offset in range(4 * aligned, 4 * depth, 4):
                total = multiply_add(load(x + offset), load(w + offset), total)
            store(moved(c, row, column).address, total)
