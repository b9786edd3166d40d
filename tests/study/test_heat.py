"""Heat maps in a terminal."""

import numpy as np

from tinygpt_np.study.heat import ROWS, picture


def lines(array: np.ndarray, width: int = 80) -> list[str]:
    return picture(array, width).plain.splitlines()


def test_larger_numbers_are_denser() -> None:
    assert lines(np.array([0.0, 0.3, 0.5, 0.7, 1.0]))[0] == " · ░ ▒ ▓ █"


def test_a_negative_number_has_a_sign_without_colours() -> None:
    assert lines(np.array([-1.0, 1.0]))[0] == "-█ █"


def test_negative_is_blue_and_positive_red() -> None:
    colors = [span.style.color.name for span in picture(np.array([-1.0, 1.0]), 80).spans[:2]]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess, reportUnknownMemberType, reportUnknownVariableType]
    assert colors == ["blue", "red"]


def test_all_axes_but_the_last_are_rows() -> None:
    assert len(lines(np.ones((2, 3, 4)))) == 6 + 1


def test_a_wide_array_is_cut_where_the_room_ends() -> None:
    first = lines(np.ones((2, 100)), width=40)[0]
    assert first.endswith("…")
    assert len(first) <= 40


def test_of_a_long_array_the_rest_is_counted() -> None:
    assert f"… {50 - ROWS} more rows" in lines(np.ones((50, 2)))


def test_the_largest_number_is_told() -> None:
    assert "full at ±2.5" in lines(np.array([[1.0, -2.5]]))[-1]


def test_what_is_not_finite_is_seen() -> None:
    assert lines(np.array([np.nan, 1.0, np.inf]))[0] == "?? █??"


def test_nothing_but_zeros_is_no_error() -> None:
    assert lines(np.zeros((1, 3)))[0] == " · · ·"
