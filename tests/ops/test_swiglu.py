import numpy as np
import pytest

from tinygpt_np.ops import silu, swiglu

gate, up, dy = np.random.default_rng(7).standard_normal((3, 4, 5))
x = np.concatenate([gate, up], axis=-1)


def test_the_first_half_is_the_gate() -> None:
    np.testing.assert_array_equal(swiglu.forward(x)[0], silu.forward(gate)[0] * up)


def test_the_output_is_linear_in_the_second_half() -> None:
    doubled = np.concatenate([gate, 2 * up], axis=-1)
    np.testing.assert_allclose(swiglu.forward(doubled)[0], 2 * swiglu.forward(x)[0])
    dx = swiglu.backward(dy, swiglu.forward(x)[1])
    np.testing.assert_allclose((dx[:, 5:] * up).sum(), (dy * swiglu.forward(x)[0]).sum())


def test_an_odd_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 2F\), not \(4, 9\)"):
        swiglu.forward(x[:, :9])
