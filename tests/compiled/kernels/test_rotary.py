import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, wide

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import rotary

_, normal = normals(35)
BATCH, TIME, HEADS, REST = 2, 5, 3, 7
POSITIONS = np.array([0, 1, 2, 60, 1000])
layouts = pytest.mark.parametrize("interleaved", [False, True])


@layouts
@pytest.mark.parametrize("pairs", [1, 2, 7, 8, 15, 16, 17, 32, 41])
def test_heads_are_rotated_in_place_and_back_but_for_rounding(
    pairs: int, interleaved: bool
) -> None:
    width = HEADS * 2 * pairs
    x = normal(BATCH * TIME, width + REST)
    heads = x[:, :width].reshape(BATCH, TIME, HEADS, 2 * pairs)
    (heads64,) = wide(heads)
    truth, saved = ops.rotary.forward(heads64, POSITIONS, 50.0, interleaved)
    # Each result is a sum of two products, with a cos and a sin that were rounded.
    pairs_of = (*heads.shape[:-1], *((pairs, 2) if interleaved else (2, pairs)))
    axis = -1 if interleaved else -2
    first, second = np.moveaxis(np.abs(heads64).reshape(pairs_of), axis, 0)
    cos, sin = np.abs(saved[0]), np.abs(saved[1])
    sizes = np.stack([first * cos + second * sin, first * sin + second * cos], axis)
    bound = gamma(3) * sizes.reshape(heads.shape)
    tables = rotary.tables(POSITIONS, pairs, 50.0)
    truths = truth, unchecked(ops.rotary.backward)(heads64, saved)
    for turn, expected in zip((rotary.forward_heads, rotary.backward_heads), truths, strict=True):
        found = x.copy()
        turn(found, HEADS, 2 * pairs, *tables, interleaved, 0)
        assert_within(found[:, :width].reshape(heads.shape), expected, bound)
        np.testing.assert_array_equal(found[:, width:], x[:, width:])


def test_the_tables_are_those_of_ops() -> None:
    _, (cos, sin, _) = ops.rotary.forward(normal(TIME, HEADS, 34), POSITIONS, 1e4)
    found = rotary.tables(POSITIONS, 17, 1e4)
    for one, other in zip(found, (cos, sin), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other[:, 0])


@layouts
def test_some_rows_and_some_heads_have_the_bits_that_they_have_among_all(interleaved: bool) -> None:
    size, x = 20, normal(3 * TIME, HEADS * 20)
    whole, cos, sin = x.copy(), *rotary.tables(POSITIONS, size // 2, 1e4)
    rotary.forward_heads(whole, HEADS, size, cos, sin, interleaved, 0)
    rows = x[4:12].copy()
    rotary.forward_heads(rows, HEADS, size, cos, sin, interleaved, 4)
    np.testing.assert_array_equal(rows, whole[4:12])
    last = x.copy()
    rotary.forward_heads(last[:, size:], HEADS - 1, size, cos, sin, interleaved, 0)
    np.testing.assert_array_equal(last[:, size:], whole[:, size:])
    np.testing.assert_array_equal(last[:, :size], x[:, :size])


@layouts
def test_nan_stays_in_its_pair(interleaved: bool) -> None:
    pairs, cos_sin = 17, rotary.tables(np.array([3]), 17, 1e4)
    for i in range(pairs):
        x = normal(1, 2 * pairs)
        pair = [2 * i, 2 * i + 1] if interleaved else [i, i + pairs]
        x[0, pair[i % 2]] = np.nan
        rotary.forward_heads(x, 1, 2 * pairs, *cos_sin, interleaved, 0)
        assert np.flatnonzero(np.isnan(x)).tolist() == pair
