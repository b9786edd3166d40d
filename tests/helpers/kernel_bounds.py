"""Bounds on the error of float32 arithmetic, from the rules of rounding (Higham 2002, ch. 3).

Each bound in the tests counts roundings: an operation gives its true result times 1 + δ, |δ| ≤ U,
and k of these in a row, or a sum of k + 1 terms in any order, stay within gamma(k).
"""

import numpy as np

# Half of the distance from 1 to the next float32.
U = 2.0**-24
# The kernels' exp errs by less than 1.1 ulp, an ulp being at most 2 U: 3 roundings are enough.
EXP = 3
# erf errs by less than 2 ulp.
ERF = 4
# Bounds what exp flushes to zero, and products of two such numbers.
TINY = 1e-37


def gamma(k: float) -> float:
    """Return a bound on the relative error of k roundings in a row."""
    return k * U / (1 - k * U)


def assert_within(found: np.ndarray, truth: np.ndarray, bound: np.ndarray | float) -> None:
    """Check |found - truth| <= bound everywhere; a failure names the worst place. NaN fails."""
    assert found.shape == truth.shape
    allowed = np.broadcast_to(bound, truth.shape)
    error = np.abs(found.astype(np.float64) - truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / allowed)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), truth.shape)
    place = tuple(int(i) for i in worst)
    assert (error <= allowed).all(), (
        f"at {place}: {found[worst]!r}, should be {truth[worst]!r} ± {allowed[worst]:.3g}"
    )
