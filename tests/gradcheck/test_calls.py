"""Pairs in every form that people write: a right backward passes, and a wrong one does not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinygpt_np.gradcheck import CheckError, Report, check
from tinygpt_np.gradcheck.calls import ForwardCall, describe, result_names

Array = Any
rng = np.random.default_rng(5)
X, W1, B1 = rng.standard_normal((4, 3)), rng.standard_normal((3, 5)), rng.standard_normal(5)
W2, B2 = rng.standard_normal((5, 2)), rng.standard_normal(2)
MASK = rng.random((4, 5))


@dataclass
class Case:
    """A pair. backward takes a factor by which one gradient, that of `wrong`, is too large."""

    forward: Callable[..., Any]
    backward: Callable[[float], Callable[..., Any]]
    args: Any
    wrong: str
    rows: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])


CASES: dict[str, Callable[[], Case]] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    CASES[function.__name__] = function
    return function


def affine(x: Array, w: Array, b: Array) -> Array:
    return np.tanh(x @ w + b)


def daffine(dy: Array, x: Array, w: Array, y: Array) -> tuple[Array, Array, Array]:
    dz = dy * (1 - y * y)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


# Several outputs


def lstm(x: Array, c: Array) -> tuple[Array, Array, Any]:
    gate, other = np.split(1 / (1 + np.exp(-x)), 2, axis=1)
    c_next = gate * c + other
    return np.tanh(c_next), c_next, (gate, other, c, c_next)


def dlstm(dh: Array, dc: Array, saved: Any, factor: float) -> tuple[Array, Array]:
    gate, other, c, c_next = saved
    dc = dc + dh * (1 - np.tanh(c_next) ** 2)
    dx = np.concatenate([dc * c * gate * (1 - gate), dc * other * (1 - other)], axis=1)
    return dx, dc * gate * factor


LSTM = (rng.standard_normal((3, 4)), rng.standard_normal((3, 2)))


@case
def three_values_and_each_upstream_gradient() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        return lambda dh, dc, saved: dlstm(dh, dc, saved, factor)  # pyright: ignore

    return Case(lstm, make, LSTM, "c", "x c")


@case
def a_pair_of_outputs_and_a_pair_of_gradients() -> Case:
    def forward(x: Array, c: Array) -> Any:
        h, c, saved = lstm(x, c)
        return (h, c), saved

    def make(factor: float) -> Callable[..., Any]:
        return lambda douts, saved: dlstm(*douts, saved, factor)  # pyright: ignore

    return Case(forward, make, LSTM, "c", "x c")


@case
def a_dict_of_outputs() -> Case:
    def forward(x: Array, c: Array) -> Any:
        h, c, saved = lstm(x, c)
        return {"h": h, "c": c, "steps": 3}, saved

    def make(factor: float) -> Callable[..., Any]:
        def backward(douts: Any, saved: Any) -> Any:
            assert douts["steps"] is None
            return dlstm(douts["h"], douts["c"], saved, factor)

        return backward

    return Case(forward, make, LSTM, "c", "x c")


@case
def a_wrong_gradient_of_the_second_output_only() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        return lambda dh, dc, saved: dlstm(dh, dc * factor, saved, 1.0)  # pyright: ignore

    return Case(lstm, make, LSTM, "x c", "x c")


# Nested parameters

PARAMS = {"W1": W1, "b1": B1, "W2": W2, "b2": B2}
MLP_ROWS = "x params['W1'] params['b1'] params['W2'] params['b2']"


def mlp(x: Array, params: Any) -> tuple[Array, Any]:
    h = affine(x, params["W1"], params["b1"])
    return affine(h, params["W2"], params["b2"]), (x, h, params)


def dmlp(dy: Array, saved: Any, factor: float) -> dict[str, Array]:
    x, h, params = saved
    dh, dw2, db2 = daffine(dy, h, params["W2"], affine(h, params["W2"], params["b2"]))
    dx, dw1, db1 = daffine(dh, x, params["W1"], h)
    return {"x": dx, "W1": dw1, "b1": db1, "W2": factor * dw2, "b2": db2}


@case
def a_dict_of_parameters_and_flat_keys() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        return lambda dy, saved: dmlp(dy, saved, factor)  # pyright: ignore

    return Case(mlp, make, (X, PARAMS), "params['W2']", MLP_ROWS)


@case
def keys_with_a_d_in_a_dict_of_the_same_structure() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            grads = dmlp(dy, saved, factor)
            return grads.pop("x"), {f"d{name}": gradient for name, gradient in grads.items()}

        return backward

    return Case(mlp, make, {"x": X, "params": PARAMS}, "params['W2']", MLP_ROWS)


@case
def gradients_of_the_parameters_alone() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            grads = dmlp(dy, saved, factor)
            return {name: grads[name] for name in PARAMS}

        return backward

    return Case(mlp, make, (X, PARAMS), "params['W2']", MLP_ROWS.removeprefix("x "))


class Layer(NamedTuple):
    W: Any
    b: Any


@case
def a_list_of_layers() -> Case:
    def forward(x: Array, layers: list[Any]) -> Any:
        inputs = [x]
        for w, b in layers:
            inputs.append(affine(inputs[-1], w, b))
        return inputs[-1], (layers, inputs)

    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            layers, inputs = saved
            grads: list[Any] = []
            for number in reversed(range(len(layers))):
                x, y = inputs[number : number + 2]
                dy, dw, db = daffine(dy, x, layers[number][0], y)
                grads.insert(0, (dw * (factor if number == 1 else 1), db))
            return dy, grads

        return backward

    rows = "x layers[0].W layers[0].b layers[1].W layers[1].b"
    args = (X, [Layer(W1, B1), Layer(W2, B2)])
    return Case(forward, make, args, "layers[1].W", rows)


@case
def a_tuple_of_parameters_alone() -> Case:
    def forward(params: Any) -> Any:
        y = affine(X, *params)
        return y, (params, y)

    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            (w, _), y = saved
            _, dw, db = daffine(dy, X, w, y)
            return dw, factor * db

        return backward

    return Case(forward, make, ((W1, B1),), "params[1]", "params[0] params[1]")


# Methods


class Affine:
    def __init__(self, factor: float = 1.0) -> None:
        self.W, self.b, self.factor = W1.copy(), B1.copy(), factor
        self.dW = np.zeros_like(W1)
        self.grads: dict[str, Array] = {}
        self.calls = 0

    def forward(self, x: Array) -> Array:
        self.calls += 1
        self.x, self.y = x, affine(x, self.W, self.b)
        return self.y

    def backward(self, dout: Array) -> Array:
        self.dx, dw, self.grads["b"] = daffine(dout, self.x, self.W, self.y)
        self.dW += self.factor * dw
        return self.dx


def of_methods(layer: Any, args: Any, wrong: str, rows: str) -> Case:
    def make(factor: float) -> Callable[..., Any]:
        layer.factor = factor
        return layer.backward

    return Case(layer.forward, make, args, wrong, rows)


@case
def methods_that_keep_their_state_on_the_object() -> Case:
    return of_methods(Affine(), (X,), "self.W", "x self.W self.b")


@case
def a_method_that_returns_nothing() -> Case:
    class Embedding:
        def __init__(self) -> None:
            self.weight, self.factor = W1.copy(), 1.0

        def forward(self, ids: Array) -> Array:
            self.ids = ids
            return self.weight[ids]

        def backward(self, dout: Array) -> None:
            self.dweight = np.zeros_like(self.weight)
            np.add.at(self.dweight, self.ids, self.factor * dout)

    return of_methods(Embedding(), (np.array([1, 2, 1]),), "self.weight", "self.weight")


@case
def an_object_that_is_called() -> Case:
    class Called(Affine):
        def __call__(self, x: Array) -> Array:
            return self.forward(x)

    layer = Called()
    return replace(of_methods(layer, (X,), "self.W", "x self.W self.b"), forward=layer)


@case
def a_method_after_it_was_used() -> Case:
    layer = Affine()
    layer.forward(X)
    layer.backward(np.zeros((4, 5)))
    return of_methods(layer, (X,), "self.W", "x self.W self.b")


@case
def an_object_of_layers() -> Case:
    class Network:
        def __init__(self) -> None:
            self.layers, self.factor = [Affine(), Affine()], 1.0
            self.layers[1].W, self.layers[1].b, self.layers[1].dW = W2, B2, np.zeros_like(W2)

        def forward(self, x: Array) -> Array:
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def backward(self, dout: Array) -> Array:
            self.layers[1].factor = self.factor
            for layer in reversed(self.layers):
                dout = layer.backward(dout)
            return dout

    rows = "x self.layers[0].W self.layers[0].b self.layers[1].W self.layers[1].b"
    return of_methods(Network(), (X,), "self.layers[1].W", rows)


@case
def a_loss_whose_backward_takes_nothing() -> Case:
    class MeanSquare:
        factor: float
        difference: Any

        def forward(self, y: Array, targets: Array) -> Any:
            self.difference = y - targets
            squares: Any = self.difference * self.difference
            return squares.mean()

        def backward(self) -> Any:
            return np.multiply(self.factor / 6, self.difference)

    loss = MeanSquare()
    loss.factor = 1.0
    return of_methods(loss, (X, np.arange(12).reshape(4, 3)), "y", "y")


@case
def a_method_with_two_outputs() -> Case:
    class Cell:
        factor = 1.0

        def forward(self, x: Array, c: Array) -> Any:
            h, c, self.saved = lstm(x, c)
            return h, c

        def backward(self, dh: Array, dc: Array) -> Any:
            return dlstm(dh, dc, self.saved, self.factor)

    cell = Cell()
    cell.factor = 1.0
    return of_methods(cell, LSTM, "c", "x c")


@case
def methods_that_pass_what_they_save() -> Case:
    class Stateless:
        factor = 1.0

        def forward(self, x: Array, w: Array) -> Any:
            y = affine(x, w, 0)
            return y, (x, w, y)

        def backward(self, dout: Array, cache: Any) -> Any:
            dx, dw, _ = daffine(dout, *cache)
            return dx, self.factor * dw

    layer = Stateless()
    layer.factor = 1.0
    return of_methods(layer, (X, W1), "w", "x w")


# Arguments


@case
def keyword_only_arguments_and_defaults() -> Case:
    def forward(x: Array, *, weight: Array, scale: float = 2.0, square: bool = False) -> Any:
        return scale * x @ weight, (x, weight, scale)

    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            x, weight, scale = saved
            return factor * scale * dy @ weight.T, scale * x.T @ dy

        return backward

    return Case(forward, make, {"x": X, "weight": W1}, "x", "x weight")


@case
def integers_and_booleans_have_no_gradient() -> Case:
    def forward(table: Array, ids: Array, keep: Array, training: bool) -> Any:
        return table[ids] * keep[:, None], (table.shape, ids, keep)

    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            shape, ids, keep = saved
            dtable = np.zeros(shape)
            np.add.at(dtable, ids, factor * dy * keep[:, None])
            return dtable, None, None, None

        return backward

    args = (X, np.array([3, 0, 3]), np.array([True, False, True]), True)
    return Case(forward, make, args, "table", "table")


@case
def a_constant_mask_of_floats() -> Case:
    def forward(x: Array, w: Array, mask: Array) -> Any:
        return x @ w * mask, (x, w, mask)

    def make(factor: float) -> Callable[..., Any]:
        def backward(dy: Array, saved: Any) -> Any:
            x, w, mask = saved
            return dy * mask @ w.T, factor * x.T @ (dy * mask), None

        return backward

    return Case(forward, make, (X, W1, MASK), "w", "x w")


@case
def a_constant_with_infinities() -> Case:
    def forward(x: Array, mask: Array) -> Any:
        y: Any = np.exp(x + mask)
        return y, y

    def make(factor: float) -> Callable[..., Any]:
        return lambda dy, y: factor * dy * y  # pyright: ignore

    return Case(forward, make, (X, np.where(X > 0, -np.inf, 0.0)), "x", "x", {"wrt": "x"})


@case
def a_generator_in_forward_and_backward() -> Case:
    def forward(x: Array, generator: np.random.Generator) -> Any:
        state = generator.bit_generator.state
        mask = generator.random(np.shape(x)) < 0.5
        generator.bit_generator.state = state
        return x * mask, generator

    def make(factor: float) -> Callable[..., Any]:
        return lambda dy, saved: factor * dy * (saved.random(dy.shape) < 0.5)  # pyright: ignore

    return Case(forward, make, (X, np.random.default_rng(3)), "x", "x")


@case
def a_backward_that_takes_the_arguments_again() -> Case:
    def make(factor: float) -> Callable[..., Any]:
        return lambda dy, x, w, b: daffine(factor * dy, x, w, affine(x, w, b))  # pyright: ignore

    return Case(affine, make, (X, W1, B1), "x w b", "x w b")


def report_of(each: Case, factor: float) -> Report:
    return check(each.forward, each.backward(factor), each.args, **each.options)


@pytest.mark.parametrize("name", CASES)
def test_a_right_pair_passes_and_a_wrong_one_does_not(name: str) -> None:
    each = CASES[name]()
    report = report_of(each, 1.0)
    assert report.ok, report
    assert [row.name for row in report.rows] == each.rows.split()
    report = report_of(each, 1.001)
    assert [row.name for row in report.rows if not row.ok] == each.wrong.split()


def test_constants_are_named_in_a_note() -> None:
    for name, constant in (("a_constant_mask_of_floats", "mask"),
                           ("gradients_of_the_parameters_alone", "x")):  # fmt: skip
        (note,) = report_of(CASES[name](), 1.0).notes
        assert note.startswith(f"backward returns no gradient of {constant}: taken as constant")


def test_an_object_is_not_changed_by_its_check() -> None:
    layer = Affine()
    check(layer.forward, layer.backward, (X,))
    assert (layer.calls, [*vars(layer)][-1]) == (0, "calls")


def test_arguments_that_forward_does_not_take_are_refused() -> None:
    with pytest.raises(CheckError, match=r"forward\(x.*\) does not take .* missing .* 'b'"):
        check(affine, affine, (X, W1))
    with pytest.raises(CheckError, match=r"forward\(x.*\) does not take .* 'bias'"):
        check(affine, affine, {"x": X, "w": W1, "b": B1, "bias": B1})


def test_a_leaf_or_a_whole_argument_is_named_in_wrt() -> None:
    for wrt in (("params",), ("params['W1']", "params['b1']", "params['W2']", "params['b2']")):
        assert ForwardCall(mlp, (X, PARAMS), wrt).wrt == tuple(MLP_ROWS.split()[1:])
    with pytest.raises(CheckError, match="wrt must be a list of names, not int"):
        ForwardCall(mlp, (X, PARAMS), 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckError, match=r"wrt must name arguments \(x, params, params\['W1'\]"):
        ForwardCall(mlp, (X, PARAMS), ("W1",))


def test_the_names_in_a_return_statement_are_read() -> None:
    def two() -> Any:
        dx = dw = 1
        return dx, dw

    def other() -> Any:
        return X + 1

    assert (result_names(two), result_names(other), result_names(np.sin)) == (("dx", "dw"), (), ())


class OwnError(Exception):
    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a  b\nc"), "ValueError: a b c"),
        (KeyError(), "KeyError"),
        (OwnError(), "OwnError"),
    ],
)
def test_an_error_is_described_on_one_line(error: Exception, text: str) -> None:
    assert describe(error) == text
