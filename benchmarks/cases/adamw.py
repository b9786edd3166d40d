"""AdamW: the update of a matrix by its clipped gradient and the running means of g and g²."""

import numpy as np

from benchmarks.cases import Direction, Expected, outliers
from benchmarks.cases.rounding import TINY, U, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.model.optimizer import AdamW

SWEPT = "P"
# The learning rate is so large that weights move by much more than they are rounded by.
SCALE, LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2, STEP = 0.7, 0.1, 0.1, 0.9, 0.99, 3
CORRECTION1, CORRECTION2 = 1 - BETA1**STEP, 1 - BETA2**STEP
# These in the order in which the kernel of training takes them.
NUMBERS = (SCALE, LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2, CORRECTION1, CORRECTION2)


def sizes(part: MicroBatch) -> Sizes:
    """Return P weights, as many as a matrix of the MLP has."""
    return {"P": part.width * 4 * part.width}


def scale_gradients(
    rng: np.random.Generator, grad: np.ndarray, first: np.ndarray, second: np.ndarray, **_: object
) -> None:
    """Make gradients up to 1e3 and down to 1e-6, where ε matters, with matching means."""
    size = np.where(rng.random(grad.shape) < 0.01, 1e-6, 1).astype(np.float32)
    outliers(size, rng, 1e3)
    for array in (grad, first, second):
        array *= size
    second *= second


def truth(
    param: np.ndarray, grad: np.ndarray, first: np.ndarray, second: np.ndarray
) -> dict[str, Expected]:
    """Bound the errors: few roundings, but 1 - β and 1 - βᵗ amplify the rounding of β."""
    step = AdamW({"w": param[None]}, BETA1, BETA2, WEIGHT_DECAY)
    # As matrices, because only they decay.
    found, new_first, new_second = (each[None].copy() for each in (param, first, second))
    step.steps, step.first, step.second = STEP - 1, {"w": new_first}, {"w": new_second}
    g = grad * SCALE
    step.update({"w": found}, {"w": g[None]}, LEARNING_RATE)
    found, new_first, new_second = found[0], new_first[0], new_second[0]

    fresh1, fresh2 = (1 - BETA1) * np.abs(g), (1 - BETA2) * g * g
    off_first = (np.abs(first) + fresh1) * gamma(6) + fresh1 * gamma(1 / (1 - BETA1))
    off_second = (second + fresh2) * gamma(6) + fresh2 * gamma(1 / (1 - BETA2))
    root = np.sqrt(new_second / CORRECTION2)
    off_root = root * (off_second / new_second + gamma(2 + 4 / CORRECTION2)) / 2
    denominator = root + ADAM_EPSILON
    relative = off_root / denominator + gamma(8 + 4 / CORRECTION1)
    rate = LEARNING_RATE / CORRECTION1
    off = rate * (off_first + np.abs(new_first) * relative) / denominator
    off_param = np.abs(param) * gamma(3) + off * (1 + relative) + np.abs(found) * U
    return {
        "param": Expected(found, off_param + TINY),
        "first": Expected(new_first, off_first + TINY),
        "second": Expected(new_second, off_second + TINY),
    }


DIRECTIONS = {
    "update": Direction(
        dict.fromkeys(("param", "grad", "first", "second"), "P"), {}, truth,
        # g: 1. first: 3. second, with g²: 4. The denominator: 3. param: 1 to decay, 3 to move.
        flops=lambda size: 15 * size.P,
        edit=scale_gradients, changed=("param", "first", "second"), outliers=1,
    )
}  # fmt: skip
