"""FLOPs and bytes that each case claims, compared with a plain computation that is counted."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.gate import CASES, tiny_case

from benchmarks.cases import adamw, unchecked
from benchmarks.cases.flops import EXP_FLOPS, TANH_FLOPS
from benchmarks.worker.problem import compare
from tinygpt_np.compiled.kernels import elementary
from tinygpt_np.config import ADAM_EPSILON, MUON_EPSILON
from tinygpt_np.ops import gelu, layer_norm, linear, rms_norm, softmax
from tinygpt_np.ops.gelu import CUBIC, SQRT_2_OVER_PI


class Counted(np.ndarray):
    """An array that counts the FLOPs of operations on its elements."""

    flops = 0
    costs: ClassVar[dict[Any, int]] = {np.exp: EXP_FLOPS, np.tanh: TANH_FLOPS}

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) for each in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(each) for each in options["out"])
        found = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counted.flops += found.size * (2 * plain[0].shape[-1] - 1)
        else:
            count = found.size if method == "__call__" else plain[0].size - found.size
            Counted.flops += count * Counted.costs.get(ufunc, 1)
        return np.asarray(found).view(Counted)


def in_ops(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward of ops/ without what it saves."""
    return lambda *inputs: unchecked(forward)(*inputs)[0]


def matmul_dx(dy: Any, weight: Any) -> Any:
    return dy @ weight.T


def matmul_dweight(x: Any, dy: Any) -> Any:
    return x.T @ dy


def softmax_backward(dprobs: Any, probs: Any) -> Any:
    return probs * (dprobs - (probs * dprobs).sum(axis=-1, keepdims=True))


def attention_forward(qkv: Any) -> Any:
    y = np.empty_like(qkv[:, :, 0])
    for b, t, h in np.ndindex(y.shape[:3]):
        q, (k, v) = qkv[b, t, 0, h], qkv[b, : t + 1, 1:, h].swapaxes(0, 1)
        y[b, t, h] = in_ops(softmax.forward)(q @ k.T * q.size**-0.5) @ v
    return y


def attention_backward(dy: Any, qkv: Any) -> Any:
    dqkv = np.empty_like(qkv)
    for b, h in np.ndindex(len(qkv), qkv.shape[3]):
        q, k, v = qkv[b, :, :, h].swapaxes(0, 1)
        scale, upstream = q.shape[1] ** -0.5, dy[b, :, h]
        scores = np.asarray(q) @ np.asarray(k).T * scale
        # The forward saved the probabilities, so they cost nothing.
        probs = in_ops(softmax.forward)(np.where(np.tri(len(q)), scores, -np.inf)).view(Counted)
        dscores = np.zeros_like(probs)
        for t in range(len(q)):
            seen = slice(t + 1)
            dprobs = upstream[t] @ v[seen].T
            dscores[t, seen] = softmax_backward(dprobs, probs[t, seen]) * scale
        for t in range(len(q)):
            seen, seeing = slice(t + 1), slice(t, None)
            dqkv[b, t, 0, h] = dscores[t, seen] @ k[seen]
            dqkv[b, t, 1, h] = dscores[seeing, t] @ q[seeing]
            dqkv[b, t, 2, h] = probs[seeing, t] @ upstream[seeing]
    return dqkv


def cross_entropy(logits: Any, targets: Any) -> Any:
    rows = np.flatnonzero(targets != -1)
    losses, dlogits = np.zeros(len(logits)), np.zeros(logits.shape)
    scale, chosen, x = 1 / len(rows), (np.arange(len(rows)), targets[rows]), logits[rows]
    largest = x.max(axis=-1)
    exps = np.exp(x - largest[:, None])
    total = exps.sum(axis=-1)
    losses[rows] = np.log(total) + (largest - x[chosen])
    counted = exps * (scale / total)[:, None]
    counted[chosen] -= scale
    dlogits[rows] = counted
    return dlogits, losses


