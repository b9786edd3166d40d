import numpy as np
import pytest
from helpers.kernel_bounds import U, assert_within, gamma
from helpers.kernel_twins import (
    assert_refuses_float64,
    assert_same_contract,
    assert_takes_any_layout,
    plain,
    poisoned,
)

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import layer_norm

rng = np.random.default_rng(12)
sizes = pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 127, 769])
biased = pytest.mark.parametrize("has_bias", [True, False])
N = 6


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def forward_bound(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    width = x.shape[-1]
    mean = x.mean(axis=-1, keepdims=True)
    centered = np.abs(x - mean)
    padded_var = (centered * centered).mean(axis=-1, keepdims=True) + ops.layer_norm.EPSILON
    # The mean is a sum of C terms and a quotient; it and one more rounding move each difference.
    dmean = gamma(width) * np.abs(x).mean(axis=-1, keepdims=True)
    dcentered = dmean + U * (centered + dmean)
    # Squares of these, and the sum, quotient and sum with ε of C squares.
    dvar = (2 * centered * dcentered + dcentered**2).mean(axis=-1, keepdims=True)
    dvar = dvar + gamma(width + 3) * padded_var
    assert (dvar < padded_var / 10).all()
    # 1/√v moves by half of v's relative error (5 % more covers the second order, as dvar < v/10,
    # and more than twice that of 1/√(1 - t) up to t = 0.1), and rounds twice.
    drstd = 1.1 * dvar / (2 * padded_var) + gamma(2)
    rstd = padded_var**-0.5
    dxhat = rstd * (dcentered + (centered + dcentered) * drstd)
    # Two products, a sum with the bias, and the product by rstd.
    return np.abs(weight) * dxhat * 1.01 + gamma(4) * (np.abs(weight) * centered * rstd + abs(bias))


@sizes
@biased
@pytest.mark.parametrize("offset", [0, 100])
def test_forward_is_the_truth_but_for_rounding(width: int, has_bias: bool, offset: float) -> None:
    x, weight = normal(N, width) + np.float32(offset), normal(width)
    bias = normal(width) if has_bias else np.empty(0, np.float32)
    y, mean, rstd = poisoned(N, width), poisoned(N), poisoned(N)
    layer_norm.forward_rows(x, weight, bias, y, mean, rstd)
    shift = bias if has_bias else np.zeros(width, np.float32)
    truth, _ = ops.layer_norm.forward(*wide(x, weight, shift))
    assert_within(y, truth, forward_bound(*wide(x, weight, shift)))


@pytest.mark.parametrize("rows", [520, 65541])
def test_many_rows_are_the_truth_but_for_rounding(rows: int) -> None:
    (x, dy), (weight, bias) = (normal(2, rows, 3), normal(2, 3))
    y, saved = layer_norm.forward(x, weight, bias)
    truth, saved64 = ops.layer_norm.forward(*wide(x, weight, bias))
    assert_within(y, truth, forward_bound(*wide(x, weight, bias)))
    _, dweight, dbias = layer_norm.backward(dy, saved)
    _, expected, expected_dbias = ops.layer_norm.backward(dy.astype(np.float64), saved64)
    # A sum of N terms, of which each is off as y is.
    (xhat,) = wide(saved64[0])
    off = forward_bound(*wide(x, np.ones(3, np.float32), np.zeros(3, np.float32)))
    bound = (np.abs(dy) * (off + gamma(rows) * (np.abs(xhat) + off))).sum(axis=0)
    assert_within(dweight, expected, bound)
    assert dbias is not None
    assert expected_dbias is not None
    assert_within(dbias, expected_dbias, gamma(rows) * np.abs(dy).sum(axis=0))


def test_the_variance_of_a_row_far_from_zero_is_not_lost() -> None:
    # mean(x²) - mean(x)² would be a difference of two numbers near 1e8, known to 8 each.
    x = np.array([[10000, 10001, 10002, 10003]], np.float32)
    y, _ = layer_norm.forward(x, np.ones(4, np.float32))
    truth, _ = ops.layer_norm.forward(x.astype(np.float64), np.ones(4))
    np.testing.assert_allclose(y, truth, rtol=1e-6)


@sizes
@biased
def test_backward_is_the_truth_but_for_rounding(width: int, has_bias: bool) -> None:
    x, dy, weight, start = normal(N, width), normal(N, width), normal(width), normal(N, width)
    mean, rstd = x.mean(axis=-1), 1 / x.std(axis=-1) if width > 1 else normal(N)
    dx, dweight, dbias = start.copy(), normal(width), normal(width if has_bias else 0)
    dweight_start, dbias_start = dweight.copy(), dbias.copy()
    layer_norm.backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias)

    # The truth for these mean and rstd, which are data here.
    d, w, m, r = wide(dy, weight, mean[:, None], rstd[:, None])
    xhat = (x - m) * r
    terms = plain(ops.layer_norm.backward)(d, (xhat, 1 / r, w, False))
    # xhat rounds twice, dy·weight once, its product with xhat once, means C times; then a product,
    # two differences, the product by rstd; and last the sum with what was there.
    g = np.abs(d * w)
    along_xhat = (g * np.abs(xhat)).mean(axis=-1, keepdims=True)
    size = g + g.mean(axis=-1, keepdims=True) + np.abs(xhat) * along_xhat
    truth = start + terms[0]
    assert_within(dx, truth, gamma(width + 10) * np.abs(r) * size + 2 * U * np.abs(truth))
    # A running sum over N rows, of products that rounded 3 times.
    size = np.abs(d * xhat).sum(axis=0) + np.abs(dweight_start)
    assert_within(dweight, dweight_start + terms[1], gamma(N + 3) * size)
    if has_bias:
        size = np.abs(d).sum(axis=0) + np.abs(dbias_start)
        assert_within(dbias, dbias_start + terms[2], gamma(N) * size)


