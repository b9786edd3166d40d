import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned, wide

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import rms_norm

_, normal = normals(36)
EPSILON = 1e-3
WIDTHS = [1, 2, 15, 16, 17, 127, 769]
HEADS, REST = 3, 5


def backward_bound(g: np.ndarray, xhat: np.ndarray, rstd: np.ndarray) -> np.ndarray:
    """Bound the error of r (g - x̂ mean(g x̂)), given 1/r.

    x̂ and g round once each, their product once, and the mean C times; then a product, a
    difference, and the product by 1/r.
    """
    along_xhat = np.abs(g * xhat).mean(axis=-1, keepdims=True)
    return gamma(xhat.shape[-1] + 8) * rstd * (np.abs(g) + np.abs(xhat) * along_xhat) + TINY


@pytest.mark.parametrize("scale", [1e-3, 1, 1e25])
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_the_truth_but_for_rounding(width: int, scale: float) -> None:
    rows = 6
    (x, dy, start), weight, dweight_start = normal(3, rows, width), normal(width), normal(width)
    x *= np.float32(scale)
    y, rstd = poisoned(rows, width), poisoned(rows)
    rms_norm.forward_rows(x, weight, EPSILON, y, rstd)
    x64, dy64, w64 = wide(x, dy, weight)
    truth, _ = ops.rms_norm.forward(x64, w64, EPSILON)
    # Squares and their sum, of one sign, the quotient, ε and the sum with it: half of that error
    # moves 1/√; the root, its inverse, and two products.
    assert_within(y, truth, gamma((width + 4) / 2 + 4) * np.abs(truth) + TINY)

    dx, dweight = start.copy(), dweight_start.copy()
    rms_norm.backward_rows(dy, x, weight, rstd, dx, dweight)
    # The truth for this 1/r, which is data here.
    (r64,) = wide(rstd[:, None])
    xhat = x64 * r64
    found_dx, found_dweight = unchecked(ops.rms_norm.backward)(dy64, (xhat, 1 / r64, w64))
    bound = backward_bound(dy64 * w64, xhat, r64)
    assert_within(dx, start + found_dx, bound + U * np.abs(start + found_dx) * 1.01)
    size = np.abs(dy64 * xhat).sum(axis=0) + np.abs(dweight_start)
    assert_within(dweight, dweight_start + found_dweight, gamma(rows + 3) * size)


@pytest.mark.parametrize("size", [1, 4, 15, 16, 17, 32, 65])
def test_heads_are_normalized_in_place_like_rows_with_a_weight_of_ones(size: int) -> None:
    rows, width = 6, HEADS * size
    x, ones = normal(rows, width + REST), np.ones(size, np.float32)
    heads = x[:, :width].reshape(-1, size)
    expected, expected_rstd = poisoned(*heads.shape), poisoned(len(heads))
    rms_norm.forward_rows(heads, ones, EPSILON, expected, expected_rstd)
    found, rstd = x.copy(), poisoned(rows, HEADS)
    rms_norm.forward_heads(found, HEADS, size, EPSILON, rstd)
    np.testing.assert_array_equal(found[:, :width].reshape(-1, size), expected)
    np.testing.assert_array_equal(rstd.reshape(-1), expected_rstd)
    np.testing.assert_array_equal(found[:, width:], x[:, width:])
    # Without a place for 1/r, and some heads alone.
    last = x.copy()
    rms_norm.forward_heads(last[:, size:], HEADS - 1, size, EPSILON, np.empty((0, 0), np.float32))
    np.testing.assert_array_equal(last[:, size:width], found[:, size:width])
    np.testing.assert_array_equal(last[:, :size], x[:, :size])


@pytest.mark.parametrize("size", [1, 4, 15, 16, 17, 32, 65])
def test_the_gradient_of_heads_is_the_truth_but_for_rounding(size: int) -> None:
    rows, width = 6, HEADS * size
    (qkv, dqkv), rstd = normal(2, rows, width + REST), np.abs(normal(rows, HEADS))
    found = dqkv.copy()
    rms_norm.backward_heads(found, qkv, HEADS, size, rstd)
    d, xhat = (each[:, :width].reshape(rows, HEADS, size) for each in wide(dqkv, qkv))
    (r,) = wide(rstd[..., None])
    truth, _ = unchecked(ops.rms_norm.backward)(d, (xhat, 1 / r, None))
    assert_within(found[:, :width].reshape(d.shape), truth, backward_bound(d, xhat, r))
    np.testing.assert_array_equal(found[:, width:], dqkv[:, width:])


def test_the_gradient_of_heads_may_be_computed_after_they_were_rotated() -> None:
    size, (x, dy) = 6, np.random.default_rng(1).standard_normal((2, 4, 6))
    xhat, saved = ops.rms_norm.forward(x)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((size, size)))
    before, _ = ops.rms_norm.backward(dy @ rotation.T, saved)
    after, _ = unchecked(ops.rms_norm.backward)(dy, (xhat @ rotation, saved[1], None))
    np.testing.assert_allclose(after @ rotation.T, before, rtol=1e-12)


def test_a_row_has_the_bits_that_it_has_among_others_and_keeps_its_nan() -> None:
    x, weight = normal(7, 50), normal(50)
    x[3, 45] = np.nan
    y, rstd = poisoned(7, 50), poisoned(7)
    rms_norm.forward_rows(x, weight, EPSILON, y, rstd)
    assert np.isnan(y).all(axis=1).tolist() == [n == 3 for n in range(7)]
    part, part_rstd = poisoned(2, 50), poisoned(2)
    rms_norm.forward_rows(x[4:6], weight, EPSILON, part, part_rstd)
    np.testing.assert_array_equal(part, y[4:6])
