import numpy as np
import pytest
from helpers.kernel_bounds import U, assert_within, gamma
from helpers.kernel_twins import normals, poisoned

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import embedding

rng, normal = normals(16)
sizes = pytest.mark.parametrize("width", [1, 2, 7, 15, 16, 17, 65, 127, 769])
N, V, TIME = 24, 11, 6


@sizes
def test_forward_copies_the_rows_named(width: int) -> None:
    ids, weight = rng.integers(0, V, N), normal(V, width)
    rows = poisoned(N, width)
    embedding.forward_rows(ids, weight, rows)
    np.testing.assert_array_equal(rows, weight[ids])
    np.testing.assert_array_equal(embedding.forward(ids, weight)[0], rows)


@sizes
def test_backward_is_the_truth_but_for_rounding(width: int) -> None:
    ids, drows = rng.integers(0, V, N), normal(N, width)
    _, saved = ops.embedding.forward(ids, np.zeros((V, width)))
    truth = ops.embedding.backward(drows.astype(np.float64), saved)
    size = ops.embedding.backward(np.abs(drows).astype(np.float64), saved)
    dweight = embedding.backward(drows, embedding.forward(ids, normal(V, width))[1])
    # At most N terms are added to a row.
    assert_within(dweight, truth, gamma(N) * size)


def test_ids_and_rows_may_be_more_than_a_number_of_16_bits() -> None:
    ids, weight, drows = rng.integers(0, 70_001, 65_541), normal(70_001, 3), normal(65_541, 3)
    ids[:4] = 32_767, 32_768, 65_536, 70_000
    rows, saved = embedding.forward(ids, weight)
    np.testing.assert_array_equal(rows, weight[ids])
    _, saved64 = ops.embedding.forward(ids, weight.astype(np.float64))
    truth = ops.embedding.backward(drows.astype(np.float64), saved64)
    size = ops.embedding.backward(np.abs(drows).astype(np.float64), saved64)
    assert_within(embedding.backward(drows, saved), truth, gamma(np.bincount(ids).max()) * size)
    x, places = poisoned(*drows.shape), normal(1030, 3)
    embedding.embed(ids, 1030, weight, places, x)
    np.testing.assert_array_equal(x, weight[ids] + places[np.arange(len(ids)) % 1030])


@sizes
def test_embed_adds_to_each_token_its_place_in_its_text(width: int) -> None:
    tokens, wte, wpe = rng.integers(0, V, N), normal(V, width), normal(TIME + 2, width)
    x = poisoned(N, width)
    embedding.embed(tokens, TIME, wte, wpe, x)
    places = np.arange(N) % TIME
    truth = wte[tokens].astype(np.float64) + wpe[places]
    assert_within(x, truth, U * np.abs(truth))


def test_gradients_are_added_to_what_is_there_in_the_order_of_n() -> None:
    ids, drows, dwte, dwpe = rng.integers(0, V, N), normal(N, 17), normal(V, 17), normal(8, 17)
    expected_dwte, expected_dwpe = dwte.copy(), dwpe.copy()
    for n in range(N):
        expected_dwte[ids[n]] += drows[n]
        expected_dwpe[n % TIME] += drows[n]
    embedding.add_rows(ids, drows, dwte)
    embedding.add_positions(drows, TIME, dwpe)
    np.testing.assert_array_equal(dwte, expected_dwte)
    np.testing.assert_array_equal(dwpe, expected_dwpe)
