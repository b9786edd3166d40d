"""What a report looks like: all that is needed is there, and nothing is cut off."""

import io
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import W, X, dlinear, drelu, linear, relu
from rich.console import Console

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck.report import Report, Row, as_text, draw, summary_table, wide


def wrong(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    dx, dw = dlinear(dy, saved)
    return dx, 2 * dw


RIGHT = gradcheck.check(linear, dlinear, (X, W), title="a linear layer")
WRONG = gradcheck.check(linear, wrong, (X, W), seed=5, title="a wrong linear layer")
ROW = WRONG.rows[1]
LONG = "h.10.attn.c_attn.weight" * 10


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def drawn(what: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue()


def test_a_report_prints_as_its_text() -> None:
    assert str(WRONG) == as_text(WRONG)


def test_the_first_line_says_what_was_checked_and_what_came_of_it() -> None:
    assert str(RIGHT).splitlines()[0] == "a linear layer  every gradient is right"
    assert str(WRONG).splitlines()[0] == "a wrong linear layer  WRONG"


def test_a_row_has_everything_that_was_found() -> None:
    line = line_of(str(WRONG), "w ")
    expected = [
        "w", "6×5", "30", str(list(ROW.index)), f"{ROW.analytic:.6g}", f"{ROW.numeric:.6g}",
        f"{ROW.absolute:.1e}", f"{ROW.relative:.1e}", f"{ROW.bound:.1e}", "-", "wrong",
    ]  # fmt: skip
    assert line.replace(", ", ",").split() == [cell.replace(", ", ",") for cell in expected]


def test_a_right_row_says_how_much_larger_an_error_could_be() -> None:
    assert re.search(r"\d+× +ok$", line_of(str(RIGHT), "w "))


def test_every_column_has_a_name() -> None:
    assert str(RIGHT).splitlines()[1].split("  ")[0] == "tensor"
    for name in ("shape", "checked", "worst at", "analytic", "numeric", "absolute", "relative",
                 "bound", "headroom", "verdict"):  # fmt: skip
        assert name in str(RIGHT).splitlines()[1]


def test_what_is_wrong_stands_below_in_words_with_its_cause_and_its_seed() -> None:
    below = str(WRONG).splitlines()[4:]
    assert below == [
        "w: off by 1 of its norm",
        "    likely cause: too large by a factor of 2: counted twice",
        "seed=5 reproduces it",
    ]


def test_a_right_report_has_no_seed_and_no_cause() -> None:
    assert len(str(RIGHT).splitlines()) == 4


def test_every_problem_has_a_line() -> None:
    both = replace(ROW, problems=("one", "two"))
    lines = str(Report("r", (both,), 0)).splitlines()
    assert "w: one" in lines
    assert "w: two" in lines


def test_notes_stand_below() -> None:
    x = np.where(X > 1, 0, X)
    assert str(gradcheck.check(relu, drelu, (x,))).splitlines()[-1].startswith("note: skipped:")


def test_kinks_are_shown_as_places_that_were_not_checked() -> None:
    x = np.where(X > 1, 0, X)
    kinks = int((X > 1).sum())
    assert f"{24 - kinks} of 24" in str(gradcheck.check(relu, drelu, (x,)))


def test_directions_are_shown_as_such() -> None:
    line = line_of(str(gradcheck.check(linear, dlinear, (X, W), directions=3)), "x ")
    assert "3 dir." in line
    assert re.search(r"dir\. [012]", line)


def test_the_slope_is_shown_as_a_power() -> None:
    right = gradcheck.check(linear, dlinear, (X, W), method="taylor")
    assert "h^inf" in line_of(str(right), "w ")
    assert "h^1.00" in line_of(str(gradcheck.check(linear, wrong, (X, W), method="taylor")), "w ")


def test_the_row_of_a_gradient_that_is_none_is_drawn_without_numbers() -> None:
    for directions in (None, 2):
        report = gradcheck.check(np.sin, print, (np.array(0.5),), directions=directions)
        line = line_of(str(report), str(report.rows[0].name))
        assert "scalar" in line
        assert "nan" not in line
        assert "inf" not in line


def named(name: str, title: str = "r") -> Report:
    row: Row = replace(ROW, name=name, shape=(1000, 1000, 1000), index=(999, 999, 999))
    return Report(title, (replace(row, problems=("off by " + LONG,), cause=LONG),), 0)


def test_no_name_is_cut_off() -> None:
    text = str(named(LONG, "r"))
    assert "…" not in text
    assert line_of(text, LONG + " ").endswith("wrong")
    assert f"    likely cause: {LONG}" in text.splitlines()
    assert f"{LONG}: off by {LONG}" in text.splitlines()


def test_no_line_ends_in_blanks() -> None:
    assert all(line == line.rstrip() for line in str(named(LONG)).splitlines())


@pytest.mark.parametrize("width", [60, 80, 104, 120, 300])
def test_in_a_narrow_terminal_nothing_is_cut_off(width: int) -> None:
    text = drawn(draw(WRONG, width), width)
    assert "…" not in text
    for part in ("likely cause", "seed=5", "verdict", "headroom", f"{ROW.analytic:.6g}"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_no_name_in_a_summary_is_cut_off(width: int) -> None:
    text = drawn(summary_table([RIGHT, named("h.0.attn.c_attn.weight")]), width)
    assert "…" not in text
    assert "wrong" in text


def test_a_summary_shows_the_worst_tensor_of_each_report() -> None:
    text = drawn(summary_table([RIGHT, WRONG]), 300)
    line = line_of(text, "a wrong linear layer")
    assert re.split(" {2,}", line.strip())[1:4] == ["complex step", "w", "2"]


def test_brackets_in_a_name_are_no_markup() -> None:
    report = replace(named("[bold]x[/bold]", "[red]r"), notes=("[i]n",))
    for text in (str(report), drawn(summary_table([report]), 300)):
        assert "[bold]x[/bold]" in text
        assert "[red]r" in text


def test_a_file_gets_whole_lines_and_a_terminal_its_own_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Console(file=io.StringIO(), width=70, force_terminal=True)
    assert wide(terminal) is terminal
    assert wide(Console(file=io.StringIO(), width=70)).width > 1000


def test_numbers_that_are_none_are_dashes() -> None:
    none = replace(ROW, analytic=math.nan, numeric=math.nan, absolute=math.nan, relative=math.inf)
    line = line_of(str(Report("r", (none,), 0)), "w ")
    assert line.split()[3:8] == ["-"] * 5
