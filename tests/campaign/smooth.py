# pyright: basic
"""Sixty-odd functions with right gradients, written as people write them, at all scales.

Each is a forward that returns (out, saved), a backward that returns a tuple of gradients, and the
shapes of its arguments. The values of an argument are normal numbers times a scale, or of any
magnitude, or positive where the function needs that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Rng = np.random.Generator
# Arguments are normal, or positive, or in (0, 1), or the standard deviation is 1 at any scale.
NORMAL, POSITIVE, UNIT, STANDARD = "normal", "positive", "unit", "standard"


@dataclass(frozen=True)
class Smooth:
    """A pair of functions. shapes, kinds: of its arguments. largest: the largest scale."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    kinds: Sequence[str]
    largest: float = 1e8


def elementwise(f: Any, df: Any, kind: str = NORMAL, largest: float = 1e8) -> Smooth:
    """Return a function of each element with its derivative."""
    return Smooth(lambda x: (f(x), x), lambda dy, x: (dy * df(x),), [(3, 4)], [kind], largest)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - np.real(x).max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dsoftmax(dy: Array, p: Array) -> Array:
    return p * (dy - (dy * p).sum(axis=-1, keepdims=True))


C = float(np.sqrt(2 / np.pi))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(C * (x + 0.044715 * x**3)))


def dgelu(x: Array) -> Array:
    t = np.tanh(C * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * C * (1 + 3 * 0.044715 * x**2)


def dmish(x: Array) -> Array:
    t, s = np.tanh(np.log1p(np.exp(x))), sigmoid(x)
    return t + x * (1 - t * t) * s


def layer_norm(x: Array, g: Array, b: Array) -> Any:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    if np.iscomplexobj(x):  # The variance of NumPy takes absolute values.
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
    inv = 1 / np.sqrt(var + 1e-5)
    xhat = (x - mean) * inv
    return xhat * g + b, (xhat, inv, g)


def dlayer_norm(dy: Array, saved: Any) -> Any:
    xhat, inv, g = saved
    d = dy * g
    dx = inv * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))
    return dx, (dy * xhat).sum(0), dy.sum(0)


def batch_norm(x: Array, g: Array, b: Array) -> Any:
    centered = x - x.mean(0)
    std = np.sqrt((centered**2).mean(0) + 1e-5)
    return centered / std * g + b, (centered, std, g)


def dbatch_norm(dy: Array, saved: Any) -> Any:
    centered, std, g = saved
    n, dxhat = len(dy), dy * g
    dstd = -(dxhat * centered).sum(0) / std**2
    dcentered = dxhat / std + dstd * centered / (n * std)
    return dcentered - dcentered.mean(0), (dy * centered / std).sum(0), dy.sum(0)


def rms_norm(x: Array, g: Array) -> Any:
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    return x * r * g, (x, r, g)


def drms_norm(dy: Array, saved: Any) -> Any:
    x, r, g = saved
    d = dy * g
    return r * d - x * r**3 * (d * x).mean(-1, keepdims=True), (dy * x * r).sum(0)


def unit_rows(x: Array) -> Any:
    n = np.sqrt((x * x).sum(-1, keepdims=True))
    return x / n, (x / n, n)


def dunit_rows(dy: Array, saved: Any) -> Any:
    u, n = saved
    return ((dy - u * (dy * u).sum(-1, keepdims=True)) / n,)


def attention(q: Array, k: Array, v: Array, causal: bool = False) -> Any:
    scores = q @ k.T / q.shape[-1] ** 0.5
    if causal:
        scores = np.where(np.tri(len(q), dtype=bool), scores, -1e30)
    p = softmax(scores)
    return p @ v, (q, k, v, p)


def dattention(dy: Array, saved: Any) -> Any:
    q, k, v, p = saved
    ds = dsoftmax(dy @ v.T, p) / q.shape[-1] ** 0.5
    return ds @ k, ds.T @ q, p.T @ dy


TARGETS = np.array([2, 0, 3])


