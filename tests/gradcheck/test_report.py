"""A report as text, table and JSON: complete, and nothing is cut off."""

import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import W, X, dlinear, drelu, linear, relu
from rich.console import Console

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck.report import Report, draw, summary_table, wide


def wrong(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    dx, dw = dlinear(dy, saved)
    return dx, 2 * dw


RIGHT = gradcheck.check(linear, dlinear, (X, W), title="a linear layer")
WRONG = gradcheck.check(linear, wrong, (X, W), seed=5, title="a wrong linear layer")
ROW = WRONG.rows[1]
LONG = "[bold]h.10.attn.c_attn.weight" * 10


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def drawn(what: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue()


def test_a_row_shows_every_number() -> None:
    line = line_of(str(WRONG), "w ")
    expected = [
        "w", "6×5", "30", str(list(ROW.index)), f"{ROW.analytic:.6g}", f"{ROW.numeric:.6g}",
        f"{ROW.absolute:.1e}", f"{ROW.relative:.1e}", f"{ROW.bound:.1e}", "-", "wrong",
    ]  # fmt: skip
    assert line.replace(", ", ",").split() == [cell.replace(", ", ",") for cell in expected]


def test_the_verdict_precedes_the_table_and_problems_cause_and_seed_follow_it() -> None:
    first, *_, problem, cause, seed = str(WRONG).splitlines()
    assert first == "a wrong linear layer  WRONG"
    assert problem == "w: off by 1 of its norm"
    assert cause == "    likely cause: too large by a factor of 2: counted twice"
    assert seed == "seed=5 reproduces it"
    assert str(RIGHT).splitlines()[0] == "a linear layer  every gradient is right"
    assert len(str(RIGHT).splitlines()) == 4
    lines = str(Report("r", (replace(ROW, problems=("one", "two")),), 0)).splitlines()
    assert lines[3:5] == ["w: one", "w: two"]


def test_kinks_are_counted_and_noted() -> None:
    text, kinks = str(gradcheck.check(relu, drelu, (np.where(X > 1, 0, X),))), int((X > 1).sum())
    note = f"note: skipped: {kinks} at a kink of forward, where there is no derivative"
    assert text.splitlines()[-1] == note
    assert f"{24 - kinks} of 24" in text


def test_directions_are_shown_as_such() -> None:
    line = line_of(str(gradcheck.check(linear, dlinear, (X, W), directions=3)), "x ")
    assert "3 dir." in line
    assert re.search(r"dir\. [012]", line)


def test_the_slope_is_shown_as_a_power() -> None:
    right = gradcheck.check(linear, dlinear, (X, W), method="taylor")
    assert "h^inf" in line_of(str(right), "w ")
    assert "h^1.00" in line_of(str(gradcheck.check(linear, wrong, (X, W), method="taylor")), "w ")


def test_a_missing_gradient_is_shown_without_numbers() -> None:
    for directions in (None, 2):
        report = gradcheck.check(np.sin, print, (np.array(0.5),), directions=directions)
        line = line_of(str(report), str(report.rows[0].name))
        assert "scalar" in line
        assert "nan" not in line
        assert "inf" not in line


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
    row = replace(ROW, name=LONG, problems=(f"off by {LONG}",), cause=LONG)
    report = Report("[red]r", (row,), 0, notes=("[i]n",))
    assert re.search(rf"\[red\]r .* {re.escape(LONG)} ", drawn(summary_table([report]), 1000))
    lines = str(report).splitlines()
    assert lines[0].startswith("[red]r  ")
    assert lines[-2] == "note: [i]n"
    assert line_of(str(report), f"{LONG} ").endswith("wrong")
    assert f"    likely cause: {LONG}" in lines
    assert f"{LONG}: off by {LONG}" in lines
    assert all(line == line.rstrip() for line in lines)


def test_a_file_gets_whole_lines_and_a_terminal_its_own_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Console(file=io.StringIO(), width=70, force_terminal=True)
    assert wide(terminal) is terminal
    assert wide(Console(file=io.StringIO(), width=70)).width > 1000


# Verdict and JSON


def test_a_report_is_right_if_it_has_rows_and_all_are_right() -> None:
    right, wrong = RIGHT.rows[0], ROW
    assert Report("r", (right, right), 0).ok
    assert not Report("r", (right, wrong), 0).ok
    assert not Report("r", (), 0).ok
    assert str(Report("r", (), 0)).startswith("r  WRONG")


def test_the_worst_row_is_wrong_or_has_the_least_headroom() -> None:
    far, near = (replace(RIGHT.rows[0], headroom=headroom) for headroom in (9.0, 2.0))
    assert Report("r", (far, near), 0).worst is near
    assert Report("r", (far, near, ROW), 0).worst is ROW


def test_json_is_complete_and_has_null_for_nan() -> None:
    missing = gradcheck.check(np.sin, print, (np.array(0.5),)).rows[0]
    report = Report("r", (ROW, missing), 7, ("a note",))
    found = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert {**found, "rows": []} == {
        "title": "r", "ok": False, "seed": 7, "notes": ["a note"], "rows": [],
    }  # fmt: skip
    wrong, none = found["rows"]
    assert (wrong["name"], wrong["shape"], wrong["verdict"]) == ("w", [6, 5], "wrong")
    assert (none["analytic"], none["relative"]) == (None, None)
    assert none["problems"] == ["there is no gradient"]
