"""What AdamW costs."""

from costs import assert_costs
from counting import Array

from benchmarks.tasks import Sizes
from benchmarks.tasks.adamw import (
    BETA1,
    BETA2,
    CORRECTION1,
    CORRECTION2,
    LEARNING_RATE,
    SCALE,
    WEIGHT_DECAY,
)
from tinygpt_np.config import ADAM_EPSILON

SIZES = {"P": 11}


def compute_update(param: Array, grad: Array, first: Array, second: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        g = grad[i] * SCALE
        old_first, old_second = first[i], second[i]
        new_first = old_first + (g - old_first) * (1 - BETA1)
        new_second = old_second + (g * g - old_second) * (1 - BETA2)
        denominator = (new_second / CORRECTION2).sqrt() + ADAM_EPSILON
        shrunk = param[i] * (1 - LEARNING_RATE * WEIGHT_DECAY)
        param[i] = shrunk - new_first * (LEARNING_RATE / CORRECTION1) / denominator
        first[i], second[i] = new_first, new_second


def test_its_update_costs_what_it_says() -> None:
    assert_costs("adamw", "update", SIZES, compute_update)