def cross_entropy(x: Array) -> Any:
    shifted = x - np.real(x).max(-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -logp[np.arange(3), TARGETS].mean(), np.exp(logp)


def dcross_entropy(dloss: Array, p: Array) -> Any:
    d = p.copy()
    d[np.arange(3), TARGETS] -= 1
    return (dloss * d / len(d),)


def log_softmax(x: Array) -> Any:
    shifted = x - np.real(x).max(-1, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return y, y


def logsumexp(x: Array) -> Any:
    m = np.real(x).max(-1, keepdims=True)
    e = np.exp(x - m)
    return np.log(e.sum(-1)) + m[..., 0], e / e.sum(-1, keepdims=True)


def conv1d(x: Array, w: Array) -> Any:
    parts = np.stack([x[:, i : i + 3] for i in range(x.shape[1] - 2)], axis=1)  # (C, T, 3)
    return np.einsum("cti,ci->t", parts, w), (x.shape, parts, w)


def dconv1d(dy: Array, saved: Any) -> Any:
    shape, parts, w = saved
    dx = np.zeros(shape, dy.dtype)
    for i in range(len(dy)):
        dx[:, i : i + 3] += dy[i] * w
    return dx, np.einsum("t,cti->ci", dy, parts)


def conv2d(x: Array, w: Array) -> Any:
    out = sum(w[i, j] * x[i : i + 3, j : j + 3] for i in range(2) for j in range(2))
    return out, (x, w)


def dconv2d(dy: Array, saved: Any) -> Any:
    x, w = saved
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(2):
        for j in range(2):
            dx[i : i + 3, j : j + 3] += w[i, j] * dy
            dw[i, j] = (x[i : i + 3, j : j + 3] * dy).sum()
    return dx, dw


def rnn_step(x: Array, h: Array, w: Array, u: Array) -> Any:
    new = np.tanh(x @ w + h @ u)
    return new, (x, h, w, u, new)


def drnn_step(dy: Array, saved: Any) -> Any:
    x, h, w, u, new = saved
    d = dy * (1 - new**2)
    return d @ w.T, d @ u.T, x.T @ d, h.T @ d


def gated(x: Array, w: Array, v: Array) -> Any:
    a, b = x @ w, x @ v
    s = sigmoid(a)
    return a * s * b, (x, w, v, a, b, s)


def dgated(dy: Array, saved: Any) -> Any:
    x, w, v, a, b, s = saved
    da, db = dy * b * (s + a * s * (1 - s)), dy * a * s
    return da @ w.T + db @ v.T, x.T @ da, x.T @ db


def lstm_cell(z: Array, c: Array) -> Any:
    i, f, o = (sigmoid(z[:, 3 * n : 3 * n + 3]) for n in range(3))
    g = np.tanh(z[:, 9:])
    new = f * c + i * g
    return o * np.tanh(new), (i, f, o, g, c, new)


def dlstm_cell(dh: Array, saved: Any) -> Any:
    i, f, o, g, c, new = saved
    t = np.tanh(new)
    dnew, do = dh * o * (1 - t * t), dh * t
    parts = [dnew * g * i * (1 - i), dnew * c * f * (1 - f), do * o * (1 - o)]
    return np.concatenate([*parts, dnew * i * (1 - g * g)], axis=1), dnew * f


ANGLES = np.arange(6.0).reshape(3, 2)


def rotated(x: Array, turn: int = 1) -> Any:
    a, b = x[:, :2], x[:, 2:]
    sin, cos = (turn * np.sin(ANGLES)).astype(x.dtype), np.cos(ANGLES).astype(x.dtype)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1), None


def two_layers(x: Array, w: Array, b: Array, v: Array) -> Any:
    h = np.maximum(x @ w + b, 0)
    return h @ v, (x, w, v, h)


def dtwo_layers(dy: Array, saved: Any) -> Any:
    x, w, v, h = saved
    dh = dy @ v.T * (h > 0)
    return dh @ w.T, x.T @ dh, dh.sum(0), h.T @ dy


def inverse(a: Array) -> Any:
    b = np.linalg.inv(a)
    return b, b


def solved(a: Array, b: Array) -> Any:
    x = np.linalg.solve(a, b)
    return x, (a, x)


def dsolved(dy: Array, saved: Any) -> Any:
    a, x = saved
    db = np.linalg.solve(a.T, dy)
    return -db @ x.T, db


def log_determinant(a: Array) -> Any:
    s = a @ a.T + np.eye(3, dtype=np.real(a).dtype)
    return np.log(np.linalg.det(s)), (a, s)


def variance(x: Array) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    return (centered**2).mean(-1), centered


def deviation(x: Array) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centered**2).mean(-1, keepdims=True))
    return std[..., 0], centered / std


