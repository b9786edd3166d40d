"""Tests of paths: names of values in objects and containers, and names of gradients."""

import ast
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.source.paths import (
    differentiated,
    expression,
    leaf,
    overlap,
    parsed,
    read,
    resolve,
    store,
)


class Layer:
    """An object with data, a method, a static method and a property."""

    scale = 2

    def __init__(self) -> None:
        self.W, self.cache = np.ones(3), {"x": np.zeros(2)}

    def forward(self) -> None:
        """Do nothing."""

    @staticmethod
    def act() -> None:
        """Do nothing."""

    @property
    def computed(self) -> int:
        """A value that depends on the whole object."""
        return 1


def namespace() -> dict[str, Any]:
    net = SimpleNamespace(layers=[Layer(), Layer()])
    return {
        "net": net, "layer": net.layers[1], "x": np.ones((2, 3)), "params": {"W1": np.ones(2)},
        "hs": {-1: 3, 0: 4}, "pair": (1, 2), "t": 0, "i": np.int64(1), "np": np,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("x", "x"), ("params['W1']", "params['W1']"), ('params["W" + str(1)]', None),
        ("params[f'W{i}']", "params['W1']"), ("hs[t - 1]", "hs[-1]"), ("hs[t]", "hs[0]"),
        ("pair[-1]", "pair[1]"), ("net.layers[i].W", "net.layers[1].W"),
        # One object goes by its first name.
        ("layer.W", "net.layers[1].W"), ("layer", "layer"),
        ("layer.cache['x']", "net.layers[1].cache['x']"), ("layer.scale", "net.layers[1].scale"),
        ("layer.act", "net.layers[1].act"), ("layer.forward", None), ("layer.computed", None),
        # A path ends at an array, and does not lead into modules.
        ("x.T", None), ("x[0]", None), ("x[:, t]", None), ("params['W1'][0]", None),
        ("np.pi", None), ("pair[:1]", None), ("f(x)", None), ("params['none']", "params['none']"),
    ],
)  # fmt: skip
def test_an_expression_has_a_path_if_it_leads_through_containers(
    written: str, path: str | None
) -> None:
    node = ast.parse(written, mode="eval").body
    assert resolve(node, namespace()) == path
    if path is not None and path != "params['none']":
        value = eval(written, namespace())
        here = namespace()
        assert np.array_equal(read(here, path), value) or type(read(here, path)) is type(value)
        assert ast.unparse(expression(path)) == path


def test_a_value_is_stored_where_its_path_leads() -> None:
    here = namespace()
    for path in ("x", "params['W1']", "hs[7]", "net.layers[1].W", "net.layers[0].cache['new']"):
        store(here, path, "new")
        assert read(here, path) == "new"
    assert here["layer"].W == "new"
    here["pairs"] = [(1, np.ones(2))]
    store(here, "pairs[0][1]", "new")
    assert here["pairs"] == [(1, "new")]
    assert read(here, "net.layers[9].W") is None
    assert read(here, "net.nothing") is None


def test_paths_overlap_if_one_leads_to_a_part_of_the_other() -> None:
    assert parsed("x in forward.a['b.c'][0]") == (
        "x in forward",
        ((".", "a"), ("[", "b.c"), ("[", 0)),
    )
    assert overlap("a", "a")
    assert overlap("a.b", "a")
    assert overlap("a", "a['b'].c")
    assert not overlap("a", "ab")
    assert not overlap("a.b", "a.bc")
    assert not overlap("a.b", "a.c")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x", "x"), ("self.a", "a"), ("params['W1']", "W1"), ("x in forward 2", "x"),
        ("hs[0]", "hs[0]"), ("self.hs[-1]", "hs[-1]"), ("layers[0].W", "W"),
    ],
)  # fmt: skip
def test_the_leaf_of_a_path_is_its_last_name(path: str, name: str) -> None:
    assert leaf(path) == name


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("dx", ["x"]), ("d_x", ["x", "_x"]), ("grad_x", ["x"]), ("x_grad", ["x"]),
        ("dL_dx", ["x", "L_dx"]), ("self.dx", ["x"]), ("grads['dx']", ["x", "dx"]),
        ("grads['x']", ["x"]), ("self.grads['W1']", ["W1"]), ("params['W1']", []), ("x", []),
        ("dx in backward", ["x"]), ("dhs[0]", ["hs[0]"]), ("d", []), ("dW", ["W"]),
    ],
)  # fmt: skip
def test_a_name_is_a_gradient_of_others(path: str, names: list[str]) -> None:
    assert [*differentiated(path)] == names
