import numpy as np
import pytest

from tinygpt_np.ops import dropout


def test_a_mask_has_the_scale_and_zeros_with_probability_p() -> None:
    p, count, rng = 0.2, 100_000, np.random.default_rng(1)
    mask = dropout.draw_mask((50, count // 50), p, rng, np.dtype(np.float32))
    assert mask.dtype == np.float32
    assert set(mask.flat) == {0.0, 1.25}
    # Five standard deviations of a binomial fraction.
    assert (mask == 0).mean() == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert (dropout.draw_mask((50, 40), 0, rng, np.dtype(np.float64)) == 1).all()