@pytest.mark.parametrize("width", [1, 2])
def test_a_gradient_that_is_the_same_along_a_row_cancels_to_the_last_bit(width: int) -> None:
    # dxhat and its mean only cancel if the products of both are rounded alike.
    dx, mean, rstd = np.zeros((64, width), np.float32), normal(64), np.full(64, 300, np.float32)
    x, dy = (np.repeat(each[:, None], width, axis=1) for each in (mean, normal(64)))
    weight, dweight, dbias = np.full(width, 0.7, np.float32), normal(width), normal(width)
    layer_norm.backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias)
    assert not dx.any()


@biased
def test_the_twin_gives_what_its_cores_give(has_bias: bool) -> None:
    x, dy, weight = normal(N, 19), normal(N, 19), normal(19)
    bias = normal(19) if has_bias else None
    y, saved = layer_norm.forward(x, weight, bias)
    mean, rstd, expected = poisoned(N), poisoned(N), poisoned(N, 19)
    shift = np.empty(0, np.float32) if bias is None else bias
    layer_norm.forward_rows(x, weight, shift, expected, mean, rstd)
    np.testing.assert_array_equal(y, expected)
    grads = [np.zeros_like(x), np.zeros_like(weight), np.zeros_like(shift)]
    layer_norm.backward_rows(dy, x, weight, mean, rstd, *grads)
    dx, dweight, dbias = layer_norm.backward(dy, saved)
    np.testing.assert_array_equal(dx, grads[0])
    np.testing.assert_array_equal(dweight, grads[1])
    assert (dbias is None) == (not has_bias)
    if dbias is not None:
        np.testing.assert_array_equal(dbias, grads[2])


def test_nan_spoils_its_row_and_no_other() -> None:
    x = normal(3, 37)
    x[1, 17] = np.nan
    y, _ = layer_norm.forward(x, normal(37))
    assert np.isnan(y).all(axis=-1).tolist() == [False, True, False]


def test_the_contract_is_that_of_ops() -> None:
    assert_same_contract(layer_norm, ops.layer_norm, "forward", "backward")


def test_any_layout_gives_the_same_and_stays_as_it_was() -> None:
    args = normal(3, 7), normal(7), normal(7)
    assert_takes_any_layout(layer_norm.forward, *args)
    assert_takes_any_layout(layer_norm.backward, normal(3, 7), layer_norm.forward(*args)[1])


def test_float64_is_refused() -> None:
    x, weight = normal(3, 7), normal(7)
    assert_refuses_float64(layer_norm.forward, "layer_norm.forward: x", x, weight)
    saved = layer_norm.forward(x, weight)[1]
    assert_refuses_float64(layer_norm.backward, "layer_norm.backward: dy", x, saved)
