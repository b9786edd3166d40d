"""Functions with their gradients, for the checks."""

from typing import Any

import numpy as np

rng = np.random.default_rng(17)
X, W = rng.standard_normal((4, 6)), rng.standard_normal((6, 5))
SCALE = rng.standard_normal(6)


def linear(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, Any]:
    return x @ w, (x, w)


def dlinear(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    x, w = saved
    return dy @ w.T, x.T @ dy


def doubled_weight(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return twice the right gradient of w."""
    dx, dw = dlinear(dy, saved)
    return dx, 2 * dw


def cube(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return x * x * x, x


def dcube(dy: np.ndarray, x: Any) -> np.ndarray:
    return dy * 3 * x * x


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return np.maximum(x, 0), x


def drelu(dy: np.ndarray, x: Any) -> np.ndarray:
    return dy * (x > 0)


def layer_norm(x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, Any]:
    centered = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
    xhat = centered / std
    return xhat * scale, (xhat, std, scale)


def dlayer_norm(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    xhat, std, scale = saved
    dxhat = dy * scale
    along = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = (dxhat - dxhat.mean(axis=-1, keepdims=True) - xhat * along) / std
    return dx, (dy * xhat).sum(axis=0)
