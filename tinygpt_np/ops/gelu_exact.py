"""GELU, exact form: x times the probability that a standard normal variable is below x.

    y = x Φ(x),   Φ(x) = ½ (1 + erf(x/√2))            x, y: any shape

Derivation. Φ' is the normal density φ(x) = exp(-x²/2)/√(2π):

    y' = Φ(x) + x φ(x)

NumPy has no erf. By definition erf(z) = 2/√π ∫₀ᶻ exp(-t²) dt, and with t = z s the integral is
over [0, 1] for every z, so Gauss-Legendre quadrature gives it as a short sum of exponentials, exact
to rounding for |z| < 6; beyond that, erf is ±1 in float64. The sum also works for complex z.
Common mistake: the tanh form in one direction and this one in the other.
Source: Hendrycks, Gimpel, "Gaussian Error Linear Units" (2016), section 2.
"""

from typing import Any

import numpy as np

SQRT_2 = 2**0.5
ERF_SLOPE = 2 / np.pi**0.5
ERF_IS_ONE_BEYOND = 6.0
# For [-1, 1]. The integrand is even, so the positive nodes give the integral over [0, 1].
NODES, WEIGHTS = np.polynomial.legendre.leggauss(80)
QUADRATURE = [(float(s), float(w)) for s, w in zip(NODES, WEIGHTS, strict=True) if s > 0]


def error_function(z: np.ndarray) -> np.ndarray:
    """z (...) real or complex with a tiny imaginary part -> erf(z) (...), to 2e-15."""
    outside = np.abs(np.real(z)) > ERF_IS_ONE_BEYOND  # (...)
    inside = np.where(outside, 0, z)  # (...)
    square = inside * inside  # (...)
    integral = sum(w * np.exp(square * -(s * s)) for s, w in QUADRATURE)  # (...)
    return np.where(outside, np.sign(np.real(z)), ERF_SLOPE * inside * integral)


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    scaled = x / SQRT_2  # (...)
    erf = error_function(scaled)  # (...)
    raised = 1 + erf  # (...)
    cdf = raised / 2  # (...)
    y = x * cdf  # (...)
    return y, (x, scaled, cdf)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    x, scaled, cdf = saved
    # y = x * cdf
    dx = dy * cdf  # (...)
    dcdf = dy * x  # (...)
    # cdf = raised / 2
    draised = dcdf / 2  # (...)
    # raised = 1 + erf
    derf = draised  # (...)
    # erf = error_function(scaled)
    dscaled = derf * ERF_SLOPE * np.exp(-scaled * scaled)  # (...)
    # scaled = x / SQRT_2
    dx += dscaled / SQRT_2  # (...)
    return dx
