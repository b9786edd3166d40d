"""Measure the numerical gradient of a scalar loss, one tensor at a time, with an oracle.

A tensor is moved along each of its coordinates or along a few random directions, while the others
stay fixed. At a kink of the loss, its derivatives from both sides are measured.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal, get_args

import numpy as np

from tinygpt_np.gradcheck.kinks import CLOSER, LARGE, SMALL, Kink, KinkFinder, Sides
from tinygpt_np.gradcheck.oracles import (
    CENTRAL,
    EPS,
    SMALLEST,
    Curve,
    Estimate,
    Taylor,
    central_difference,
    complex_step,
    differences,
    real_terms,
    richardson,
    tangents,
)
from tinygpt_np.gradcheck.probes import Probes, magnitudes, typical
from tinygpt_np.gradcheck.progress import Announce, quiet
from tinygpt_np.gradcheck.rounding import Rounding
from tinygpt_np.gradcheck.subject import Subject

Method = Literal["complex", "central", "richardson", "taylor"]
METHODS: tuple[Method, ...] = get_args(Method)
Oracle = Callable[[Curve], Estimate]
ORACLES: dict[str, Oracle] = {
    "complex": complex_step,
    "central": central_difference,
    "richardson": richardson,
}
# The largest error that an oracle may have for a float64 gradient, relative to the largest element.
RESOLUTION: dict[Method, float] = {
    "complex": 1e-6,
    "central": 1e-7,
    "richardson": 1e-9,
    "taylor": 1e-9,
}
# The relative error that a correct element may have without further measurement: in float64, and in
# ulp for other dtypes.
TOLERANCE, ULPS = 1e-12, 64
# The largest slope that may be due to rounding, in rounding errors of the loss.
ROUNDINGS = 1e4
# The number of points near a kink at which the derivative is measured.
POINTS = 16
# The Taylor slope test uses this many random directions by default.
TAYLOR_DIRECTIONS = 3


class CheckError(ValueError):
    """Raised for something that cannot be checked; says what was expected and what was given."""


@dataclass(frozen=True)
class Group:
    """Places at kinks that hold the same value, in one or more tensors, moved together.

    places: the numbers of the places by tensor. value, error: the derivative along the common
    direction. Each place alone has a kink, as in a maximum of equal elements, but together they
    have none, so their gradients must add up to `value`.
    """

    places: Mapping[str, np.ndarray]
    value: float
    error: float


def no_rounding(number: int) -> float:
    """Return 0, the sensitivity of a known derivative to rounding."""
    return 0.0


def no_second(number: int) -> Estimate:
    """Return nothing known: a known derivative needs no second oracle."""
    return Estimate(np.nan, np.inf)


def no_kink(number: int) -> None:
    """Return None: there is no kink near a known derivative."""


@dataclass(frozen=True)
class Measurement:
    """The derivatives of one tensor along its probes, with bounds on their errors.

    values, errors (P,): from the oracle; with method "taylor", `taylor` instead. kinks (P,): where
    the loss has a kink; there a gradient may be one of the `usual` (A, P), and is between `low` and
    `high` (P,) by any convention. groups: places at kinks that have a derivative together.
    rounding: returns the sensitivity of the oracle's own computation to rounding along a probe.
    nearby: returns the sides of a kink that rounding in the gradient's dtype may cross. second:
    returns the derivative by another oracle. size: that of the loss, relative to the tensor's
    values: a derivative far below it is zero up to rounding. scale: the size to which differences
    are precise. eps: that of the gradient's dtype.
    """

    name: str
    probes: Probes
    method: str
    values: np.ndarray
    errors: np.ndarray
    kinks: np.ndarray
    usual: np.ndarray
    low: np.ndarray
    high: np.ndarray
    resolution: float
    eps: float = EPS
    size: float = 0.0
    scale: float = 0.0
    rounding: Callable[[int], float] = no_rounding
    nearby: Callable[[int], Sides | None] = no_kink
    second: Callable[[int], Estimate] = no_second
    groups: tuple[Group, ...] = ()
    taylor: tuple[Taylor, ...] = ()

    @classmethod
    def exact(
        cls, name: str, probes: Probes, method: str, values: np.ndarray, eps: float,
        size: float = 0.0,
    ) -> "Measurement":  # fmt: skip
        """Return known derivatives (P,), without kinks and without errors of an oracle."""
        none = np.zeros(len(probes))
        return cls(
            name, probes, method, values, none, none > 0, values[None], values, values,
            RESOLUTION["complex"], eps, size,
        )  # fmt: skip

    def plus(self, other: "Measurement") -> "Measurement":
        """Return the sum of two gradients of the same tensor."""

        def both(number: int) -> float:
            return self.rounding(number) + other.rounding(number)

        return replace(
            self,
            values=self.values + other.values,
            errors=self.errors + other.errors,
            kinks=self.kinks | other.kinks,
            usual=(self.usual[:, None] + other.usual).reshape(-1, len(self.values)),
            low=self.low + other.low,
            high=self.high + other.high,
            size=self.size + other.size,
            scale=self.scale + other.scale,
            rounding=both,
            groups=(),
        )

    @property
    def tolerance(self) -> float:
        """The relative error that a correct element may have without further measurement."""
        return max(TOLERANCE, ULPS * self.eps)

    @property
    def unresolved(self) -> np.ndarray:
        """The probes (P,) whose derivative the oracle could not resolve."""
        finite = np.isfinite(self.values)
        largest = float(np.abs(self.usual[:, finite]).max(initial=self.scale))
        underflow = 2 * SMALLEST * self.eps / EPS
        return ~(finite & (self.errors <= self.resolution * largest + underflow))

    @property
    def usable(self) -> np.ndarray:
        """The probes (P,) whose derivative, or those from both sides, are known."""
        return ~self.unresolved


def check_options(method: Method, directions: int | None, seed: int) -> None:
    """Raise CheckError for options that no check takes."""
    if method not in METHODS:
        raise CheckError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if directions is not None and (type(directions) is not int or directions < 1):
        raise CheckError(f"directions must be a positive integer or None, not {directions!r}")
    if type(seed) is not int or seed < 0:
        raise CheckError(f"seed must be a non-negative integer, not {seed!r}")


def measure_all(
    subject: Subject,
    method: Method,
    directions: int | None,
    rng: np.random.Generator,
    announce: Announce = quiet,
) -> list[Measurement]:
    """Measure every tensor of a subject, element by element or along random directions."""
    count = TAYLOR_DIRECTIONS if directions is None and method == "taylor" else directions
    probes: dict[str, Probes] = {}
    for name, value in subject.values.items():
        drawn = None if count is None else rng.standard_normal((count, *value.shape))
        probes[name] = Probes(value.shape, drawn)
    announced = announce_all(announce, probes)
    found = [measure(subject, n, p, method, rng, announced[n]) for n, p in probes.items()]
    return with_groups(subject, found)


def announce_all(
    announce: Announce, probes: Mapping[str, Probes]
) -> dict[str, Callable[[int], None]]:
    """Return for each tensor a function that announces the number of a probe."""
    total, done = sum(map(len, probes.values())), 0

    def of(name: str, earlier: int) -> Callable[[int], None]:
        return lambda number: announce(name, earlier + number, total)

    found = dict[str, Callable[[int], None]]()
    for name, each in probes.items():
        found[name] = of(name, done)
        done += len(each)
    return found


def measure(
    subject: Subject,
    name: str,
    probes: Probes,
    method: Method,
    rng: np.random.Generator,
    announce: Callable[[int], None] = quiet,
) -> Measurement:
    """Measure the gradient of one tensor; "complex" becomes "richardson" if it is not safe.

    announce: called with the number of each probe before it is measured.
    """
    tensor = Tensor(subject, name, probes, method, rng)
    found: list[Estimate] = []
    for number in range(len(probes)):
        announce(number)
        found.append(tensor.derivative(number))
    kinks = dict[int, Kink]()
    if tensor.has_suspects:
        for number in range(len(probes)):
            found[number], kink = tensor.checked_for_kink(number, found[number])
            if kink is not None:
                kinks[number] = kink
    values, errors = np.array([(each.value, each.error) for each in found]).T  # (P,), (P,)
    most = max((len(kink.usual) for kink in kinks.values()), default=1)
    usual, low, high = np.tile(values, (most, 1)), values.copy(), values.copy()
    for number, kink in kinks.items():
        usual[:, number] = np.resize(kink.usual, most)
        low[number], high[number] = kink.low, kink.high
    is_kink = np.isin(np.arange(len(probes)), list(kinks))
    resolution = max(RESOLUTION[tensor.method], TOLERANCE * subject.eps / EPS)
    size = subject.size / max(typical(subject.values[name]), 1.0)
    tested = range(len(probes)) if method == "taylor" else ()
    return Measurement(
        name, probes, tensor.method, values, errors, is_kink, usual, low, high, resolution,
        subject.eps, subject.size_of(name), size, cache(tensor.rounding), cache(tensor.nearby),
        cache(tensor.second),
        taylor=tuple(Taylor.sample(tensor.curve(number)) for number in tested),
    )  # fmt: skip


class Tensor:
    """One tensor of a subject, and how it is measured: safe says whether by the complex step."""

    def __init__(
        self, subject: Subject, name: str, probes: Probes, method: Method, rng: np.random.Generator
    ) -> None:
        self.subject, self.name, self.probes, self.rng = subject, name, probes, rng
        self.value = subject.values[name]
        self.safe = complex_safe(subject, name, probes, rng)
        self.method: Method = method
        if method == "complex" and not self.safe:
            self.method = "richardson"
        self.finder = KinkFinder(self.safe)

    def curve(self, number: int) -> Curve:
        """Return the curve along a probe, of those terms whose differences matter."""
        curve = self.subject.curve({self.name: self.probes[number]})
        is_by_differences = not self.safe or self.method in ("central", "richardson")
        return that_depend(curve, self.units(number)) if is_by_differences else curve

    def units(self, number: int) -> tuple[float, float]:
        """Return the units of the steps along a probe."""
        own, usual = self.scales[number]
        return float(own), float(usual)

    @cached_property
    def scales(self) -> np.ndarray:
        """The units of the steps along all probes (P, 2)."""
        return self.probes.scales(self.value)

    def derivative(self, number: int) -> Estimate:
        """Return the derivative along a probe."""
        return derivative(self.method, self.curve(number), self.units(number), self.subject.eps)

    @cached_property
    def has_suspects(self) -> bool:
        """Whether any probe may have a kink; most losses have none along a random direction."""
        direction = magnitudes(self.value) * self.rng.standard_normal(self.probes.shape)
        if self.finder.suspects(self.subject.curve({self.name: direction}), SMALL):
            return True
        if not self.safe:
            return False
        # The median of tied elements has the same slope on both sides, but another one nearby.
        wide = self.difference_nearby(direction, 1.0)
        if not (wide > self.noise).any():
            return False
        narrow = self.difference_nearby(direction, 1 / CLOSER)
        return bool(((wide > self.noise) & (narrow > wide / 4)).any())

    @property
    def noise(self) -> float:
        """Slopes up to this size are rounding errors of the loss."""
        return ROUNDINGS * EPS * self.subject.size

    def difference_nearby(self, direction: np.ndarray, distance: float) -> np.ndarray:
        """Return by how much the slope of each term differs between points nearby."""
        # By chance a few points have the same order of the tied elements.
        points = [self.moved(distance).curve({self.name: direction}) for _ in range(POINTS // 2)]
        slopes = np.array([tangents(each) for each in points])  # (points, K)
        differ = np.ptp(slopes, axis=0)
        return np.where(differ > LARGE * np.abs(slopes).max(axis=0), differ, 0.0)

    def moved(self, distance: float = 1.0) -> Subject:
        """Return the subject so near that the derivatives are those at a side of each kink."""
        return replace(self.subject, values={
            name: value + 4 * distance * self.finder.reach * magnitudes(value)
            * self.rng.standard_normal(value.shape)
            for name, value in self.subject.values.items()
        })  # fmt: skip

    @cached_property
    def points_nearby(self) -> list[list[Subject]]:
        """The subject at points nearby, at closer ones, and at more points nearby for kinks."""

        def points(count: int, distance: float) -> list[Subject]:
            found = [self.moved(distance) for _ in range(count if self.safe else 0)]
            return [each for each in found if np.isfinite(real_terms(each.curve({}), 0.0)).all()]

        return [points(POINTS, 1.0), points(POINTS, 1 / CLOSER), points(4 * POINTS, 1.0)]

    def checked_for_kink(self, number: int, known: Estimate) -> tuple[Estimate, Kink | None]:
        """Return the derivative along a probe, or that between the sides of a kink, and the kink.

        known: the derivative as if there were no kink.
        """
        unit, _ = self.units(number)
        curve, direction = along(self.curve(number), unit), {self.name: self.probes[number] * unit}
        slope, noise = known.value * unit, self.noise
        *usual_points, more = self.points_nearby
        points, closer = (
            [complex_step(each.curve(direction)) for each in points] for points in usual_points
        )
        # If several elements are tied, the loss may have no kink along a single coordinate.
        wide, narrow = (
            max((abs(each.value - slope) for each in found), default=0.0)
            for found in (points, closer)
        )
        terms = max((each.error for each in points), default=0.0) / EPS
        # The Taylor test has no slope to compare with them.
        is_tied = self.method != "taylor" and wide > LARGE * terms + noise and narrow > wide / 4
        if not is_tied and not self.finder.suspects(curve):
            return known, None
        sides = self.finder.sides(curve)
        middle = (sides / unit).middle
        differ = sides.differ and abs(sides.right.value - sides.left.value) > noise
        if not is_tied and not differ:
            is_right = middle.error >= known.error and (sides / unit).agree(known)
            return known if is_right else middle, None
        # Few points order several tied elements as a convention does, so more points are needed.
        points += [complex_step(each.curve(direction)) for each in more]
        kink = self.finder.kink(curve, sides, [each.value for each in points])
        return middle, Kink(kink.usual / unit, kink.low / unit, kink.high / unit)

    def rounding(self, number: int) -> float:
        """Return the sensitivity to rounding of a derivative as the oracle computes it."""
        unit, _ = self.units(number)
        curve = along(self.subject.curve({self.name: self.probes[number]}, noisy=True), unit)

        def slope() -> np.ndarray:
            # Richardson extrapolation mostly takes large steps.
            h = CENTRAL if self.method == "central" else 2.0**-6
            is_complex = self.safe and self.method != "central"
            return tangents(curve).sum() if is_complex else differences(curve, h)[0].sum()

        known = Rounding(lambda: {"": slope() / unit}).of("")
        return 0.0 if known is None else float(known[0])

    def second(self, number: int) -> Estimate:
        """Return the derivative by Richardson extrapolation, to confirm the complex step."""
        if self.method != "complex":
            return no_second(number)
        units = self.units(number)
        curve = self.subject.curve({self.name: self.probes[number]})
        return derivative("richardson", that_depend(curve, units), units, self.subject.eps)

    def nearby(self, number: int) -> Sides | None:
        """Return the sides of a kink so near that rounding in the gradient's dtype crosses it."""
        wide, (unit, _) = KinkFinder(self.safe, self.subject.eps), self.units(number)
        curve = along(self.curve(number), unit)
        sides = wide.sides(curve) / unit if wide.suspects(curve) else None
        return sides if sides and sides.differ and wide.reach > self.finder.reach else None


