"""Compare a gradient with its measurement: right, wrong, or not measurable."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.causes import likely_cause
from tinygpt_np.gradcheck.measure import Measurement
from tinygpt_np.gradcheck.oracles import EPS
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.gradcheck.rounding import FACTOR, Rounding

# The remainder falls as h if the gradient is wrong and as h² if it is right.
SLOPE_BOUND = 1.5
# The estimated errors of an oracle may be too small by this factor.
UNCERTAINTY = 16
# A tensor is measured if rounding changes its elements by less than this fraction of the largest,
# or by less than this many ulp of the loss relative to the tensor's values.
FRACTION, ULPS_OF_ZERO = 1e-3, 1e4
# An unknown backward may add numbers a few times as large as the largest element.
ULPS_OF_UNKNOWN = 32
# The relative error of the usual gradients at a kink.
AT_KINKS = 1e-8
ORACLE_NAMES: dict[str, str] = {
    "complex": "complex step",
    "central": "central differences",
    "richardson": "Richardson",
    "taylor": "Taylor slope",
}


# The norm of a gradient of 1e200 overflows; an infinite error is the right result.
@np.errstate(over="ignore", invalid="ignore")
def compare(
    measurement: Measurement,
    gradients: Mapping[str, Any],
    dtype: np.dtype[Any],
    sizes: Sequence[int],
    rounding: Rounding | None = None,
) -> Row:
    """Return the row of one tensor.

    gradients: those of all tensors. sizes: axis lengths that may explain a wrong factor. rounding:
    of the backward; without it, that of the oracle's computation stands for both.
    """
    probes, gradient = measurement.probes, gradients.get(measurement.name)
    oracle = ORACLE_NAMES.get(measurement.method, measurement.method)
    empty = Row(
        measurement.name, probes.shape, oracle, probes.directions is None,
        int((measurement.usable & ~measurement.kinks).sum()), int(measurement.kinks.sum()), (),
        math.nan, math.nan, math.nan, math.inf, measurement.tolerance, 0.0,
    )  # fmt: skip
    wrong = unusable(gradient, probes.shape, dtype)
    if wrong is not None:
        return replace(empty, problems=(wrong,))
    if not measurement.usable.any():
        return replace(empty, unmeasured=unresolved(measurement))
    if measurement.taylor:
        return compare_slopes(measurement, probes.along(cast(Any, gradient)), rounding, empty)
    # An intermediate value that underflows may be multiplied by a larger one.
    info = np.finfo(dtype)
    comparison = Comparison(measurement, gradients, rounding, float(info.tiny / info.eps))
    row = comparison.row(empty)
    if row.problems and row.by_element:
        known = measurement.usable & ~comparison.open
        expected = np.where(known, 0.0 if row.is_zero else comparison.expected, comparison.found)
        pair = comparison.found.reshape(probes.shape), expected.reshape(probes.shape)
        cause = likely_cause(*pair, sizes, measurement.tolerance)
        row = replace(row, cause=cause, found=pair[0], expected=pair[1])
    return row


def unusable(gradient: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> str | None:
    """Return what is wrong with a gradient before its values are compared, or None."""
    if gradient is None:
        return "there is no gradient"
    if not isinstance(gradient, np.ndarray | np.floating):
        return f"the gradient must be an array, not {type(gradient).__name__}"
    gradient = cast(Any, gradient)
    if gradient.shape != shape:
        hint = "; it looks transposed" if gradient.shape == shape[::-1] else ""
        return f"the shape must be {shape}, not {gradient.shape}{hint}"
    if dtype is not None and gradient.dtype != dtype:
        return f"the dtype must be {dtype}, not {gradient.dtype}"
    if not np.isfinite(gradient).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(gradient))[0])
        return f"not finite: {gradient[place]} at {place}"
    return None


def unresolved(measurement: Measurement) -> str:
    """Return which derivatives the oracle could not resolve, or ""."""
    places = np.flatnonzero(measurement.unresolved)
    if not len(places):
        return ""
    first = measurement.probes.index(int(places[0]))
    return (
        f"{len(places)} of {len(measurement.values)} derivatives could not be measured to "
        f"{measurement.resolution:g}, the first at {first}: forward is rough, or rounds more than "
        "its dtype"
    )


class Comparison:
    """The errors of a gradient along the probes (P,), and how large they may be.

    found, expected: the derivatives by hand and by the oracle; at a kink, the nearest of the usual
    ones. errors: their differences. rounded: the
    part of each error that rounding explains, where that was measured. open: the places at a kink
    whose gradient may be right, but is not usual.
    """

    def __init__(
        self, measurement: Measurement, gradients: Mapping[str, Any], rounding: Rounding | None,
        tiny: float,
    ) -> None:  # fmt: skip
        self.measurement, self.gradients, self.rounding = measurement, gradients, rounding
        self.found = measurement.probes.along(gradients[measurement.name])
        self.tiny, self.rounded = tiny, np.zeros(len(self.found))
        nearest = np.argmin(np.abs(measurement.usual - self.found), axis=0)  # (P,)
        usual, kinks = np.take_along_axis(measurement.usual, nearest[None], 0)[0], measurement.kinks
        self.expected = np.where(kinks, usual, measurement.values)
        self.errors = np.where(measurement.usable, np.abs(self.found - self.expected), 0.0)
        # At a kink, the usual gradients are measured at points nearby.
        steep = np.abs(measurement.usual).max(axis=0)
        self.errors[kinks & (self.errors <= AT_KINKS * steep)] = 0.0
        inside = kinks & (measurement.low <= self.found) & (self.found <= measurement.high)
        inside &= self.failing
        shared, self.group_problem = self.shared()
        shared &= (measurement.usual.min(axis=0) <= self.found) & (
            self.found <= measurement.usual.max(axis=0)
        )
        self.errors[inside & shared] = 0.0
        self.open = inside & ~shared
        self.errors[self.open] = 0.0
        # The largest slack with which a tensor counts as measured.
        self.largest = float(np.abs(self.expected[measurement.usable]).max(initial=0.0))
        near_zero = ULPS_OF_ZERO * measurement.eps * measurement.size
        self.measured = max(FRACTION * self.largest, near_zero)
        self.add_rounding()
        self.is_zero = self.largest <= float(self.slack[measurement.usable].max())

    @property
    def slack(self) -> np.ndarray:
        """The part of `allowed` (P,) that does not depend on the element."""
        return UNCERTAINTY * self.measurement.errors + self.rounded

    @property
    def allowed(self) -> np.ndarray:
        """The largest errors (P,) that pass."""
        return self.measurement.tolerance * np.abs(self.expected) + self.slack + self.tiny

    @property
    def rough(self) -> np.ndarray:
        """A mask (P,) of probes where rounding explains errors so large that nothing is known."""
        return self.measurement.usable & (self.rounded > self.measured)

    @property
    def failing(self) -> np.ndarray:
        """A mask (P,) of the probes where the error is larger than allowed."""
        return ~(self.errors <= self.allowed)

    def shared(self) -> tuple[np.ndarray, str]:
        """Return the places (P,) in groups whose gradients add up as they must, and a problem."""
        agreed, problem = np.zeros(len(self.found), dtype=bool), ""
        for group in self.measurement.groups:
            parts = [
                np.asarray(self.gradients[name], np.float64).reshape(-1)[places]
                for name, places in group.places.items()
                if np.size(np.asarray(self.gradients.get(name))) > places.max()
            ]
            if len(parts) < len(group.places):
                continue
            every = np.concatenate(parts)
            near = 1e3 * self.measurement.tolerance * max(np.abs(every).sum(), abs(group.value))
            if abs(every.sum() - group.value) <= near + UNCERTAINTY * group.error:
                agreed[group.places[self.measurement.name]] = True
            else:
                problem = (
                    f"at ties: the gradients of {len(every)} equal elements must add up to "
                    f"{group.value:.6g}, not {every.sum():.6g}"
                )
        return agreed, problem

    def add_rounding(self) -> None:
        """Add to the slack what rounding explains, until an element is wrong."""
        measurement, failing = self.measurement, np.flatnonzero(self.failing)
        if not len(failing):
            return

        def own(number: int) -> float:
            return FACTOR * measurement.rounding(number)

        worst = int(failing[np.argmax(self.errors[failing])])
        if self.errors[worst] > self.measured and not self.excused(worst, own(worst)):
            # Even a backward whose rounding explains this error would not be right.
            self.rounded[worst] = own(worst) * measurement.eps
            return
        known, eps = None, measurement.eps
        if self.rounding is not None:
            known = self.rounding.of(measurement.name, measurement.probes)
        if known is not None:
            self.rounded[failing] += FACTOR * known[failing] * eps
            eps = EPS
        else:
            self.rounded[failing] += ULPS_OF_UNKNOWN * self.largest * eps
        failing = np.flatnonzero(self.failing)
        for number in map(int, failing[np.argsort(-self.errors[failing])]):
            self.rounded[number] += own(number) * eps
            is_right = self.errors[number] <= self.allowed[number]
            if not is_right and not self.is_across(number) and not self.is_outvoted(number):
                return

    def is_outvoted(self, number: int) -> bool:
        """Return whether a second oracle agrees with the gradient, and clearly not with the first.

        Complex quotients inside a library may lose digits that real ones keep.
        """
        second = self.measurement.second(number)
        near = 0.5 * self.errors[number]
        if not max(second.error, abs(self.found[number] - second.value)) <= near:
            return False
        self.expected[number], self.errors[number] = second.value, 0.0
        return True

    def is_across(self, number: int) -> bool:
        """Return whether an element is the derivative from beyond a kink that is nearby."""
        sides = self.measurement.nearby(number)
        for side in (sides.left, sides.right) if sides else ():
            near = self.measurement.tolerance * abs(side.value) + UNCERTAINTY * side.error
            if abs(self.found[number] - side.value) <= near + self.rounded[number]:
                self.expected[number], self.errors[number] = side.value, 0.0
                return True
        return False

    def excused(self, number: int, sensitivity: float) -> bool:
        """Return whether rounding with this sensitivity explains the error of an element."""
        rounding = sensitivity * self.measurement.eps
        return bool(self.errors[number] <= self.allowed[number] + rounding)

    def row(self, row: Row) -> Row:
        """Fill in the row."""
        measurement, usable = self.measurement, self.measurement.usable
        ratios = np.where(usable, self.errors / self.allowed, 0.0)
        error, norm, slack = (
            norm_of(each[usable]) for each in (self.errors, self.expected, self.slack)
        )
        largest_ratio = float(ratios.max())
        worst = int(np.argmax(ratios if largest_ratio > 1 else self.errors))
        problems = tuple[str, ...]()
        if largest_ratio > 1 and error > measurement.tolerance * norm + slack:
            by = f"{error / norm:.2g} of its norm" if norm else f"{error:.2g}, and should be zero"
            problems = (f"off by {by}",)
        elif not largest_ratio <= 1:
            places = int((ratios > 1).sum())
            problems = (f"off in {places} of {len(ratios)} places by more than rounding explains",)
        elif self.group_problem and not (self.rough | measurement.unresolved).any():
            problems = (self.group_problem,)
        return replace(
            row,
            index=measurement.probes.index(worst),
            analytic=float(self.found[worst]),
            numeric=float(self.expected[worst]),
            absolute=float(self.errors[worst]),
            relative=math.nan if self.is_zero else error / norm,
            bound=(
                float(self.slack[worst]) if self.is_zero else measurement.tolerance + slack / norm
            ),
            headroom=1 / largest_ratio if largest_ratio else math.inf,
            is_zero=self.is_zero,
            problems=problems,
            unmeasured="; ".join(self.unmeasured()),
        )

    def unmeasured(self) -> Iterator[str]:
        """Yield what could not be measured."""
        measurement = self.measurement
        if not_resolved := unresolved(measurement):
            yield not_resolved
        if count := int(self.open.sum()):
            yield (
                f"{count} of {len(self.found)} places could not be measured: they are at a kink, "
                "and the gradient there is none of the usual ones"
            )
        if count := int(self.rough.sum()):
            yield (
                f"{count} of {len(self.found)} places could not be measured: rounding explains "
                f"an error of {self.rounded[self.rough].max():.1g}"
            )


def norm_of(values: np.ndarray) -> float:
    """Return the Euclidean norm, also of numbers whose squares underflow."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.linalg.norm(values / largest)) if largest else 0.0


