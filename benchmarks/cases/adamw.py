"""AdamW: the update of a matrix by its clipped gradient and the running means of g and g²."""

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, Sizes, normal, outliers
from benchmarks.cases.rounding import TINY, U, gamma
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.model.optimizer import AdamW

# P weights, as many as a matrix of the MLP has.
SIZES = {
    "cpu": {"P": 128 * 512},
    "lecture": {"P": 384 * 1536},
    "gpt2": {"P": 768 * 3072},
    "awkward": {"P": 10007},
}
# The learning rate is so large that weights move by much more than they are rounded by.
SCALE, LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2, STEP = 0.7, 0.1, 0.1, 0.9, 0.99, 3
CORRECTION1, CORRECTION2 = 1 - BETA1**STEP, 1 - BETA2**STEP
# These in the order in which the kernel of training takes them.
NUMBERS = (SCALE, LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2, CORRECTION1, CORRECTION2)


def inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Return gradients up to 1e3 and down to 1e-6, where ε matters, with matching means."""
    P = sizes["P"]
    size = np.ones(P, np.float32)
    size[rng.random(P) < 0.01] = 1e-6
    size = outliers(size, rng, 1e3)
    grad, first, root = (size * normal(rng, P) for _ in range(3))
    return {"param": normal(rng, P), "grad": grad, "first": first, "second": root * root}


def truth(inputs: Arrays) -> dict[str, Expected]:
    """Bound the errors: few roundings, but 1 - β and 1 - βᵗ amplify the rounding of β."""
    # As a matrix, because only matrices decay.
    param, grad, first, second = (array.astype(np.float64)[None] for array in inputs.values())
    step = AdamW({"w": param}, BETA1, BETA2, WEIGHT_DECAY)
    step.steps, step.first, step.second = STEP - 1, {"w": first.copy()}, {"w": second.copy()}
    found, g = param.copy(), grad * SCALE
    step.update({"w": found}, {"w": g}, LEARNING_RATE)
    new_first, new_second = step.first["w"], step.second["w"]

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
    pairs = {
        "param": (found, off_param),
        "first": (new_first, off_first),
        "second": (new_second, off_second),
    }
    return {name: Expected(values[0], bound[0] + TINY) for name, (values, bound) in pairs.items()}


DIRECTIONS = {
    "update": Direction(
        inputs,
        {},
        truth,
        # g: 1. first: 3. second, with g²: 4. The denominator: 3. param: 1 to decay, 3 to move.
        flops=lambda sizes: 15 * sizes["P"],
        # Four arrays are read and three of them written.
        bytes=lambda sizes: 4 * 7 * sizes["P"],
        changed=("param", "first", "second"),
    )
}
