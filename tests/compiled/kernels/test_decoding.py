"""The cache of keys and values, and attention to it; test_decoder.py tests a whole model."""

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, matrix, normals, poisoned
from numba import njit

from benchmarks.cases import unchecked
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import decoding
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.matmul import LANES, PANEL, make_scratch
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import ROWS

_, normal = normals(29)
H = 2


@njit
def call_attend(*arguments: Any) -> None:
    attend(*arguments)


@pytest.mark.parametrize(
    ("capacity", "size"),  # Positions in the cache, size of a head.
    [(1, 1), (7, 133), (PANEL, LANES), (2 * PANEL + LANES, PANEL + 3), (1029, 3)],
)
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 1])
@pytest.mark.parametrize("pieces", [1, 5, 1000])
def test_each_query_attends_to_keys_kept_in_pieces_up_to_its_own_position(
    capacity: int, size: int, rows: int, pieces: int
) -> None:
    rows = min(rows, capacity)
    for place in {0, (capacity - rows) // 2, capacity - rows}:
        count, width = place + rows, H * size
        qkv = normal(count, 3 * width)
        cache = decoding.make_cache(1, 1, H, capacity, size)
        tiles, scratch = make_tiles(Arena(), capacity), make_scratch(Arena())
        for memory in (*cache, tiles, scratch[PANEL:]):
            memory.fill(np.nan)
        keys, values = cache.keys[0, 0], cache.values[0, 0]
        ends = [count * piece // pieces for piece in range(pieces + 1)]
        for start, end in itertools.pairwise(sorted({*ends})):
            kv = qkv[start:end, width:].copy()
            decoding.keep(kv, start, capacity, keys, values, 0, H)
        y = poisoned(rows, width)
        for head in range(H):
            columns = slice(head * size, (head + 1) * size)
            call_attend(
                matrix(qkv[place:, columns]), rows, place, keys[head].ctypes.data,
                values[head].ctypes.data, capacity, size, 0, matrix(y[:, columns]), 0,
                matrix(tiles), scratch.ctypes.data,
            )  # fmt: skip
        qkv = qkv.astype(np.float64)
        truth, _ = unchecked(ops.attention.forward)(qkv, 1, H)
        qkv[:, 2 * width :] = np.abs(qkv[:, 2 * width :])
        # One rounding for each term of a score, and one more for each position.
        bound = 1e-6 * (size + count + 10) * unchecked(ops.attention.forward)(qkv, 1, H)[0]
        assert_within(y, truth[place:], bound[place:])
