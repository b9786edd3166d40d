"""Compare a gradient with its measurement: right or wrong."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.causes import likely_cause
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
        cause = likely_cause(*pair, sizes, measurement.tolerance)
        row = replace(row, cause=cause, found=pair[0], expected=pair[1])
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
