"""The error of one array relative to another."""

import numpy as np


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖found - expected‖/‖expected‖; infinite for another shape or NaN."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    difference = float(np.linalg.norm(found - expected))
    size = float(np.linalg.norm(expected))
    return difference / size if size else (0.0 if difference == 0 else float("inf"))
