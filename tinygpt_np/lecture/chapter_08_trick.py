"""00:47:11 The trick: matrix multiply as weighted aggregation

Can the means of chapter 7 be computed without a loop? Row t of a @ b is the sum of the rows of b,
weighted by row t of a. So a matrix with zeros above the diagonal sums the past, and if its rows
also sum to 1, it averages the past. The numbers are the video's.
"""

import numpy as np

from tinygpt_np.lecture.workbench import try_it


def show_product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """Print a @ b = c, row by row."""
    for t, (a_row, b_row, c_row) in enumerate(zip(a, b, c, strict=True)):
        cells = [" ".join(f"{value:5.2f}" for value in row) for row in (a_row, b_row, c_row)]
        at, equals = "@=" if t == 1 else "  "
        print(f"  [{cells[0]}] {at} [{cells[1]}] {equals} [{cells[2]}]")


def main() -> None:
    # %% Sums of the past
    # Row t of the matrix has ones up to column t. So row t of the product is the sum of rows 0 to t
    # of b, and the last row must be the sum of all: 14 and 16.

    b = np.array([[2.0, 7.0], [6.0, 4.0], [6.0, 5.0]])  # (T, C) as in the video
    lower = np.tri(3)  # (T, T)
    sums = lower @ b  # (T, C)
    show_product(lower, b, sums)

    # %% Means of the past
    # Divide each row by its sum, and the weights of row t are 1/(t+1). Row 1 must be the midpoint
    # of the first two rows, 4 and 5.5.

    mean = lower / lower.sum(axis=1, keepdims=True)  # (T, T)
    means = mean @ b  # (T, C)
    show_product(mean, b, means)

    # %% The gradient flows back along the same weights
    # If c = a @ b, the gradient of b is a.T @ dc. Row 1 of c is the mean of rows 0 and 1 of b. So
    # if the loss reads row 1 of c alone, with gradient 1, we expect 1/2 for rows 0 and 1, and 0 for
    # row 2, which is in the future of row 1.

    dc = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])  # (T, C)
    db = mean.T @ dc  # (T, C)
    show_product(mean.T, dc, db)
    step = 1e-6
    # Row t of b is moved by a step; row 1 of c moves with it.
    moved = [mean @ (b + step * np.eye(3)[:, [t]]) for t in range(3)]
    measured = [(c[1, 0] - means[1, 0]) / step for c in moved]  # (T,)
    pairs = ", ".join(f"{value:.3f}" for value in measured)
    print(f"\ndb, first channel: {', '.join(f'{value:.3f}' for value in db[:, 0])}")
    print(f"measured, by moving each row of b a little: {pairs}")

    # %% Try it
    # Put .T after np.tri(3). Which rows does row t sum then?

    try_it(
        'python -c "import numpy as np; print(np.tri(3) @ [[2, 7], [6, 4], [6, 5]])"',
        "With .T the first row is the sum of all: the matrix has its zeros below the diagonal, "
        "and each row sums itself and its future.",
    )


if __name__ == "__main__":
    main()
