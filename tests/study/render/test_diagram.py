"""Tests of the diagram of a model."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.render.diagram import WIDTH, Box, boxes, diagram
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.trace import Trace


def traced(name: str) -> Trace:
    target = targets.named_target(name)
    return Trace(target.forward, target.module, target.args)


def toy(body: str) -> Trace:
    """Trace a forward of x (2, 3) with the given lines; norm and linear are layers."""
    text = "\n    ".join(["def forward(x):", *body.splitlines(), "return y, ()"])
    layer = SimpleNamespace(forward=doubled)
    module: dict[str, Any] = {"norm": layer, "linear": layer}
    return Trace(find_function(text, "forward", "toy.py"), module, {"x": np.ones((2, 3))})


def doubled(x: np.ndarray) -> tuple[np.ndarray, tuple[()]]:
    return 2 * x, ()


def names(found: list[Box]) -> list[str]:
    return [box.text for box in found]


def read(found: list[Box], index: int) -> list[str]:
    return [found[source].text for source in found[index].reads]


@pytest.fixture(scope="module")
def block() -> list[Box]:
    return boxes(traced("block"))


@pytest.fixture(scope="module")
def gpt() -> list[Box]:
    return boxes(traced("gpt"))


def test_a_block_has_its_layers_in_the_order_of_its_forward(block: list[Box]) -> None:
    assert names(block) == [
        *("x", "layer norm", "linear", "attention", "linear", "dropout", "+"),
        *("layer norm", "linear", "gelu", "linear", "dropout", "+", "y"),
    ]


def test_each_layer_links_to_the_page_of_its_operation(block: list[Box], gpt: list[Box]) -> None:
    pages = {box.page for box in (*block, *gpt) if box.kind == "layer"}
    assert pages == {
        "layer_norm", "linear", "attention", "dropout", "gelu", "embedding", "block"
    }  # fmt: skip
    assert pages <= {*targets.NAMES}


def test_a_sum_reads_the_branch_and_the_skip_connection(block: list[Box]) -> None:
    assert read(block, 6) == ["x", "dropout"]
    assert block[12].reads == (6, 11)


def test_a_layer_has_its_name_or_iteration(block: list[Box], gpt: list[Box]) -> None:
    assert [box.layer for box in block if box.text == "layer norm"] == ["ln_1", "ln_2"]
    assert [box.layer for box in gpt if box.text == "block"] == ["layer = 0", "layer = 1"]


def test_a_line_that_is_not_a_layer_passes_on_what_it_reads() -> None:
    found = boxes(toy("a, s = norm.forward(x)\nb = a.reshape(3, 2)\ny, t = linear.forward(b)"))
    assert read(found, 2) == ["norm"]


def test_a_sum_with_a_constant_is_not_a_circle() -> None:
    assert names(boxes(toy("a = x + 1\ny, s = norm.forward(a)"))) == ["x", "norm", "y"]


def test_each_iteration_of_a_loop_is_a_box() -> None:
    found = boxes(toy("y = x\nfor n in range(3):\n    y, s = norm.forward(y)"))
    assert [box.layer for box in found if box.kind == "layer"] == ["n = 0", "n = 1", "n = 2"]


def test_a_skip_connection_goes_around_the_boxes() -> None:
    drawn = diagram(traced("block"))
    lane = max(float(x) for edge in drawn.edges if edge.is_skip for x in horizontals(edge.path))
    assert sum(edge.is_skip for edge in drawn.edges) == 2
    assert all(each.x + WIDTH / 2 < lane for each in drawn.placed)


def horizontals(path: str) -> list[str]:
    return re.findall(r"H([\d.]+)", path)


@pytest.mark.parametrize("name", ["gpt", "block"])
def test_no_two_boxes_overlap_and_all_are_inside_the_diagram(name: str) -> None:
    drawn = diagram(traced(name))
    for index, one in enumerate(drawn.placed):
        for other in drawn.placed[:index]:
            assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= one.half + other.half

    assert all(WIDTH / 2 <= each.x <= drawn.width - WIDTH / 2 for each in drawn.placed)
    assert all(each.half <= each.y <= drawn.height - each.half for each in drawn.placed)
