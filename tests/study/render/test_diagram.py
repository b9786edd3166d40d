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


def toy(body: str) -> list[Box]:
    """Return the boxes of a forward of x (2, 3) with these lines; norm and linear are layers."""
    text = "\n    ".join(["def forward(x):", *body.splitlines(), "return y, ()"])
    layer = SimpleNamespace(forward=np.frexp)
    module: dict[str, Any] = {"norm": layer, "linear": layer}
    return boxes(Trace(find_function(text, "forward", ""), module, {"x": np.ones((2, 3))}))


def read(found: list[Box], index: int) -> list[str]:
    return [found[source].text for source in found[index].reads]


def test_a_block_has_its_layers_and_sums_in_the_order_of_its_forward() -> None:
    block = boxes(traced("block"))
    assert [box.text for box in block] == [
        *("x", "layer norm", "linear", "attention", "linear", "dropout", "+"),
        *("layer norm", "linear", "gelu", "linear", "dropout", "+", "y"),
    ]
    assert read(block, 6) == ["x", "dropout"]
    assert block[12].reads == (6, 11)
    assert [box.layer for box in block if box.text == "layer norm"] == ["ln_1", "ln_2"]


def test_a_layer_links_to_the_page_of_its_operation_and_has_its_iteration() -> None:
    layers = [box for box in boxes(traced("gpt")) if box.kind == "layer"]
    assert {box.page for box in layers} == {
        *("embedding", "dropout", "block", "layer_norm", "linear")
    }
    assert [box.layer for box in layers if box.text == "block"] == ["layer = 0", "layer = 1"]


def test_other_lines_pass_on_what_they_read() -> None:
    found = toy("a, s = norm.forward(x)\nb = a.reshape(3, 2)\ny, t = linear.forward(b)")
    assert read(found, 2) == ["norm"]
    # A sum with a constant is not a circle, and neither is a product.
    for line in ("a = x + 1", "a = x * x"):
        assert [box.text for box in toy(f"{line}\ny, s = norm.forward(a)")] == ["x", "norm", "y"]


@pytest.mark.parametrize("name", ["gpt", "block"])
def test_no_two_boxes_overlap_and_skip_connections_go_around_them(name: str) -> None:
    drawn = diagram(traced(name))
    for index, one in enumerate(drawn.boxes):
        for other in drawn.boxes[:index]:
            assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= one.half + other.half
        assert WIDTH / 2 <= one.x <= drawn.width - WIDTH / 2
        assert one.half <= one.y <= drawn.height - one.half
    skips = [re.findall(r"H([\d.]+)", edge.path) for edge in drawn.edges if edge.is_skip]
    lanes = [max(map(float, turns)) for turns in skips]
    assert len(lanes) == (2 if name == "block" else 0)
    assert all(box.x + WIDTH / 2 < lane for box in drawn.boxes for lane in lanes)
