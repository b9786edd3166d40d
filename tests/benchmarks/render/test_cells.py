"""The cells of a row."""

from typing import Any

import pytest
from helpers.kernel_results import candidate, record

from benchmarks.render import cells


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1.234e-9, "0.00000123"), (9.96e-7, "0.000996"), (1.234e-5, "0.0123"), (9.987e-5, "0.0999"),
        (1.2346e-4, "0.1235"), (0.0123456, "12.35"), (9.87654, "9877"), (187.6543, "187,654"),
    ],
)  # fmt: skip
def test_milliseconds_have_three_digits_or_more_and_no_exponent(seconds: float, shown: str) -> None:
    assert cells.milliseconds(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.00123, "0.0012"), (0.25, "0.25"), (9.876, "9.88"), (12.34, "12.3"), (98765.4, "98,765"),
     (6.1e10, "6.1e+10")],
)  # fmt: skip
def test_numbers_are_never_rounded_to_zero(value: float, shown: str) -> None:
    assert cells.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.25, "0.25"), (999.4, "999"), (999_999, "1 M"), (12_345, "12.3 k"), (4.56e16, "4.56e+04 T")],
)
def test_counts_have_a_prefix(value: float, shown: str) -> None:
    assert cells.prefixed(value) == shown


def test_rows_of_equal_names_are_told_apart_by_whose_they_are() -> None:
    rows = [
        candidate("NumPy"), candidate("NumPy", by="numpy", reference=True), candidate("NumPy", 2),
        candidate("tiles", by="mine"), candidate("tiles"), candidate("PyTorch", by="torch"),
    ]  # fmt: skip
    assert cells.names(rows) == [
        "NumPy (ours)", "NumPy (peer numpy)", "NumPy ×2", "tiles (mine)", "tiles (ours)", "PyTorch"
    ]  # fmt: skip
    found = record(rows=rows)
    found["controls"] = [{**rows[1], "ratio": cells.Interval(2, 1, 3, 0.9)}]
    assert cells.controls_in_words(found) == "A/A: NumPy (peer numpy) 2.00 (1.00–3.00)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wrong": "y[0]"}, "WRONG"), ({"failed": "killed by signal 11"}, "FAILED"),
        ({"turns": [], "offered": False, "able": False}, "not offered"),
        ({"turns": [], "able": False}, "too slow"), ({"turns": []}, "no turn"), ({}, ""),
    ],
)  # fmt: skip
def test_a_row_says_why_it_has_no_times_and_those_of_a_wrong_kernel_are_not_shown(
    changes: dict[str, Any], reason: str
) -> None:
    found = record(rows=[candidate("loops", **changes)])
    (row,) = found["rows"]
    assert cells.why_not(row) == reason
    assert [*cells.figures(found, row)] == (
        ["first ms"] if reason else ["ms", "GFLOP/s", "GB/s", "of limit", "first ms"]
    )


def test_notes_are_what_stands_below_a_table() -> None:
    row = candidate("a", layouts="contiguous only", warnings=["A/A 1.4", "1.1 CPUs"])
    row["unresolved"] = "1.1 CPUs"
    assert cells.notes(row) == ["no verdict: 1.1 CPUs", "A/A 1.4", "contiguous only"]
    assert cells.notes(candidate("a", layouts="any", warnings=[], unresolved=None)) == []


def test_a_kernel_of_the_user_is_told_how_many_times_as_fast_as_others_it_is() -> None:
    mine = candidate("k.py:f", by="mine", reference=True, turns=[[0.005]] * 6)
    wrong = candidate("k.py:g", by="mine", reference=True, wrong="y[0] is 1")
    rows = [candidate("tiles"), mine, wrong, candidate("theirs", by="torch", reference=True)]
    found = record(rows=rows)
    found["rows"][1]["against"][1] |= {"verdict": "same", "unresolved": "no A/A of torch"}
    assert cells.against_in_words(found) == [
        "k.py:f, times as fast: 2.05 (2.00–2.10) ▲ as tiles, 4.10 (4.00–4.20) ? as theirs"
    ]


def test_the_share_of_a_limit_that_was_disturbed_is_not_shown() -> None:
    for fraction, unresolved, shown in (
        (1.05, None, "105%"), (0.4, "1.1 CPUs", "40%"), (2.67, "1.1 CPUs", "?")
    ):  # fmt: skip
        row = candidate("a", unresolved=unresolved, fraction=(fraction, 0, 9, 0.9))
        assert cells.share(row) == shown