def compare_slopes(
    measurement: Measurement, found: np.ndarray, rounding: Rounding | None, row: Row
) -> Row:
    """Fill in the row by the Taylor slope test, from the derivatives along the probes (P,)."""
    usable = np.flatnonzero(measurement.usable & ~measurement.kinks)
    if not len(usable):
        return replace(row, unmeasured="all directions cross a kink")

    def median(slack: np.ndarray) -> tuple[float, int]:
        # The direction with the median slope decides: a wrong gradient shows in nearly all, while
        # in a single one the h² term of a right gradient may vanish against its h³ term.
        pairs = zip(found, slack, strict=True)
        every = [
            taylor.slope(*pair) for taylor, pair in zip(measurement.taylor, pairs, strict=True)
        ]
        slopes = np.array(every)[usable]
        order = np.argsort(np.where(np.isnan(slopes), -np.inf, slopes))
        return float(slopes[order[len(order) // 2]]), int(usable[order[len(order) // 2]])

    slack = measurement.tolerance * np.abs(found) + measurement.errors
    slope, chosen = median(slack)
    numeric = measurement.taylor[chosen].derivative
    is_small = abs(found[chosen] - numeric) <= FRACTION * abs(numeric)
    if not slope >= SLOPE_BOUND and is_small and rounding is not None:
        known = rounding.of(measurement.name, measurement.probes)
        if known is not None:
            slope, chosen = median(slack + FACTOR * measurement.eps * known)
            numeric = measurement.taylor[chosen].derivative
    right = slope >= SLOPE_BOUND
    return replace(
        row,
        index=measurement.probes.index(chosen),
        analytic=float(found[chosen]),
        numeric=numeric,
        absolute=abs(float(found[chosen]) - numeric),
        relative=slope,
        bound=SLOPE_BOUND,
        headroom=slope / SLOPE_BOUND,
        problems=() if right else (f"the remainder falls as h^{slope:.2f}, not h²",),
    )
