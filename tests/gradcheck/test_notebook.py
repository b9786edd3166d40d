"""A report in a notebook shows every element in its place, and contains nothing that runs."""

from dataclasses import replace

import numpy as np
import pytest
from gradcheck.functions import W, X, dlinear, doubled_weight, linear
from helpers.html_pages import Page, html_of

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck.notebook import COLUMNS, FEW, ROWS, HeatMap, heat_map
from tinygpt_np.gradcheck.report import Report

WRONG = gradcheck.check(linear, doubled_weight, (X, W), title="<b>bold</b>")


def worst(drawn: HeatMap) -> str:
    (place,) = (cell.place for row in drawn.rows for cell in row if cell.is_worst)
    return place


@pytest.mark.parametrize(
    ("shape", "index", "part"),
    [
        ((), (), ""),
        ((6,), (4,), ""),
        ((4, 6), (3, 0), ""),
        ((2, 3, 4, 6), (1, 2, 3, 5), "[1, 2, :, :]"),
        ((100,), (99,), f"[{100 - COLUMNS}:100]"),
        ((100, 5), (50, 1), f"[{50 - ROWS // 2}:{50 + ROWS // 2}, :]"),
        ((3, 100, 100), (2, 0, 50), f"[2, 0:{ROWS}, {50 - COLUMNS // 2}:{50 + COLUMNS // 2}]"),
    ],
)
def test_a_heat_map_has_the_worst_element_at_its_place(
    shape: tuple[int, ...], index: tuple[int, ...], part: str
) -> None:
    array = np.arange(float(np.prod(shape))).reshape(shape)
    drawn = heat_map("found", array, index, 1.0)
    assert drawn.part == part
    assert worst(drawn) == str(list(index))
    for row in drawn.rows:
        for cell in row:
            place = tuple(int(i) for i in cell.place.strip("[]").split(", ") if i)
            assert float(cell.text) == pytest.approx(array[place], rel=1e-2)
    assert drawn.with_numbers == (sum(map(len, drawn.rows)) <= FEW)


def test_a_cell_is_darker_the_larger_its_number_and_marks_what_is_not_finite() -> None:
    array = np.array([-4.0, -1.0, 0.0, 2.0, np.nan, np.inf, 9.0])
    (row,) = heat_map("found", array, (0,), 4.0).rows
    signs = " ".join(cell.sign for cell in row)
    assert signs == "minus minus zero plus bad bad plus"
    percents = [cell.percent for cell in row]
    assert percents[0] == percents[6] == 100
    assert percents[0] > percents[3] > percents[1] > percents[2] == 0


def test_a_report_shows_its_table_problem_cause_and_three_heat_maps() -> None:
    html = html_of(WRONG)
    page = Page(html)
    assert (page.open, page.loaded) == ([], [])
    assert "<script" not in html
    # The text is for readers that remove the style.
    assert page.text.count("likely cause: a factor too many: leave out") == 2
    assert page.text.count("<b>bold</b> WRONG") == 2
    for title in ("found", "expected", "difference"):
        assert f"<b>{title}</b>" in html
    assert html.count("<figure>") == 3
    row = WRONG.rows[1]
    assert f'title="{list(row.index)} {row.analytic:.3g}"' in html


def test_a_right_report_has_no_heat_map_and_an_odd_one_is_shown_too() -> None:
    right = gradcheck.check(linear, dlinear, (X, W), title="a linear layer")
    assert "every gradient is right" in html_of(right)
    assert "<figure>" not in html_of(right)
    missing = gradcheck.check(np.sin, print, (np.array(0.5),))
    assert "there is no gradient" in html_of(missing)
    directions = gradcheck.check(linear, doubled_weight, (X, W), directions=3)
    assert "dir." in html_of(directions)
    assert "WRONG" in html_of(Report("nothing", (), 0))


def test_what_could_not_be_measured_is_neither_right_nor_wrong() -> None:
    row = replace(WRONG.rows[1], problems=(), unmeasured="forward is rough")
    html = html_of(Report("rough", (row,), 0))
    assert '<span class="unmeasured">could not be measured</span>' in html
    assert '<span class="unmeasured">forward is rough</span>' in html
    assert 'class="wrong"' not in html


def test_code_in_a_cause_is_shown_as_code() -> None:
    row = replace(WRONG.rows[1], cause="write `a < b` for `<i>`")
    html = html_of(Report("code", (row,), 0))
    assert "write <code>a &lt; b</code> for <code>&lt;i&gt;</code>" in html


def test_the_representation_is_the_text() -> None:
    assert repr(WRONG) == str(WRONG)
