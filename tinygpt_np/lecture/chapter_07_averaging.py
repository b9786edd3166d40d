"""00:42:13 Version 1: averaging past context with for loops

How can a token learn from those before it? Without communication between tokens there is only a
bigram model. The simplest communication: each token takes the mean of itself and all tokens before
it, and of none after it, since those are what it has to predict.
"""

import numpy as np

from tinygpt_np.lecture.workbench import try_it

B, T, C = 4, 8, 2


def main() -> None:
    # %% The mean of the past
    # Each token is a row of C numbers, random ones for now. Row t of the result is the mean of rows
    # 0 to t. So row 0 must stay as it is, and row 1 must be the midpoint of the first two.

    x = np.random.default_rng(1337).standard_normal((B, T, C))  # (B, T, C)
    mean_so_far = np.zeros((B, T, C))  # (B, T, C)
    for b in range(B):
        for t in range(T):
            mean_so_far[b, t] = x[b, : t + 1].mean(axis=0)  # (C,)
    midpoint = (x[0, 0] + x[0, 1]) / 2  # (C,)
    print(f"x {x.shape}: {B} sequences of {T} tokens with {C} channels each.")
    print(f"expected in row 1: {midpoint[0]:.4f} {midpoint[1]:.4f}")
    print("\n  t   x                  mean of rows 0 to t")
    for t, row in enumerate(np.concatenate([x, mean_so_far], axis=-1)[0]):
        print(f"  {t}   {row[0]:7.4f} {row[1]:7.4f}    {row[2]:7.4f} {row[3]:7.4f}")
    print("\nin the video: x starts with 0.1808 -0.0700, drawn by PyTorch")

    # %% No look ahead
    # A token must not see what it has to predict. To test it, change the last rows: means before
    # them must stay exactly as they were.

    changed = x[0].copy()  # (T, C)
    changed[5:] = 100
    means = np.array([changed[: t + 1].mean(axis=0) for t in range(T)])  # (T, C)
    same = (means == mean_so_far[0]).all(axis=-1)  # (T,)
    print("expected: rows 0 to 4 stay")
    print(f"Change rows 5 to 7, and rows 0 to {same.sum() - 1} stay as they were.")

    # %% What a mean loses
    # A mean forgets the order: the same rows in reverse have the same mean. And the mean of n
    # random rows is √n times smaller than one of them, so the longer the past, the less each token
    # adds. Attention will replace equal weights by weights that depend on the tokens.

    backwards = x[:, ::-1].mean(axis=1)  # (B, C)
    difference = np.abs(backwards - mean_so_far[:, -1]).max()  # ()
    many = np.random.default_rng(1).standard_normal((10_000, T))  # (N, T)
    last = many.mean(axis=1).std()  # ()
    print(f"the last mean, of the rows in reverse, differs by {difference:.1e}")
    print(f"standard deviation of a mean of {T} rows, expected: {T**-0.5:.3f}")
    print(f"  of 10,000 random sequences: {last:.3f}")
    print(f"It costs {B * T} iterations of a Python loop. Chapter 9 needs none.")

    # %% Try it
    # A running sum gives these means without a loop. It cannot be extended to other weights, so the
    # next chapter takes another way.

    try_it(
        'python -c "import numpy as np; print(np.cumsum([4, 2, 6]) / [1, 2, 3])"',
        "The numbers are the mean of the first, of the first two and of all three.",
    )


if __name__ == "__main__":
    main()
