"""Nested arguments: names of leaves, replacement, and gradients in every form people return."""

import copy
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinygpt_np.gradcheck import CheckError
from tinygpt_np.gradcheck.tree import (
    attribute_gradients,
    gradients_by_name,
    leaves,
    root,
    stores_a_gradient,
    with_gradient,
    with_leaves,
)

# Arrays of distinct shapes, so that a wrong match is seen.
X, W1, B1, W2, B2 = (np.ones(shape) for shape in ((5, 2), (2, 3), (3,), (3, 4), (4,)))
FLAT: dict[str, Any] = {"x": X, "w": W1, "b": B1}
DICT: dict[str, Any] = {"x": X, "params": {"W1": W1, "b1": B1}}
LAYERS: dict[str, Any] = {"x": X, "layers": [{"W": W1, "b": B1}, {"W": W2, "b": B2}]}


class Cell(NamedTuple):
    h: Any
    c: Any


def test_leaves_are_named_by_the_expression_that_reads_them() -> None:
    layer = SimpleNamespace(W=W1, rate=0.5)
    layer.itself = layer
    args = {**LAYERS, "state": Cell(B1, (B2, 3)), "self": layer, "n": 2, "d": {("a", 1): X}}
    found = leaves(args)
    assert [*found] == [
        "x", "layers[0]['W']", "layers[0]['b']", "layers[1]['W']", "layers[1]['b']", "state.h",
        "state.c[0]", "state.c[1]", "self.W", "self.rate", "self.itself", "n", "d[('a', 1)]",
    ]  # fmt: skip
    for name, leaf in found.items():
        assert eval(name, dict(args)) is leaf


def test_leaves_are_replaced_by_name_and_nothing_is_changed_in_place() -> None:
    layer = SimpleNamespace(W=W1)
    args: dict[str, Any] = {**LAYERS, "state": Cell(B1, (B2, 3)), "self": layer}
    new = {name: object() for name in ("x", "layers[1]['W']", "state.c[0]", "self.W")}
    replaced = with_leaves(args, new)
    assert leaves(replaced) == {**leaves(args), **new}
    assert type(replaced["state"]) is Cell
    assert type(replaced["self"]) is SimpleNamespace
    assert replaced["layers"][0] is LAYERS["layers"][0]
    assert (args["layers"][1]["W"], layer.W, args["state"].c[0]) == (W2, W1, B2)


def names_of(args: dict[str, Any]) -> list[str]:
    return [name for name, leaf in leaves(args).items() if isinstance(leaf, np.ndarray)]


def matched(returned: Any, args: dict[str, Any], *names: str) -> dict[str, Any]:
    return gradients_by_name(returned, args, names or names_of(args))


# Strings stand for gradients where shapes do not matter, and "-" for None.
FORMS: list[tuple[dict[str, Any], Any, str]] = [
    # By position
    ({"x": X}, "x", "x"),
    ({"x": X}, ("x",), "x"),
    (FLAT, ("x", "w", "b"), "x w b"),
    (FLAT, ["x", None, "b"], "x - b"),
    ({"x": X, "ids": 3, "w": W1}, ("x", "w"), "x w"),
    ({"x": X, "ids": 3, "w": W1}, ("x", None, "w"), "x w"),
    ({"x": X, "w": W1}, ("x", "w", None), "x w"),
    (DICT, ("x", {"W1": "W1", "b1": "b1"}), "x W1 b1"),
    (DICT, ("x", "W1", "b1"), "x W1 b1"),
    (DICT, (None, {"dW1": "W1"}), "- W1"),
    ({"ids": 3, "params": {"W1": W1, "b1": B1}}, (None, {"dW1": "W1"}), "W1"),
    ({"ids": 3, "params": {"W1": W1, "b1": B1}}, {"dW1": "W1"}, "W1"),
    ({"params": {"W1": W1, "training": True}}, "W1", "W1"),
    ({"layer": [W1, B1]}, ("0", "1"), "0 1"),
    ({"x": X, "layer": [W1, B1]}, ("x", ["0", "1"]), "x 0 1"),
    ({"state": Cell(X, B1)}, Cell("h", "c"), "h c"),
    ({"state": Cell(X, B1)}, {"dc": "c", "dh": "h"}, "h c"),
    (LAYERS, ("x", [("0W", "0b"), {"b": "1b", "W": "1W"}]), "x 0W 0b 1W 1b"),
    # By key
    (FLAT, {"w": "w", "x": "x"}, "x w"),
    (FLAT, {"db": "b", "grad_w": "w", "x_grad": "x"}, "x w b"),
    (FLAT, {"d_w": "w"}, "w"),
    (FLAT, SimpleNamespace(dw="w"), "w"),
    ({"x": X, "dx": W1}, {"x": "x", "dx": "dx"}, "x dx"),
    (DICT, {"dx": "x", "dW1": "W1", "db1": "b1"}, "x W1 b1"),
    (DICT, {"x": "x", "params": {"W1": "W1"}}, "x W1"),
    (DICT, {"dparams": {"dW1": "W1"}}, "W1"),
    (DICT, {"params['b1']": "b1"}, "b1"),
    ({"x": X, "params": {"x": W1}}, {"x": "x"}, "x"),
    (LAYERS, {"x": "x", "layers": [None, {"dW": "1W"}]}, "x - - 1W"),
    ({"x": X, "ids": 3}, {"x": "x", "ids": None}, "x"),
    # Neither
    (FLAT, None, "- - -"),
    (FLAT, (None, None, None), "- - -"),
    (DICT, {"params": None}, "- -"),
]


