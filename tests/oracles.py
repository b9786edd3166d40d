"""Numerical gradients to hold the hand-written ones against, and how to measure the difference."""

from collections.abc import Callable

import numpy as np

Scalar = Callable[[np.ndarray], complex | float | np.ndarray]


def complex_step(loss: Scalar, x: np.ndarray) -> np.ndarray:
    """The gradient of an analytic real loss at x, exact to rounding: Im loss(x + ih) / h.

    Nothing is subtracted, so h can be so small that the error of order h² vanishes.
    """
    h = 1e-40
    gradient = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        stepped = x.astype(np.complex128)
        stepped[place] += 1j * h
        gradient[place] = np.imag(loss(stepped)) / h
    return gradient


def central_differences(loss: Scalar, x: np.ndarray) -> np.ndarray:
    """The gradient of any smooth loss at x, to about eps^(4/5).

    Two symmetric differences, at h and 2h, are combined so that the error of order h² cancels
    (the five-point stencil). What is left is of order h⁴ + eps/h, where h⁴ has a large factor,
    because a softmax of order-one weights bends sharply; hence h below eps^(1/5) = 7e-4.
    """
    h = 2e-4
    gradient = np.empty(x.shape)

    def difference(place: tuple[int, ...], step: float) -> float:
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        return float(np.real(loss(ahead)) - np.real(loss(behind))) / (2 * step)

    for place in np.ndindex(x.shape):
        gradient[place] = (4 * difference(place, h) - difference(place, 2 * h)) / 3
    return gradient


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """‖found - expected‖ / ‖expected‖; infinite when a shape is wrong or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    difference = float(np.linalg.norm(found - expected))
    size = float(np.linalg.norm(expected))
    return difference / size if size else (0.0 if difference == 0 else float("inf"))