def layer_norm_backward(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> Any:
    mean, rstd = mean[:, None], rstd[:, None]
    xhat, dxhat = (x - mean) * rstd, dy * weight
    ones = dxhat.mean(axis=-1, keepdims=True)
    slope = (dxhat * xhat).mean(axis=-1, keepdims=True)
    return (dxhat - ones - xhat * slope) * rstd, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def gelu_backward(dy: Any, x: Any) -> Any:
    square = x * x
    tanh = np.tanh((square * x * CUBIC + x) * SQRT_2_OVER_PI)
    slope = x * (-SQRT_2_OVER_PI / 2) * (tanh * tanh - 1) * (square * (3 * CUBIC) + 1)
    return dy * ((tanh + 1) / 2 + slope)


def adamw_update(param: Any, grad: Any, first: Any, second: Any) -> Any:
    g = grad * adamw.SCALE
    first = first + (g - first) * (1 - adamw.BETA1)
    second = second + (g * g - second) * (1 - adamw.BETA2)
    denominator = np.sqrt(second / adamw.CORRECTION2) + ADAM_EPSILON
    shrunk = param * (1 - adamw.LEARNING_RATE * adamw.WEIGHT_DECAY)
    rate = adamw.LEARNING_RATE / adamw.CORRECTION1
    return shrunk - first * rate / denominator, first, second


def rms_norm_backward(dy: Any, x: Any, weight: Any, rstd: Any) -> Any:
    rstd = rstd[:, None]
    xhat, dxhat = x * rstd, dy * weight
    slope = (dxhat * xhat).mean(axis=-1, keepdims=True)
    return (dxhat - xhat * slope) * rstd, (dy * xhat).sum(axis=0)


def rotated(axis: int, x: Any, cos: Any, sin: Any) -> Any:
    first, second = np.moveaxis(x, axis, 0)
    cos, sin = cos[:, None], sin[:, None]
    return np.stack([first * cos - second * sin, first * sin + second * cos], axis)


def swiglu_forward(x: Any) -> Any:
    gate, up = x[:, 0], x[:, 1]
    return gate / (1 + np.exp(-gate)) * up


def swiglu_backward(dy: Any, x: Any) -> Any:
    gate, up = x[:, 0], x[:, 1]
    sigmoid = 1 / (1 + np.exp(-gate))
    activated = gate * sigmoid
    return np.stack([dy * up * (sigmoid + activated * (1 - sigmoid)), dy * activated], axis=1)


def relu_squared_forward(x: Any) -> Any:
    rectified = np.maximum(x, 0)
    return rectified * rectified


def relu_squared_backward(dy: Any, x: Any) -> Any:
    return np.maximum(x, 0) * 2 * dy


def half_product(a: Any, b: Any) -> Any:
    """Return a product that is symmetric, of which the half above the diagonal is not computed."""
    found = np.zeros((len(a), len(a)))
    for row in range(len(a)):
        found[row, : row + 1] = found[: row + 1, row] = a[row] @ b[:, : row + 1]
    return found.view(Counted)


def muon_orthogonalize(x: Any) -> Any:
    found: list[Any] = []
    for matrix in x:
        tall = len(matrix) > matrix.shape[1]
        y = matrix.T if tall else matrix
        y = y / (np.sqrt((y * y).sum()) + MUON_EPSILON)
        gram, q = half_product(y, y.T), None
        half = np.tril_indices(len(gram))
        for step in range(5):
            p = half_product(gram, gram)
            p[half] = 2.0315 * p[half] + -4.7750 * gram[half]
            p[half[::-1]] = p[half]
            p[np.diag_indices_from(p)] += 3.4445
            if step < 4:
                gram = half_product(half_product(p, gram), p)
            q = p if q is None else half_product(q, p)
        y = q @ y
        found.append(np.asarray(y.T if tall else y))
    return np.stack(found)


COMPUTATIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("matmul", "forward"): in_ops(linear.forward),
    ("matmul", "dx"): matmul_dx,
    ("matmul", "dweight"): matmul_dweight,
    ("softmax", "forward"): in_ops(softmax.forward),
    ("softmax", "backward"): softmax_backward,
    ("attention", "forward"): attention_forward,
    ("attention", "backward"): attention_backward,
    ("cross_entropy", "loss and gradient"): cross_entropy,
    ("layer_norm", "forward"): in_ops(layer_norm.forward),
    ("layer_norm", "backward"): layer_norm_backward,
    ("gelu", "forward"): in_ops(gelu.forward),
    ("gelu", "backward"): gelu_backward,
    ("adamw", "update"): adamw_update,
    ("rms_norm", "forward"): in_ops(rms_norm.forward),
    ("rms_norm", "backward"): rms_norm_backward,
    ("rotary", "halves"): partial(rotated, -2),
    ("rotary", "interleaved"): partial(rotated, -1),
    ("swiglu", "forward"): swiglu_forward,
    ("swiglu", "backward"): swiglu_backward,
    ("relu_squared", "forward"): relu_squared_forward,
    ("relu_squared", "backward"): relu_squared_backward,
    ("muon", "orthogonalize"): muon_orthogonalize,
}


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_a_case_costs_what_it_claims(operation: str, direction: str) -> None:
    case = tiny_case(operation, direction)
    given = case.inputs(np.random.default_rng(0))
    truths = case.truth(given)
    inputs = [
        array.astype(np.float64).view(Counted) if array.dtype.kind == "f" else array
        for array in given.values()
    ]
    Counted.flops = 0
    returned = COMPUTATIONS[operation, direction](*inputs)
    assert Counted.flops == case.flops
    found: list[Any] = [*returned] if len(truths) > 1 else [returned]
    for (name, truth), result in zip(truths.items(), found, strict=True):
        compare(name, np.asarray(result), truth)
    moved = sum(array.nbytes for array in given.values())
    moved += sum(4 * truth.values.size for truth in truths.values())
    if operation == "cross_entropy":
        moved -= 4 * case.sizes["V"]  # The logits of the ignored row are not read.
    assert case.bytes == moved


class Scalar:
    """A number that counts the operations on it; they return it."""

    __array_ufunc__ = None  # NumPy's numbers leave operations to it.

    def __init__(self) -> None:
        self.flops = 0

    def count(self, flops: int, *_: Any) -> "Scalar":
        self.flops += flops
        return self

    def one(self, _: Any) -> "Scalar":
        return self.count(1)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = one

    def __gt__(self, _: Any) -> bool:
        self.flops += 1
        return False


@pytest.mark.parametrize(("name", "flops"), [("exp", EXP_FLOPS), ("tanh", TANH_FLOPS)])
def test_an_exp_and_a_tanh_cost_what_those_of_our_kernels_do(name: str, flops: int) -> None:
    x = Scalar()
    costs = {"fma": 2, "at_least": 1, "at_most": 1, "copysign": 0, "power_of_two": 0}
    names = {**vars(elementary)}
    for each, cost in costs.items():
        names[each] = Mock(side_effect=partial(x.count, cost))
    for each in ("parts_of_exp", "exp", "tanh"):
        names[each] = FunctionType(getattr(elementary, each).__code__, names)
    names[name](x)
    assert x.flops == flops
