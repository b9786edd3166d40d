"""The likely cause of a wrong gradient: from its values and the right ones.

A cause is given only if it is an identity, such as "the right gradient, transposed", that holds to
about nine digits at generic values. If two different identities hold, because two axes have the
same length or a value is symmetric, it is unknown which mistake was made, and none is given.

MISTAKES lists all mistakes that a cause may begin with, those that study finds in a line included.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tinygpt_np.config import counted

# The largest error, relative to the norm, of an identity that holds.
NEAR = 1e-9
# A factor this near to 1 is no mistake in a formula.
CLEAR = 1e-6
# Each mistake that a cause may name, and the kinds of planted bug (see mutations.KINDS) that it
# describes rightly.
MISTAKES: dict[str, tuple[str, ...]] = {
    # Mistakes that the values of a gradient show.
    "all zero": ("term dropped", "mask"),
    "it should be zero": ("mask",),
    "not filled in": ("mask",),
    "not masked": ("mask",),
    "off by one": ("mask",),
    "partly wrong": (),
    "too large": ("factor dropped", "factor doubled", "factor inverted"),
    "too small": ("factor dropped", "factor doubled", "factor inverted", "factor 1/2"),
    "transposed": ("transpose",),
    # Mistakes that study finds in a line.
    # A call in one branch of a condition is skipped, or made in both.
    "a call is missing": ("call skipped", "condition"),
    "a call too many": ("condition",),
    "a condition is missing": ("condition",),
    "a copy is missing": ("copy dropped",),
    # One branch of a condition lacks a factor that the other one has, or one of 0 and 1, a mask.
    "a factor is missing": ("factor dropped", "condition", "mask"),
    "a factor too many": ("factor doubled", "factor 1/2"),
    "a mean is missing": ("sum dropped",),
    "a mean too many": ("axis",),
    "a mean, not a sum": ("sum and mean",),
    "a path is missing": ("term dropped", "path dropped"),
    "a sum is missing": ("sum dropped",),
    "a sum too many": ("axis",),
    "a sum, not a mean": ("sum and mean",),
    "a term is missing": ("term dropped",),
    "a term too many": ("term doubled",),
    "a transpose is missing": ("transpose",),
    "a transpose too many": ("transpose",),
    "counted twice": ("term doubled",),
    "divided, not multiplied": ("factor inverted",),
    "keepdims is missing": ("keepdims",),
    "keepdims is set": ("keepdims",),
    "multiplied, not divided": ("factor inverted",),
    "not accumulated": ("+= to =",),
    "repeated indices are lost": ("scatter",),
    "the condition is wrong": ("condition",),
    "the mask is wrong": ("mask",),
    "the operands are swapped": ("operands swapped",),
    "the order is wrong": ("order",),
    # b - a is -(a - b).
    "the sign is wrong": ("sign", "operands swapped"),
    "the upstream gradient is ignored": ("upstream ignored",),
    "the wrong axis": ("axis",),
    "the wrong number": ("1/N",),
    "the wrong value": ("stale value",),
    "unpacked in the wrong order": ("saved swapped",),
}


# The verdicts on the cause that is given for a planted bug.
VERDICTS = ("right", "one of two", "none", "wrong")


def named_mistakes(cause: str) -> list[str]:
    """Return the mistakes that a cause names: one, or two if both explain the error."""
    return [m for m in MISTAKES if cause.startswith(m) or f", or {m}" in cause]


def judged(cause: str, kind: str) -> str:
    """Return whether a cause describes a planted bug of a kind: right, wrong, or none is given.

    A cause that names two mistakes, one of which is right, is "one of two".
    """
    named = named_mistakes(cause)
    if not named:
        return "none"
    is_right = any(kind in MISTAKES[mistake] for mistake in named)
    return ("right" if len(named) == 1 else "one of two") if is_right else "wrong"


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
    near = max(NEAR, 10 * tolerance)
    if same(found, expected, near):
        return ""
    for identity in (zeros, factors, moves, parts, means):
        if holding := [*identity(found, expected, sizes, near)]:
            return ", or ".join(holding) if len(holding) <= 2 else ""
    return ""


def same(a: np.ndarray, b: np.ndarray, near: float) -> bool:
    """Return whether a is b, up to an error relative to the norm of b."""
    return float(np.linalg.norm(a - b)) <= near * float(np.linalg.norm(b))


def factor(found: np.ndarray, expected: np.ndarray, near: float) -> float | None:
    """Return the number that an array is the multiple of another one by, or None."""
    ratio = float(np.vdot(expected, found)) / (float(np.linalg.norm(expected)) ** 2 or 1.0)
    return ratio if ratio and same(found, ratio * expected, near) else None


def scaled(found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float) -> str:
    """Describe an array that is a multiple of the right one, and explain the factor; or "".

    Lengths are distinct at generic values, but a factor may be one and the root of another one.
    """
    ratio = factor(found, expected, near)
    if ratio is None or abs(ratio - 1) <= CLEAR:
        return ""
    size = max(abs(ratio), 1 / abs(ratio))
    lengths = sorted({length for length in sizes if length > 1})
    values = {"2": 2.0} | {f"{n}": n for n in lengths} | {f"√{n}": n**0.5 for n in lengths}
    names = [name for name, value in values.items() if abs(size / value - 1) <= near]
    if size - 1 <= near:
        return "the sign is wrong"
    if not names and found.size == 1:  # Every number is a multiple of another one.
        return ""
    direction = "large" if abs(ratio) > 1 else "small"
    about = ", a length or a number of elements here" if names and names != ["2"] else ""
    sign = "the sign is wrong, and " if ratio < 0 else ""
    return f"{sign}too {direction} by a factor of {' or '.join(names) or f'{size:.6g}'}{about}"


# Identities: each yields the causes that hold, the next one is tried if none does.


def zeros(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield the cause if one of the gradients is zero."""
    if not expected.any():
        yield "it should be zero: a constant or a masked value lets a gradient through"
    elif not found.any():
        yield "all zero: it is never computed, or a factor is zero"


