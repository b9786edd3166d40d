"""Compare a gradient with its measurement: right or wrong, and what the mistake probably is."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.measure import Measurement
from tinygpt_np.gradcheck.report import Row

# The remainder falls as h if the gradient is wrong and as h² if it is right.
SLOPE_BOUND = 1.5
ORACLE_NAMES: dict[str, str] = {
    "complex": "complex step",
    "central": "central differences",
    "richardson": "Richardson",
    "taylor": "Taylor slope",
}


# The norm of a gradient of 1e200 overflows; an infinite error is the right result.
@np.errstate(over="ignore")
def compare(
    measurement: Measurement, gradient: Any, dtype: np.dtype[Any], sizes: Sequence[int]
) -> Row:
    """Return the row of one tensor. sizes: axis lengths that may explain a wrong factor."""
    probes = measurement.probes
    oracle = ORACLE_NAMES.get(measurement.method, measurement.method)
    empty = Row(
        measurement.name, probes.shape, oracle, probes.directions is None,
        int(measurement.usable.sum()), int(measurement.kinks.sum()), (), math.nan, math.nan,
        math.nan, math.inf, measurement.tolerance, 0.0,
    )  # fmt: skip
    wrong = unusable(gradient, probes.shape, dtype)
    if wrong is not None:
        return replace(empty, problems=(wrong,))
    found = probes.along(gradient)
    compared = compare_slopes if measurement.taylor else compare_values
    row = compared(measurement, found, empty) if measurement.usable.any() else empty
    if not row.ok and row.by_element and not measurement.taylor:
        expected = np.where(measurement.usable, 0.0 if row.is_zero else measurement.values, found)
        pair = found.reshape(probes.shape), expected.reshape(probes.shape)
        row = replace(row, cause=next(likely_causes(*pair, sizes, measurement.tolerance), ""))
    problems: list[str] = []
    if len(unresolved := np.flatnonzero(measurement.unresolved)):
        problems.append(
            f"{len(unresolved)} of {len(found)} derivatives could not be measured to "
            f"{measurement.tolerance:g}, the first at {probes.index(int(unresolved[0]))}: forward "
            "is rough, or rounds more than its dtype"
        )
    if not measurement.usable.any():
        problems.append("nothing could be checked")
    return replace(row, problems=(*problems, *row.problems))


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


def compare_values(measurement: Measurement, found: np.ndarray, row: Row) -> Row:
    """Fill in the row from the derivatives along the probes (P,).

    Two conditions must hold. For the tensor, ‖found - expected‖ is at most tolerance·‖expected‖;
    for each element, the error is at most tolerance·|element|. A slack is added to both bounds, for
    rounding and for the error of the oracle. The first condition detects small errors everywhere,
    the second a wrong element that is small among large ones.
    """
    expected, usable, tolerance = measurement.values, measurement.usable, measurement.tolerance
    errors = np.where(usable, np.abs(found - expected), 0.0)  # (P,)
    slack = measurement.floor + measurement.roundings * measurement.errors  # (P,)
    allowed = np.maximum(tolerance * np.abs(expected) + slack, np.finfo(float).tiny)  # (P,)
    ratios = np.where(usable, errors / allowed, 0.0)  # (P,)
    error = float(np.linalg.norm(errors))
    norm, uncertain = (float(np.linalg.norm(part[usable])) for part in (expected, slack))
    is_zero = norm <= uncertain
    tensor_ratio = 0.0 if is_zero else error / (tolerance * norm + uncertain)
    largest_ratio = float(ratios.max())
    worst = int(np.argmax(ratios if largest_ratio > 1 else errors))
    problems = tuple[str, ...]()
    if tensor_ratio > 1:
        problems = (f"off by {error / norm:.2g} of its norm",)
    elif largest_ratio > 1:
        places = int((ratios > 1).sum())
        problems = (f"off in {places} of {len(found)} places by more than rounding explains",)
    return replace(
        row,
        index=measurement.probes.index(worst),
        analytic=float(found[worst]),
        numeric=float(expected[worst]),
        absolute=float(errors[worst]),
        relative=math.nan if is_zero else error / norm,
        bound=float(slack[worst]) if is_zero else tolerance + uncertain / norm,
        headroom=1 / max(tensor_ratio, largest_ratio) if error else math.inf,
        is_zero=is_zero,
        problems=problems,
    )


def compare_slopes(measurement: Measurement, found: np.ndarray, row: Row) -> Row:
    """Fill in the row by the Taylor slope test, from the derivatives along the probes (P,)."""
    usable = np.flatnonzero(measurement.usable)
    slopes = np.array(
        [measurement.taylor[i].slope(float(found[i]), measurement.floor) for i in usable]
    )
    # The direction with the median slope decides: a wrong gradient shows in nearly all directions,
    # while in a single one the h² term of a right gradient may vanish against its h³ term.
    middle = np.argsort(np.where(np.isnan(slopes), -np.inf, slopes))[len(slopes) // 2]
    slope, chosen = float(slopes[middle]), int(usable[middle])
    taylor = measurement.taylor[chosen]
    # The best estimate of the derivative from these samples, for the report only.
    last = np.flatnonzero(np.abs(taylor.changes) > 1e6 * taylor.rounding)
    numeric = float(taylor.changes[last[-1]] / taylor.steps[last[-1]]) if len(last) else 0.0
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
