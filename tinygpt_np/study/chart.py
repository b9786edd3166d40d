"""How far differences are off, by their step; and the complex step beside them."""

from dataclasses import dataclass

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.study.truth import Expected

# Half decades, from where the curvature spoils a difference to where rounding does.
STEPS = 10.0 ** -np.arange(0, 16.5, 0.5)


@dataclass(frozen=True)
class Chart:
    """steps: h. central, complex: how far each is off at h, as a share of the derivative along one
    random direction through all places; complex is empty where forward takes no complex numbers.
    """

    steps: list[float]
    central: list[float]
    complex: list[float]


def chart(expected: Expected, seed: int = 0) -> Chart | None:
    """The errors of one gradient, or None where there is nothing to be off from."""
    gradient = expected.gradient
    if gradient is None or not gradient.any():
        return None
    rng = generator(seed, "gradcheck")
    direction = np.asarray(rng.standard_normal(gradient.shape))
    direction /= np.linalg.norm(direction)
    exact, curve = float(np.sum(gradient * direction)), expected.curve(direction)
    if exact == 0:
        return None
    with np.errstate(all="ignore"):
        central = [complex(curve(h) - curve(-h)).real / (2 * h) for h in STEPS]
        is_complex = expected.measured.method == "complex"
        steps = [complex(curve(1j * h)).imag / h for h in STEPS if is_complex]
    return Chart(STEPS.tolist(), shares(central, exact), shares(steps, exact))


def shares(found: list[float], exact: float) -> list[float]:
    return [abs(each - exact) / abs(exact) for each in found]
