import numpy as np
import pytest

from tinygpt_np.ops import layer_norm, rms_norm

x, weight, dy = np.random.default_rng(7).standard_normal((3, 6, 8))
w = weight[0]


def test_every_row_has_a_root_mean_square_of_1() -> None:
    xhat, _ = rms_norm.forward(x, None, 1e-12)
    np.testing.assert_allclose((xhat**2).mean(axis=-1), 1)


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e9])
def test_except_for_epsilon_the_scale_of_a_row_does_not_matter(scale: float) -> None:
    y, _ = rms_norm.forward(x, w, 1e-30)
    np.testing.assert_allclose(rms_norm.forward(scale * x, w, 1e-30)[0], y)


def test_except_for_epsilon_the_gradient_is_orthogonal_to_the_row() -> None:
    for epsilon, is_orthogonal in ((1e-30, True), (0.3, False)):
        _, saved = rms_norm.forward(x, w, epsilon)
        dx, _ = rms_norm.backward(dy, saved)
        along = (dx * x).sum(axis=-1) / np.linalg.norm(dx, axis=-1) / np.linalg.norm(x, axis=-1)
        assert (np.abs(along) < 1e-15).all() == is_orthogonal


def test_epsilon_decides_what_becomes_of_a_row_of_zeros() -> None:
    zeros = np.zeros((1, 8))
    y, saved = rms_norm.forward(zeros, w, 0.25)
    np.testing.assert_array_equal(y, zeros)
    np.testing.assert_allclose(rms_norm.backward(dy[:1], saved)[0], dy[:1] * w / 0.5)


def test_no_weight_is_a_weight_of_ones() -> None:
    y, saved = rms_norm.forward(x)
    same, saved_ones = rms_norm.forward(x, np.ones(8))
    np.testing.assert_array_equal(y, same)
    dx, dweight = rms_norm.backward(dy, saved)
    assert dweight is None
    np.testing.assert_array_equal(dx, rms_norm.backward(dy, saved_ones)[0])


def test_rows_with_mean_zero_are_normalized_as_by_layer_norm() -> None:
    centered = x - x.mean(axis=-1, keepdims=True)
    expected, _ = layer_norm.forward(centered, w)
    np.testing.assert_allclose(rms_norm.forward(centered, w)[0], expected)


def test_rows_may_have_any_number_of_axes() -> None:
    y, saved = rms_norm.forward(x, w)
    dx, dweight = rms_norm.backward(dy, saved)
    stacked, saved = rms_norm.forward(x.reshape(3, 2, 8), w)
    assert stacked.tolist() == y.reshape(3, 2, 8).tolist()
    for backward in (rms_norm.backward, rms_norm.backward_steps):
        dstacked, dsame = backward(dy.reshape(3, 2, 8), saved)
        np.testing.assert_allclose(dstacked, dx.reshape(3, 2, 8), atol=1e-14)
        assert dsame is not None
        assert dweight is not None
        np.testing.assert_allclose(dsame, dweight, atol=1e-14)
