"""FLOPs and bytes that each case claims, compared with a plain computation that counts them."""

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.counting import Array, Number, assert_costs, total

from benchmarks.cases import Sizes
from benchmarks.cases.adamw import (
    BETA1,
    BETA2,
    CORRECTION1,
    CORRECTION2,
    LEARNING_RATE,
    SCALE,
    WEIGHT_DECAY,
)
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.ops.gelu import CUBIC, SQRT_2_OVER_PI
from tinygpt_np.ops.layer_norm import EPSILON


def matmul_forward(x: Array, weight: Array, y: Array, sizes: Sizes) -> None:
    for n, k in np.ndindex(sizes["N"], sizes["K"]):
        y[n, k] = total([x[n, c] * weight[c, k] for c in range(sizes["C"])])


def matmul_dx(dy: Array, weight: Array, dx: Array, sizes: Sizes) -> None:
    for n, c in np.ndindex(sizes["N"], sizes["C"]):
        dx[n, c] = total([dy[n, k] * weight[c, k] for k in range(sizes["K"])])


def matmul_dweight(x: Array, dy: Array, dweight: Array, sizes: Sizes) -> None:
    for c, k in np.ndindex(sizes["C"], sizes["K"]):
        dweight[c, k] = total([x[n, c] * dy[n, k] for n in range(sizes["N"])])


def exponentials(row: list[Number]) -> tuple[list[Number], Number]:
    """Return the exponentials of the distances to the largest number, and that number."""
    largest = row[0]
    for number in row[1:]:
        largest = largest.larger(number)
    return [(number - largest).exp() for number in row], largest


