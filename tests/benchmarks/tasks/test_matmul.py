"""What the products of a linear layer cost."""

from costs import assert_costs
from counting import Array, total

from benchmarks.tasks import Sizes

SIZES = {"N": 3, "C": 5, "K": 7}


def compute_forward(x: Array, weight: Array, y: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        for k in range(sizes["K"]):
            y[n, k] = total([x[n, c] * weight[c, k] for c in range(sizes["C"])])


def compute_dx(dy: Array, weight: Array, dx: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        for c in range(sizes["C"]):
            dx[n, c] = total([dy[n, k] * weight[c, k] for k in range(sizes["K"])])


def compute_dweight(x: Array, dy: Array, dweight: Array, sizes: Sizes) -> None:
    for c in range(sizes["C"]):
        for k in range(sizes["K"]):
            dweight[c, k] = total([x[n, c] * dy[n, k] for n in range(sizes["N"])])


def test_its_forward_costs_what_it_says() -> None:
    assert_costs("matmul", "forward", SIZES, compute_forward)


def test_its_dx_costs_what_it_says() -> None:
    assert_costs("matmul", "dx", SIZES, compute_dx)


def test_its_dweight_costs_what_it_says() -> None:
    assert_costs("matmul", "dweight", SIZES, compute_dweight)
