"""A report as text, table and JSON: complete, and nothing is cut off."""

import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import W, X, dlinear, doubled_weight, drelu, linear, relu
from rich.console import Console

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck.report import Report, draw, summary_table, wide

RIGHT = gradcheck.check(linear, dlinear, (X, W), title="a linear layer")
WRONG = gradcheck.check(linear, doubled_weight, (X, W), seed=5, title="a wrong linear layer")
ROW = WRONG.rows[1]


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def drawn(what: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue()


def test_kinks_directions_and_slopes_are_shown_as_such() -> None:
    text, kinks = str(gradcheck.check(relu, drelu, (np.where(X > 1, 0, X),))), int((X > 1).sum())
    assert text.splitlines()[-1].startswith(f"note: at a kink of forward: {kinks}, where")
    assert f"{24 - kinks} of 24" in text
    line = line_of(str(gradcheck.check(linear, dlinear, (X, W), directions=3)), "x ")
    assert re.search(r" 3 dir\. +dir\. [012] ", line)
    for backward, slope in ((dlinear, "h^inf"), (doubled_weight, "h^1.00")):
        report = gradcheck.check(linear, backward, (X, W), None, "taylor")
        assert slope in line_of(str(report), "w ")


def test_a_missing_gradient_is_shown_without_numbers() -> None:
    for directions in (None, 2):
        report = gradcheck.check(np.sin, print, (np.array(0.5),), directions=directions)
        assert "scalar" in str(report)
        assert not re.search("nan|inf", str(report))


@pytest.mark.parametrize("width", [60, 104, 300])
def test_at_no_width_anything_is_cut_off(width: int) -> None:
    text = drawn(draw(WRONG, width), width)
    assert "…" not in text
    for part in ("likely cause", "seed=5", "verdict", "headroom", f"{ROW.analytic:.6g}"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


def test_a_summary_shows_the_worst_tensor_of_each_report() -> None:
    text = drawn(summary_table([RIGHT, WRONG]), 300)
    line = line_of(text, "a wrong linear layer")
    assert re.split(" {2,}", line.strip())[1:4] == ["complex step", "w", "2"]


def test_long_names_are_whole_and_brackets_in_them_are_not_markup() -> None:
    name = "[bold]h.10.attn.c_attn.weight" * 10
    row = replace(ROW, name=name, problems=(f"off by {name}", "two"), cause=name)
    report = Report("[red]r", (row,), 0, notes=("[i]n",))
    assert re.search(rf"\[red\]r .* {re.escape(name)} ", drawn(summary_table([report]), 1000))
    title, _, line, *others = str(report).splitlines()
    assert title == "[red]r  WRONG"
    assert re.fullmatch(rf"{re.escape(name)}  .* wrong", line)
    assert others[:3] == [f"{name}: off by {name}", f"{name}: two", f"    likely cause: {name}"]
    assert others[3] == "note: [i]n"


def test_a_file_gets_whole_lines_and_a_terminal_its_own_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Console(file=io.StringIO(), width=70, force_terminal=True)
    assert wide(terminal) is terminal
    assert wide(Console(file=io.StringIO(), width=70)).width > 1000


def test_the_text_has_no_colours_where_a_kernel_asks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in str(Report("r", (ROW,), 0))


def test_a_report_is_right_if_all_its_rows_are_and_the_worst_row_is_wrong_or_near() -> None:
    far, near = (replace(RIGHT.rows[0], headroom=headroom) for headroom in (9.0, 2.0))
    wrong = replace(ROW, headroom=4.0)
    right_report, wrong_report = Report("r", (far, near), 0), Report("r", (far, near, wrong), 0)
    assert (right_report.ok, wrong_report.ok) == (True, False)
    assert (right_report.worst, wrong_report.worst) == (near, wrong)
    assert str(Report("r", (), 0)).startswith("r  WRONG")


def test_json_is_complete_and_has_null_for_nan() -> None:
    row = replace(ROW, analytic=math.nan, relative=math.inf)
    report = Report("r", (row,), 7, ("a note",))
    found = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    (shown,) = found.pop("rows")
    assert found == {"title": "r", "ok": False, "seed": 7, "notes": ["a note"]}
    assert (shown["name"], shown["shape"], shown["verdict"]) == ("w", [6, 5], "wrong")
    assert (shown["analytic"], shown["relative"]) == (None, None)
    assert shown["problems"] == ["off by 1 of its norm"]
