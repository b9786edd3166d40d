from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.study_targets import (
    FORWARD,
    W,
    X,
    edited_proof,
    truth,
    wrong_lines,
)

from tinygpt_np.study.proof.pairing import Pair
from tinygpt_np.study.proof.verdicts import (
    GradientVerdict,
    broadcasts_to,
    compare,
    digits,
    nearly_equal,
    problem,
)
from tinygpt_np.study.source.trace import Value

VALUE = Value("b", 2)
EXPECTED = truth(FORWARD).total(VALUE)
RIGHT = truth(FORWARD).doutput


def gradient(found: Any) -> GradientVerdict:
    return compare("db", Pair(VALUE, 3), found, EXPECTED)


@pytest.mark.parametrize(
    ("found", "message", "cause"),
    [
        (2 * RIGHT, "off by 1 of its norm", "too large by a factor of 2: counted twice"),
        (-RIGHT, "off by 2 of its norm", "the sign is wrong"),
        (RIGHT.T, "the shape must be (4, 3), not (3, 4); it looks transposed", ""),
        (RIGHT[0] / 0.5, "the shape must be (4, 3), not (3,)", ""),
        (None, "there is no gradient", ""),
        (RIGHT.astype(np.float32), "the dtype must be float64, not float32", ""),
        (RIGHT * np.nan, "not finite: nan at (0, 0)", ""),
        ("much", "the gradient must be an array, not str", ""),
    ],
)
def test_a_wrong_gradient_has_a_message_and_a_cause(found: Any, message: str, cause: str) -> None:
    wrong = gradient(found)
    assert (wrong.status, wrong.digits) == ("wrong", 0)
    assert problem(wrong) == (f"db: {message}", cause)


@pytest.mark.parametrize("error", [1e-9, 1e-6])
def test_an_error_in_a_single_element_is_found(error: float) -> None:
    found = RIGHT.copy()
    found[2, 1] *= 1 + error
    assert gradient(found).status == "wrong"
    assert gradient(found).row.index == (2, 1)


def test_a_gradient_that_broadcasts_to_the_right_one_is_right() -> None:
    text = "def forward(x):\n    t = x * 2\n    y = t.sum(axis=0)\n    return y, 0"
    measured = truth(text, {"x": X})
    total = measured.total(Value("t", 0))
    assert compare("dt", None, measured.doutput, total).status == "right"
    assert compare("dt", None, 2 * measured.doutput, total).status == "wrong"
    assert compare("dt", None, measured.doutput[:, None], total).status == "wrong"


@pytest.mark.parametrize("number", [3, 3.0, np.float64(3)])
def test_a_number_can_be_the_gradient_of_a_scalar(number: Any) -> None:
    measured = truth("def forward(x):\n    s = x.sum()\n    y = s * s\n    return y, 0", {"x": X})
    total = measured.total(Value("s", 0))
    assert total.gradient is not None
    scale = float(total.gradient) / 3
    assert compare("ds", None, number * scale, total).status == "right"


@pytest.mark.parametrize(
    ("relative", "expected"), [(1e-16, 16), (0.0, 16), (3e-15, 14), (1e-13, 13), (np.nan, 16)]
)
def test_digits_counts_the_correct_ones(relative: float, expected: int) -> None:
    row = replace(gradient(RIGHT).row, relative=relative)
    assert digits(row) == expected
    assert digits(replace(row, problems=("wrong",))) == 0


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [((3,), (4, 3), True), ((4, 1), (4, 3), True), ((), (4, 3), True), ((4, 3), (4, 3), True),
     ((4,), (4, 3), False), ((4, 3), (3,), False), ((2, 4, 3), (4, 3), False)],
)  # fmt: skip
def test_broadcasts_to(shape: tuple[int, ...], wanted: tuple[int, ...], expected: bool) -> None:
    assert broadcasts_to(shape, wanted) is expected


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (X, X.copy(), True), (X * (1 + 1e-15), X, True), (X * (1 + 1e-9), X, False),
        (X, X.T, False), (X[:, :1], X, False), (3, 3.0, True), (3, 4, False), (np.inf, 3, False),
        ((X, 2), (X, 2), True), ((X, 2), (X, 3), False), ((X,), (X, 2), False),
        ((X, (W, None)), (X, (W, None)), True), (None, None, True), (None, X, False),
        (X > 0, X > 0, True), (X > 0, X < 0, False), (np.nan * X, X, False),
    ],
)  # fmt: skip
def test_nearly_equal_ignores_rounding(here: Any, there: Any, expected: bool) -> None:
    assert nearly_equal(here, there) is expected


# Proofs


@pytest.mark.parametrize("factor", ["1.000001", "1.000000001"])
def test_a_factor_that_is_slightly_off_is_found(factor: str) -> None:
    wrong = edited_proof(("dx = dz @ w.T", f"dx = {factor} * dz @ w.T"))
    assert wrong_lines(wrong) == [f"dx = {factor} * dz @ w.T"]


def test_a_factor_that_is_slightly_off_is_found_after_another_mistake() -> None:
    # The incoming gradient is wrong, so the line is checked by itself.
    wrong = edited_proof(
        ("dz += da * (", "dz += 2 * da * ("), ("dx = dz @ w.T", "dx = 1.00000001 * dz @ w.T")
    )
    assert wrong_lines(wrong) == ["dz += 2 * da * (1 - a * a)", "dx = 1.00000001 * dz @ w.T"]
