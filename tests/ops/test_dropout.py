import numpy as np
import pytest

from tinygpt_np.ops import dropout

rng = np.random.default_rng(9)


def test_a_mask_has_zeros_and_the_scale() -> None:
    mask = dropout.draw_mask((50, 40), 0.2, rng, np.dtype(np.float64))
    assert set(mask.flat) == {0.0, 1.25}


def test_the_fraction_of_zeros_is_p() -> None:
    p, count = 0.2, 100_000
    mask = dropout.draw_mask((count,), p, np.random.default_rng(1), np.dtype(np.float32))
    # Five standard deviations of a binomial fraction.
    assert (mask == 0).mean() == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)


def test_a_mask_has_the_requested_dtype() -> None:
    assert dropout.draw_mask((3,), 0.5, rng, np.dtype(np.float32)).dtype == np.float32


def test_with_p_zero_everything_is_kept() -> None:
    assert (dropout.draw_mask((50, 40), 0, rng, np.dtype(np.float64)) == 1).all()


def test_the_same_generator_state_draws_the_same_mask() -> None:
    one, other = (
        dropout.draw_mask((30, 20), 0.5, np.random.default_rng(5), np.dtype(np.float64))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


def test_the_gradient_is_masked_and_scaled_like_the_output() -> None:
    x, dy = rng.standard_normal((2, 6, 5))
    mask = dropout.draw_mask((6, 5), 0.4, rng, np.dtype(np.float64))
    y, saved = dropout.forward(x, mask)
    np.testing.assert_allclose(dropout.backward(dy, saved) * x, dy * y, rtol=1e-15)
    assert (dropout.backward(dy, saved)[mask == 0] == 0).all()
