import numpy as np
import pytest

from tinygpt_np.ops import dropout

rng = np.random.default_rng(9)


def test_a_mask_has_zeros_and_the_scale() -> None:
    mask = dropout.draw_mask((50, 40), 0.2, rng, np.dtype(np.float32))
    assert mask.dtype == np.float32
    assert set(mask.flat) == {0.0, 1.25}


def test_the_fraction_of_zeros_is_p() -> None:
    p, count = 0.2, 100_000
    mask = dropout.draw_mask((count,), p, np.random.default_rng(1), np.dtype(np.float32))
    # Five standard deviations of a binomial fraction.
    assert (mask == 0).mean() == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)


def test_with_p_zero_everything_is_kept() -> None:
    assert (dropout.draw_mask((50, 40), 0, rng, np.dtype(np.float64)) == 1).all()
