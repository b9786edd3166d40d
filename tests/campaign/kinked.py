# pyright: basic
"""Functions with kinks, the usual conventions for their gradients there, and exact derivatives.

The inputs have many equal values and values exactly at a kink. The derivatives from both sides are
computed here by plain differences, independently of the package: all functions are linear or
quadratic close to a point, and the step is a power of two, so that hardly anything is rounded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]
Rng = np.random.Generator
STEP, NEAR = 2.0**-20, 1e-4


@dataclass(frozen=True)
class Kinked:
    """A function of arrays of these shapes. backwards: one for each usual convention."""

    forward: Callable[..., np.ndarray]
    backwards: Sequence[Callable[..., Any]]
    shapes: Sequence[tuple[int, ...]] = ((4, 4),)
    values: Sequence[float] = (0, 1, 2)


def elementwise(forward: Any, *slopes: Any, values: Sequence[float]) -> Kinked:
    """Return a function of each element, with the slopes of several conventions."""
    backwards = [lambda d, x, slope=slope: (d * slope(x),) for slope in slopes]
    return Kinked(forward, backwards, values=values)


def of_pair(forward: Any, *masks: Any) -> Kinked:
    """Return a choice between two arrays, with masks that say how far the first is chosen."""
    backwards = [lambda d, a, b, m=mask: (d * m(a, b), d * (1 - m(a, b))) for mask in masks]
    return Kinked(forward, backwards, ((3, 4), (3, 4)))


def windows(x: np.ndarray) -> np.ndarray:
    """Return the four elements of each 2×2 window of x (4, 4) as (2, 2, 4)."""
    return x.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(2, 2, 4)


def image(parts: np.ndarray) -> np.ndarray:
    """Return the windows (2, 2, 4) as x (4, 4)."""
    return parts.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)


def first(x: np.ndarray) -> np.ndarray:
    """Return the weights of the last axis: 1 for the first of the largest elements."""
    return (np.arange(x.shape[-1]) == np.argmax(x, axis=-1)[..., None]).astype(float)


def last(x: np.ndarray) -> np.ndarray:
    """Return the weights of the last axis: 1 for the last of the largest elements."""
    return first(x[..., ::-1])[..., ::-1]


def shared(x: np.ndarray) -> np.ndarray:
    """Return the weights of the last axis, equal for all of the largest elements."""
    ties = x == x.max(axis=-1, keepdims=True)
    return ties / ties.sum(axis=-1, keepdims=True)


def by_weights(forward: Any, of: Any, *weights: Any) -> Kinked:
    """Return a function that chooses one element of the last axis."""
    backwards = [lambda d, x, w=w: (d[..., None] * of(w, x),) for w in weights]
    return Kinked(forward, backwards)


def in_order(choose: Callable[[np.ndarray], np.ndarray]) -> Kinked:
    """Return a linear function of the sorted last axis; equal elements are sorted either way."""

    def backward(order: Callable[[np.ndarray], np.ndarray]) -> Any:
        def of(d: np.ndarray, x: np.ndarray) -> tuple[np.ndarray]:
            dsorted = d if d.shape == x.shape else d[..., None] * choose(np.eye(4))
            found = np.zeros(x.shape)
            np.put_along_axis(found, order(x), dsorted, axis=-1)
            return (found,)

        return of

    def reverse(x: np.ndarray) -> np.ndarray:
        return 3 - np.argsort(x[..., ::-1], axis=-1, kind="stable")

    stable: Any = lambda x: np.argsort(x, axis=-1, kind="stable")  # noqa: E731
    return Kinked(lambda x: choose(np.sort(x, axis=-1)), [backward(stable), backward(reverse)])


def accumulated(d: np.ndarray, x: np.ndarray, strict: bool) -> tuple[np.ndarray]:
    """Return the gradient of a running maximum along the last axis."""
    found = np.zeros(x.shape)
    for row, place in np.ndindex(x.shape):
        ties = np.flatnonzero(x[row, : place + 1] == x[row, : place + 1].max())
        found[row, ties[0] if strict else ties[-1]] += d[row, place]
    return (found,)


FUNCTIONS: dict[str, Kinked] = {
    "relu": elementwise(
        lambda x: np.maximum(x, 0), lambda x: x > 0, lambda x: x >= 0,
        lambda x: (np.sign(x) + 1) / 2, values=(-1, 0, 2),
    ),
    "relu by where": elementwise(
        lambda x: np.where(x > 0, x, 0), lambda x: x > 0, lambda x: x >= 0, values=(-1, 0, 2)
    ),
    "leaky relu": elementwise(
        lambda x: np.where(x > 0, x, 0.125 * x), lambda x: np.where(x > 0, 1, 0.125),
        lambda x: np.where(x >= 0, 1, 0.125), values=(-1, 0, 2),
    ),
    "relu6": elementwise(
        lambda x: np.minimum(np.maximum(x, 0), 6), lambda x: (x > 0) & (x < 6),
        lambda x: (x >= 0) & (x <= 6), values=(-1, 0, 3, 6, 7),
    ),
    "clip": elementwise(
        lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) < 1, lambda x: np.abs(x) <= 1,
        values=(-1, 0, 0.5, 1, 2),
    ),
    "hard swish": elementwise(
        lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
        lambda x: np.where(np.abs(x) < 3, (2 * x + 3) / 6, x >= 3),
        lambda x: np.where(np.abs(x) <= 3, (2 * x + 3) / 6, x > 3), values=(-3, 0, 1, 3, 4),
    ),
    "abs": elementwise(np.abs, np.sign, lambda x: np.where(x < 0, -1, 1), values=(-1, 0, 2)),
    "abs by sign": elementwise(lambda x: x * np.sign(x), np.sign, values=(-1, 0, 2)),
    "abs by maximum": elementwise(lambda x: np.maximum(x, -x), np.sign, values=(-1, 0, 2)),
    "square of relu, and abs": elementwise(
        lambda x: np.maximum(x, 0) ** 2 + 2 * np.abs(x),
        lambda x: 2 * np.maximum(x, 0) + 2 * np.sign(x), values=(-1, 0, 2),
    ),
    "hinge": elementwise(
        lambda x: np.maximum(0, 1 - x), lambda x: -1.0 * (x < 1), lambda x: -1.0 * (x <= 1),
        values=(0, 1, 3),
    ),
    "sawtooth": elementwise(
        lambda x: x - np.floor(x), np.ones_like, values=(-1, 0, 0.5, 1, 2)
    ),
    "rounded": elementwise(
        lambda x: np.round(x) + 3 * x, lambda x: 3 + 0 * x, values=(0, 0.5, 1, 1.5)
    ),
    "threshold": elementwise(
        lambda x: np.where(x > 1, 5.0, 0.0) + x * x, lambda x: 2 * x, values=(0, 1, 2)
    ),
    "soft threshold": elementwise(
        lambda x: np.sign(x) * np.maximum(np.abs(x) - 1, 0), lambda x: np.abs(x) > 1,
        lambda x: np.abs(x) >= 1, values=(-1, 0, 1, 2),
    ),
    "maximum": of_pair(
        np.maximum, lambda a, b: a > b, lambda a, b: a >= b, lambda a, b: (np.sign(a - b) + 1) / 2
    ),
    "minimum": of_pair(
        np.minimum, lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: (np.sign(b - a) + 1) / 2
    ),
    "distance": Kinked(
        lambda a, b: np.abs(a - b),
        [lambda d, a, b: (d * np.sign(a - b), -d * np.sign(a - b))], ((3, 4), (3, 4)),
    ),
    "margin": Kinked(
        lambda a, b: np.maximum(a - b + 1, 0),
        [lambda d, a, b: (d * (a - b > -1), -d * (a - b > -1)),
         lambda d, a, b: (d * (a - b >= -1), -d * (a - b >= -1))], ((3, 4), (3, 4)),
    ),
    "max pool": Kinked(
        lambda x: windows(x).max(-1),
        [lambda d, x, w=w: (image(d[..., None] * w(windows(x))),) for w in (first, last, shared)],
    ),
    "max of rows": by_weights(lambda x: x.max(-1), lambda w, x: w(x), first, last, shared),
    "min of rows": by_weights(lambda x: x.min(-1), lambda w, x: w(-x), first, last, shared),
    "range": by_weights(
        lambda x: x.max(-1) - x.min(-1), lambda w, x: w(x) - w(-x), first, last, shared
    ),
    "largest magnitude": by_weights(
        lambda x: np.abs(x).max(-1), lambda w, x: w(np.abs(x)) * np.sign(x), first, last, shared
    ),
    "max by where": by_weights(
        lambda x: np.where(x[:, 0] > x[:, 1], x[:, 0], x[:, 1]),
        lambda w, x: np.concatenate([w(x[:, :2]), 0 * x[:, 2:]], axis=1), first, last,
    ),
    "running maximum": Kinked(
        lambda x: np.maximum.accumulate(x, axis=-1),
        [lambda d, x: accumulated(d, x, True), lambda d, x: accumulated(d, x, False)],
    ),
    "sort": in_order(lambda x: x),
    "median": in_order(lambda x: (x[..., 1] + x[..., 2]) / 2),
    "second largest": in_order(lambda x: x[..., 2]),
    "top two": in_order(lambda x: x[..., 2] + x[..., 3]),
    "quantile": in_order(lambda x: 0.75 * x[..., 0] + 0.25 * x[..., 1]),
}  # fmt: skip


def draw(function: Kinked, rng: Rng) -> Arrays:
    """Return inputs with many values at kinks, and a few that are not."""
    return tuple(
        np.where(
            rng.random(shape) < 0.9,
            rng.choice(np.array(function.values, float), shape),
            np.round(8 * rng.standard_normal(shape)) / 8 + 1 / 16,
        )
        for shape in function.shapes
    )


@dataclass(frozen=True)
class Truth:
    """The smallest and the largest derivative of a weighted sum of the outputs, by tensor.

    They are those from both sides and those at points nearby, where equal elements come in another
    order. groups: the places that hold the same value and have a kink each, but none together, and
    their derivative.
    """

    low: Arrays
    high: Arrays
    groups: Sequence[tuple[Arrays, float]]

    @classmethod
    def of(cls, function: Kinked, args: Arrays, weights: np.ndarray) -> "Truth":
        """Measure the derivatives by differences."""
        rng = np.random.default_rng(0)
        nearby = [
            tuple(a + 2.0**-14 * rng.standard_normal(a.shape) for a in args) for _ in range(24)
        ]

        def loss(point: Arrays, masks: Arrays, h: float) -> float:
            moved = (a + h * m for a, m in zip(point, masks, strict=True))
            return float(np.sum(weights * function.forward(*moved)))

        def slopes(masks: Arrays) -> tuple[float, float]:
            # The function may jump at the point itself.
            left, right = (
                (loss(args, masks, 2 * h) - loss(args, masks, h)) / h for h in (-STEP, STEP)
            )
            return left, right

        none = tuple(np.zeros(a.shape) for a in args)
        sides = [(np.zeros(a.shape), np.zeros(a.shape)) for a in args]
        for number, arg in enumerate(args):
            for place in np.ndindex(arg.shape):
                masks = tuple(mask.copy() for mask in none)
                masks[number][place] = 1
                sides[number][0][place], sides[number][1][place] = slopes(masks)
        low, high = ([f(*side) for side in sides] for f in (np.minimum, np.maximum))
        for number, arg in enumerate(args):
            for place in np.ndindex(arg.shape):
                masks = tuple(mask.copy() for mask in none)
                masks[number][place] = 1
                found = [
                    (loss(point, masks, STEP) - loss(point, masks, -STEP)) / (2 * STEP)
                    for point in nearby
                ]
                low[number][place] = min(low[number][place], *found)
                high[number][place] = max(high[number][place], *found)
        kinks = [h - w > 10 * NEAR for w, h in zip(low, high, strict=True)]
        groups: list[tuple[Arrays, float]] = []
        for value in np.unique(np.concatenate([a[k] for a, k in zip(args, kinks, strict=True)])):
            masks = tuple(1.0 * (k & (a == value)) for a, k in zip(args, kinks, strict=True))
            left, right = slopes(masks)
            if abs(right - left) < NEAR and sum(m.sum() for m in masks) > 1:
                groups.append((masks, left))
        return cls(tuple(low), tuple(high), groups)

    def is_wrong(self, gradients: Arrays) -> bool:
        """Return whether no convention allows these gradients."""
        for found, low, high in zip(gradients, self.low, self.high, strict=True):
            if ((found < low - NEAR) | (found > high + NEAR)).any():
                return True
        return any(
            abs(sum(float((m * g).sum()) for m, g in zip(masks, gradients, strict=True)) - slope)
            > 100 * NEAR
            for masks, slope in self.groups
        )
