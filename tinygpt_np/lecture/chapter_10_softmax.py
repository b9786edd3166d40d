"""00:54:42 Version 3: adding softmax

How can the weights of the mean depend on the tokens? The same mean a third time: scores of zero,
minus infinity for the future, softmax along each row. This form is useful because scores need not
stay zero: they may depend on the tokens.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture.workbench import show_maps, try_it

B, T, C = 4, 8, 2


def softmax_weights(scores: np.ndarray) -> np.ndarray:
    """scores (T, T) -> weights (T, T): row t covers columns 0 to t."""
    past = np.tri(len(scores), dtype=bool)  # (T, T)
    masked = np.where(past, scores, -np.inf)  # (T, T)
    exps = np.exp(masked - masked.max(axis=-1, keepdims=True))  # (T, T)
    return exps / exps.sum(axis=-1, keepdims=True)  # (T, T)


def main() -> None:
    # %% The same mean a third time
    # exp(0) is 1 and exp(-∞) is 0. So softmax of a row with t+1 zeros and minus infinity after them
    # gives 1/(t+1) to each token of the past and 0 to the future: the weights of chapter 9.

    rng = np.random.default_rng(1337)
    x = rng.standard_normal((B, T, C))  # (B, T, C)
    one = np.array([[seq[: t + 1].mean(axis=0) for t in range(T)] for seq in x])
    lower = np.tri(T)  # (T, T)
    two = lower / lower.sum(axis=1, keepdims=True) @ x  # (B, T, C)
    uniform = softmax_weights(np.zeros((T, T)))  # (T, T)
    three = uniform @ x  # (B, T, C)
    pairs = ((one, two), (one, three), (two, three))
    worst = max(np.abs(a - b).max() for a, b in pairs)
    last = " ".join(f"{weight:.3f}" for weight in uniform[-1])
    print(f"expected in the last row: 1/{T} = {1 / T:.3f}")
    print(f"weights: {last}")
    print(f"versions 1, 2 and 3 agree: largest difference {worst:.1e}")

    # %% Scores that differ
    # Now the scores are random. Weights are e^score over a sum, so a token whose score is higher by
    # d gets e^d times the weight: a factor of 7 for a difference of 2. These scores have a standard
    # deviation of 2, so we expect rows in which one or two tokens have most of the weight.

    scores = 2 * rng.standard_normal((T, T))  # (T, T)
    weights = softmax_weights(scores)  # (T, T)
    ratio = weights[-1, 0] / weights[-1, 1]  # ()
    show_maps({"scores zero": uniform, "random scores": weights}, "my lords")
    print("\nlast row, weight of the first token over that of the second")
    print(f"  expected: e^({scores[-1, 0]:.3f} - {scores[-1, 1]:.3f}) = ", end="")
    print(f"{np.exp(scores[-1, 0] - scores[-1, 1]):.4f}")
    print(f"  measured: {ratio:.4f}")

    # %% Backward
    # A row of weights sums to 1, so one weight can rise only if others fall. This is why the
    # gradient of a score subtracts the weighted mean of the row. Adding a constant to all scores of
    # a row changes no weight: we expect the gradients of a row to sum to 0, and those of masked
    # scores to be 0.

    # weights = softmax(masked scores)
    dweights = rng.standard_normal((T, T))  # (T, T)
    mean = (dweights * weights).sum(axis=-1, keepdims=True)  # (T, 1)
    dscores = weights * (dweights - mean)  # (T, T)
    past = np.tri(T, dtype=bool)  # (T, T)
    _, saved = ops.softmax.forward(np.where(past, scores, -np.inf))
    error = np.abs(dscores - ops.softmax.backward(dweights, saved)).max()
    print("dscores = weights · (dweights - Σ dweights · weights)")
    print(f"  largest sum of a row {np.abs(dscores.sum(axis=-1)).max():.1e}")
    print(f"  largest gradient of a masked score {np.abs(dscores[~past]).max():.1e}")
    print(f"  largest difference from ops.softmax {error:.1e}")

    # %% Try it
    # Where does the weighted mean come from? See the backward of softmax in small steps: one line
    # for each line of the forward, and the closed form below.

    try_it(
        "tinygpt study softmax",
        "dtotal is the gradient of the sum in the denominator. It is where the weighted mean "
        "comes from.",
    )


if __name__ == "__main__":
    main()
