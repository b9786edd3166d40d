"""00:42:13 Version 1: averaging past context with for loops

Tokens that never talk can only be a bigram model. The simplest talk: each token takes the mean of
itself and all before it, and of nothing after it, since that is what it has to predict.
"""

import numpy as np

B, T, C = 4, 8, 2


def main() -> None:
    x = np.random.default_rng(1337).standard_normal((B, T, C))  # (B, T, C)
    mean_so_far = np.zeros((B, T, C))  # (B, T, C)
    for b in range(B):
        for t in range(T):
            mean_so_far[b, t] = x[b, : t + 1].mean(axis=0)  # (C,)

    print(f"x {x.shape}: {B} texts of {T} tokens with {C} channels each. The first text:\n")
    print("  t   x                  mean of rows 0 to t")
    for t in range(T):
        row, mean = x[0, t], mean_so_far[0, t]
        print(f"  {t}   {row[0]:7.4f} {row[1]:7.4f}    {mean[0]:7.4f} {mean[1]:7.4f}")

    print("\nRow 0 has only itself. Row 1 is halfway between the first two.")
    changed = x[0].copy()  # (T, C)
    changed[5:] = 100
    same = [np.array_equal(changed[: t + 1].mean(axis=0), mean_so_far[0, t]) for t in range(T)]
    print(f"Change rows 5 to 7, and rows 0 to {sum(same) - 1} stay as they were: no look ahead.")
    print(f"What it costs: {B * T} turns of a Python loop. Chapter 9 needs none.")


if __name__ == "__main__":
    main()
