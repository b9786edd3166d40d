"""Four oracles: ways to compute or test a derivative without deriving it by hand.

Each takes a curve t ↦ loss(x + t·u) and looks at its slope at t = 0, where the direction u is one
coordinate or a random direction. Three return the derivative and a bound on their own error, which
includes the rounding of the loss. The fourth, the Taylor slope, tests a derivative it is given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Curve = Callable[[Any], Any]
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Estimate:
    """A derivative, and a bound on the error of the method that computed it."""

    value: float
    error: float


def complex_step(curve: Curve) -> Estimate:
    """Return Im loss(x + ihu) / h, exact to rounding if the loss is analytic and takes complex x.

    loss(x + ihu) = loss + ih loss' - h² loss''/2 - …: the imaginary part is h·loss' up to h³.
    Nothing is subtracted, so h can be so small that the h² and h³ terms vanish.
    Source: Squire, Trapp, "Using Complex Variables to Estimate Derivatives" (1998).
    """
    h = 1e-40
    return Estimate(complex(curve(1j * h)).imag / h, 0.0)


def central_difference(curve: Curve) -> Estimate:
    """Return (loss(x + hu) - loss(x - hu)) / 2h, at best accurate to about 1e-10.

    Its error is h²·loss'''/6 + eps·|loss|/h; the two parts balance near h = eps^(1/3). Halving the
    step reduces the first part to a quarter, so the difference of the two results is ¾ of it.
    """
    h = EPS ** (1 / 3)
    value, rounding = difference(curve, h)
    half, _ = difference(curve, h / 2)
    return Estimate(value, 4 / 3 * abs(value - half) + rounding)


def richardson(curve: Curve) -> Estimate:
    """Return central differences at decreasing steps, combined to cancel h², h⁴, …: about 1e-12.

    Each row of the table starts with the difference at its step; each further entry cancels one
    more power of h² with the help of the row above. The entry that differs least from its two
    neighbours is returned, with that difference as its error. If the loss is rough, neighbours may
    agree by chance, so the roughness seen at the smallest steps is added to the error.
    Source: Ridders, "Accurate computation of F'(x) and F'(x)F''(x)" (1982).
    """
    h, rows, found = 0.2, [list[float]()], list[tuple[Estimate, float]]()
    for _ in range(16):
        h /= 2
        value, rounding = difference(curve, h)
        row = [value]
        for order, left_above in enumerate(rows[-1], 1):
            factor = 4.0**order
            row.append((factor * row[-1] - left_above) / (factor - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - left_above)) + rounding
            found.append((Estimate(row[-1], error), h))
        rows.append(row)
    roughness = max(abs(rows[-1][1] - rows[-2][1]) * h, abs(rows[-2][1] - rows[-3][1]) * 2 * h)
    weighed = [Estimate(e.value, e.error + roughness / step) for e, step in found]
    known = [estimate for estimate in weighed if not math.isnan(estimate.error)]
    return min(known, key=lambda e: e.error, default=Estimate(math.nan, math.inf))


def real_loss(curve: Curve, t: float) -> float:
    """Return the loss at t as a float; not finite outside its domain, as a logarithm below 0."""
    with np.errstate(all="ignore"):
        return complex(curve(t)).real


def difference(curve: Curve, h: float) -> tuple[float, float]:
    """Return the central difference and its error from rounding the two losses."""
    ahead, behind = real_loss(curve, h), real_loss(curve, -h)
    return (ahead - behind) / (2 * h), EPS * (abs(ahead) + abs(behind)) / (2 * h)


@dataclass(frozen=True)
class Taylor:
    """Samples of a curve that test a derivative: the Taylor remainder must fall as h².

    loss(x + hu) - loss(x) - h·loss' = h²·loss''/2 + …; a wrong loss' adds h·(its error), which
    falls only as h. No step size has to be chosen, because all are tried down to the rounding
    level. An error of the derivative below about 1e-6 is hidden by rounding.
    Source: Farrell et al., "Automated derivation of the adjoint" (2013), section 6.
    """

    steps: np.ndarray
    changes: np.ndarray
    rounding: float

    @classmethod
    def sample(cls, curve: Curve) -> "Taylor":
        """Evaluate the curve at steps from 1/4 down to 2⁻²⁶."""
        steps = 2.0 ** -np.arange(2.0, 27.0)
        start = real_loss(curve, 0.0)
        losses = np.array([real_loss(curve, float(h)) for h in steps])
        inside = np.isfinite(losses)
        largest = float(np.abs(losses[inside]).max(initial=abs(start)))
        return cls(steps[inside], losses[inside] - start, 2 * EPS * largest)

    def slope(self, derivative: float, slack: float = 0.0) -> float:
        """Return the power of h with which the remainder falls, at the smallest usable steps.

        It is 2 if the derivative is right (more where loss'' is 0) and 1 if it is wrong; infinite
        if no remainder exceeds rounding, and NaN if no step stays in the domain of forward. slack:
        the rounding error of a correct derivative.
        """
        if not len(self.steps):
            return float("nan")
        remainders = np.abs(self.changes - self.steps * derivative)
        # Ten bits above rounding, so that rounding changes the slope by at most a thousandth.
        above = np.flatnonzero(remainders > 1024 * self.rounding + self.steps * slack)[-8:]
        if len(above) < 2:
            return float("inf")
        slopes = np.diff(np.log2(remainders[above])) / np.diff(np.log2(self.steps[above]))
        if above[-1] == len(self.steps) - 1:
            # The remainder never gets small: the derivative is wrong, or forward is rough.
            return float(np.mean(slopes))
        # The median, because the slope jumps near a step where the h² and h³ terms cancel.
        return float(np.median(slopes[-3:]))
