"""00:51:54 Version 2: using matrix multiply

How much is gained if one product replaces the loops of chapter 7? One (T, T) matrix of weights
serves every sequence of the batch: (T, T) @ (B, T, C) is B products at once.
"""

from timeit import timeit

import numpy as np

from tinygpt_np.lecture.workbench import try_it

B, T, C = 4, 8, 2


def by_loops(x: np.ndarray) -> np.ndarray:
    """x (B, T, C) -> means so far (B, T, C), as in chapter 7."""
    means = np.zeros(x.shape)  # (B, T, C)
    for b in range(len(x)):
        for t in range(x.shape[1]):
            means[b, t] = x[b, : t + 1].mean(axis=0)  # (C,)
    return means


def main() -> None:
    # %% One product for the whole batch
    # NumPy repeats the weights for each sequence, so the shapes (T, T) and (B, T, C) fit. The sums
    # are added in another order than in the loops, so we expect the same means up to rounding,
    # about 1e-16 for numbers of order one.

    x = np.random.default_rng(1337).standard_normal((B, T, C))  # (B, T, C)
    lower = np.tri(T)  # (T, T)
    weights = lower / lower.sum(axis=1, keepdims=True)  # (T, T)
    product, loops = weights @ x, by_loops(x)  # (B, T, C)
    print(f"weights {weights.shape} @ x {x.shape} -> {product.shape}; the first sequence:\n")
    print("  weights, each row sums to 1                version 2         version 1, loops")
    for t in range(T):
        row = " ".join(f"{value:.2f}" if value else "   ." for value in weights[t])
        pair = [f"{values[0, t, 0]:7.4f} {values[0, t, 1]:7.4f}" for values in (product, loops)]
        print(f"  {row}    {pair[0]}   {pair[1]}")
    difference = np.abs(product - loops).max()  # ()
    print(f"\nlargest difference over all {B} sequences: {difference:.1e} (rounding only)")

    # %% The price of the zeros
    # The product multiplies by the zeros above the diagonal too, so it computes T² products where
    # the loops add T(T+1)/2 rows, almost twice as much. And yet we expect it to be much faster,
    # because a step of a Python loop takes far longer than a few multiplications.

    loop_time = timeit(lambda: by_loops(x), number=100) / 100
    product_time = timeit(lambda: weights @ x, number=100) / 100
    print(f"rows multiplied: {T * T} instead of {T * (T + 1) // 2}")
    print(f"time: {1e6 * loop_time:.1f} µs by loops, {1e6 * product_time:.1f} µs by the product,")
    print(f"which is {loop_time / product_time:.0f} times faster")

    # %% Try it
    # The weights do not depend on the batch. Change the 4, or leave it out.

    try_it(
        'python -c "import numpy as np; print((np.tri(8) @ np.ones((4, 8, 1))).mT)"',
        "There is one row for each sequence, with the sums of ones so far: 1 to 8.",
    )


if __name__ == "__main__":
    main()