def along(curve: Curve, unit: float) -> Curve:
    """Return the curve with steps in another unit."""
    return lambda t: curve(t * unit)


def that_depend(curve: Curve, units: tuple[float, float]) -> Curve:
    """Return the curve of the terms that change; the others would only add rounding errors.

    A term that does not change over a small step may depend on the tensor nevertheless, so the
    steps are large.
    """
    start, unit = real_terms(curve, 0.0), max(units)
    same = [start == real_terms(curve, t) for t in (unit, -unit, unit / 8, -unit / 8)]
    (moving,) = np.nonzero(~np.logical_and.reduce(same))
    return lambda t: curve(t)[moving]


def derivative(method: Method, curve: Curve, units: tuple[float, float], eps: float) -> Estimate:
    """Return the derivative along a curve, and its error.

    Differences are taken in the first unit; in the second if that is more precise and agrees.
    """
    if method == "taylor":
        return Estimate(0.0, 0.0)
    if method == "complex":
        found = complex_step(curve)
        if np.isfinite(found.value):
            # The terms are added in the dtype of the gradient as well.
            return Estimate(found.value, found.error * eps / EPS)
    oracle = richardson if method == "complex" else ORACLES[method]

    def measured(unit: float) -> Estimate:
        estimate = oracle(along(curve, unit))
        return Estimate(estimate.value / unit, estimate.error / unit)

    first = measured(units[0])
    if first.error <= RESOLUTION["richardson"] * abs(first.value):
        return first
    second = measured(units[1])
    agrees = not abs(second.value - first.value) > first.error
    return second if agrees and second.error < first.error else first


