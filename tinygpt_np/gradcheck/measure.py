"""What the gradient should be: one tensor of a scalar loss, measured by an oracle.

A subject is a loss and a point. Its tensors are probed one at a time, along every coordinate or
along a few random directions; the rest of the point stays.
"""

import warnings
from collections.abc import Callable
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
    at,
    central_difference,
    complex_step,
    richardson,
)
from tinygpt_np.storage.parameters import Tensors

Method = Literal["complex", "central", "richardson", "taylor"]
METHODS: tuple[Method, ...] = get_args(Method)
ORACLES: dict[Method, Callable[[Curve], Estimate]] = {
    "complex": complex_step,
    "central": central_difference,
    "richardson": richardson,
}
# How far a right gradient may be from the oracle's, as a share of the tensor's norm, in float64.
TOLERANCE: dict[Method, float] = {
    "complex": 1e-12,
    "central": 1e-7,
    "richardson": 1e-9,
    "taylor": 1e-12,
}
# How many times a probe is repeated to see what rounding does.
ROUNDING_SAMPLES = 8
# A correct gradient is accused of rounding once in so many tensors.
FALSE_ALARM = 1e-9
# How many operations make one number of the loss.
CHAIN = 50


class CheckError(ValueError):
    """What was given cannot be checked; says what was expected and what came."""


@dataclass(frozen=True)
class Subject:
    """loss: of the tensors, in float64 or complex128. values: the tensors, float64, where to look.

    terms: how many numbers the loss is made of, so how many terms a gradient sums. eps: of the
    dtype in which the gradients to be checked were computed.
    """

    loss: Callable[[Tensors], Any]
    values: Tensors
    terms: int
    eps: float = EPS

    def curve(self, name: str, direction: np.ndarray) -> Curve:
        """t ↦ loss where the tensor `name` is moved by t·direction."""
        return lambda t: self.loss({**self.values, name: self.values[name] + t * direction})

    def shaken(self, rng: np.random.Generator) -> "Subject":
        """The subject with every value moved by one rounding, up or down."""
        moved = {
            name: value * (1 + EPS * rng.choice([-1.0, 1.0], value.shape))
            for name, value in self.values.items()
        }
        return replace(self, values=moved)

    @cached_property
    def shakes(self) -> list["Subject"]:
        """Some such subjects, always the same."""
        rng = generator(0, "gradcheck")
        return [self.shaken(rng) for _ in range(ROUNDING_SAMPLES)]

    @cached_property
    def whole(self) -> float:
        """The loss."""
        return complex(self.loss(self.values)).real

    @cached_property
    def term_rounding(self) -> float:
        """How far rounding moves one term of the loss, in float64: measured, or its last bit."""
        moves = max(abs(shaken.whole - self.whole) for shaken in self.shakes)
        return max(moves / self.terms**0.5, EPS * abs(self.whole) / self.terms)


@dataclass(frozen=True)
class Probes:
    """The directions in which a tensor is moved: all coordinates, or `directions` (P, *shape)."""

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
        """weights (P,) -> the weighted sum of all probes (*shape)."""
        if self.directions is None:
            return weights.reshape(self.shape)
        return np.tensordot(weights, self.directions, axes=1)

    def index(self, number: int) -> tuple[int, ...]:
        """The place of a coordinate in its tensor, or the number of a direction."""
        if self.directions is not None:
            return (number,)
        return tuple(int(i) for i in np.unravel_index(number, self.shape))

    def along(self, gradient: np.ndarray) -> np.ndarray:
        """gradient (*shape) -> its derivatives along the probes (P,), in float64."""
        exact = gradient.astype(np.float64)
        if self.directions is None:
            return exact.reshape(-1)
        return self.directions.reshape(len(self), -1) @ exact.reshape(-1)


@dataclass(frozen=True)
class Measured:
    """The derivatives of one tensor along its probes, and what is known of their errors.

    values, errors (P,): from the oracle; with method "taylor", `taylor` in their place. kinks (P,):
    where the loss has a corner, so no derivative. floor: what rounding alone may do to one element
    of a right gradient. roundings: how many times the error of one may add up. scale: how large
    the loss is; what a difference cannot see is a share of it.
    """

    name: str
    probes: Probes
    method: Method
    values: np.ndarray
    errors: np.ndarray
    kinks: np.ndarray
    floor: float
    roundings: float
    tolerance: float
    taylor: tuple[Taylor, ...] = ()
    scale: float = 0.0

    @property
    def unresolved(self) -> np.ndarray:
        """Which probes (P,) have a derivative that the oracle could not tell."""
        finite = np.isfinite(self.values)
        largest = float(np.abs(self.values[finite]).max(initial=self.scale))
        return ~self.kinks & ~(finite & (self.errors <= self.tolerance * largest))

    @property
    def usable(self) -> np.ndarray:
        """Which probes (P,) have a derivative, and it is known."""
        return ~self.kinks & ~self.unresolved


