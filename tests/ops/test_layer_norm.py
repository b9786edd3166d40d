import numpy as np

from tinygpt_np.ops import layer_norm

rng = np.random.default_rng(5)
N, C = 6, 8
X, WEIGHT, BIAS, DY = (rng.standard_normal(shape) for shape in ((N, C), (C,), (C,), (N, C)))


def test_a_row_comes_out_with_mean_zero_and_variance_one() -> None:
    y, _ = layer_norm.forward(X, np.ones(C))
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-15)
    var = X.var(axis=-1)
    np.testing.assert_allclose(y.var(axis=-1), var / (var + layer_norm.EPSILON), rtol=1e-12)


def test_the_gradient_has_no_part_along_the_row_of_ones() -> None:
    _, saved = layer_norm.forward(X, WEIGHT, BIAS)
    dx, _, _ = layer_norm.backward(DY, saved)
    np.testing.assert_allclose(dx.sum(axis=-1), 0, atol=1e-14)


def test_the_gradient_along_xhat_is_only_what_epsilon_leaves() -> None:
    _, saved = layer_norm.forward(X, WEIGHT, BIAS)
    xhat, std, _, _ = saved
    dx, _, _ = layer_norm.backward(DY, saved)
    dxhat = DY * WEIGHT
    # Σ x̂² = C (1 - ε/σ²), so of the part of dxhat along x̂ the share ε/σ² stays.
    left = (dxhat * xhat).sum(axis=-1) * layer_norm.EPSILON / std[:, 0] ** 3
    np.testing.assert_allclose((dx * xhat).sum(axis=-1), left, atol=1e-14)


def test_scaling_and_shifting_a_row_changes_almost_nothing() -> None:
    y, _ = layer_norm.forward(X, WEIGHT, BIAS)
    moved, _ = layer_norm.forward(1000 * X + 7, WEIGHT, BIAS)
    # Only ε, small beside a variance of order one, notices the scale.
    np.testing.assert_allclose(moved, y, atol=10 * layer_norm.EPSILON)


def test_a_constant_row_gives_the_bias() -> None:
    y, saved = layer_norm.forward(np.full((N, C), 3.0), WEIGHT, BIAS)
    np.testing.assert_array_equal(y, np.tile(BIAS, (N, 1)))
    assert np.isfinite(layer_norm.backward(DY, saved)[0]).all()