IDS = np.array([3, 0, 3, 1])


def gathered(d: Array, shape: tuple[int, ...]) -> Array:
    found = np.zeros(shape, d.dtype)
    np.add.at(found, IDS, d)
    return found


X, ROW = (3, 4), (4,)
ONE, TWO, THREE, FOUR = ([NORMAL] * n for n in (1, 2, 3, 4))
FUNCTIONS: dict[str, Smooth] = {
    "square": elementwise(lambda x: x * x, lambda x: 2 * x),
    "cube": elementwise(lambda x: x**3, lambda x: 3 * x**2),
    "polynomial": elementwise(lambda x: x**4 - 3 * x**2 + x, lambda x: 4 * x**3 - 6 * x + 1),
    "reciprocal": elementwise(lambda x: 1 / x, lambda x: -1 / x**2),
    "exp": elementwise(np.exp, np.exp, largest=30),
    "expm1": elementwise(np.expm1, np.exp, largest=30),
    "exp of -x²": elementwise(lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x)),
    "log": elementwise(np.log, lambda x: 1 / x, POSITIVE),
    "log1p": elementwise(np.log1p, lambda x: 1 / (1 + x), POSITIVE),
    "x log x": elementwise(lambda x: x * np.log(x), lambda x: np.log(x) + 1, POSITIVE),
    "sqrt": elementwise(np.sqrt, lambda x: 0.5 / np.sqrt(x), POSITIVE),
    "rsqrt": elementwise(lambda x: 1 / np.sqrt(x), lambda x: -0.5 * x**-1.5, POSITIVE),
    "x**2.5": elementwise(lambda x: x**2.5, lambda x: 2.5 * x**1.5, POSITIVE),
    "smooth abs": elementwise(
        lambda x: np.sqrt(x * x + 1e-12), lambda x: x / np.sqrt(x * x + 1e-12)
    ),
    "logit": elementwise(lambda x: np.log(x / (1 - x)), lambda x: 1 / (x * (1 - x)), UNIT),
    "entropy": elementwise(
        lambda x: -x * np.log(x) - (1 - x) * np.log(1 - x), lambda x: np.log((1 - x) / x), UNIT
    ),
    "sin": elementwise(np.sin, np.cos),
    "cos": elementwise(np.cos, lambda x: -np.sin(x)),
    "arctan": elementwise(np.arctan, lambda x: 1 / (1 + x * x)),
    "arcsinh": elementwise(np.arcsinh, lambda x: 1 / np.sqrt(1 + x * x)),
    "tanh": elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": elementwise(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), largest=100),
    "softplus": elementwise(lambda x: np.log1p(np.exp(x)), sigmoid, largest=30),
    "silu": elementwise(
        lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), largest=100
    ),
    "mish": elementwise(lambda x: x * np.tanh(np.log1p(np.exp(x))), dmish, largest=30),
    "tanh GELU": elementwise(gelu, dgelu),
    "soft cap": elementwise(lambda x: 5 * np.tanh(x / 5), lambda x: 1 - np.tanh(x / 5) ** 2),
    "softsign": elementwise(lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "relu": elementwise(lambda x: np.maximum(x, 0), lambda x: x > 0),
    "squared relu": elementwise(lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0)),
    "leaky relu": elementwise(
        lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1).astype(x.dtype)
    ),
    "elu": elementwise(
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0))).astype(x.dtype),
    ),
    "abs": elementwise(np.abs, np.sign),
    "Huber": elementwise(
        lambda x: np.where(np.abs(x) < 1, 0.5 * x * x, np.abs(x) - 0.5), lambda x: np.clip(x, -1, 1)
    ),
    "relu6": elementwise(lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6)),
    "sum": Smooth(lambda x: (x.sum(), x.shape), lambda d, s: (np.full(s, d),), [X], ONE),
    "mean": Smooth(
        lambda x: (x.mean(-1), x.shape),
        lambda d, s: (np.repeat(d[:, None], 4, 1) / d.dtype.type(4),), [X], ONE,
    ),
    "variance": Smooth(
        variance, lambda d, c: (2 * d[..., None] * c / c.dtype.type(c.shape[-1]),), [X], ONE
    ),
    "deviation": Smooth(
        deviation, lambda d, u: (d[..., None] * u / u.dtype.type(u.shape[-1]),), [X], ONE
    ),
    "norm": Smooth(
        lambda x: ((n := np.sqrt((x * x).sum())), (x, n)), lambda d, s: (d * s[0] / s[1],), [X], ONE
    ),
    "product": Smooth(
        lambda x: (x.prod(-1), x), lambda d, x: (d[:, None] * x.prod(-1, keepdims=True) / x,), [X],
        ONE, 1e4,
    ),
    "running sum": Smooth(
        lambda x: (x.cumsum(-1), None), lambda d, _: (d[:, ::-1].cumsum(-1)[:, ::-1].copy(),), [X],
        ONE,
    ),
    "max": Smooth(
        lambda x: (x.max(-1), x), lambda d, x: (d[:, None] * (x == x.max(-1, keepdims=True)),), [X],
        ONE,
    ),
    "sort": Smooth(
        lambda x: (np.sort(x, -1), np.argsort(x, -1)),
        lambda d, o: (np.take_along_axis(d, np.argsort(o, -1), -1),), [X], ONE,
    ),
    "differences": Smooth(
        lambda x: (x[:, 1:] - x[:, :-1], x.shape),
        lambda d, s: (np.pad(d, ((0, 0), (1, 0))) - np.pad(d, ((0, 0), (0, 1))),), [X], ONE,
    ),
    "logsumexp": Smooth(logsumexp, lambda d, p: (d[..., None] * p,), [X], ONE),
    "softmax": Smooth(
        lambda x: ((p := softmax(x)), p), lambda d, p: (dsoftmax(d, p),), [X], ONE
    ),
    "log softmax": Smooth(
        log_softmax, lambda d, y: (d - np.exp(y) * d.sum(-1, keepdims=True),), [X], ONE
    ),
    "cross-entropy": Smooth(cross_entropy, dcross_entropy, [X], ONE),
    "squared error": Smooth(
        lambda a, b: (((a - b) ** 2).mean(), a - b),
        lambda d, e: (2 * d * e / e.dtype.type(e.size), -2 * d * e / e.dtype.type(e.size)), [X, X],
        TWO,
    ),
    "binary cross-entropy": Smooth(
        lambda x, t: ((np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(), (x, t)),
        lambda d, s: (
            d * (sigmoid(s[0]) - s[1]) / s[0].dtype.type(12), -d * s[0] / s[0].dtype.type(12)
        ), [X, X], [NORMAL, UNIT], 100,
    ),
    "divergence": Smooth(
        lambda p, q: ((p * (np.log(p) - np.log(q))).sum(), (p, q)),
        lambda d, s: (d * (np.log(s[0]) - np.log(s[1]) + 1), -d * s[0] / s[1]), [X, X],
        [POSITIVE, POSITIVE],
    ),
    "layer norm": Smooth(layer_norm, dlayer_norm, [X, ROW, ROW], [NORMAL, STANDARD, STANDARD]),
    "batch norm": Smooth(batch_norm, dbatch_norm, [(5, 3), (3,), (3,)], THREE),
    "RMS norm": Smooth(rms_norm, drms_norm, [X, ROW], [NORMAL, STANDARD]),
    "rotary positions": Smooth(rotated, lambda dy, _: rotated(dy, -1)[:1], [X], ONE),
    "unit rows": Smooth(unit_rows, dunit_rows, [X], ONE),
    "linear": Smooth(
        lambda x, w, b: (x @ w + b, (x, w)),
        lambda d, s: (d @ s[1].T, s[0].T @ d, d.sum(0)), [X, (4, 2), (2,)], THREE,
    ),
    "product of three": Smooth(
        lambda a, b, c: (a @ b @ c, (a, b, c)),
        lambda d, s: (d @ (s[1] @ s[2]).T, s[0].T @ d @ s[2].T, (s[0] @ s[1]).T @ d),
        [(2, 3), (3, 4), (4, 2)], THREE,
    ),
    "batched product": Smooth(
        lambda a, b: (np.matmul(a, b), (a, b)),
        lambda d, s: (d @ s[1].transpose(0, 2, 1), s[0].transpose(0, 2, 1) @ d),
        [(2, 2, 3), (2, 3, 2)], TWO,
    ),
    "bilinear": Smooth(
        lambda x, w, y: (np.einsum("ni,ij,nj->n", x, w, y), (x, w, y)),
        lambda d, s: (
            np.einsum("n,ij,nj->ni", d, s[1], s[2]), np.einsum("n,ni,nj->ij", d, s[0], s[2]),
            np.einsum("n,ni,ij->nj", d, s[0], s[1]),
        ), [(2, 3), (3, 2), (2, 2)], THREE,
    ),
    "outer product": Smooth(
        lambda a, b: (np.outer(a, b), (a, b)), lambda d, s: (d @ s[1], s[0] @ d), [(3,), (4,)], TWO
    ),
    "ratio": Smooth(
        lambda a, b: (a / b, (a, b)), lambda d, s: (d / s[1], -d * s[0] / s[1] ** 2), [X, X], TWO
    ),
    "power": Smooth(
        lambda a, b: (a**b, (a, b)),
        lambda d, s: (d * s[1] * s[0] ** (s[1] - 1), d * np.log(s[0]) * s[0] ** s[1]), [X, X],
        [POSITIVE, STANDARD],
    ),
    "broadcast product": Smooth(
        lambda x, g: (x * g, (x, g)), lambda d, s: (d * s[1], (d * s[0]).sum(0)), [X, ROW], TWO
    ),
    "embedding": Smooth(
        lambda t: (t[IDS], t.shape), lambda d, s: (gathered(d, s),), [(5, 3)], ONE
    ),
    "attention": Smooth(attention, dattention, [(3, 2), (4, 2), (4, 3)], THREE),
    "causal attention": Smooth(
        lambda q, k, v: attention(q, k, v, True), dattention, [(4, 2), (4, 2), (4, 3)], THREE
    ),
    "convolution": Smooth(conv1d, dconv1d, [(2, 6), (2, 3)], TWO),
    "convolution of images": Smooth(conv2d, dconv2d, [(4, 4), (2, 2)], TWO),
    "RNN step": Smooth(
        rnn_step, drnn_step, [(2, 3), (2, 2), (3, 2), (2, 2)],
        [NORMAL, NORMAL, STANDARD, STANDARD],
    ),
    "LSTM cell": Smooth(lstm_cell, dlstm_cell, [(2, 12), (2, 3)], TWO, 100),
    "SwiGLU": Smooth(gated, dgated, [(2, 3), (3, 2), (3, 2)], [NORMAL, STANDARD, STANDARD], 100),
    "two layers": Smooth(
        two_layers, dtwo_layers, [(3, 4), (4, 5), (5,), (5, 2)],
        [NORMAL, STANDARD, NORMAL, STANDARD],
    ),
    "inverse": Smooth(inverse, lambda d, b: (-b.T @ d @ b.T,), [(3, 3)], ONE),
    "solve": Smooth(solved, dsolved, [(3, 3), (3, 2)], TWO),
    "log determinant": Smooth(
        log_determinant, lambda d, s: (2 * d * np.linalg.inv(s[1]) @ s[0],), [(3, 3)], ONE, 1e3
    ),
}  # fmt: skip


def draw(function: Smooth, rng: Rng, dtype: str) -> tuple[np.ndarray, ...]:
    """Return arguments of one scale from 1e-8 to 1e8, or of any magnitude."""
    top = np.log10(function.largest)
    scale = 10 ** rng.uniform(-8, top)
    found: list[np.ndarray] = []
    for shape, kind in zip(function.shapes, function.kinds, strict=True):
        value = rng.standard_normal(shape)
        if kind == UNIT:
            value = np.clip(rng.random(shape) ** rng.choice([1.0, 4.0]), 1e-6, 1 - 1e-6)
        elif kind != STANDARD:
            varied = rng.random() < 0.25
            value = value * (10 ** rng.uniform(-8, top, shape) if varied else scale)
        found.append((np.abs(value) + 1e-300 if kind == POSITIVE else value).astype(dtype))
    return tuple(found)
