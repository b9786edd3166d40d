"""exp, tanh and erf of one float32, for use in the loops of kernels; not erf: also of a Vector.

Each is a straight line without branches, so that loops over it are vectorised; Numba's own are
function calls, one element at a time, and many times slower. They are `strict`, because a compiler
that may reassociate would simplify `shifted - SHIFT` below.

    exp(x) = 2ⁿ (1 + p),   n = round(x / ln 2),   p = expm1(x - n ln 2) = r + r² q(r)

The polynomials are minimax fits of the relative error. NaN stays NaN.
"""

from typing import Any

import numpy as np
from numba import types

from tinygpt_np.compiled.cache import inner, strict
from tinygpt_np.compiled.simd.vectors import (
    FLOAT,
    Emitter,
    at_least,
    at_most,
    copysign,
    fma,
    intrinsic,
    power_of_two,
)

HALF, ONE, TWO = np.float32(0.5), np.float32(1), np.float32(2)

# Between these, n fits the exponent of a float32; below, exp becomes 0, above, it overflows.
EXP_LOW, EXP_HIGH = np.float32(-87.4), np.float32(89)
LOG2_E = np.float32(1.44269504)
# ln 2 in two pieces: n times the first is subtracted without rounding.
LN2_HIGH, LN2_LOW = np.float32(0.693147182), np.float32(-1.90465421e-9)
# At 3·2²² the last bit of a float32 has the value 1, so adding it rounds to an integer, which is
# then in the low bits; 126 more make it the exponent of 2ⁿ⁻¹ (2ⁿ itself may be too large).
SHIFT = np.float32(3 * 2**22 + 126)
Q0, Q1, Q2 = np.float32(0.499999981), np.float32(0.166665431), np.float32(0.0416672023)
Q3, Q4 = np.float32(0.00836659581), np.float32(0.00138825072)

# tanh rounds to 1 from 9.02 on.
TANH_IS_ONE = np.float32(9.1)

# erf(x) = x + x s(x²) up to here, 1 - exp(t l(t)) with t = |x| beyond; from 4 on it rounds to 1.
ERF_SMALL, ERF_IS_ONE = np.float32(0.9277), np.float32(4)
S0, S1, S2 = np.float32(0.128379148), np.float32(-0.376124848), np.float32(0.112817214)
S3, S4, S5 = np.float32(-0.0267631307), np.float32(0.00498801136), np.float32(-0.000596428314)
L0, L1, L2 = np.float32(-1.12851191), np.float32(-0.635726549), np.float32(-0.10525104)
L3, L4, L5 = np.float32(0.0228830631), np.float32(-0.00321281024), np.float32(0.000213725396)


@intrinsic(types.float32, types.float32, types.float32)
def maximum(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the larger, or NaN if either is NaN. Unlike comparisons, it is vectorised."""
    return emit.call("llvm.maximum.f32", FLOAT, [a, b], flags=("nsz",))


@inner
def parts_of_exp(x: Any) -> Any:
    """Return p and 2ⁿ⁻¹ of exp(x) = 2ⁿ (1 + p), for x in [EXP_LOW, EXP_HIGH]."""
    shifted = fma(x, LOG2_E, SHIFT)
    n = shifted - SHIFT
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    q = fma(fma(fma(fma(Q4, r, Q3), r, Q2), r, Q1), r, Q0)
    return fma(r * r, q, r), power_of_two(shifted)


@inner
def exp(x: Any) -> Any:
    """Return exp(x) to 1.1 ulp, and 0 below -86.98, where 2ⁿ⁻¹ is not a normal number."""
    p, half_scale = parts_of_exp(at_most(at_least(x, EXP_LOW), EXP_HIGH))
    return (TWO + TWO * p) * half_scale


@strict
def tanh(x: Any) -> Any:
    """Return tanh(x) to 3 ulp, also for tiny x: m/(m + 2) with m = expm1(2|x|)."""
    size = at_most(copysign(x, ONE), TANH_IS_ONE)
    p, half_scale = parts_of_exp(TWO * size)
    m = fma(p, half_scale, half_scale - HALF) * TWO
    return copysign(m / (m + TWO), x)


@strict
def erf(x: Any) -> Any:
    """Return erf(x) to 2 ulp, also for tiny x."""
    square = x * x
    s = fma(fma(fma(fma(fma(S5, square, S4), square, S3), square, S2), square, S1), square, S0)
    small = fma(x, s, x)
    t = copysign(x, ONE)
    t = ERF_IS_ONE if t > ERF_IS_ONE else t
    log = t * fma(fma(fma(fma(fma(L5, t, L4), t, L3), t, L2), t, L1), t, L0)
    large = copysign(ONE - exp(log), x)
    return large if t > ERF_SMALL else small