def softmax_forward(x: Array, probs: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        exps, _ = exponentials([x[n, v] for v in range(sizes["V"])])
        whole = total(exps)
        for v, value in enumerate(exps):
            probs[n, v] = value / whole


def softmax_backward(dprobs: Array, probs: Array, dx: Array, sizes: Sizes) -> None:
    for n in range(sizes["N"]):
        row: list[Any] = [(dprobs[n, v], probs[n, v]) for v in range(sizes["V"])]
        mean = total([d * p for d, p in row])
        for v, (d, p) in enumerate(row):
            dx[n, v] = p * (d - mean)


def heads(sizes: Sizes) -> list[tuple[int, int]]:
    return list(itertools.product(range(sizes["B"]), range(sizes["H"])))


def dot(a: Array, b: Array, a_place: list[int], b_place: list[int], size: int) -> Number:
    """Σ over the last axis; the places are those on the others."""
    return total([a[(*a_place, d)] * b[(*b_place, d)] for d in range(size)])


def attention_forward(qkv: Array, y: Array, sizes: Sizes) -> None:
    T, D = sizes["T"], sizes["D"]
    for (b, h), t in itertools.product(heads(sizes), range(T)):
        seen = range(t + 1)
        scores = [dot(qkv, qkv, [b, t, 0, h], [b, s, 1, h], D) * D**-0.5 for s in seen]
        exps, _ = exponentials(scores)
        whole = total(exps)
        probs = [value / whole for value in exps]
        for d in range(D):
            y[b, t, h, d] = total([probs[s] * qkv[b, s, 2, h, d] for s in seen])


def saved_probs(qkv: Array, b: int, h: int) -> list[list[Number]]:
    """Return the probabilities of a head, as saved by the forward at no cost."""
    q, k = qkv.values[b, :, 0, h], qkv.values[b, :, 1, h]
    exps = np.tril(np.exp(q @ k.T * q.shape[1] ** -0.5))
    probs = exps / exps.sum(axis=1, keepdims=True)
    return [[Number(qkv.ledger, value) for value in row] for row in probs.tolist()]


def attention_backward(qkv: Array, dy: Array, dqkv: Array, sizes: Sizes) -> None:
    T, D = sizes["T"], sizes["D"]
    for b, h in heads(sizes):
        probs = saved_probs(qkv, b, h)
        dscores: list[list[Number]] = []
        for t in range(T):
            seen = range(t + 1)
            dprobs = [dot(dy, qkv, [b, t, h], [b, s, 2, h], D) for s in seen]
            mean = total([probs[t][s] * dprobs[s] for s in seen])
            dscores.append([probs[t][s] * (dprobs[s] - mean) * D**-0.5 for s in seen])
        for t, d in itertools.product(range(T), range(D)):
            seen, seeing = range(t + 1), range(t, T)
            dqkv[b, t, 0, h, d] = total([dscores[t][s] * qkv[b, s, 1, h, d] for s in seen])
            dqkv[b, t, 1, h, d] = total([dscores[s][t] * qkv[b, s, 0, h, d] for s in seeing])
            dqkv[b, t, 2, h, d] = total([probs[s][t] * dy[b, s, h, d] for s in seeing])


def cross_entropy_both(logits: Array, targets: Array, losses: Array, sizes: Sizes) -> None:
    N, V = sizes["N"], sizes["V"]
    # One of them does not count.
    scale, zero = Number(logits.ledger, 1 / (N - 1)), Number(logits.ledger, 0)
    for n in range(N):
        target = targets[n]
        if target == -1:
            losses[n] = zero
            for v in range(V):
                logits[n, v] = zero
            continue
        row = [logits[n, v] for v in range(V)]
        exps, largest = exponentials(row)
        whole = total(exps)
        losses[n] = whole.log() + (largest - row[target])
        share = scale / whole
        for v in range(V):
            dlogit = exps[v] * share
            logits[n, v] = dlogit - scale if v == target else dlogit


def layer_norm_forward(x: Array, weight: Array, bias: Array, y: Array, sizes: Sizes) -> None:
    C = sizes["C"]
    for n in range(sizes["N"]):
        row = [x[n, c] for c in range(C)]
        mean = total(row) / C
        centered = [value - mean for value in row]
        std = (total([value * value for value in centered]) / C + EPSILON).sqrt()
        for c in range(C):
            y[n, c] = centered[c] / std * weight[c] + bias[c]


def layer_norm_backward(
    dy: Array, x: Array, weight: Array, dx: Array, dweight: Array, dbias: Array, sizes: Sizes
) -> None:
    N, C = sizes["N"], sizes["C"]
    means = dy.ledger.array(x.values.mean(axis=-1))
    rstds = dy.ledger.array(1 / (x.values.var(axis=-1) + EPSILON) ** 0.5)
    moments = [(n, means[n], rstds[n]) for n in range(N)]
    xhats = [[(x[n, c] - mean) * rstd for c in range(C)] for n, mean, rstd in moments]
    for c in range(C):
        dweight[c] = total([dy[n, c] * xhats[n][c] for n in range(N)])
        dbias[c] = total([dy[n, c] for n in range(N)])
    for n, _, rstd in moments:
        dxhat = [dy[n, c] * weight[c] for c in range(C)]
        ones = total(dxhat) / C
        slope = total([a * b for a, b in zip(dxhat, xhats[n], strict=True)]) / C
        for c in range(C):
            dx[n, c] = (dxhat[c] - ones - xhats[n][c] * slope) * rstd


def tanh_of(x: Number, square: Number) -> Number:
    return ((square * x * CUBIC + x) * SQRT_2_OVER_PI).tanh()


def gelu_forward(x: Array, y: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        value = x[i]
        gate = (tanh_of(value, value * value) + 1) / 2
        y[i] = value * gate


def gelu_backward(dy: Array, x: Array, dx: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        value = x[i]
        square = value * value
        tanh = tanh_of(value, square)
        gate = (tanh + 1) / 2
        minus_slope_of_tanh = tanh * tanh - 1
        slope_of_bent = square * (3 * CUBIC) + 1
        bend = value * (-SQRT_2_OVER_PI / 2) * minus_slope_of_tanh * slope_of_bent
        dx[i] = dy[i] * (gate + bend)


def adamw_update(param: Array, grad: Array, first: Array, second: Array, sizes: Sizes) -> None:
    for i in range(sizes["P"]):
        g = grad[i] * SCALE
        old_first, old_second = first[i], second[i]
        new_first = old_first + (g - old_first) * (1 - BETA1)
        new_second = old_second + (g * g - old_second) * (1 - BETA2)
        denominator = (new_second / CORRECTION2).sqrt() + ADAM_EPSILON
        shrunk = param[i] * (1 - LEARNING_RATE * WEIGHT_DECAY)
        param[i] = shrunk - new_first * (LEARNING_RATE / CORRECTION1) / denominator
        first[i], second[i] = new_first, new_second


@pytest.mark.parametrize(
    ("operation", "direction", "sizes", "compute"),
    [
        ("matmul", "forward", {"N": 3, "C": 5, "K": 7}, matmul_forward),
        ("matmul", "dx", {"N": 3, "C": 5, "K": 7}, matmul_dx),
        ("matmul", "dweight", {"N": 3, "C": 5, "K": 7}, matmul_dweight),
        ("softmax", "forward", {"N": 3, "V": 7}, softmax_forward),
        ("softmax", "backward", {"N": 3, "V": 7}, softmax_backward),
        ("attention", "forward", {"B": 2, "T": 5, "H": 2, "D": 3}, attention_forward),
        ("attention", "backward", {"B": 2, "T": 5, "H": 2, "D": 3}, attention_backward),
        ("cross_entropy", "loss and gradient", {"N": 5, "V": 7}, cross_entropy_both),
        ("layer_norm", "forward", {"N": 3, "C": 7}, layer_norm_forward),
        ("layer_norm", "backward", {"N": 3, "C": 7}, layer_norm_backward),
        ("gelu", "forward", {"P": 11}, gelu_forward),
        ("gelu", "backward", {"P": 11}, gelu_backward),
        ("adamw", "update", {"P": 11}, adamw_update),
    ],
)
def test_a_case_costs_what_it_claims(
    operation: str, direction: str, sizes: Sizes, compute: Any
) -> None:
    assert_costs(operation, direction, sizes, compute)
