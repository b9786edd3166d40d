"""00:42:13 Version 1: averaging past context with for loops

Without communication between tokens there is only a bigram model. The simplest communication: each
token takes the mean of itself and all tokens before it, and of none after it, since those are what
it has to predict.
"""

import numpy as np

B, T, C = 4, 8, 2


def main() -> None:
    x = np.random.default_rng(1337).standard_normal((B, T, C))  # (B, T, C)
    mean_so_far = np.zeros((B, T, C))  # (B, T, C)
    for b in range(B):
        for t in range(T):
            mean_so_far[b, t] = x[b, : t + 1].mean(axis=0)  # (C,)

    print(f"x {x.shape}: {B} sequences of {T} tokens with {C} channels each. The first one:\n")
    print("  t   x                  mean of rows 0 to t")
    for t in range(T):
        row, mean = x[0, t], mean_so_far[0, t]
        print(f"  {t}   {row[0]:7.4f} {row[1]:7.4f}    {mean[0]:7.4f} {mean[1]:7.4f}")

    print("\nin the video: x starts with 0.1808 -0.0700, drawn by PyTorch; the rule is the same.")
    print("Row 0 has only itself. Row 1 is the midpoint of the first two.")
    changed = x[0].copy()  # (T, C)
    changed[5:] = 100
    same = [np.array_equal(changed[: t + 1].mean(axis=0), mean_so_far[0, t]) for t in range(T)]
    print(f"Change rows 5 to 7, and rows 0 to {sum(same) - 1} stay as they were: no look ahead.")
    print(f"It costs {B * T} iterations of a Python loop. Chapter 9 needs none.")


if __name__ == "__main__":
    main()
