from typing import Any

import numpy as np
import pytest
from helpers.study_targets import FORWARD, W, X, truth

from tinygpt_np.study.proof.verdicts import compare, nearly_equal
from tinygpt_np.study.source.trace import Value

EXPECTED = truth(FORWARD).total(Value("b", 2))
RIGHT = truth(FORWARD).doutput


@pytest.mark.parametrize(("error", "digits"), [(0, 16), (3e-15, 14), (2e-14, 13), (1e-9, 0)])
def test_a_right_gradient_counts_its_correct_digits(error: float, digits: int) -> None:
    assert compare("db", None, RIGHT * (1 + error), EXPECTED).digits == digits


def test_a_gradient_that_broadcasts_to_the_right_one_is_right() -> None:
    text = "def forward(x):\n    t = x * 2\n    y = t.sum(axis=0)\n    return y, 0"
    measured = truth(text, {"x": X})
    total = measured.total(Value("t", 0))
    assert compare("dt", None, measured.doutput, total).status == "right"
    assert compare("dt", None, 2 * measured.doutput, total).status == "wrong"
    assert compare("dt", None, measured.doutput[:, None], total).status == "wrong"
    # A sum may broadcast to another shape than its terms.
    added = compare("dt", None, 2 * measured.doutput, total, is_added=True)
    assert added.row.problems[0].startswith("off by")


class NoArray:
    def __array__(self) -> None:
        raise KeyError


@pytest.mark.parametrize("value", [np, [[1], [1, 2]], NoArray(), "dx", (1,)])
def test_what_is_no_array_is_wrong_and_raises_nothing(value: Any) -> None:
    found = compare("db", None, value, EXPECTED)
    assert found.status == "wrong"
    assert found.row.problems == (f"the gradient must be an array, not {type(value).__name__}",)


@pytest.mark.parametrize("number", [3, 3.0, np.float64(3)])
def test_a_number_can_be_the_gradient_of_a_scalar(number: Any) -> None:
    measured = truth("def forward(x):\n    s = x.sum()\n    y = s * s\n    return y, 0", {"x": X})
    total = measured.total(Value("s", 0))
    assert total.gradient is not None
    assert compare("ds", None, number * float(total.gradient) / 3, total).status == "right"


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (X * (1 + 1e-15), X, True), (X * (1 + 1e-9), X, False), (X[:, :1], X, False),
        (3, 3.0, True), (3, 4, False), (np.inf, 3, False), (np.nan * X, X, False),
        ((X, (W, None)), (X, (W, None)), True), ((X, 2), (X, 3), False), ((X,), (X, 2), False),
        (None, X, False), (X > 0, X < 0, False),
    ],
)  # fmt: skip
def test_nearly_equal_ignores_rounding(here: Any, there: Any, expected: bool) -> None:
    assert nearly_equal(here, there) is expected
