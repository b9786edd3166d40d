"""The likely cause of a wrong gradient, from its values and the right ones."""

from collections.abc import Iterator, Sequence

import numpy as np


def likely_cause(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], tolerance: float
) -> str:
    """Return the likely mistake in a gradient, or "" if none is recognised.

    Parameters
    ----------
    found, expected : ndarray
        The wrong gradient and the right one, of the same shape.
    sizes : sequence of int
        Lengths that may explain a wrong factor.
    tolerance : float
        The relative error to which `expected` is known.
    """
    return next(likely_causes(found, expected, sizes, tolerance), "")


def likely_causes(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], tolerance: float
) -> Iterator[str]:
    """Guess the mistake from a wrong gradient and the right one; yield the simplest guess first."""
    # Looser than the tolerance, so that a mistake is recognised despite a small second one.
    near = max(1e-6, 10 * tolerance)
    size = float(np.linalg.norm(expected))
    if size == 0:
        yield "it should be zero: something constant or masked lets a gradient through"
        return
    if not found.any():
        yield "all zero: never computed, or cut off on the way"
        return

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return float(np.linalg.norm(a - b)) <= near * size

    if same(found, expected):
        # The error is too small to be recognised.
        return
    ratio = float(np.vdot(expected, found)) / size**2
    if same(found, ratio * expected):
        yield scale_name(ratio, sizes, near)
        return
    for a in range(found.ndim):
        for b in range(a + 1, found.ndim):
            swapped = np.swapaxes(expected, a, b)
            if same(found, swapped.reshape(found.shape)):
                trick = "" if swapped.shape == found.shape else ", then reshaped to fit"
                yield f"transposed: axes {a} and {b} are swapped{trick}"
    for axis in range(found.ndim):
        for shift in (1, -1):
            if same(found, np.roll(expected, shift, axis)):
                yield f"off by one: all values are shifted by {shift:+} along axis {axis}"
    yield from partial_causes(found, expected, sizes, near)
    error = float(np.linalg.norm(found - expected)) / size
    if float(np.vdot(expected, found)) > 0 and error < 1:
        yield f"perhaps a term is missing, or one too many: {error:.2g} of the gradient's norm"


def partial_causes(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield explanations for an error in some places only, or the same error along an axis."""
    difference = found - expected
    scale = float(np.abs(expected).max())
    wrong = np.abs(difference) > near * scale
    if not wrong.any():
        return
    right = f"right in {int((~wrong).sum())} of {wrong.size} places"
    if wrong.sum() <= 0.75 * wrong.size:
        a, b = found[wrong], expected[wrong]
        if not a.any():
            yield f"not filled in: {right}, zero in the others"
        elif not b.any():
            yield f"not masked: {right}, and not zero where it should be"
        elif np.abs(a - (ratio := float(a @ b) / float(b @ b)) * b).max() <= near * scale:
            yield f"{right}; in the others {scale_name(ratio, sizes, near)}"
        else:
            yield f"{right}; in the others perhaps not accumulated: a part lost, or counted twice"
        return
    axes = [axis for axis in range(found.ndim) if found.shape[axis] > 1]
    for axis in axes:
        sums = np.abs(expected.sum(axis=axis)).max()
        if sums <= near * scale < np.abs(found.sum(axis=axis)).max():
            yield (
                "a mean or sum is missing: "
                f"the right gradient sums to zero along axis {axis}, this one does not"
            )
            return
        if np.ptp(difference, axis=axis).max() <= near * scale:
            yield f"a sum or mean is missing: the error is constant along axis {axis}"
            return
    for axis in axes if found.ndim > 1 else []:
        along = np.sum(expected * expected, axis=axis, keepdims=True)
        ratios = np.sum(expected * found, axis=axis, keepdims=True) / np.where(along, along, 1)
        if np.abs(found - ratios * expected).max() <= near * np.abs(found).max():
            yield f"a factor is missing: along axis {axis} it is right up to a factor"
            return


def scale_name(ratio: float, sizes: Sequence[int], near: float) -> str:
    """Explain a gradient that is `ratio` times the right one."""
    names = {
        1.0: "",
        2.0: "too large by a factor of 2: counted twice",
        0.5: "half of it: a factor of 2 is missing",
    }
    for size in sorted({size for size in sizes if size > 1}):
        what = f"{size}, a length or a number of elements here"
        names.setdefault(float(size), f"too large by a factor of {what}")
        names.setdefault(1 / size, f"too small by a factor of {what}")
        names.setdefault(size**0.5, f"too large by a factor of √{what}")
        names.setdefault(size**-0.5, f"too small by a factor of √{what}")
    for factor, name in names.items():
        if abs(abs(ratio) / factor - 1) <= near:
            sign = "the sign is wrong" if ratio < 0 else ""
            return ", and it is ".join(part for part in (sign, name) if part)
    return f"{ratio:.6g} times the right one"
