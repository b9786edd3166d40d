"""00:47:11 The trick: matrix multiply as weighted aggregation

Row t of a @ b is the sum of the rows of b, weighted by row t of a. So a matrix with zeros above the
diagonal sums the past, and if its rows also sum to 1, it averages the past. The numbers are the
video's.
"""

import numpy as np


def show(title: str, a: np.ndarray, b: np.ndarray) -> None:
    """Print a @ b = c, row by row."""
    print(title)
    for t, (a_row, b_row, c_row) in enumerate(zip(a, b, a @ b, strict=True)):
        cells = [" ".join(f"{value:5.2f}" for value in row) for row in (a_row, b_row, c_row)]
        at, equals = "@=" if t == 1 else "  "
        print(f"  [{cells[0]}] {at} [{cells[1]}] {equals} [{cells[2]}]")
    print()


def main() -> None:
    b = np.array([[2.0, 7.0], [6.0, 4.0], [6.0, 5.0]])  # (T, C) as in the video
    lower = np.tri(3)  # (T, T)
    mean = lower / lower.sum(axis=1, keepdims=True)  # (T, T)
    show("ones up to the diagonal: row t is the sum of rows 0 to t", lower, b)
    show("each row divided by its sum: row t is the mean of rows 0 to t", mean, b)

    dc = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])  # (T, C) of a loss that reads row 1 of c
    show("backward, db = a.T @ dc: a loss that reads row 1 of c moves rows 0 and 1", mean.T, dc)
    print("Each row passes its gradient back to the rows that it averaged; row 2 is in the future")
    print("of row 1 and gets none.")


if __name__ == "__main__":
    main()
