"""00:54:42 Version 3: adding softmax

The same mean a third time: scores of zero, minus infinity for the future, softmax along each row.
This form is useful because scores need not stay zero: they may depend on the tokens.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture.workbench import heat_maps

B, T, C = 4, 8, 2


def softmax_weights(scores: np.ndarray) -> np.ndarray:
    """scores (T, T) -> weights (T, T): row t covers columns 0 to t."""
    masked = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)  # (T, T)
    exps = np.exp(masked - masked.max(axis=-1, keepdims=True))  # (T, T) exp(-inf) is 0
    return exps / exps.sum(axis=-1, keepdims=True)  # (T, T)


def main() -> None:
    rng = np.random.default_rng(1337)
    x = rng.standard_normal((B, T, C))  # (B, T, C)
    one = np.array([[seq[: t + 1].mean(axis=0) for t in range(T)] for seq in x])  # (B, T, C)
    lower = np.tri(T)  # (T, T)
    two = lower / lower.sum(axis=1, keepdims=True) @ x  # (B, T, C)
    uniform = softmax_weights(np.zeros((T, T)))  # (T, T)
    three = uniform @ x  # (B, T, C)
    worst = max(np.abs(one - two).max(), np.abs(one - three).max(), np.abs(two - three).max())
    print(f"versions 1, 2 and 3 agree: largest difference {worst:.1e}\n")

    scores = 2 * rng.standard_normal((T, T))  # (T, T)
    weights = softmax_weights(scores)  # (T, T)
    print(heat_maps({"scores zero": uniform, "random scores": weights}, "my lords"))

    # weights = softmax(masked scores)
    dweights = rng.standard_normal((T, T))  # (T, T)
    dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))  # (T, T)
    _, saved = ops.softmax.forward(np.where(np.tri(T, dtype=bool), scores, -np.inf))  # (T, T)
    error = np.abs(dscores - ops.softmax.backward(dweights, saved)).max()
    print("\nbackward: dscores = weights · (dweights - Σ dweights · weights), 0 where masked")
    print(f"  largest sum of a row {np.abs(dscores.sum(axis=-1)).max():.1e}: a shift moves nothing")
    print(f"  largest difference from ops.softmax {error:.1e}")


if __name__ == "__main__":
    main()
