"""The register tile against the chain of multiply-adds that it promises, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.kernel_chains import chain
from helpers.kernel_twins import matrix, normals
from numba import njit

from tinygpt_np.compiled.simd.memory import Matrix
from tinygpt_np.compiled.simd.tile import make_tile
from tinygpt_np.compiled.simd.vectors import FUSED, LANES, ROWS, VECTORS

_, normal = normals(22)
NUMBER = np.float32(12345)
# Prefetching needs no valid address.
NOWHERE = Matrix(2**60, 64)


def calling(tile: Any) -> Callable[..., None]:
    @njit
    def call(height: Any, across: Any, matrices: Any, depth: Any, fetch: Any) -> None:
        a, b, start, c = matrices
        tile(height, a, across, b, start, c, depth, fetch)

    return call


# (vectors, rows, lanes, fused): this host's, and those of others.
TILES = [(VECTORS, ROWS, LANES, FUSED), (2, 6, 8, FUSED), (1, 4, 4, False), (3, 2, 4, FUSED)]


@pytest.mark.parametrize("kind", TILES, ids=str)
@pytest.mark.parametrize("across", [0, 1])
def test_a_tile_is_the_product_at_every_height_and_depth(
    kind: tuple[int, int, int, bool], across: int
) -> None:
    count, rows, lanes, fused = kind
    call, width = calling(make_tile(*kind)), count * lanes
    for height in range(1, rows + 1):
        # Depths with and without prefetching of the tile below.
        for depth in (1, 2, 3, 4, 5, 8, 4 * rows, 4 * rows + 7):
            # Parts of larger matrices of different widths; the rest of C must not change.
            a = normal(depth, height + 3) if across else normal(height, depth + 3)
            b, start = normal(depth, width + 5), normal(height, width + 7)
            c = np.full((rows + 1, width + 9), NUMBER)
            matrices = tuple(map(matrix, (a[:, 2:], b[:, 1:], start[:, 4:], c[:, 6:])))
            call(height, across, matrices, depth, NOWHERE)
            expected = np.full_like(c, NUMBER)
            used = a[:, 2 : 2 + height].T if across else a[:, 2 : 2 + depth]
            factors = used, b[:, 1 : 1 + width], start[:, 4 : 4 + width]
            expected[:height, 6 : 6 + width] = chain(*factors, fused)
            np.testing.assert_array_equal(c, expected)
