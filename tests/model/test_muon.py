"""Newton-Schulz compared with a singular value decomposition; which matrices Muon updates."""

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error

from tinygpt_np import TrainConfig
from tinygpt_np.model import muon
from tinygpt_np.storage.parameters import param_shapes

SHAPES = [(5, 9), (9, 5), (7, 7), (1, 6), (6, 1), (1, 1)]
LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def five_steps(s: np.ndarray) -> np.ndarray:
    """Return singular values after five steps of Jordan's polynomial."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def with_values(shape: tuple[int, int], values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return U, Vᵀ and U S Vᵀ of a shape with these singular values."""
    matrix = np.random.default_rng(1).standard_normal(shape)
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, vt, u * values @ vt


def spread(shape: tuple[int, int], smallest: float) -> np.ndarray:
    return np.geomspace(1, smallest, min(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("largest", "smallest"), [(1.0, 0.1), (3e30, 1e-9), (1e-5, 0.5), (1e-20, 1)]
)
def test_singular_vectors_stay_and_singular_values_go_through_the_polynomial(
    shape: tuple[int, int], largest: float, smallest: float
) -> None:
    values = largest * spread(shape, smallest)
    u, vt, matrix = with_values(shape, values)
    expected = five_steps(values / (np.linalg.norm(values) + 1e-7))
    found = muon.orthogonalized(matrix)
    assert found.shape == shape
    assert relative_error(found, u * expected @ vt) <= 1e-11


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_but_tiny_singular_values_end_near_one_in_any_dtype(dtype: str) -> None:
    for shape in SHAPES:
        for smallest in (1.0, 0.1, 1e-2):
            for scale in (1e-3, 1.0, 1e30):
                matrix = (scale * with_values(shape, spread(shape, smallest))[2]).astype(dtype)
                found = muon.orthogonalized(matrix)
                assert found.dtype == dtype
                values = np.linalg.svd(found, compute_uv=False)
                inside = (values > 0.67) & (values < 1.21)
                assert inside.all(), (shape, smallest, scale, values)


def test_a_tall_matrix_is_multiplied_by_its_columns_not_by_its_many_rows() -> None:
    matrix = np.random.default_rng(2).standard_normal((2000, 2))
    tracemalloc.start()
    muon.orthogonalized(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * matrix.nbytes  # A product of its rows has 1000 times as many numbers.


def test_zero_stays_zero_and_null_directions_stay_empty() -> None:
    np.testing.assert_array_equal(muon.orthogonalized(np.zeros((4, 7), np.float32)), 0)
    values = np.array([2.0, 0.5, 0.0, 0.0, 0.0])
    u, vt, matrix = with_values((5, 9), values)
    found = u.T @ muon.orthogonalized(matrix) @ vt.T
    assert 0.67 < found[0, 0] < 1.21
    assert 0.67 < found[1, 1] < 1.21
    assert np.abs(found[2:]).max() < 1e-12


def test_the_scale_is_the_root_of_outputs_by_inputs_if_there_are_more_outputs() -> None:
    assert muon.scale_of(16, 16) == muon.scale_of(64, 16) == 1
    assert muon.scale_of(16, 64) == 2


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({}, {"attn.c_attn": (0, 24, 48, 72), "mlp.c_fc": (0, 96)}),
        ({"n_kv_head": 2, "n_inner": 7, "activation": "swiglu", "tied_head": False},
         {"attn.c_attn": (0, 24, 32, 40), "mlp.c_fc": (0, 7, 14)}),
    ],
)  # fmt: skip
def test_the_matrices_are_those_of_the_blocks_split_where_they_are_several(
    settings: dict[str, Any], ends: dict[str, tuple[int, ...]]
) -> None:
    config = TrainConfig(n_layer=2, n_head=6, n_embd=24, bias=True, **settings)
    params = {name: np.zeros(shape) for name, shape in param_shapes(config.gpt(11)).items()}
    found = muon.parts_of(config, params)
    assert list(found) == [f"h.{layer}.{name}.weight" for layer in range(2) for name in LAYERS]
    for name, parts in found.items():
        layer = name.removesuffix(".weight")[4:]
        bounds = ends.get(layer, (0, 24))
        assert parts == [slice(*each) for each in pairwise(bounds)], name
