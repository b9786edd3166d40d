"""Measure the numerical gradient of a scalar loss, one tensor at a time, with an oracle.

A tensor is moved along each of its coordinates or along a few random directions, while the others
stay fixed. How much rounding may change a correct gradient is measured here as well.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.oracles import (
    EPS,
    Curve,
    Estimate,
    Taylor,
    central_difference,
    complex_step,
    real_loss,
    richardson,
)
from tinygpt_np.storage.parameters import Tensors

Method = Literal["complex", "central", "richardson", "taylor"]
METHODS: tuple[Method, ...] = get_args(Method)
Oracle = Callable[[Curve], Estimate]
ORACLES: dict[str, Oracle] = {
    "complex": complex_step,
    "central": central_difference,
    "richardson": richardson,
}
# The largest error of a correct float64 gradient, relative to the norm of the tensor.
TOLERANCE: dict[Method, float] = {
    "complex": 1e-12,
    "central": 1e-7,
    "richardson": 1e-9,
    "taylor": 1e-12,
}
# How many perturbed measurements are made to estimate the effect of rounding.
ROUNDING_SAMPLES = 8
# The probability that rounding alone makes a correct tensor fail.
FALSE_ALARM = 1e-9
# The number of operations in a row that produce one term of the loss.
CHAIN = 50
# The Taylor slope test uses this many random directions by default.
TAYLOR_DIRECTIONS = 3


class CheckError(ValueError):
    """Raised for something that cannot be checked; says what was expected and what was given."""


@dataclass(frozen=True)
class Subject:
    """A scalar loss as a function of named tensors, and the point at which it is differentiated.

    loss: takes the tensors in float64 or complex128. values: the tensors, in float64. terms: the
    number of terms that the loss, and so each gradient, sums. eps: machine epsilon of the dtype in
    which the gradients to be checked were computed.
    """

    loss: Callable[[Tensors], Any]
    values: Tensors
    terms: int
    eps: float = EPS

    def curve(self, name: str, direction: np.ndarray) -> Curve:
        """Return t ↦ loss with the tensor `name` moved by t·direction."""
        return lambda t: self.loss({**self.values, name: self.values[name] + t * direction})

    @cached_property
    def perturbations(self) -> list["Subject"]:
        """The subject with every value moved by one rounding error, up or down, several times."""
        rng = generator(0, "gradcheck")
        moved = [
            {
                name: value * (1 + EPS * rng.choice([-1.0, 1.0], value.shape))
                for name, value in self.values.items()
            }
            for _ in range(ROUNDING_SAMPLES)
        ]
        return [replace(self, values=values) for values in moved]

    @cached_property
    def loss_value(self) -> float:
        """The loss at the point."""
        return complex(self.loss(self.values)).real

    @cached_property
    def term_rounding(self) -> float:
        """The rounding error of one term of the loss in float64: measured, but at least one ulp."""
        moves = max(abs(other.loss_value - self.loss_value) for other in self.perturbations)
        return max(moves / self.terms**0.5, EPS * abs(self.loss_value) / self.terms)


@dataclass(frozen=True)
class Probes:
    """The P directions in which a tensor is moved: all coordinates, or `directions` (P, *shape)."""

    shape: tuple[int, ...]
    directions: np.ndarray | None = None

    def __len__(self) -> int:
        return int(np.prod(self.shape)) if self.directions is None else len(self.directions)

    def __getitem__(self, number: int) -> np.ndarray:
        if self.directions is not None:
            return self.directions[number]
        direction = np.zeros(self.shape)
        direction.flat[number] = 1.0
        return direction

    def combined(self, weights: np.ndarray) -> np.ndarray:
        """Return the weighted sum of all probes (*shape), for weights (P,)."""
        if self.directions is None:
            return weights.reshape(self.shape)
        return np.tensordot(weights, self.directions, axes=1)

    def index(self, number: int) -> tuple[int, ...]:
        """Return the index of a coordinate in its tensor, or the number of a direction."""
        if self.directions is not None:
            return (number,)
        return tuple(int(i) for i in np.unravel_index(number, self.shape))

    def along(self, gradient: np.ndarray) -> np.ndarray:
        """Return the derivatives of a gradient (*shape) along the probes (P,), in float64."""
        flat = gradient.astype(np.float64).reshape(-1)
        return flat if self.directions is None else self.directions.reshape(len(self), -1) @ flat


@dataclass(frozen=True)
class Measurement:
    """The derivatives of one tensor along its probes, with bounds on their errors.

    values, errors (P,): from the oracle; with method "taylor", `taylor` instead. kinks (P,): where
    the loss has a corner and so no derivative. floor: the largest rounding error of an element of a
    correct gradient. roundings: the factor by which the oracle's own errors may add up. scale: the
    size of the loss, to which the resolution of a difference is relative.
    """

    name: str
    probes: Probes
    method: str
    values: np.ndarray
    errors: np.ndarray
    kinks: np.ndarray
    floor: float
    roundings: float
    tolerance: float
    taylor: tuple[Taylor, ...] = ()
    scale: float = 0.0

    @classmethod
    def exact(
        cls, name: str, probes: Probes, method: str, values: np.ndarray, floor: float,
        tolerance: float, scale: float = 0.0,
    ) -> "Measurement":  # fmt: skip
        """Return known derivatives (P,), without kinks and without errors of an oracle."""
        none = np.zeros(len(probes))
        return cls(name, probes, method, values, none, none > 0, floor, 0.0, tolerance, scale=scale)

    @property
    def unresolved(self) -> np.ndarray:
        """The probes (P,) whose derivative the oracle could not resolve."""
        finite = np.isfinite(self.values)
        largest = float(np.abs(self.values[finite]).max(initial=self.scale))
        return ~self.kinks & ~(finite & (self.errors <= self.tolerance * largest))

    @property
    def usable(self) -> np.ndarray:
        """The probes (P,) whose derivative exists and is known."""
        return ~self.kinks & ~self.unresolved


def check_options(method: Method, directions: int | None, seed: int) -> None:
    """Raise CheckError for options that no check takes."""
    if method not in METHODS:
        raise CheckError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if directions is not None and (type(directions) is not int or directions < 1):
        raise CheckError(f"directions must be a positive integer or None, not {directions!r}")
    if type(seed) is not int or seed < 0:
        raise CheckError(f"seed must be a non-negative integer, not {seed!r}")


def measure_all(
    subject: Subject, method: Method, directions: int | None, rng: np.random.Generator
) -> Iterator[Measurement]:
    """Measure every tensor of a subject, element by element or along random directions."""
    count = TAYLOR_DIRECTIONS if directions is None and method == "taylor" else directions
    for name, value in subject.values.items():
        drawn = None if count is None else rng.standard_normal((count, *value.shape))
        yield measure(subject, name, Probes(value.shape, drawn), method, rng)


def measure(
    subject: Subject, name: str, probes: Probes, method: Method, rng: np.random.Generator
) -> Measurement:
    """Measure the gradient of one tensor; "complex" becomes "richardson" if it is not safe."""
    kinks = find_kinks(subject, name, probes, rng)
    safe = complex_safe(subject, name, probes, kinks, rng)
    if method == "complex" and not safe:
        method = "richardson"
    times, tolerance = roundings(subject.terms), TOLERANCE["complex"] * subject.eps / EPS
    # The most accurate oracle, because the rounding error of a difference is not the gradient's.
    finest = complex_step if safe else richardson
    floor = times * one_rounding(subject, name, probes, finest, rng)
    curves = [subject.curve(name, probes[number]) for number in range(len(probes))]
    if method == "taylor":
        estimates, taylor = [Estimate(0.0, 0.0)] * len(probes), tuple(map(Taylor.sample, curves))
    else:
        estimates, taylor = list(map(ORACLES[method], curves)), ()
    values, errors = np.array([(each.value, each.error) for each in estimates]).T  # (P,), (P,)
    return Measurement(
        name, probes, method, values, errors, kinks, floor, times,
        max(TOLERANCE[method], tolerance), taylor, abs(subject.loss_value),
    )  # fmt: skip


def one_rounding(
    subject: Subject, name: str, probes: Probes, oracle: Oracle, rng: np.random.Generator
) -> float:
    """Measure how far one rounding error moves an element of the gradient.

    That is how much the element changes when every input moves by one rounding error. It can be 0
    by chance where large terms cancel, so it is at least the rounding error of one term of the loss
    divided by the size of the tensor's values (or by 1, if they are smaller).
    """
    order = max(1.0, float(np.sqrt(np.mean(subject.values[name] ** 2))))
    numbers = [int(number) for number in rng.permutation(len(probes))[:ROUNDING_SAMPLES]]
    unmoved = [oracle(subject.curve(name, probes[number])) for number in numbers]
    largest = subject.term_rounding / order
    for sample, perturbed in enumerate(subject.perturbations):
        number, still = numbers[sample % len(numbers)], unmoved[sample % len(numbers)]
        moved = oracle(perturbed.curve(name, probes[number]))
        # The oracle's own error does not belong to the gradient.
        moves = abs(moved.value - still.value) - moved.error - still.error
        largest = max(largest, moves, EPS * abs(still.value))
    return largest * subject.eps / EPS


def roundings(terms: int) -> float:
    """Return how rounding errors add up in a sum of n terms: λ√(n+c), with λ = √(2 ln(2(n+c)/δ)).

    Rounding errors have random signs; the sum of n of them exceeds this bound with probability δ. c
    stands for the operations that compute each term.
    Source: Higham, Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019), (2.6).
    """
    count = terms + CHAIN
    return float(np.sqrt(2 * np.log(2 * count / FALSE_ALARM) * count))


def complex_safe(
    subject: Subject, name: str, probes: Probes, kinks: np.ndarray, rng: np.random.Generator
) -> bool:
    """Return whether the loss accepts complex values and is analytic, as the complex step needs."""
    # A loss that takes |x| or a conjugate runs on complex numbers, but its imaginary part is not
    # the derivative. One central difference along a direction through all coordinates reveals that.
    direction = probes.combined(rng.standard_normal(len(probes)) * ~kinks)
    curve = subject.curve(name, direction / max(1.0, float(np.linalg.norm(direction))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            complex_loss = curve(0j)
            step = complex_step(curve)
    except Exception:  # Any error on complex numbers means that forward is not complex-safe.
        return False
    real = central_difference(curve)
    near = roundings(subject.terms) * real.error + TOLERANCE["central"] * abs(step.value)
    # A loss that stays real is safe only if it does not depend on the tensor.
    analytic = np.iscomplexobj(complex_loss) or real.value == 0
    return bool(analytic) and abs(step.value - real.value) <= near


def find_kinks(subject: Subject, name: str, probes: Probes, rng: np.random.Generator) -> np.ndarray:
    """Return the probes (P,) along which the loss has a corner, and so no derivative."""
    # Most losses have none along a direction through all coordinates.
    kinks = np.zeros(len(probes), dtype=bool)
    direction = rng.standard_normal(probes.shape)
    if has_kink(subject.curve(name, direction)):
        for number in range(len(probes)):
            kinks[number] = has_kink(subject.curve(name, probes[number]))
    return kinks


def has_kink(curve: Curve) -> bool:
    """Return whether the slope of the curve jumps at 0."""
    # A jump is the same at every step; curvature contributes less at smaller ones, rounding more.
    steps, start = 1e-6 / np.array([1.0, 4.0, 16.0]), real_loss(curve, 0.0)
    jumps = [(real_loss(curve, h) - start) + (real_loss(curve, -h) - start) for h in steps]
    jumps = np.array(jumps) / steps
    rounding = 4 * EPS * abs(start) / steps[-1]
    smallest = float(np.abs(jumps).min())
    return smallest > 64 * rounding and float(np.ptp(jumps)) < smallest / 4