def complex_safe(subject: Subject, name: str, probes: Probes, rng: np.random.Generator) -> bool:
    """Return whether the loss accepts complex values and is analytic, as the complex step needs.

    A loss that takes |x| or a conjugate runs on complex numbers, but its imaginary part is not the
    derivative. Differences of each term along a random direction reveal that. They are taken at a
    point nearby, which is not at a kink.
    """
    unit = magnitudes(subject.values[name])
    nearby = subject.values[name] + 2.0**-7 * unit * rng.standard_normal(probes.shape)
    moved = replace(subject, values={**subject.values, name: nearby})
    # As large as the values: the effect of a smaller step is lost in the rounding of the point.
    direction = unit * rng.uniform(0.5, 1.5, probes.shape) * rng.choice([-1.0, 1.0], probes.shape)
    curve = moved.curve({name: direction})
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            slopes = tangents(curve)
    except Exception:  # Any error on complex numbers means that forward is not complex-safe.
        return False
    return agrees_with_differences(curve, slopes, 0.0) or agrees_with_differences(
        curve, slopes, subject.rounding
    )


def agrees_with_differences(curve: Curve, slopes: np.ndarray, rounding: Any) -> bool:
    """Return whether the differences of half of the terms settle at their slope, none elsewhere.

    rounding: that of the terms in addition to that of their last operation. A step is good if its
    rounding error is small next to the slope, and the next larger step gives the same difference.
    Terms that change by rounding errors only count as settled; those whose steps all lead out of
    the domain are ignored.
    """
    size = np.abs(real_terms(curve, 0.0))
    agrees, differs, inside, flat = np.zeros((4, *slopes.shape), dtype=bool)
    before, known = np.full((2, *slopes.shape), np.nan)
    # No step is a multiple of another, so an oscillation does not look the same at several.
    for h in np.exp(-2.0 * np.arange(1.0, 15.0)):
        real, errors = differences(curve, float(h))
        with np.errstate(all="ignore"):
            # The error of a difference is proportional to h².
            factor = np.exp(4.0)
            better = np.where(np.isfinite(before), (factor * real - before) / (factor - 1), real)
            largest = np.fmax(np.abs(slopes), np.abs(real))
            # The point is rounded, too.
            errors += (rounding + EPS * np.abs(slopes)) / h
            # Differences that have settled across a kink may still agree on this side of it.
            is_open = ~differs | (errors <= 1e-9 * largest)
            counts = (errors <= 0.05 * largest) & is_open
            change = np.abs(better - slopes)
            agrees |= counts & (change <= 1e-10 * np.abs(slopes) + 4 * errors)
            has_settled = np.abs(better - known) <= 1e-10 * np.abs(better) + 4 * errors
            differs |= counts & has_settled & ~agrees & (change > 100 * errors)
            flat |= largest <= ROUNDINGS * (EPS * size + rounding) + SMALLEST
        inside |= np.isfinite(real)
        if (agrees | flat).all() and (agrees | (slopes == 0)).any():
            return True
        before, known = real, better
    proven = agrees | (flat & np.isfinite(rounding))
    is_proven = 2 * proven.sum() >= inside.sum() > 0
    return bool(is_proven and not (differs & ~proven).any())


def with_groups(subject: Subject, measurements: list[Measurement]) -> list[Measurement]:
    """Add to each measurement the groups of places at kinks that hold the same value."""
    places: dict[float, dict[str, list[int]]] = {}
    for each in measurements:
        if each.probes.directions is None:
            for number in np.flatnonzero(each.kinks):
                value = float(subject.values[each.name].flat[number])
                places.setdefault(value, {}).setdefault(each.name, []).append(int(number))
    finder = KinkFinder(all(m.method == "complex" for m in measurements))
    groups: list[Group] = []
    for value, named in places.items():
        if sum(map(len, named.values())) < 2:
            continue
        unit, directions = abs(value) or 1.0, dict[str, np.ndarray]()
        for name, numbers in named.items():
            directions[name] = np.zeros_like(subject.values[name])
            directions[name].flat[numbers] = unit
        sides = finder.sides(subject.curve(directions)) / unit
        if not sides.differ and np.isfinite(sides.middle.value):
            arrays = {name: np.array(numbers) for name, numbers in named.items()}
            groups.append(Group(arrays, sides.middle.value, sides.middle.error))
    return [
        replace(m, groups=tuple(group for group in groups if m.name in group.places))
        for m in measurements
    ]
