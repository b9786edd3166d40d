"""The cache of keys and values, and attention to it; test_decoder.py tests a whole model."""

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within
from helpers.kernel_twins import matrix, normals, poisoned
from numba import njit

from tinygpt_np.compiled.kernels import decoding
from tinygpt_np.compiled.kernels.attention import attend, make_tiles
from tinygpt_np.compiled.kernels.matmul import (
    LANES,
    PANEL,
    PLAIN,
    TRANSPOSED,
    make_scratch,
    pack_matrix,
    packed_size,
)
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import ROWS

_, normal = normals(29)
H = 2
shapes = pytest.mark.parametrize(
    ("capacity", "size"),  # Positions in the cache, size of a head.
    [(1, 1), (7, 133), (PANEL, LANES), (2 * PANEL + LANES, PANEL + 3), (1029, 3)],
)


@njit
def call_attend(*arguments: Any) -> None:
    attend(*arguments)


def keep_in_pieces(kv: np.ndarray, capacity: int, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and values of one layer and one sequence, (H, ·) each, NaN where not written."""
    cache = decoding.make_cache(1, 1, H, capacity, kv.shape[1] // (2 * H))
    for part in cache:
        part.fill(np.nan)
    keys, values = cache.keys[0, 0], cache.values[0, 0]
    count = min(pieces, len(kv))
    for start, end in itertools.pairwise(len(kv) * part // count for part in range(count + 1)):
        decoding.keep(kv[start:end], start, capacity, keys, values, 0, len(keys))
    return keys, values


@shapes
@pytest.mark.parametrize("pieces", [1, 5, 1000])
def test_keys_and_values_kept_in_pieces_are_as_if_packed_at_once(
    capacity: int, size: int, pieces: int
) -> None:
    kv = normal(capacity, 2 * H * size)
    keys, values = keep_in_pieces(kv, capacity, pieces)
    for head in range(H):
        for kept, form, first in ((keys, TRANSPOSED, 0), (values, PLAIN, H)):
            part = kv[:, (first + head) * size : (first + head + 1) * size].copy()
            depth, columns = part.shape if form == PLAIN else part.shape[::-1]
            panels = np.zeros((1, packed_size(depth, columns)), np.float32)
            pack_matrix(part, form, panels)
            # Numbers past the last key are not written.
            wanted = ~np.isnan(kept[head])
            assert np.count_nonzero(wanted) >= part.size
            np.testing.assert_array_equal(kept[head][wanted], panels[0][wanted])


@shapes
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 1])
def test_each_query_attends_to_the_keys_up_to_its_own_position(
    capacity: int, size: int, rows: int
) -> None:
    rows = min(rows, capacity)
    for place in {0, (capacity - rows) // 2, capacity - rows}:
        kv, q = normal(place + rows, 2 * H * size), normal(rows, size)
        keys, values = keep_in_pieces(kv, capacity, 3)
        tiles = make_tiles(Arena(), capacity)
        tiles.fill(np.nan)
        scratch, out = make_scratch(Arena()), poisoned(rows, size)
        scratch[PANEL:] = np.nan
        call_attend(
            matrix(q), rows, place, keys[1].ctypes.data, values[1].ctypes.data, capacity, size, 0,
            matrix(out), 0, matrix(tiles), scratch.ctypes.data,
        )  # fmt: skip
        k, v = kv[:, size : 2 * size].astype(float), kv[:, 3 * size :].astype(float)
        logits = q.astype(float) @ k.T / size**0.5
        logits[np.arange(place + rows) > place + np.arange(rows)[:, None]] = -np.inf
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs = exps / exps.sum(axis=1, keepdims=True)
        # One rounding for each term of a score, and one more for each position.
        bound = 1e-6 * (size + place + rows + 10) * (probs @ abs(v))
        assert_within(out, probs @ v, bound)
