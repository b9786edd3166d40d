"""Tests of the diagram of a model."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.render.diagram import Box, Diagram, boxes
from tinygpt_np.study.render.site import diagrams
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.trace import Trace


@pytest.fixture(scope="module")
def drawn() -> dict[str, Diagram]:
    """Return the diagrams of the index by target."""
    return {target.name: picture for target, picture in diagrams()}


def toy(body: str) -> list[Box]:
    """Return the boxes of a forward of x (2, 3) with these lines; norm and linear are layers."""
    text = "\n    ".join(["def forward(x):", *body.splitlines(), "return y, ()"])
    layer = SimpleNamespace(forward=np.frexp)
    module: dict[str, Any] = {"norm": layer, "linear": layer}
    traced = Trace(find_function(text, "forward", ""), module, {"x": np.ones((2, 3))})
    return boxes([traced], ("x",))


def read(found: list[Box], index: int) -> list[str]:
    return [found[source].text for source in found[index].reads]


def test_a_block_has_its_layers_and_sums_in_the_order_of_its_forward(
    drawn: dict[str, Diagram],
) -> None:
    block = drawn["block"].boxes
    assert [box.text for box in block] == [
        *("x", "layer norm", "linear", "heads", "attention", "linear", "dropout", "+"),
        *("layer norm", "linear", "gelu", "linear", "dropout", "+", "y"),
    ]
    assert read(block, 7) == ["x", "dropout"]
    assert block[13].reads == (7, 12)
    assert [box.layer for box in block if box.text == "layer norm"] == ["ln_1", "ln_2"]


def test_a_layer_links_to_the_page_of_its_operation_and_has_its_iteration(
    drawn: dict[str, Diagram],
) -> None:
    layers = [box for box in drawn["gpt"].boxes if box.kind == "layer"]
    assert [box.layer for box in layers if box.text == "block"] == ["layer = 0", "layer = 1"]
    pages = {box.page for picture in drawn.values() for box in picture.boxes if box.page}
    # Those of newer models are not used by GPT-2, nor is the exact form of GELU.
    newer = {"rms_norm", "relu", "relu_squared", "silu", "swiglu", "rotary", "soft_cap"}
    assert pages == {*targets.OPERATIONS, "block", "heads"} - {"gelu_exact"} - newer


def test_the_gpt_ends_in_its_loss_and_attention_contains_the_softmax(
    drawn: dict[str, Diagram],
) -> None:
    gpt, attention = drawn["gpt"].boxes, drawn["attention"].boxes
    assert [box.text for box in gpt[-4:]] == ["linear", "targets", "cross entropy", "loss"]
    assert read(gpt, -2) == ["linear", "targets"]
    texts = [box.text for box in attention]
    assert texts == ["qkv", "mask", "@", "softmax", "dropout", "@", "y"]
    assert read(attention, 4) == ["softmax", "mask"]
    assert read(attention, 5) == ["dropout", "qkv"]


def test_the_gradient_of_a_value_flows_against_it_with_its_name_and_shape(
    drawn: dict[str, Diagram],
) -> None:
    edges = drawn["gpt"].edges
    assert [each.gradient for each in edges if each.gradient] == [
        *("dtoken_rows (N, C)", "dposition_rows (N, C)", "dembedded (N, C)", "dx (N, C)"),
        *("dx (N, C)", "dx (N, C)", "dnormed (N, C)", "dlogits (N, V)", "dloss ()"),
    ]
    for each in edges:
        if each.gradient:
            assert each.points[0][1] < each.points[-1][1]
            assert each.back[0][1] > each.back[-1][1]
    # Integers have no gradient; neither has a mask.
    without = [each for picture in drawn.values() for each in picture.edges if not each.back]
    assert len(without) == len(["tokens", "positions", "targets", "mask"])
    assert drawn["block"].edges[0].gradient == "dx (N, C)"


def test_other_lines_pass_on_what_they_read() -> None:
    found = toy("a, s = norm.forward(x)\nb = a.reshape(3, 2)\ny, t = linear.forward(b)")
    assert read(found, 2) == ["norm"]
    # A sum with a constant is not a circle, and neither is an elementwise product.
    for line in ("a = x + 1", "a = x * x"):
        assert [box.text for box in toy(f"{line}\ny, s = norm.forward(a)")] == ["x", "norm", "y"]


@pytest.mark.parametrize("name", ["gpt", "block", "attention"])
def test_no_two_boxes_overlap_and_skip_connections_go_around_them(
    drawn: dict[str, Diagram], name: str
) -> None:
    picture = drawn[name]
    right = picture.left + picture.width
    for index, one in enumerate(picture.boxes):
        for other in picture.boxes[:index]:
            is_apart = abs(one.x - other.x) >= one.wide + other.wide
            assert is_apart or abs(one.y - other.y) >= one.half + other.half
        assert picture.left <= one.x - one.wide < one.x + one.wide <= right
        assert one.half <= one.y <= picture.height - one.half
    # A skip connection ends in the side of its circle, and has no labels.
    skips = [each for each in picture.edges if len(each.points) == 4 and not each.name]
    lanes = [max(x for x, _ in each.points) for each in skips]
    assert len(lanes) == {"block": 2, "attention": 1}.get(name, 0)
    assert all(box.x + box.wide < lane < right for box in picture.boxes for lane in lanes)