def measure(
    subject: Subject, name: str, probes: Probes, method: Method, rng: np.random.Generator
) -> Measured:
    """Measures the gradient of one tensor. A loss that is not complex-safe gets "richardson"."""
    kinks = find_kinks(subject, name, probes, rng)
    safe = complex_safe(subject, name, probes, kinks, rng)
    if method == "complex" and not safe:
        method = "richardson"
    times, tolerance = roundings(subject.terms), TOLERANCE["complex"] * subject.eps / EPS
    # What rounding does to a difference is no part of what it does to the gradient.
    finest = complex_step if safe else richardson
    floor = times * one_rounding(subject, name, probes, finest, rng)
    curves = (subject.curve(name, probes[number]) for number in range(len(probes)))
    values, errors, taylor = np.zeros(len(probes)), np.zeros(len(probes)), ()
    if method == "taylor":
        taylor = tuple(Taylor.sample(curve) for curve in curves)
    else:
        estimates = [ORACLES[method](curve) for curve in curves]
        values = np.array([estimate.value for estimate in estimates])  # (P,)
        errors = np.array([estimate.error for estimate in estimates])  # (P,)
    return Measured(
        name, probes, method, values, errors, kinks, floor, times,
        max(TOLERANCE[method], tolerance), taylor, abs(subject.whole),
    )  # fmt: skip


def one_rounding(
    subject: Subject,
    name: str,
    probes: Probes,
    oracle: Callable[[Curve], Estimate],
    rng: np.random.Generator,
) -> float:
    """How far rounding moves an element of the gradient, once: measured.

    It is what happens to it when every input moves by its last bit. Where large terms cancel in the
    gradient that may be nothing; but as far as a term of the loss moves, or its last bit, so far
    off is its slope over values of order one, or over larger ones of their order.
    """
    order = max(1.0, float(np.sqrt(np.mean(subject.values[name] ** 2))))
    numbers = [int(number) for number in rng.permutation(len(probes))[:ROUNDING_SAMPLES]]
    unmoved = [oracle(subject.curve(name, probes[number])) for number in numbers]
    largest = subject.term_rounding / order
    for sample, shaken in enumerate(subject.shakes):
        number, still = numbers[sample % len(numbers)], unmoved[sample % len(numbers)]
        moved = oracle(shaken.curve(name, probes[number]))
        # What the oracle itself may be off is not the gradient's.
        moves = abs(moved.value - still.value) - moved.error - still.error
        largest = max(largest, moves, EPS * abs(still.value))
    return largest * subject.eps / EPS


def roundings(terms: int) -> float:
    """How many times one rounding may add up in a sum of n terms: λ√(n+c), λ = √(2 ln(2(n+c)/δ)).

    Rounding errors have either sign, so n of them add up to more than that once in 1/δ sums. Each
    term is itself the result of a chain of some operations, c.
    Source: Higham, Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019), (2.6).
    """
    count = terms + CHAIN
    return float(np.sqrt(2 * np.log(2 * count / FALSE_ALARM) * count))


def complex_safe(
    subject: Subject, name: str, probes: Probes, kinks: np.ndarray, rng: np.random.Generator
) -> bool:
    """Whether the loss takes complex values and is analytic, so that the complex step is right.

    A loss that computes |x| or conjugates runs on complex numbers, but its imaginary part is no
    derivative; that shows beside a difference along a direction through all coordinates.
    """
    direction = probes.combined(rng.standard_normal(len(probes)) * ~kinks)
    curve = subject.curve(name, direction / max(1.0, float(np.linalg.norm(direction))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            complex_loss = curve(0j)
            step = complex_step(curve)
    except Exception:  # Whatever a forward raises on complex numbers, it is not safe for them.
        return False
    real = central_difference(curve)
    near = roundings(subject.terms) * real.error + TOLERANCE["central"] * abs(step.value)
    # A loss that stays real must not depend on the tensor at all.
    analytic = np.iscomplexobj(complex_loss) or real.value == 0
    return bool(analytic) and abs(step.value - real.value) <= near


def find_kinks(subject: Subject, name: str, probes: Probes, rng: np.random.Generator) -> np.ndarray:
    """Which probes (P,) go through a corner of the loss, where it has no derivative.

    At a corner the slope jumps, however close one looks; elsewhere its change vanishes with the
    step. One look along a direction through all coordinates tells whether a closer look is needed.
    """
    kinks = np.zeros(len(probes), dtype=bool)
    direction = rng.standard_normal(probes.shape)
    if has_kink(subject.curve(name, direction)):
        for number in range(len(probes)):
            kinks[number] = has_kink(subject.curve(name, probes[number]))
    return kinks


def has_kink(curve: Curve) -> bool:
    """Whether the slope of the curve jumps at 0.

    A jump looks the same at every step; what the curvature adds to it falls with the step, and
    what rounding adds grows.
    """
    steps, start = 1e-6 / np.array([1.0, 4.0, 16.0]), at(curve, 0.0)
    jumps = np.array([(at(curve, h) - start) + (at(curve, -h) - start) for h in steps]) / steps
    rounding = 4 * EPS * abs(start) / steps[-1]
    smallest = float(np.abs(jumps).min())
    return smallest > 64 * rounding and float(np.ptp(jumps)) < smallest / 4
