import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import (
    assert_refuses_float64,
    assert_same_contract,
    assert_takes_any_layout,
    plain,
    poisoned,
)

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import softmax

rng = np.random.default_rng(11)
sizes = pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 65, 127, 513, 4099, 33001])
N = 5


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def forward_bound(x: np.ndarray, probs: np.ndarray) -> np.ndarray:
    # x - largest rounds once, which moves exp by that much: U |shifted|, in each exp and, weighted
    # by probs, in the total. Then exp twice, the total of V terms, the quotient, the product.
    shifted = np.abs(x - x.max(axis=-1, keepdims=True)).astype(np.float64)
    moved = U * (shifted + (probs * shifted).sum(axis=-1, keepdims=True))
    return probs * (moved + gamma(2 * EXP + x.shape[-1] + 2)) * 1.01 + TINY


@sizes
@pytest.mark.parametrize("scale", [1, 30])
def test_forward_is_the_truth_but_for_rounding(size: int, scale: float) -> None:
    x = normal(N, size) * np.float32(scale)
    truth, _ = ops.softmax.forward(x.astype(np.float64))
    probs = poisoned(N, size)
    softmax.forward_rows(x, probs)
    assert_within(probs, truth, forward_bound(x, truth))


@sizes
def test_backward_is_the_truth_but_for_rounding(size: int) -> None:
    probs, saved = softmax.forward(normal(N, size))
    dprobs = normal(N, size)
    p, d = probs.astype(np.float64), dprobs.astype(np.float64)
    truth = plain(ops.softmax.backward)(d, (p, None))
    # A sum of V products (V roundings), a difference, a product.
    bound = gamma(size + 2) * p * (np.abs(d) + (np.abs(d) * p).sum(axis=-1, keepdims=True))
    dx = poisoned(N, size)
    softmax.backward_rows(dprobs, probs, dx)
    assert_within(dx, truth, bound + TINY)
    np.testing.assert_array_equal(softmax.backward(dprobs, saved), dx)


@pytest.mark.parametrize("rows", [520, 65541])
def test_many_rows_are_the_truth_but_for_rounding(rows: int) -> None:
    x = normal(rows, 3)
    probs, _ = softmax.forward(x)
    truth, _ = ops.softmax.forward(x.astype(np.float64))
    assert_within(probs, truth, forward_bound(x, truth))


@sizes
def test_rows_far_below_zero_are_the_truth_but_for_rounding(size: int) -> None:
    # exp of each number is 0, and only that of its distance to the largest is not.
    x = normal(N, size) - np.float32(1000)
    truth, _ = ops.softmax.forward(x.astype(np.float64))
    assert_within(softmax.forward(x)[0], truth, forward_bound(x, truth))


def test_huge_logits_take_all_or_share_it() -> None:
    x = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], np.float32)
    probs, saved = softmax.forward(x)
    assert probs.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    dprobs = np.array([[1, 2, 3], [1, 2, 3]], np.float32)
    assert softmax.backward(dprobs, saved).tolist() == [[0, 0, 0], [-0.25, 0.25, 0]]


def test_a_place_at_minus_infinity_gets_nothing() -> None:
    x = normal(3, 19)
    x[:, 4] = -np.inf
    probs, _ = softmax.forward(x)
    assert (probs[:, 4] == 0).all()
    assert np.isfinite(probs).all()


@pytest.mark.parametrize("place", [0, 3, 17, 36])
def test_nan_spoils_its_row_and_no_other(place: int) -> None:
    x = normal(3, 37)
    x[1, place] = np.nan
    probs, _ = softmax.forward(x)
    assert np.isnan(probs).all(axis=-1).tolist() == [False, True, False]
    assert np.isfinite(probs[[0, 2]]).all()


def test_leading_axes_are_rows() -> None:
    x, dprobs = normal(2, 3, 5), normal(2, 3, 5)
    probs, saved = softmax.forward(x)
    rows, saved_rows = softmax.forward(x.reshape(6, 5))
    np.testing.assert_array_equal(probs.reshape(6, 5), rows)
    dx = softmax.backward(dprobs, saved)
    np.testing.assert_array_equal(
        dx.reshape(6, 5), softmax.backward(dprobs.reshape(6, 5), saved_rows)
    )


def test_the_contract_is_that_of_ops() -> None:
    assert_same_contract(softmax, ops.softmax, "forward", "backward")


def test_any_layout_gives_the_same_and_stays_as_it_was() -> None:
    x = normal(3, 5, 7)
    assert_takes_any_layout(softmax.forward, x)
    assert_takes_any_layout(softmax.backward, normal(3, 5, 7), softmax.forward(x)[1])


def test_float64_is_refused() -> None:
    x = normal(3, 5)
    assert_refuses_float64(softmax.forward, "softmax.forward: x", x)
    saved = softmax.forward(x)[1]
    assert_refuses_float64(softmax.backward, "softmax.backward: dprobs", x, saved)
