"""What softmax costs."""

from typing import Any

from costs import assert_costs
from counting import Array, total

from benchmarks.tasks import Sizes

SIZES = {"N": 3, "V": 7}


def compute_forward(x: Array, probs: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        row = [x[n, v] for v in range(sizes["V"])]
        largest = row[0]
        for value in row[1:]:
            largest = largest.larger(value)
        exps = [(value - largest).exp() for value in row]
        whole = total(exps)
        for v, value in enumerate(exps):
            probs[n, v] = value / whole


def compute_backward(dprobs: Array, probs: Array, dx: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        row: list[Any] = [(dprobs[n, v], probs[n, v]) for v in range(sizes["V"])]
        mean = total([d * p for d, p in row])
        for v, (d, p) in enumerate(row):
            dx[n, v] = p * (d - mean)


def test_its_forward_costs_what_it_says() -> None:
    assert_costs("softmax", "forward", SIZES, compute_forward)


def test_its_backward_costs_what_it_says() -> None:
    assert_costs("softmax", "backward", SIZES, compute_backward)
