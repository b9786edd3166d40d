import math

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned, wide

from benchmarks.cases.muon import typical_error
from benchmarks.cases.rounding import U, gamma
from tinygpt_np.compiled.kernels import muon
from tinygpt_np.compiled.kernels.matmul import PLAIN, TRANSPOSED, make_scratch
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.model import muon as original
from tinygpt_np.model.optimizer import Muon

_, normal = normals(18)
# Square, wide and tall; a panel, several, and incomplete ones; one row and one column.
SHAPES = [
    (64, 64),
    (70, 70),
    (130, 150),
    (128, 300),
    (300, 128),
    (9, 200),
    (1, 33),
    (33, 1),
    (1, 1),
]
every_shape = pytest.mark.parametrize("shape", SHAPES)
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.9


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    buffers = muon.make_buffers(Arena(), matrix.size, min(matrix.shape))
    buffers.symmetric.fill(np.nan)
    y = poisoned(*matrix.shape)
    squares = float(np.square(matrix, dtype=np.float64).sum())
    muon.orthogonalize(matrix.copy(), squares, y, buffers.symmetric, buffers.scratch)
    return y


@every_shape
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e18, 1e30])
def test_a_matrix_is_orthogonalized_as_in_float64_but_for_rounding(
    shape: tuple[int, int], scale: float
) -> None:
    matrix = normal(*shape) * np.float32(scale)
    (exact,) = wide(matrix)
    bound = 8 * typical_error(exact)
    assert_within(orthogonalized(matrix), original.orthogonalized(exact), bound)


@pytest.mark.parametrize("rank", [0.5, 1.0])
@pytest.mark.parametrize("smallest", [1e-2, 1e-4, 1e-8])
def test_of_an_ill_conditioned_matrix_the_error_is_below_a_thousandth_of_the_norm(
    smallest: float, rank: float
) -> None:
    for shape in ((70, 70), (128, 300), (300, 128)):
        u, _, vt = np.linalg.svd(normal(*shape).astype(np.float64), full_matrices=False)
        values = np.geomspace(1, smallest, min(shape))
        values[int(rank * len(values)) :] = 0
        matrix = (u * values @ vt).astype(np.float32)
        error = orthogonalized(matrix) - original.orthogonalized(matrix.astype(np.float64))
        assert np.linalg.norm(error, 2) < 1e-3


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-20])
def test_zero_stays_zero_and_tiny_matrices_stay_tiny(scale: float) -> None:
    matrix = normal(20, 30) * np.float32(scale)
    found = orthogonalized(matrix)
    # The steps enlarge by a⁵ what the sum of norm and epsilon, 1e-7, leaves.
    assert_within(found, matrix * (3.4445**5 / 1e-7), 1e-3 * 3.4445**5 / 1e-7 * scale + 1e-38)


@every_shape
@pytest.mark.parametrize("scale", [1.0, 0.3, 1e25])
def test_an_update_of_some_columns_is_the_truth_but_for_rounding(
    shape: tuple[int, int], scale: float
) -> None:
    rows, columns = shape
    param, grad, first = (normal(rows, columns + 8) for _ in range(3))
    part, outside = slice(5, 5 + columns), [*range(5), *range(5 + columns, 8 + columns)]
    untouched = param[:, outside], first[:, outside]
    old, g, m = (each[:, part].copy() for each in wide(param, grad, first))
    params, g = {"w": old.copy()}, g * scale
    truth = Muon(params, {"w": [slice(0, columns)]}, MOMENTUM, 1.0, 0, 0, DECAY)
    truth.first["w"] = m.copy()
    truth.update(params, {"w": g}, RATE)
    buffers = muon.make_buffers(Arena(), rows * columns, min(shape))
    muon.update(param, grad, first, 5, 5 + columns, (scale, RATE, DECAY, MOMENTUM), buffers)
    # As AdamW's: the scale, a difference, 1 - momentum and its product, a sum.
    bound = gamma(6) * (np.abs(m) + (1 - MOMENTUM) * (np.abs(g) + np.abs(m)))
    assert_within(first[:, part], truth.first["w"], bound)
    # The momentum's roundings are amplified like those of X Xᵀ.
    ahead = truth.first["w"] + (1 - MOMENTUM) * (g - truth.first["w"])
    move = RATE * math.sqrt(max(1, columns / rows))
    assert_within(
        param[:, part], params["w"], move * 10 * typical_error(ahead) + 4 * U * np.abs(old)
    )
    for found, before in zip((param, first), untouched, strict=True):
        np.testing.assert_array_equal(found[:, outside], before)


@pytest.mark.parametrize("side", [1, 63, 64, 65, 128, 200])
def test_a_symmetric_product_is_mirrored_from_below_the_diagonal(side: int) -> None:
    a, scratch, c = normal(side, 90), make_scratch(Arena()), poisoned(side, side)
    (x,) = wide(a)
    bound = gamma(90) * np.abs(x) @ np.abs(x).T
    muon.symmetric_matmul(a, False, a, TRANSPOSED, c, scratch)
    assert_within(c, x @ x.T, bound)
    np.testing.assert_array_equal(c, c.T)
    c.fill(np.nan)
    muon.symmetric_matmul(
        np.ascontiguousarray(a.T), True, np.ascontiguousarray(a.T), PLAIN, c, scratch
    )
    assert_within(c, x @ x.T, bound)
