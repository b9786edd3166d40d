import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned, wide

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import layer_norm

_, normal = normals(12)
EPSILON = 1e-3
WIDTHS = [1, 2, 15, 16, 17, 127, 769]


def forward_bound(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    width = x.shape[-1]
    mean = x.mean(axis=-1, keepdims=True)
    centered = np.abs(x - mean)
    padded_var = (centered * centered).mean(axis=-1, keepdims=True) + EPSILON
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


@pytest.mark.parametrize(
    ("rows", "width", "offset"),
    [*((6, width, offset) for width in WIDTHS for offset in (0, 100)), (65541, 3, 0)],
)
def test_results_are_the_truth_but_for_rounding(rows: int, width: int, offset: float) -> None:
    (x, dy, start), weight = normal(3, rows, width), normal(width)
    for has_bias in (True, False):
        bias = normal(width) if has_bias else np.empty(0, np.float32)
        y, mean, rstd = poisoned(rows, width), poisoned(rows), poisoned(rows)
        layer_norm.forward_rows(x + np.float32(offset), weight, bias, EPSILON, y, mean, rstd)
        x64, w64, b64 = wide(x + np.float32(offset), weight, bias if has_bias else np.zeros(width))
        truth, _ = ops.layer_norm.forward(x64, w64, b64, EPSILON)
        assert_within(y, truth, forward_bound(x64, w64, b64))

        mean, rstd = x.mean(axis=-1), 1 / x.std(axis=-1) if width > 1 else normal(rows)
        dx, dweight, dbias = start.copy(), normal(width), normal(bias.size)
        dweight_start, dbias_start = dweight.copy(), dbias.copy()
        layer_norm.backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias)
        # The truth for these mean and rstd, which are data here.
        d, w, m, r = wide(dy, weight, mean[:, None], rstd[:, None])
        xhat = (x - m) * r
        terms = unchecked(ops.layer_norm.backward)(d, (xhat, 1 / r, w, False))
        # xhat rounds twice, dy·weight once, its product with xhat once, means C times; then a
        # product, two differences, the product by rstd; and last the sum with what was there.
        g = np.abs(d * w)
        along_xhat = (g * np.abs(xhat)).mean(axis=-1, keepdims=True)
        size = g + g.mean(axis=-1, keepdims=True) + np.abs(xhat) * along_xhat
        truth = start + terms[0]
        assert_within(dx, truth, gamma(width + 10) * np.abs(r) * size + 2 * U * np.abs(truth))
        # A running sum over N rows, of products that rounded 3 times.
        size = np.abs(d * xhat).sum(axis=0) + np.abs(dweight_start)
        assert_within(dweight, dweight_start + terms[1], gamma(rows + 3) * size)
        if has_bias:
            size = np.abs(d).sum(axis=0) + np.abs(dbias_start)
            assert_within(dbias, dbias_start + terms[2], gamma(rows) * size)


@pytest.mark.parametrize("width", [1, 2])
def test_a_gradient_that_is_the_same_along_a_row_cancels_to_the_last_bit(width: int) -> None:
    # dxhat and its mean only cancel if the products of both are rounded alike.
    dx, mean, rstd = np.zeros((64, width), np.float32), normal(64), np.full(64, 300, np.float32)
    x, dy = (np.repeat(each[:, None], width, axis=1) for each in (mean, normal(64)))
    weight, dweight, dbias = np.full(width, 0.7, np.float32), normal(width), normal(width)
    layer_norm.backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias)
    assert not dx.any()


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_have_the_same_bits_in_any_number_of_calls(width: int) -> None:
    rows, calls = 9, [slice(0, 1), slice(1, 5), slice(5, 9)]
    (x, dy, start), weight, bias = normal(3, rows, width), normal(width), normal(width)
    results: list[list[np.ndarray]] = []
    for parts in ([slice(0, rows)], calls):
        y, mean, rstd = poisoned(rows, width), poisoned(rows), poisoned(rows)
        dx, dweight, dbias = start.copy(), weight.copy(), bias.copy()
        for part in parts:
            stats = mean[part], rstd[part]
            layer_norm.forward_rows(x[part], weight, bias, EPSILON, y[part], *stats)
            layer_norm.backward_rows(dy[part], x[part], weight, *stats, dx[part], dweight, dbias)
        results.append([y, mean, rstd, dx, dweight, dbias])
    for whole, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, whole)


def test_rows_of_which_squares_overflow_are_those_of_smaller_rows() -> None:
    x, weight, bias = normal(4, 37), normal(37), np.empty(0, np.float32)
    x[1] += 3
    large, y, expected = x.copy(), poisoned(4, 37), poisoned(4, 37)
    large[1:3] *= np.float32(2.0**80)
    (mean, rstd), (_, expected_rstd) = poisoned(2, 4), poisoned(2, 4)
    layer_norm.forward_rows(x, weight, bias, 0.0, expected, poisoned(4), expected_rstd)
    layer_norm.forward_rows(large, weight, bias, 0.0, y, mean, rstd)
    np.testing.assert_array_equal(y[::3], expected[::3])
    np.testing.assert_allclose(y[1:3], expected[1:3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rstd[1:3] * np.float32(2.0**80), expected_rstd[1:3], rtol=1e-5)