def factors(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield the cause if the gradient is a multiple of the right one."""
    if text := scaled(found, expected, sizes, near):
        yield text


def moves(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield the causes if the gradient has the right elements in other places."""
    axes = [axis for axis in range(found.ndim) if found.shape[axis] > 1]
    for i, a in enumerate(axes):
        for b in axes[i + 1 :]:
            swapped = np.swapaxes(expected, a, b)
            if same(found, swapped.reshape(found.shape), near):
                trick = "" if swapped.shape == found.shape else ", then reshaped to fit"
                yield f"transposed: axes {a} and {b} are swapped{trick}"
    for axis in axes:
        for shift in (1, -1) if found.shape[axis] > 2 else (1,):
            if same(found, np.roll(expected, shift, axis), near):
                yield f"off by one: all values are shifted by {shift:+} along axis {axis}"


def parts(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield the cause if part of the gradient is right, or zero where the right one is not."""
    scale = float(np.abs(expected).max())
    wrong = np.abs(found - expected) > near * scale
    is_zero = np.abs(expected) <= near * scale
    if (wrong & is_zero).any():
        masked = f"not masked: {counted(int((wrong & is_zero).sum()), 'element')} should be zero"
        ratio = factor(found[~is_zero], expected[~is_zero], near)
        if ratio is not None and abs(ratio * is_zero.size / (~is_zero).sum() - 1) <= near:
            yield f"{masked}, as for ignored rows, and the mean is over all rows"
        elif ratio is not None and abs(ratio - 1) <= near:
            yield masked
    elif 0 < wrong.sum() <= 0.75 * wrong.size:
        right = f"right in {int((~wrong).sum())} of {wrong.size} places"
        if not found[wrong].any():
            yield f"not filled in: {right}, zero in the others"
        elif text := scaled(found[wrong], expected[wrong], sizes, near):
            yield f"partly wrong: {right}, the others: {text}"


def means(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], near: float
) -> Iterator[str]:
    """Yield the cause if only a mean has to be subtracted from the gradient."""
    for axis in range(found.ndim):
        if found.shape[axis] > 1:
            centered = found - found.mean(axis=axis, keepdims=True)
            if same(centered, expected, near):
                yield f"a term is missing: subtract the mean along axis {axis}"
