"""What attention costs."""

import itertools

import numpy as np
from costs import assert_costs
from counting import Array, Number, total

from benchmarks.tasks import Sizes

SIZES = {"B": 2, "T": 5, "H": 2, "D": 3}


def heads(sizes: Sizes) -> list[tuple[int, int]]:
    return list(itertools.product(range(sizes["B"]), range(sizes["H"])))


def product(a: Array, b: Array, a_place: list[int], b_place: list[int], size: int) -> Number:
    """Σ over the last axis; the places are those on the others."""
    return total([a[(*a_place, d)] * b[(*b_place, d)] for d in range(size)])


def compute_forward(qkv: Array, y: Array, sizes: Sizes) -> None:
    T, D = sizes["T"], sizes["D"]
    for (b, h), t in itertools.product(heads(sizes), range(T)):
        seen = range(t + 1)
        scores = [product(qkv, qkv, [b, t, 0, h], [b, s, 1, h], D) * D**-0.5 for s in seen]
        largest = scores[0]
        for score in scores[1:]:
            largest = largest.larger(score)
        exps = [(score - largest).exp() for score in scores]
        whole = total(exps)
        probs = [value / whole for value in exps]
        for d in range(D):
            y[b, t, h, d] = total([probs[s] * qkv[b, s, 2, h, d] for s in seen])


def saved_probs(qkv: Array, b: int, h: int) -> list[list[Number]]:
    """Of one head, what a forward saved, which costs nothing any more."""
    q, k = qkv.values[b, :, 0, h], qkv.values[b, :, 1, h]
    exps = np.tril(np.exp(q @ k.T * q.shape[1] ** -0.5))
    probs = exps / exps.sum(axis=1, keepdims=True)
    return [[Number(qkv.ledger, value) for value in row] for row in probs.tolist()]


def compute_backward(qkv: Array, dy: Array, dqkv: Array, sizes: Sizes) -> None:
    T, D = sizes["T"], sizes["D"]
    for b, h in heads(sizes):
        probs = saved_probs(qkv, b, h)
        dscores: list[list[Number]] = []
        for t in range(T):
            seen = range(t + 1)
            dprobs = [product(dy, qkv, [b, t, h], [b, s, 2, h], D) for s in seen]
            mean = total([probs[t][s] * dprobs[s] for s in seen])
            dscores.append([probs[t][s] * (dprobs[s] - mean) * D**-0.5 for s in seen])
        for t, d in itertools.product(range(T), range(D)):
            seen, seeing = range(t + 1), range(t, T)
            dqkv[b, t, 0, h, d] = total([dscores[t][s] * qkv[b, s, 1, h, d] for s in seen])
            dqkv[b, t, 1, h, d] = total([dscores[s][t] * qkv[b, s, 0, h, d] for s in seeing])
            dqkv[b, t, 2, h, d] = total([probs[s][t] * dy[b, s, h, d] for s in seeing])


def test_its_forward_costs_what_it_says() -> None:
    assert_costs("attention", "forward", SIZES, compute_forward)


def test_its_backward_costs_what_it_says() -> None:
    assert_costs("attention", "backward", SIZES, compute_backward)
