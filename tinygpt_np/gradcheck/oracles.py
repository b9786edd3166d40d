"""Four oracles: ways to compute or test a derivative without deriving it by hand.

Each takes a curve t ↦ terms(x + t·u), whose sum is the loss, and looks at the slope of the sum at
t = 0, where the direction u is one coordinate or a random direction. Three return the derivative
and a bound on their own error. The fourth, the Taylor slope, tests a derivative it is given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Curve = Callable[[Any], np.ndarray]
EPS = float(np.finfo(np.float64).eps)
# So small that its square vanishes next to 1.
IMAGINARY = 1e-40
# The step of a central difference.
CENTRAL = EPS ** (1 / 3)
# Smaller slopes underflow in the complex step.
SMALLEST = float(np.finfo(np.float64).tiny) / IMAGINARY


@dataclass(frozen=True)
class Estimate:
    """A derivative, and a bound on the error of the method that computed it."""

    value: float
    error: float


def complex_step(curve: Curve) -> Estimate:
    """Return Im loss(x + ihu) / h, exact to rounding if the loss is analytic and takes complex x.

    loss(x + ihu) = loss + ih loss' - h² loss''/2 - …: the imaginary part is h·loss' up to h³.
    Nothing is subtracted, so h can be so small that the h² and h³ terms vanish. The error is that
    of adding the terms.
    Source: Squire, Trapp, "Using Complex Variables to Estimate Derivatives" (1998).
    """
    slopes = tangents(curve)
    return Estimate(float(slopes.sum()), EPS * float(np.abs(slopes).sum()) + SMALLEST)


def tangents(curve: Curve, t: float = 0.0) -> np.ndarray:
    """Return the derivative of each term at t by the complex step."""
    with np.errstate(all="ignore"):
        return np.imag(curve(t + 1j * IMAGINARY)) / IMAGINARY


def central_difference(curve: Curve) -> Estimate:
    """Return (loss(x + hu) - loss(x - hu)) / 2h, at best accurate to about 1e-10.

    Its error is h²·loss'''/6 + eps·|loss|/h; the two parts balance near h = eps^(1/3). Halving the
    step reduces the first part to a quarter, so the difference of the two results is ¾ of it.
    """
    steps = np.array([CENTRAL, CENTRAL / 2])
    (value, half), (rounding, _) = total_differences(curve, steps)
    error = float(4 / 3 * abs(value - half) + rounding)
    return Estimate(float(value), error if math.isfinite(error) else math.inf)


def richardson(curve: Curve) -> Estimate:
    """Return central differences at decreasing steps, combined to cancel h², h⁴, …: about 1e-12.

    See `extrapolated`.
    """
    steps = 0.1 / 2.0 ** np.arange(16)
    value, error = extrapolated(steps, *total_differences(curve, steps), 4.0)
    return Estimate(float(value), float(error))


def one_sided(curve: Curve, side: float) -> Estimate:
    """Return the limit of the slope from one side (side is 1 or -1), by differences.

    (loss(x + 2hu) - loss(x + hu)) / h at decreasing steps, combined to cancel h, h², …. The loss at
    x itself does not count, so it may jump there.
    """
    steps = side * 0.1 / 2.0 ** np.arange(16)
    points = [real_terms(curve, float(h)) for h in (2 * steps[0], *steps)]
    pairs = [
        change(far, near, float(h))
        for far, near, h in zip(points[:-1], points[1:], steps, strict=True)
    ]
    values, roundings = np.array([(v.sum(), r.sum()) for v, r in pairs]).T  # (steps,), (steps,)
    value, error = extrapolated(np.abs(steps), values, roundings, 2.0)
    return Estimate(float(value), float(error))


def extrapolated(
    steps: np.ndarray, slopes: np.ndarray, roundings: np.ndarray, factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the limit of differences as the step goes to 0, and its error.

    steps (S,), each half of the one before; slopes, roundings (S, ...): the difference at each step
    and its rounding error. factor: by how much halving the step reduces the first term of the
    error; the next terms are reduced by its powers.

    Each column of the table is combined from the one before, and cancels one more term. The entry
    that differs least from its two neighbours is returned, with that difference as its error. If
    the loss is rough, neighbours may agree by chance, so the roughness seen at the smallest steps
    is added to the error. Steps outside the domain are ignored.
    Source: Ridders, "Accurate computation of F'(x) and F'(x)F''(x)" (1982).
    """
    steps = steps.reshape(-1, *(1,) * (slopes.ndim - 1))
    found, errors, column = list[np.ndarray](), list[np.ndarray](), slopes
    with np.errstate(all="ignore"):
        power, roughness = factor, 0.0
        for order in range(1, len(steps)):
            following = (power * column[1:] - column[:-1]) / (power - 1)
            difference = np.maximum(abs(following - column[1:]), abs(following - column[:-1]))
            if order == 1:
                noise = abs(np.diff(following[-3:], axis=0)) * steps[-2:]
                roughness = noise.max(axis=0)
            errors.append(difference + roundings[order:] + roughness / steps[order:])
            found.append(following)
            column, power = following, power * factor
    every, bounds = np.concatenate(found), np.concatenate(errors)
    bounds = np.where(np.isfinite(bounds), bounds, np.inf)
    best = np.argmin(bounds, axis=0, keepdims=True)
    value, error = (np.take_along_axis(each, best, 0)[0] for each in (every, bounds))
    return np.where(np.isfinite(error), value, np.nan), error


def real_terms(curve: Curve, t: float) -> np.ndarray:
    """Return the terms as floats; not finite outside their domain, as a logarithm below 0."""
    with np.errstate(all="ignore"):
        return np.asarray(np.real(curve(t)))


def change(ahead: np.ndarray, behind: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope of each term over a step, and its rounding error."""
    with np.errstate(all="ignore"):
        return (ahead - behind) / step, EPS * (np.abs(ahead) + np.abs(behind)) / abs(step)


def differences(curve: Curve, h: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the central difference of each term, and its rounding error."""
    return change(real_terms(curve, h), real_terms(curve, -h), 2 * h)


def total_differences(curve: Curve, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the central differences of the loss at some steps, and their rounding errors."""
    pairs = [differences(curve, float(h)) for h in steps]
    values, roundings = np.array([(v.sum(), r.sum()) for v, r in pairs]).T  # (steps,), (steps,)
    return values, roundings


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
        start = real_terms(curve, 0.0)
        pairs = [change(real_terms(curve, float(h)), start, float(h)) for h in steps]
        changes, roundings = steps * np.array([(v.sum(), r.sum()) for v, r in pairs]).T
        inside = np.isfinite(changes)
        largest = float(roundings[inside].max(initial=0.0))
        return cls(steps[inside], changes[inside], largest)

    @property
    def derivative(self) -> float:
        """The best estimate of the derivative from these samples, for a report."""
        last = np.flatnonzero(np.abs(self.changes) > 1e6 * self.rounding)
        return float(self.changes[last[-1]] / self.steps[last[-1]]) if len(last) else 0.0

    def slope(self, derivative: float, slack: float = 0.0) -> float:
        """Return the power of h with which the remainder falls, at the smallest usable steps.

        It is 2 if the derivative is right (more where loss'' is 0) and 1 if it is wrong; infinite
        if no remainder exceeds rounding, or none at steps that do not cross a kink, and NaN if no
        step stays in the domain of forward. slack: the rounding error of a correct derivative.
        """
        if not len(self.steps):
            return float("nan")
        remainders = np.abs(self.changes - self.steps * derivative)
        # Ten bits above rounding, so that rounding changes the slope by at most a thousandth.
        near = 1024 * self.rounding + self.steps * slack
        above = np.flatnonzero(remainders > near)[-8:]
        # A wrong derivative leaves at least an eighth of a remainder after two halvings of h.
        vanishes = (remainders > 64 * near)[above[-1:]].any() and above[-1] < len(self.steps) - 2
        if len(above) < 2 or vanishes:
            return float("inf")
        slopes = np.diff(np.log2(remainders[above])) / np.diff(np.log2(self.steps[above]))
        if above[-1] == len(self.steps) - 1:
            # The remainder never gets small: the derivative is wrong, or forward is rough.
            return float(np.mean(slopes))
        # The median, because the slope jumps near a step where the h² and h³ terms cancel.
        return float(np.median(slopes[-3:]))
