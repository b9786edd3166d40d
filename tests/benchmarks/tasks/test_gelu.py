"""What GELU costs."""

from costs import assert_costs
from counting import Array, Number

from benchmarks.tasks import Sizes
from tinygpt_np.ops.gelu import CUBIC, SQRT_2_OVER_PI

SIZES = {"P": 11}


def tanh_of(x: Number, square: Number) -> Number:
    return ((square * x * CUBIC + x) * SQRT_2_OVER_PI).tanh()


def compute_forward(x: Array, y: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        value = x[i]
        gate = (tanh_of(value, value * value) + 1) / 2
        y[i] = value * gate


def compute_backward(dy: Array, x: Array, dx: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        value = x[i]
        square = value * value
        tanh = tanh_of(value, square)
        gate = (tanh + 1) / 2
        minus_slope_of_tanh = tanh * tanh - 1
        slope_of_bent = square * (3 * CUBIC) + 1
        bend = value * (-SQRT_2_OVER_PI / 2) * minus_slope_of_tanh * slope_of_bent
        dx[i] = dy[i] * (gate + bend)


def test_its_forward_costs_what_it_says() -> None:
    assert_costs("gelu", "forward", SIZES, compute_forward)


def test_its_backward_costs_what_it_says() -> None:
    assert_costs("gelu", "backward", SIZES, compute_backward)
