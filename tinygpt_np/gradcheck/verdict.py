"""Holds a gradient against what was measured, and says what it found, tensor by tensor."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.cause import likely_cause
from tinygpt_np.gradcheck.measure import Measured, Method
from tinygpt_np.gradcheck.report import Row

# Between 1, where the remainder's slope is when the gradient is wrong, and 2, where it is right.
SLOPE_BOUND = 1.5
ORACLE_NAMES: dict[Method, str] = {
    "complex": "complex step",
    "central": "central differences",
    "richardson": "Richardson",
    "taylor": "Taylor slope",
}


def judge(measured: Measured, gradient: Any, dtype: np.dtype[Any], sizes: Sequence[int]) -> Row:
    """The row of one tensor. sizes: lengths of axes that a forgotten 1/N might be of."""
    probes = measured.probes
    nothing = Row(
        measured.name, probes.shape, ORACLE_NAMES[measured.method], probes.directions is None,
        int(measured.usable.sum()), int(measured.kinks.sum()), (), math.nan, math.nan, math.nan,
        math.inf, measured.tolerance, 0.0,
    )  # fmt: skip
    wrong = unfit(gradient, probes.shape, dtype)
    if wrong is not None:
        return replace(nothing, problems=(wrong,))
    found = probes.along(gradient)
    if measured.taylor:
        row = judge_slopes(measured, found, nothing)
    else:
        row = compare(measured, found, nothing)
    unmeasured = tuple(unmeasured_problems(measured))
    if not row.ok and row.by_element and not measured.taylor:
        expected = np.where(measured.usable, 0.0 if row.is_zero else measured.values, found)
        shape, tolerance = probes.shape, measured.tolerance
        cause = likely_cause(found.reshape(shape), expected.reshape(shape), sizes, tolerance)
        row = replace(row, cause=cause)
    return replace(row, problems=(*unmeasured, *row.problems))


def unmeasured_problems(measured: Measured) -> Iterator[str]:
    """Why the gradient of a tensor cannot be called right, whatever it is."""
    unresolved = measured.unresolved
    if unresolved.any():
        first = measured.probes.index(int(np.flatnonzero(unresolved)[0]))
        yield (
            f"{int(unresolved.sum())} of {len(unresolved)} derivatives could not be measured to "
            f"{measured.tolerance:g}, the first at {first}: forward is rough, or rounds more than "
            "its dtype"
        )
    if not measured.usable.any():
        yield "nothing could be checked"


def unfit(gradient: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> str | None:
    """Return what is wrong with a gradient before any of its values is compared, or None.

    dtype: None for any.
    """
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


def compare(measured: Measured, found: np.ndarray, row: Row) -> Row:
    """The row, from the derivatives along the probes (P,).

    Two things are asked. The tensor: ‖found - expected‖ is at most the tolerance times ‖expected‖.
    Each element: it is off by at most the tolerance times itself. Either may be off by its slack
    besides: by what rounding may do, and what the oracle may be off. The first sees small errors
    all over, the second a wrong element that is small among large ones.
    """
    expected, usable, tolerance = measured.values, measured.usable, measured.tolerance
    if not usable.any():
        return row
    errors = np.where(usable, np.abs(found - expected), 0.0)  # (P,)
    slack = measured.floor + measured.roundings * measured.errors  # (P,)
    with np.errstate(over="ignore"):
        allowed = np.maximum(tolerance * np.abs(expected) + slack, np.finfo(float).tiny)  # (P,)
        shares = np.where(usable, errors / allowed, 0.0)  # (P,)
    norm, uncertain = (float(np.linalg.norm(part[usable])) for part in (expected, slack))
    error = float(np.linalg.norm(errors))
    is_zero = norm <= uncertain
    whole = 0.0 if is_zero else error / (tolerance * norm + uncertain)
    share = float(shares.max())
    worst = int(np.argmax(shares if share > 1 else errors))
    problems = tuple[str, ...]()
    if whole > 1:
        problems = (f"off by {error / norm:.2g} of its norm",)
    elif share > 1:
        places = int((shares > 1).sum())
        problems = (f"off in {places} of {len(found)} places by more than rounding explains",)
    return replace(
        row,
        index=measured.probes.index(worst),
        analytic=float(found[worst]),
        numeric=float(expected[worst]),
        absolute=float(errors[worst]),
        relative=math.nan if is_zero else error / norm,
        bound=float(slack[worst]) if is_zero else tolerance + uncertain / norm,
        headroom=1 / max(whole, share) if error else math.inf,
        is_zero=is_zero,
        problems=problems,
    )


def judge_slopes(measured: Measured, found: np.ndarray, row: Row) -> Row:
    """The row by the Taylor slope test, from the derivatives along the probes (P,).

    The middle one of the directions is judged: a wrong gradient shows in nearly all of them, while
    in one the h² of a right one may vanish beside its h³.
    """
    usable = np.flatnonzero(measured.usable)
    if not len(usable):
        return row
    slopes = np.array([measured.taylor[i].slope(float(found[i]), measured.floor) for i in usable])
    middle = np.argsort(np.where(np.isnan(slopes), -np.inf, slopes))[len(slopes) // 2]
    slope, chosen = float(slopes[middle]), int(usable[middle])
    taylor = measured.taylor[chosen]
    # The best guess at the derivative that the samples allow, for the reader's eye.
    last = np.flatnonzero(np.abs(taylor.changes) > 1e6 * taylor.rounding)
    numeric = float(taylor.changes[last[-1]] / taylor.steps[last[-1]]) if len(last) else 0.0
    right = slope >= SLOPE_BOUND
    return replace(
        row,
        index=measured.probes.index(chosen),
        analytic=float(found[chosen]),
        numeric=numeric,
        absolute=abs(float(found[chosen]) - numeric),
        relative=slope,
        bound=SLOPE_BOUND,
        headroom=slope / SLOPE_BOUND,
        problems=() if right else (f"the remainder falls as h^{slope:.2f}, not h²",),
    )
