"""One line opened in a terminal."""

import io
from functools import cache
from pathlib import Path

import pytest
from helpers.architecture import line_of
from own_layer import FORWARD, WRONG, written
from rich.console import Console

from tinygpt_np.study import targets
from tinygpt_np.study.opened import open_line
from tinygpt_np.study.own import own
from tinygpt_np.study.sheet import Sheet, study
from tinygpt_np.study.source import StudyError


@cache
def sheet(name: str) -> Sheet:
    return study(targets.named(name))


def shown(sheet: Sheet, number: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=140, highlight=False)
    console.print(open_line(sheet, number, console))
    return out.getvalue()


def test_a_backward_line_is_opened_with_the_line_it_undoes() -> None:
    text = shown(sheet("attention"), 84)
    assert "54  products = q @ k.mT" in text
    assert "84  dq = dproducts @ k" in text
    assert "dk = " not in text


def test_a_forward_line_is_opened_with_all_lines_that_undo_it() -> None:
    text = shown(sheet("attention"), 54)
    assert "84  dq = dproducts @ k" in text
    assert "85  dk = dproducts.mT @ q" in text


def test_the_rule_of_the_line_is_told() -> None:
    text = shown(sheet("attention"), 54)
    assert "rule: matrix product with a transpose" in text
    assert "dB = dYᵀ A" in text


def test_a_call_names_the_operation_that_has_the_rule() -> None:
    assert "tinygpt study softmax" in shown(sheet("attention"), 57)


def test_the_numbers_behind_the_verdict_are_told() -> None:
    text = " ".join(shown(sheet("attention"), 84).split())
    assert "complex step, 120 places: relative error" in text
    assert "by hand" in text
    assert "measured" in text


def test_a_small_array_is_printed_whole() -> None:
    values = sheet("linear").truth.target.args["bias"]
    text = shown(sheet("linear"), 28)
    assert all(f"{value:.4f}".rstrip("0") in text for value in values)


def test_a_large_array_is_a_summary_and_a_heat_map() -> None:
    text = shown(sheet("attention"), 84)
    assert "q  2×4×3×5, norm 11.3" in text
    assert "mean" in text
    assert "█" in text


def test_a_line_of_the_closed_form_can_be_opened() -> None:
    assert "along_xhat" in shown(sheet("layer_norm"), 83)


def test_a_line_without_gradients_shows_what_it_sets() -> None:
    assert "scale = 0.447" in shown(sheet("attention"), 52)
    assert "True False False" in shown(sheet("attention"), 53)


def test_a_line_in_a_loop_is_opened_for_each_round() -> None:
    text = shown(sheet("gpt"), line_of("dx = self.block_backward", "model", "gpt.py"))
    assert "# layer = 0" in text
    assert "# layer = 1" in text


def test_a_wrong_gradient_stands_beside_the_measured_one(tmp_path: Path) -> None:
    text = shown(study(own(written(tmp_path, FORWARD + WRONG))), 19)
    assert "dx, measured" in text
    assert "likely cause: a mean or sum is missing" in text


def test_another_number_is_refused_with_those_that_can_be_opened() -> None:
    with pytest.raises(StudyError, match=r"no line 1 to open; there are: 23, 27, 28, 29, 36"):
        shown(sheet("linear"), 1)
