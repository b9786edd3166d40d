"""Four ways to know a derivative without deriving it.

Each looks at a curve, t ↦ loss(x + t·u), at t = 0. The direction u is one coordinate, or a random
one. Three of them return the derivative, and by how much they may be wrong themselves; rounding of
the loss is in that, rounding of the backward is not. The fourth judges a derivative it is given.
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
    """value: the derivative. error: how far it may be off, of the method's own doing."""

    value: float
    error: float


def complex_step(curve: Curve) -> Estimate:
    """Im loss(x + ihu) / h: exact to rounding, for a loss that is analytic and takes complex x.

    loss(x + ihu) = loss + ih loss' - h² loss''/2 - …: the imaginary part alone is h·loss', and
    nothing is subtracted, so h can be so small that h² is nothing.
    Source: Squire, Trapp, "Using Complex Variables to Estimate Derivatives" (1998).
    """
    h = 1e-40
    return Estimate(complex(curve(1j * h)).imag / h, 0.0)


def central_difference(curve: Curve) -> Estimate:
    """(loss(x + hu) - loss(x - hu)) / 2h: off by h²·loss'''/6 + eps·|loss|/h, at best near 1e-10.

    The two errors balance near h = eps^(1/3). Half the step shows how large the first one is: it
    falls to a quarter, so the two results lie ¾ of it apart.
    """
    h = EPS ** (1 / 3)
    value, rounding = difference(curve, h)
    half, _ = difference(curve, h / 2)
    return Estimate(value, 4 / 3 * abs(value - half) + rounding)


def richardson(curve: Curve) -> Estimate:
    """Central differences at ever smaller steps, combined so that h², h⁴, … cancel: near 1e-12.

    A row of the table begins with the difference at its step; each entry beside it removes one
    more power of h², with the row above. Neighbours that differ little are nearly right: the
    entry that differs least from its two is taken, and that difference is its error. Where forward
    itself is rough, they may agree by chance; how rough it is shows at the smallest steps.
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


def at(curve: Curve, t: float) -> float:
    """The loss at t, whose imaginary part, if a complex forward gives it one, is nothing.

    Not finite where a step leads out of what forward takes, as that of a logarithm below 0 does.
    """
    with np.errstate(all="ignore"):
        return complex(curve(t)).real


def difference(curve: Curve, h: float) -> tuple[float, float]:
    """The central difference, and what rounding of the two losses may have done to it."""
    ahead, behind = at(curve, h), at(curve, -h)
    return (ahead - behind) / (2 * h), EPS * (abs(ahead) + abs(behind)) / (2 * h)


@dataclass(frozen=True)
class Taylor:
    """What is left of the loss after its first two Taylor terms must fall as h².

    loss(x + hu) - loss(x) - h·loss' = h²·loss''/2 + …, but with a wrong loss' also h·(the error),
    which falls as h. No step size need be chosen: all are tried, down to where rounding begins.
    An error of the derivative below about 1e-6 drowns in rounding, and is not seen.
    Source: Farrell et al., "Automated derivation of the adjoint" (2013), section 6.
    """

    steps: np.ndarray
    changes: np.ndarray
    rounding: float

    @classmethod
    def sample(cls, curve: Curve) -> "Taylor":
        steps = 2.0 ** -np.arange(2.0, 27.0)
        start = at(curve, 0.0)
        losses = np.array([at(curve, float(h)) for h in steps])
        inside = np.isfinite(losses)
        largest = float(np.abs(losses[inside]).max(initial=abs(start)))
        return cls(steps[inside], losses[inside] - start, 2 * EPS * largest)

    def slope(self, derivative: float, slack: float = 0.0) -> float:
        """The power of h by which the remainder falls, at the smallest steps above rounding.

        2 when the derivative is right (more where loss'' is 0), 1 when it is wrong; infinite when
        there is no remainder above rounding at all; NaN when forward takes no step.
        slack: how far rounding may have moved a right derivative.
        """
        if not len(self.steps):
            return float("nan")
        remainders = np.abs(self.changes - self.steps * derivative)
        # Ten bits above rounding, so that rounding bends the slope by a thousandth at most.
        above = np.flatnonzero(remainders > 1024 * self.rounding + self.steps * slack)[-8:]
        if len(above) < 2:
            return float("inf")
        slopes = np.diff(np.log2(remainders[above])) / np.diff(np.log2(self.steps[above]))
        if above[-1] == len(self.steps) - 1:
            # It never gets small: the derivative is wrong, or forward is rough.
            return float(np.mean(slopes))
        # The median, because near a step where the h² and h³ of a right one cancel, others jump.
        return float(np.median(slopes[-3:]))
