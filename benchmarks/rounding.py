"""How far float32 arithmetic may lie from the truth, by the rules of rounding (Higham 2002, ch. 3).

Each bound counts roundings: an operation gives its true result times 1 + δ, |δ| ≤ U, and k of these
in a row, or a sum of k + 1 terms in any order, stay within gamma(k).
"""

from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)

# Half of the distance from 1 to the next float32.
U = 2.0**-24
# An exp that errs by less than 1.1 ulp, an ulp being at most 2 U: 3 roundings are enough.
EXP = 3
# What an exp may flush to zero, and what a product of two such leaves.
TINY = 1e-37


def gamma(k: Number) -> Number:
    """The relative error of k roundings one after another; k may be an array."""
    return k * U / (1 - k * U)
