"""What a wrong gradient looks like: the mistakes that people make leave their marks."""

from collections.abc import Iterator, Sequence

import numpy as np


def likely_cause(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], tolerance: float
) -> str:
    """A guess at the mistake, from a wrong gradient and the right one, of one shape; or "".

    sizes: lengths, and numbers of elements, that may have been divided or multiplied by.
    """
    # Looser than what passes, so that one mistake is recognised beside a small second one.
    near = max(1e-6, 10 * tolerance)
    return next(causes(found, expected, sizes, near), "")


def causes(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """The explanations that fit, the simplest first."""
    size = float(np.linalg.norm(expected))
    if size == 0:
        yield "it should be zero: something that is constant, or hidden, lets a gradient through"
        return
    if not found.any():
        yield "all zero: never computed, or cut off on the way"
        return

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return float(np.linalg.norm(a - b)) <= near * size

    if same(found, expected):
        # So small an error looks like any other.
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
                yield f"off by one: all values stand shifted by {shift:+} along axis {axis}"
    yield from partial_causes(found, expected, sizes, near)
    error = float(np.linalg.norm(found - expected)) / size
    if float(np.vdot(expected, found)) > 0 and error < 1:
        yield f"perhaps a term is missing, or one too many: {error:.2g} of the gradient's norm"


def partial_causes(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Explanations that look at where it is wrong: at some places only, or alike along an axis."""
    difference = found - expected
    scale = float(np.abs(expected).max())
    wrong = np.abs(difference) > near * scale
    if not wrong.any():
        return
    share = f"right in {int((~wrong).sum())} of {wrong.size} places"
    if wrong.sum() <= 0.75 * wrong.size:
        a, b = found[wrong], expected[wrong]
        if not a.any():
            yield f"not filled in: {share}, zero in the others"
        elif not b.any():
            yield f"not held back: {share}, and not zero where it should be"
        elif np.abs(a - (ratio := float(a @ b) / float(b @ b)) * b).max() <= near * scale:
            yield f"{share}; in the others {scale_name(ratio, sizes, near)}"
        else:
            yield f"{share}; in the others perhaps not accumulated: a part lost, or counted twice"
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
            yield f"a sum or mean is missing: the error is the same all along axis {axis}"
            return
    for axis in axes if found.ndim > 1 else []:
        along = np.sum(expected * expected, axis=axis, keepdims=True)
        ratios = np.sum(expected * found, axis=axis, keepdims=True) / np.where(along, along, 1)
        if np.abs(found - ratios * expected).max() <= near * np.abs(found).max():
            yield f"a factor is missing: along axis {axis} it is right but for a factor"
            return


def scale_name(ratio: float, sizes: Sequence[int], near: float) -> str:
    """What a gradient that is `ratio` times the right one may have forgotten."""
    names = {
        1.0: "",
        2.0: "too large by a factor of 2: counted twice",
        0.5: "half of it: a 2 is lost",
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
