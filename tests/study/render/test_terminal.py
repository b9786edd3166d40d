"""Tests of the output in the terminal."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.study_targets import BACKWARD, FORWARD, X, edited, sheet, studied_target
from helpers.user_layer import LAYER_FORWARD, WRONG_BACKWARD, WRONG_LAYER, write_layer
from rich.cells import cell_len
from rich.console import Console, RenderableType

from tinygpt_np.study.proof.sheet import Sheet, study
from tinygpt_np.study.render.page import page_data
from tinygpt_np.study.render.terminal import LEGEND, draw, draw_line, folded
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.targets import user_target

LOOP = """
def forward(x):
    y = [x, x, x]
    for i in range(2):
        x = np.tanh(x)
        y[i] = x
    return x, y

def backward(dx, y):
    for i in [1, 0]:
        dx = dx * (1 - y[i] ** 2)
    return dx
"""


def printed(renderable: RenderableType, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(renderable)
    return out.getvalue()


def shown(sheet: Sheet, width: int = 180) -> str:
    return printed(draw(sheet, width), width)


def shown_at_widths(sheet: Sheet) -> str:
    return shown(sheet, 80) + shown(sheet, 180)


def squeezed(text: str) -> str:
    return "".join(text.split())


def line_shown(sheet: Sheet, number: int) -> str:
    return printed(draw_line(sheet, number, 140), 140)


def line_of(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


# All lines


@pytest.mark.parametrize("width", [80, 250])
@pytest.mark.parametrize("name", ["attention", "layer_norm", "block"])
def test_every_line_is_shown_in_any_terminal(name: str, width: int) -> None:
    found = studied_target(name)
    text = shown(found, width)
    backward = [line for proof in found.proofs for line in proof.lines] if width > 80 else []
    squeezed = "".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert name != "block" or "✓" in line_of(text, "h.0.attn.c_attn.weight")
    assert all("".join(line.text.split())[:24] in squeezed for line in (*found.rows, *backward))


def test_the_backward_is_below_the_forward_in_a_narrow_terminal() -> None:
    text = shown(studied_target("softmax"), 80)
    assert text.index("exps = np.exp(shifted)") < text.index("dshifted = dexps * exps")
    assert "dshifted" not in line_of(text, "exps = np.exp(shifted)")


def test_the_lines_of_a_loop_show_their_iteration() -> None:
    text = shown(sheet(LOOP, {"x": X}))
    assert text.count("# i = 0") == text.count("# i = 1") == 3
    text = line_shown(sheet(LOOP, {"x": X}), 11)
    assert text.count("dx = dx * (1 - y[i] ** 2)") == 2
    # Next to the forward line of the same iteration.
    assert text.count("# i = 0") == text.count("# i = 1") == text.count("x = np.tanh(x)") == 2


def test_a_wrong_line_is_shown_with_its_error_and_cause(tmp_path: Path) -> None:
    found = study(user_target(write_layer(tmp_path, WRONG_LAYER)))
    text = shown(found)
    assert "checked with dx" in line_of(text, "centered = x - mean")
    assert "✗ wrong" in line_of(text, "dx = dxhat / std")
    problems = text.split("layer.py, line 19: dx = dxhat / std")[1]
    assert "likely cause: a path is missing: dx lacks the part through `mean`" in problems
    # The line skips the lines between, so the rule of none of them is its own.
    assert "by the rule" not in problems
    detail = line_shown(found, 19)
    assert "dx, numeric" in detail
    assert "likely cause: a path is missing: dx lacks the part through `mean`" in detail


def test_inherited_errors_are_marked() -> None:
    text = shown(sheet(FORWARD + edited(BACKWARD, ("db = dy.copy()", "db = 2 * dy"))))
    assert "✗ because of db" in line_of(text, "da = db * z")
    # A line that returns several names has no figures itself.
    assert "✗" not in line_of(text, "return dx, dw")
    assert "✗ as above" in text.split("return dx, dw")[1].splitlines()[1]
    assert "wrong as a consequence: da, dz, dx, dw" in text


def test_finite_differences_and_a_backward_without_gradient_names_are_explained(
    tmp_path: Path,
) -> None:
    forward = LAYER_FORWARD.replace("xhat * weight + bias", "np.abs(xhat) * weight + bias")
    target = user_target(write_layer(tmp_path, forward + WRONG_BACKWARD))
    assert "measured by finite differences" in shown(study(target))
    text = """
