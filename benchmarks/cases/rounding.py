"""Bounds for the error of float32 arithmetic (Higham, Accuracy and Stability, 2002, chapter 3).

A bound counts roundings: an operation returns its exact result times 1 + δ with |δ| ≤ U, and k
such factors, or a sum of k + 1 terms in any order, have a relative error of at most gamma(k).
"""

from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)

# The unit roundoff of float32, half of the distance from 1 to the next larger number.
U = 2.0**-24
# Roundings that an exp counts as, if its error is below 1.1 ulp; an ulp is at most 2 U.
EXP = 3
# An absolute error that an exp may make by flushing to zero, or a product of two such values.
TINY = 1e-37


def gamma(k: Number) -> Number:
    """Return the relative error of k roundings; k may be an array."""
    return k * U / (1 - k * U)
