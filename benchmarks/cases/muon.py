"""Muon: the five steps of Newton-Schulz on two matrices, those of an MLP that widens C to K."""

from typing import Any

import numpy as np

from benchmarks.cases import Direction, Expected
from benchmarks.cases.rounding import U
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.config import MUON_EPSILON, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from tinygpt_np.model import muon

SWEPT = "CK"


def sizes(part: MicroBatch) -> Sizes:
    """Return two matrices, for two threads, of C channels and K = 4 C outputs."""
    return {"B": 2, "C": part.width, "K": 4 * part.width}


def scale_matrices(rng: np.random.Generator, x: np.ndarray) -> None:
    """Give each matrix another norm."""
    x *= (10 ** rng.uniform(-3, 3, (len(x), 1, 1))).astype(np.float32)


def truth(x: np.ndarray) -> dict[str, Expected]:
    """Bound the error of each matrix by eight times its root mean square."""
    bounds = 8 * np.array([typical_error(matrix) for matrix in x])
    return {"y": Expected(np.stack([*map(muon.orthogonalized, x)]), bounds[:, None, None])}


def typical_error(matrix: np.ndarray) -> float:
    """Return the root mean square of the errors of all elements, if they come from X Xᵀ.

    The result is q(A) X with a polynomial q and A = X Xᵀ. An error E of A changes it, between
    eigenvectors i and j, by E_ij (q_i - q_j) / (λ_i - λ_j) σ_j. A sum of k products rounds as if at
    random, by √k U (Higham, Mary, "A new approach to probabilistic rounding error analysis", 2019).
    """
    x = matrix / (np.linalg.norm(matrix) + MUON_EPSILON)
    values = np.linalg.svd(x, compute_uv=False)
    eigenvalues = values**2
    q, slope = polynomial(eigenvalues)
    apart = np.subtract.outer(eigenvalues, eigenvalues)
    close = np.abs(apart) < 1e-6 * eigenvalues.max()
    quotients = np.subtract.outer(q, q) / np.where(close, 1, apart)
    changes = np.where(close, slope, quotients) * values
    rounding = np.sqrt(sum(x.shape)) * U * np.square(x).sum(axis=1).max()
    return float(rounding * np.sqrt(np.square(changes).sum() / x.size) + U)


def polynomial(eigenvalues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return q and its derivative at eigenvalues of X Xᵀ."""
    a, b, c = NEWTON_SCHULZ
    t, dt = eigenvalues, np.ones_like(eigenvalues)
    q, dq = np.ones_like(t), np.zeros_like(t)
    for _ in range(NEWTON_SCHULZ_STEPS):
        p, dp = a + b * t + c * t * t, (b + 2 * c * t) * dt
        q, dq = p * q, dp * q + p * dq
        t, dt = t * p * p, dt * p * p + 2 * t * p * dp
    return q, dq


def flops(size: Any) -> int:
    """Count the steps on the smaller of X Xᵀ and Xᵀ X, the halves of what is symmetric.

    The norm, the division by it; X Xᵀ; 17 products; the polynomials; the product with X.
    """
    B, small, large = size.B, min(size.C, size.K), max(size.C, size.K)
    half, steps = small * (small + 1) // 2, NEWTON_SCHULZ_STEPS
    norm = 2 * small * large + 1 + small * large
    products = (4 * steps - 3) * half * (2 * small - 1)
    polynomials = steps * (3 * half + small)
    return B * (
        norm + half * (2 * large - 1) + products + polynomials + small * large * (2 * small - 1)
    )


DIRECTIONS = {
    "orthogonalize": Direction({"x": "BCK"}, {"y": "BCK"}, truth, flops, edit=scale_matrices)
}
