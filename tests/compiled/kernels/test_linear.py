from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_twins import (
    assert_refuses_float64,
    assert_same_contract,
    assert_takes_any_layout,
    plain,
)

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import linear
from tinygpt_np.compiled.simd.vectors import FUSED

rng = np.random.default_rng(23)
# (N, C, K)
SHAPES = [
    (1, 1, 1), (2, 3, 5), (13, 65, 17), (7, 16, 64), (97, 33, 65), (200, 193, 130),
    # As large as GPT-2: a head of a vocabulary, rows, widths, and depths past those of a block.
    (7, 5, 33001), (65541, 2, 3), (523, 5, 7), (3, 771, 20), (5, 4099, 3), (5, 3, 4099),
]  # fmt: skip
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
biased = pytest.mark.parametrize("has_bias", [True, False])
tied = pytest.mark.parametrize("is_tied", [True, False])
# Besides a rounding for each term of a sum.
PRODUCT = 0 if FUSED else 1


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def inputs(
    shape: tuple[int, int, int], has_bias: bool, is_tied: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, weight (the token embedding's transpose, if tied), bias."""
    rows, width, outputs = shape
    weight = normal(outputs, width).T if is_tied else normal(width, outputs)
    return normal(rows, width), weight, normal(outputs) if has_bias else None


@shapes
@biased
@tied
def test_forward_is_the_truth_but_for_rounding(
    shape: tuple[int, int, int], has_bias: bool, is_tied: bool
) -> None:
    x, weight, bias = inputs(shape, has_bias, is_tied)
    y, _ = linear.forward(x, weight, bias)
    a, b, shift = wide(x, weight, np.zeros(1) if bias is None else bias)
    # A sum of C products, to the bias.
    bound = gamma(shape[1] + PRODUCT) * (abs(a) @ abs(b) + abs(shift))
    assert_within(y, plain(ops.linear.forward)(a, b, shift)[0], bound)


@shapes
@biased
@tied
def test_backward_is_the_truth_but_for_rounding(
    shape: tuple[int, int, int], has_bias: bool, is_tied: bool
) -> None:
    rows, _, outputs = shape
    x, weight, bias = inputs(shape, has_bias, is_tied)
    dy = normal(rows, outputs)
    dx, dweight, dbias = linear.backward(dy, linear.forward(x, weight, bias)[1])
    d, a, b = wide(dy, x, weight)
    truth = plain(ops.linear.backward)(d, (a, b, False))
    assert_within(dx, truth[0], gamma(outputs + PRODUCT) * (abs(d) @ abs(b.T)))
    assert_within(dweight, truth[1], gamma(rows + PRODUCT) * (abs(a.T) @ abs(d)))
    assert (dbias is None) == (not has_bias)
    if dbias is not None:
        assert_within(dbias, truth[2], gamma(rows) * abs(d).sum(axis=0))


def test_column_sums_are_added_to_what_is_there() -> None:
    dy, start = normal(37, 19), normal(19)
    dbias = start.copy()
    linear.add_column_sums(dy, dbias)
    d, before = wide(dy, start)
    assert_within(dbias, before + d.sum(axis=0), gamma(37) * (abs(before) + abs(d).sum(axis=0)))


@pytest.mark.parametrize("shape", [(13, 65, 17), (97, 33, 65)], ids=str)
def test_a_tied_weight_gives_the_bits_of_its_copy(shape: tuple[int, int, int]) -> None:
    x, weight, bias = inputs(shape, True, True)
    dy = normal(shape[0], shape[2])
    y, saved = linear.forward(x, weight, bias)
    expected, expected_saved = linear.forward(x, np.ascontiguousarray(weight), bias)
    np.testing.assert_array_equal(y, expected)
    grads, others = linear.backward(dy, saved), linear.backward(dy, expected_saved)
    for found, other in zip(grads, others, strict=True):
        np.testing.assert_array_equal(found, other)


@tied
def test_no_matrix_that_lies_well_is_copied(is_tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[np.ndarray] = []

    def matmul(a: Any, across: Any, b: Any, form: Any, start: Any, c: Any, room: Any) -> None:
        taken.extend((a, b))

    monkeypatch.setattr(linear, "matmul", matmul)
    x, weight, _ = inputs((5, 7, 3), False, is_tied)
    dy = normal(5, 3)
    linear.backward(dy, linear.forward(x, weight)[1])
    lying = (x, weight, dy, weight, x, dy)
    for given, array in zip(taken, lying, strict=True):
        assert np.shares_memory(given, array)


def test_gradients_lie_like_a_contiguous_weight() -> None:
    x, weight, bias = inputs((5, 7, 3), True, True)
    _, dweight, _ = linear.backward(normal(5, 3), linear.forward(x, weight, bias)[1])
    assert dweight.flags.c_contiguous


@biased
def test_backward_called_twice_gives_the_same_bits(has_bias: bool) -> None:
    x, weight, bias = inputs((37, 65, 19), has_bias, False)
    dy = normal(37, 19)
    saved = linear.forward(x, weight, bias)[1]
    for one, other in zip(linear.backward(dy, saved), linear.backward(dy, saved), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinity_spoil_their_row_and_no_other(number: float) -> None:
    x, weight, bias = inputs((20, 37, 19), True, False)
    x[7, 11] = number
    y, _ = linear.forward(x, weight, bias)
    assert np.flatnonzero(~np.isfinite(y).all(axis=1)).tolist() == [7]
    assert not np.isfinite(y[7]).any()


def test_nan_in_the_gradient_shows_in_all_it_enters() -> None:
    x, weight, bias = inputs((20, 37, 19), True, False)
    dy = normal(20, 19)
    dy[7, 11] = np.nan
    dx, dweight, dbias = linear.backward(dy, linear.forward(x, weight, bias)[1])
    assert np.isnan(dx[7]).all()
    assert np.isfinite(np.delete(dx, 7, axis=0)).all()
    assert np.isnan(dweight[:, 11]).all()
    assert np.isfinite(np.delete(dweight, 11, axis=1)).all()
    assert dbias is not None
    assert np.flatnonzero(np.isnan(dbias)).tolist() == [11]


def test_the_contract_is_that_of_ops() -> None:
    assert_same_contract(linear, ops.linear, "forward", "backward")


@biased
@tied
def test_any_layout_gives_the_same_and_stays_as_it_was(has_bias: bool, is_tied: bool) -> None:
    args = inputs((13, 33, 19), has_bias, is_tied)
    assert_takes_any_layout(linear.forward, *args)
    assert_takes_any_layout(linear.backward, normal(13, 19), linear.forward(*args)[1])


def test_float64_is_refused() -> None:
    x, weight, bias = inputs((5, 7, 3), True, False)
    assert_refuses_float64(linear.forward, "linear.forward: x", x, weight, bias)
    saved = linear.forward(x, weight)[1]
    assert_refuses_float64(linear.backward, "linear.backward: dy", normal(5, 3), saved)


def test_a_weight_and_a_bias_in_float64_are_refused() -> None:
    x, weight, bias = inputs((5, 7, 3), True, False)
    with pytest.raises(TypeError, match=r"^linear\.forward: weight must be an array of float32"):
        linear.forward(x, weight.astype(np.float64), bias)
    with pytest.raises(TypeError, match=r"^linear\.forward: bias must be an array of float32"):
        linear.forward(x, weight, np.zeros(3))


def test_a_bias_is_added_to_each_row() -> None:
    x, bias, y = normal(5, 19), normal(19), np.full((5, 19), np.nan, np.float32)
    linear.add_bias(x, bias, y)
    np.testing.assert_array_equal(y, x + bias)
