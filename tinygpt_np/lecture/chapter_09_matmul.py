"""00:51:54 Version 2: using matrix multiply

One (T, T) matrix of weights serves every sequence of the batch: (T, T) @ (B, T, C) is B products at
once.
"""

import numpy as np

B, T, C = 4, 8, 2


def main() -> None:
    x = np.random.default_rng(1337).standard_normal((B, T, C))  # (B, T, C)
    by_loops = np.zeros((B, T, C))  # (B, T, C)
    for b in range(B):
        for t in range(T):
            by_loops[b, t] = x[b, : t + 1].mean(axis=0)  # (C,)

    lower = np.tri(T)  # (T, T)
    weights = lower / lower.sum(axis=1, keepdims=True)  # (T, T)
    by_product = weights @ x  # (B, T, C)

    print(f"weights {weights.shape} @ x {x.shape} -> {by_product.shape}; the first sequence:\n")
    print("  weights, each row sums to 1                        version 2         version 1, loops")
    for t in range(T):
        row = " ".join(f"{value:.3f}" if value else "    ." for value in weights[t])
        pair = [
            f"{values[0, t, 0]:7.4f} {values[0, t, 1]:7.4f}" for values in (by_product, by_loops)
        ]
        print(f"  {row}    {pair[0]}   {pair[1]}")
    difference = np.abs(by_product - by_loops).max()
    print(f"\nlargest difference over all {B} sequences: {difference:.1e} (rounding only)")


if __name__ == "__main__":
    main()
