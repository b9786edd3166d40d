"""The parts of a decoder in which threads share work; test_decoder.py tests a whole model."""

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, matrix, normals, poisoned
from numba import njit

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import decoding, few_rows
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.matmul import LANES, PANEL, PLAIN, make_scratch
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import ROWS

_, normal = normals(29)
H = 2


@njit
def call_attend(*arguments: Any) -> None:
    attend(*arguments)


@njit
def call_linear(*arguments: Any) -> None:
    decoding.linear_at(*arguments)


# Rows that are few and not.
@pytest.mark.parametrize("rows", [3, few_rows.MOST + 1])
@pytest.mark.parametrize("skipping", [False, True])
@pytest.mark.parametrize(
    ("parts", "left", "right"), [(1, 0, 83), (1, 17, 40), (2, 16, 19), (2, 0, 83)]
)
def test_a_linear_layer_adds_bias_and_skip_in_the_columns_of_each_part(
    rows: int, skipping: bool, parts: int, left: int, right: int
) -> None:
    depth, part = 37, 83
    width = parts * part
    x, weight, bias, skip = (
        normal(*shape) for shape in ((rows, depth), (depth, width), (1, width), (rows, width))
    )
    y, scratch = poisoned(rows, width), make_scratch(Arena())
    call_linear(
        matrix(x), matrix(weight), PLAIN, bias.ctypes.data,
        matrix(skip) if skipping else decoding.NOTHING, matrix(y), rows, width, depth, part, left,
        right, scratch.ctypes.data,
    )  # fmt: skip
    x64, weight64, start = (a.astype(np.float64) for a in (x, weight, bias + skipping * skip))
    bound = gamma(depth + 2) * (np.abs(x64) @ np.abs(weight64) + np.abs(start))
    wanted = np.zeros(width, bool)
    for first in range(0, width, part):
        wanted[first + left : first + right] = True
    if rows > few_rows.MOST:
        wanted[:] = True
    assert_within(y[:, wanted], (x64 @ weight64 + start)[:, wanted], bound[:, wanted])
    assert np.isnan(y[:, ~wanted]).all()


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