def forward(x):
    return x * 3, ()

def backward(gradient, saved):
    return gradient * 3
"""
    assert "no line sets d<name>" in shown(sheet(text, {"x": X}))


def test_a_gradient_of_the_wrong_shape_is_shown_with_its_own_shape() -> None:
    text = shown(sheet(FORWARD + edited(BACKWARD, ("dz @ w.T", "dz.sum(axis=0)"))))
    assert re.search(r"dx = dz.sum\(axis=0\) +3 ", text)


def test_errors_in_a_variant_are_shown() -> None:
    target, other = targets.operation("dropout"), targets.operation("dropout-no-mask")
    text = "\n".join(other.backwards[0].lines).replace("dx = dy.copy() if", "dx = 2 * dy if")
    other = replace(other, backwards=(find_function(text, "backward", other.file),), functions=())
    found = study(replace(target, variants=(other,)))
    assert not found.ok
    assert found.proofs[0].ok
    problems = shown(found).split("dropout-no-mask: ")[1]
    assert "1 line wrong" in problems
    assert "dx: off by 1 of its norm" in problems
    assert page_data(found, [])["variants"] == [
        {"title": "dropout-no-mask", "message": "line 36: dx: off by 1 of its norm"}
    ]


def test_a_long_loop_shows_its_first_and_last_rounds_and_those_with_a_mistake() -> None:
    items = ["a", *(f"b{t}" for t in range(6)), "c"]

    def iteration(item: str) -> str:
        return f"t = {item[1]}" if item[0] == "b" else ""

    shown = [*folded(items, iteration, lambda item: item == "b3")]
    assert shown == ["a", "b0", "… t = 1 to 2", "b3", "… t = 4", "b5", "c"]
    assert [*folded(items[:3], iteration, lambda item: False)] == items[:3]
    loop = edited(LOOP, ("range(2)", "range(3)"), ("[1, 0]", "[2, 1, 0]"))
    text = shown_at_widths(sheet(loop, {"x": X}))
    # In the narrow table, on both sides of the wide one.
    assert text.count("… i = 1") == 3


def test_the_formula_of_a_wrong_or_missing_line_is_given_if_its_rule_says_so() -> None:
    text = shown(
        sheet(FORWARD + edited(BACKWARD, ("dz += da * (1 - a * a)", "dz += da * (1 - a)")))
    )
    assert "dz += da * (1 - a)\n" in text.split("own.py, line ")[1]
    assert "  by the rule of line 4: dz = da ∘ (1 - a²)\n" in text
    text = shown(sheet(FORWARD + edited(BACKWARD, ("    dz += db * a\n", ""))))
    assert "dz += …" in text
    assert "by the rule of line 5: dz = db ∘ a" in text


def test_every_mark_that_occurs_is_explained_and_no_other() -> None:
    found = sheet(FORWARD + edited(BACKWARD, ("db = dy.copy()", "db = 2 * dy")))
    for width in (80, 180):
        text = shown(found, width)
        legend = text.split("\n✓ digits")[1].split("\n\n")[0]
        for mark, meaning in LEGEND.items():
            is_used = any(mark in line for line in text.split("\n✓ digits")[0].splitlines())
            assert (squeezed(meaning) in squeezed("✓ digits" + legend)) == is_used, mark


def test_a_gradient_that_could_not_be_measured_is_neither_right_nor_wrong() -> None:
    text = """
