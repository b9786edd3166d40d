from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import gelu, gelu_exact


def test_known_values() -> None:
    # torch.nn.functional.gelu(x, approximate="tanh") in float64, PyTorch 2.13.
    y, _ = gelu.forward(np.array([-2.0, -0.5, 0.0, 1.0, 3.0]))
    expected = [
        -0.04540230591222494, -0.15428599017485606, 0, 0.8411919906082768, 2.996362607918227,
    ]  # fmt: skip
    assert y.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("form", [gelu, gelu_exact], ids=["tanh", "exact"])
@pytest.mark.parametrize(
    ("dtype", "huge", "tiny"), [(np.float32, 1e4, 1e-40), (np.float64, 1e30, 1e-310)]
)
def test_huge_values_are_kept_or_zero_and_denormal_ones_halved(
    form: Any, dtype: Any, huge: float, tiny: float
) -> None:
    x = np.array([huge, -huge, 0, tiny, -tiny], dtype=dtype)
    y, saved = form.forward(x)
    assert y.tolist() == [huge, 0, *(x[2:] / 2).tolist()]
    assert form.backward(np.ones_like(x), saved).tolist() == [1, 0, 0.5, 0.5, 0.5]
