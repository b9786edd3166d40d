import itertools

import numpy as np
import pytest
from helpers.architecture import OPERATIONS, flowing, line_backward, quotes
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    UNQUOTED,
    edited,
    gradient_of,
    report,
    sheet,
    studied,
)

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof.sheet import Sheet
from tinygpt_np.study.source.trace import Value

# The names through which a gradient flows.
MODEL_VALUES = {
    "bigram": "table logits",
    "block": (
        "x normed_1 qkv turned mixed out_1 kept_1 mid normed_2 hidden activated out_2 kept_2 y"
    ),
    "heads": "qkv qk_rows v_rows qk y",
    "gpt": "table token_rows position_rows embedded x normed head_weight logits capped",
}
MODELS = [
    ("heads", 0), ("bigram", 0),
    *(pytest.param(name, 0, marks=pytest.mark.slow) for name in ("block", "gpt")),
]  # fmt: skip
CLOSED = """
def backward(dy, saved):
    x, w, z, a = saved
    # y = b + z
    slope = 1 + a + z * (1 - a * a)
    dz = dy * slope
    return dz @ w.T, x.T @ dz
"""


# Every name has a verdict


def has_verdict(found: Sheet, value: Value) -> bool:
    judged = [gradient.status for _, _, gradient in found.verdicts(value)]
    return "right" in judged or found.gradient(value) is not None or bool(found.fused(value))


@pytest.mark.parametrize(("name", "seed"), [*itertools.product(VARIANTS, range(2)), *MODELS])
def test_every_name_has_a_verdict_and_no_line_is_wrong(name: str, seed: int) -> None:
    found = studied(name, seed)
    rows = [gradient.row for gradient in found.all_verdicts if not gradient.row.is_zero]
    worst = max(row.relative for row in rows)
    assert worst < 1e-12
    assert found.worst == pytest.approx(worst, abs=0)
    assert found.ok
    for each in found.proofs:
        assert {line.status for line in each.lines} <= {"right", "partial", ""}, report(each)
        for line in each.lines:
            followed = [found.followed(each, line, gradient) for gradient in line.gradients]
            assert all(step is None or step in found.truth.trace.steps for step in followed)
    if len(found.proofs) > 1:
        assert found.agreement is not None
    assert 0 <= (found.agreement or 0) < 1e-14
    assert all(has_verdict(found, value) for value in found.values)
    if name in MODEL_VALUES:
        names = {*MODEL_VALUES[name].split()}
        assert {*found.target.params} <= {gradient.name for gradient in found.all_verdicts}
    else:
        missing = {arg for arg, value in found.target.args.items() if value is None}
        names = flowing(VARIANTS[name].operation) - missing
        assert not any(found.fused(value) for value in found.values)
    assert {value.name for value in found.values} == names


# Names that are checked together with others


def test_names_without_a_gradient_are_checked_together_with_others() -> None:
    found = sheet(FORWARD + CLOSED)
    together = ("dx", "dw", "dz")
    by_name = {value.name: found.fused(value) for value in found.values}
    assert by_name == {"x": (), "w": (), "z": (), "a": together, "b": together, "y": ()}
    assert [line.fused for line in found.proofs[0].lines if line.fused] == [("slope",)]


# The gradient of a value, and rows


def test_the_gradient_of_a_value_is_the_final_sum() -> None:
    found = sheet(FORWARD + BACKWARD)
    for value in found.values:
        expected = gradient_of(found.truth, value)
        np.testing.assert_allclose(found.gradient(value), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [*OPERATIONS, "block"])
def test_the_backward_is_in_order_from_bottom_to_top(name: str) -> None:
    found = studied(name, 0)
    upwards = [line for row in found.rows[::-1] for line in row.backward[::-1]]
    assert upwards == [*found.proofs[0].lines]


UNQUOTED_WITH_PREPARATION = edited(UNQUOTED, ("    dz += da", "    s = a * a\n    dz += da"))
# The terms of dz in the order of the forward.
REORDERED = """
def backward(dy, saved):
    x, w, z, a = saved
    # a = np.tanh(z)
    dz = dy * z * (1 - a * a)
    # b = a * z
    dz += dy * a
    # y = b + z
    dz += dy
    return dz @ w.T, x.T @ dz
"""


# Lines without a gradient, below quotes.
HELPERS = """
def backward(dy, saved):
    x, w, z, a = saved
    # y = b + z: a remark
    s = a * a
    # b = a * z
    slope = 1 + a + z * (1 - s)
    dz = dy * slope
    return dz @ w.T, x.T @ dz
"""


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        (
            UNQUOTED_WITH_PREPARATION,
            [
                ["return dx, dw"], ["dw = x.T @ dz", "dx = dz @ w.T"],
                ["dz += da * (1 - a * a)", "s = a * a"], ["dz += db * a", "da = db * z"],
                ["dz = dy.copy()", "db = dy.copy()"], ["x, w, z, a = saved"],
            ],
        ),
        (
            REORDERED,
            [
                ["return dz @ w.T, x.T @ dz"], [], ["dz = dy * z * (1 - a * a)"],
                ["dz += dy * a"], ["dz += dy"], ["x, w, z, a = saved"],
            ],
        ),
        (
            HELPERS,
            [
                ["return dz @ w.T, x.T @ dz"], [], [],
                ["dz = dy * slope", "slope = 1 + a + z * (1 - s)"], ["s = a * a"],
                ["x, w, z, a = saved"],
            ],
        ),
    ],
)  # fmt: skip
def test_a_backward_line_is_next_to_the_line_it_reverses_or_prepares(
    backward: str, expected: list[list[str]]
) -> None:
    rows = sheet(FORWARD + backward).rows
    assert [row.line for row in rows] == [2, *range(3, 8)]
    assert [row.shape for row in rows] == ["", "(N, K)", "", "", "", ""]
    assert [[each.text for each in row.backward] for row in rows] == expected


# Two backwards


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dw = x.T", "dw = 1.01 * x.T", pytest.approx(0.01)),
        ("return dx, dw", "return dx, None", None),
        ("return dx, dw", "return dx, dw.T", None),
        ("return dx, dw", "return dq", None),
    ],
)
def test_two_backwards_are_compared_relative_to_the_gradient(
    old: str, new: str, expected: object
) -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), (old, new))
    found = sheet(FORWARD + BACKWARD + second)
    assert found.agreement == expected
    assert not found.ok


# Pairs of lines


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_line_below_a_quote_reverses_the_quoted_line(name: str) -> None:
    proof, steps = studied(name, 0).proofs[0], studied(name, 0).truth.trace.steps
    assert proof.function.name == line_backward(name)
    found = {
        (steps[line.reverses].statement.text, gradient.name)
        for line in proof.lines
        for gradient in line.gradients
        if line.reverses is not None
    }
    differentiable = {f"d{value.name}" for value in studied(name, 0).values}
    expected = {(quote, gradient) for quote, names in quotes(name) for gradient in names}
    assert {pair for pair in expected if pair[1] in differentiable} <= found
    assert found <= expected or not quotes(name)