def forward(x):
    b = np.linalg.inv(x)
    return b, b

def backward(db, b):
    dx = -b.T @ db @ b.T
    return dx
"""
    rows = np.arange(10)
    text = shown(sheet(text, {"x": 1 / (1.0 + rows[:, None] + rows)}))
    assert "? not measured" in line_of(text, "dx = -b.T @ db @ b.T")
    assert squeezed(LEGEND["not measured"]) in squeezed(text)
    assert "1 could not be measured, the others are right" in text
    assert "wrong" not in text


def test_the_figures_of_a_row_are_those_of_the_name_in_it() -> None:
    found = studied_target("softmax")
    norms = {
        value.name: f"{np.linalg.norm(found.truth.trace.data(value)):.4g}" for value in found.values
    }
    text = shown(found)
    for name, line in {
        "shifted": "shifted = x - largest",
        "exps": "exps = np.exp(shifted)",
    }.items():
        assert norms[name] in line_of(text, line)
    # Other gradients than the one that the line assigns have rows with their names.
    text, norms = shown(studied_target("block")), norms_of(studied_target("block"))
    for name, line in {
        "dnormed_1": "dnormed_1 = grads.keep(",
        "h.0.attn.c_attn.weight": "  h.0.attn.c_attn.weight",
    }.items():
        assert norms[name] in line_of(text, line)


def norms_of(sheet: Sheet) -> dict[str, str]:
    return {each.name: f"{np.linalg.norm(each.found):.4g}" for each in sheet.all_verdicts}


def test_the_derivation_is_shown_if_it_is_asked_for() -> None:
    found = studied_target("layer_norm")
    formula = "∂x̂_j/∂x_i = (δ_ij - 1/C - x̂_i x̂_j / C) / s"
    assert formula not in shown(found)
    text = printed(draw(found, 100, derivation=True), 100)
    assert f"    {formula}" in text
    assert "\nSource: Ba, Kiros, Hinton" in text
    assert max(map(cell_len, text.splitlines())) <= 100
    own = sheet(FORWARD + BACKWARD)
    assert "no derivation" in printed(draw(own, 100, derivation=True), 100)


# One line in detail


def test_a_line_is_shown_with_the_lines_it_is_paired_with_and_its_figures() -> None:
    text = line_shown(studied_target("attention"), 106)
    for part in (
        *("76  products = q @ k.mT", "106  dq = dproducts @ k", "q  2×4×3×5, norm 11.3", "mean"),
        *("complex step, 120 elements: relative error", "analytic", "numeric", "█"),
    ):
        assert part in text, part
    assert "107  dk = " not in text
    text = line_shown(studied_target("attention"), 76)
    assert "106  dq = dproducts @ k" in text
    assert "107  dk = dproducts.mT @ q" in text


def test_a_small_array_is_printed_in_full_and_a_line_without_gradients_shows_what_it_sets() -> None:
    values = studied_target("linear").truth.target.args["bias"]
    text = line_shown(studied_target("linear"), 28)
    assert all(f"{value:.4f}".rstrip("0") in text for value in values)
    assert "scale = 0.447" in line_shown(studied_target("attention"), 74)
    assert " █ █ ·\n" in line_shown(studied_target("attention"), 75)


def test_another_line_number_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(StudyError, match=r"--line must be one of 23, 27, 28, 29, 36, .*, not 1"):
        line_shown(studied_target("linear"), 1)


def test_a_line_of_the_closed_form_shows_its_derivation_and_no_rule() -> None:
    text = line_shown(studied_target("softmax"), 53)
    assert "rule" not in text
    assert "∂p_j/∂x_i = p_j (δ_ij - p_i)" in text
    text = line_shown(studied_target("softmax"), 39)
    assert "rule of line 29: quotient" in text
    assert "dtotal = -Σ_V (dprobs ∘ probs / total)" in text
    assert "because total was broadcast along V" in text