@pytest.mark.parametrize(("args", "returned", "expected"), FORMS)
def test_gradients_are_matched_in_every_form(
    args: dict[str, Any], returned: Any, expected: str
) -> None:
    found = matched(returned, args)
    assert [gradient or "-" for gradient in found.values()] == expected.split()
    for name, gradient in found.items():
        keys = "".join(char for char in name if char not in "[]'.").removeprefix("layers")
        assert keys.endswith(gradient or "")


def test_only_the_gradients_that_were_asked_for_are_matched() -> None:
    assert matched("w", FLAT, "w") == {"w": "w"}
    assert matched(("x", "w", "b"), FLAT, "w") == {"w": "w"}
    assert matched({"x": "x", "w": "w"}, FLAT, "w") == {"w": "w"}
    assert matched({"dW1": "W1"}, DICT, "params['W1']") == {"params['W1']": "W1"}


def test_with_fewer_gradients_than_leaves_names_decide_then_shapes() -> None:
    args = {"x": X, "mask": X, "w": W1}
    names = [*args]
    assert gradients_by_name((X, W1), args, names, ("dx", "dw")) == {"x": X, "w": W1}
    assert gradients_by_name((X, W1), args, names, ("dmask", "dw")) == {"mask": X, "w": W1}
    assert gradients_by_name(X, FLAT, [*FLAT], ("out",)) == {"x": X}
    assert gradients_by_name((X, B1), FLAT, [*FLAT]) == {"x": X, "b": B1}


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ({"weigth": X}, FLAT, "a gradient of weigth, which is none of x, w, b"),
    ({0: X}, FLAT, "a gradient of 0, which is none of x, w, b"),
    ({"W": X}, LAYERS, r"a gradient of W, which may be layers\[0\]\['W'\] or layers\[1\]\['W'\]"),
    ({"w": W1, "dw": W1}, FLAT, "two gradients of w"),
    ((X, W1, B1, B2), FLAT, r"for each of x, w, b \(3 in all\), not 4; wrt says which"),
    ((B1, X), FLAT, r"\(3 in all\), not 2; wrt says .* have one, or None is returned for the oth"),
    # The shape of x and that of the mask are equal.
    (X, {"x": X, "mask": X}, r"a gradient for each of x, mask \(2 in all\), not 1"),
    ((X, (W1, B1, B2)), DICT, r"each of params\['W1'\], params\['b1'\] \(2 in all\), not 3"),
]


@pytest.mark.parametrize(("returned", "args", "message"), REFUSED)
def test_what_cannot_be_matched_is_refused(
    returned: Any, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckError, match=message):
        matched(returned, args)


def test_an_argument_without_a_gradient_is_constant_but_no_leaf_of_a_dict_is_forgotten() -> None:
    layer = SimpleNamespace(W=W1, mean=B1)
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (FLAT, {"x": X}, "x"),
        (FLAT, {"x": X, "w": None}, "x"),
        (FLAT, {}, "x w b"),
        (DICT, {"x": X}, "x"),
        (DICT, {"params['W1']": W1}, "params['W1'] params['b1']"),
        (DICT, {"params['W1']": W1, "params['b1']": None}, "params['W1']"),
        ({"layer": layer}, {"layer.W": W1}, "layer.W"),
    ]
    for args, found, expected in cases:
        assert with_gradient(args, names_of(args), found) == tuple(expected.split())


def test_gradients_that_objects_hold_are_found() -> None:
    inner = [SimpleNamespace(V=W2)]
    layer = SimpleNamespace(W=W1, b=B1, inner=inner, params={"c": B2})
    args = {"x": X, "self": layer}
    after: dict[str, Any] = copy.deepcopy(args)
    after["self"].__dict__.update(dW="W", b_grad="b", rate="?", grads={"dc": "c", "other": "?"})
    after["self"].inner[0].dV = "V"
    found = attribute_gradients(args, after, names_of(args))
    names = ["self.W", "self.b", "self.inner[0].V", "self.params['c']"]
    assert found == dict(zip(names, "WbVc", strict=True))


def test_a_place_for_gradients_is_no_argument() -> None:
    layer = SimpleNamespace(W=W1, dW=W1, d=X, grads={"V": W2}, V=W2, dx=X)
    args = root({"x": X, "dx": X, "self": layer})
    stored = [leaf.name for leaf in args.leaves if stores_a_gradient(leaf, args)]
    assert stored == ["self.dW", "self.grads['V']", "self.dx"]
