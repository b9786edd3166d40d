"""Tests of which forward line each backward line reverses."""

from collections.abc import Mapping
from typing import Any

import pytest
from helpers.architecture import OPERATIONS, line_backward, quotes
from helpers.study_targets import (
    ARGS,
    BACKWARD,
    FORWARD,
    UNQUOTED,
    X,
    edited,
    function,
    module_of,
    studied,
    truth,
)

from tinygpt_np.study.proof.backward_trace import trace_backward
from tinygpt_np.study.proof.pairing import Pair, called, pair, reversed_steps
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step, Value


def run_and_pair(text: str, args: Mapping[str, Any] = ARGS) -> tuple[Truth, list[Step], Function]:
    """Run the forward and the backward of a source."""
    measured, backward = truth(text, args), function(text, "backward")
    upstream, saved = backward.arguments
    given = {upstream: measured.doutput.copy(), saved: measured.saved}
    trace = trace_backward(backward, module_of(text), given)
    return measured, [each.step for each in trace.executed], backward


def pairs(text: str, args: Mapping[str, Any] = ARGS) -> dict[tuple[int, str], Pair]:
    measured, steps, backward = run_and_pair(text, args)
    reversed_by = reversed_steps(measured.trace, backward, steps)
    return pair(measured.trace, measured.differentiable, steps, reversed_by)


def reversals(text: str) -> dict[int, tuple[int, ...]]:
    measured, steps, backward = run_and_pair(text)
    return reversed_steps(measured.trace, backward, steps)


def by_text(backward: str) -> dict[str, int | None]:
    """Return the forward step that each line setting dz reverses."""
    body = function(backward, "backward").statements
    found = pairs(FORWARD + backward)
    return {body[index].text: each.use for (index, name), each in found.items() if name == "dz"}


def test_a_quote_determines_what_the_lines_below_it_reverse() -> None:
    expected = {"dz = dy.copy()": 3, "dz += db * a": 2, "dz += da * (1 - a * a)": 1}
    assert by_text(BACKWARD) == expected


def test_without_quotes_the_order_is_reversed() -> None:
    assert by_text(UNQUOTED) == by_text(BACKWARD)


def test_a_quote_has_precedence_over_the_order() -> None:
    # The terms of dz in the order of the forward.
    quoted = """
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
    assert by_text(quoted) == {"dz = dy * z * (1 - a * a)": 1, "dz += dy * a": 2, "dz += dy": 3}


def test_a_quote_may_be_followed_by_a_colon_and_a_remark() -> None:
    remarked = edited(BACKWARD, ("# b = a * z", "# b = a * z: a product"))
    assert by_text(remarked) == by_text(BACKWARD)


def test_a_comment_without_a_quote_has_no_effect() -> None:
    remarked = edited(BACKWARD, ("    dz += db * a", "    # the second factor\n    dz += db * a"))
    assert by_text(remarked) == by_text(BACKWARD)


def test_if_lines_and_uses_differ_in_number_each_line_reverses_all_uses() -> None:
    closed = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy * (1 + a)
    dz += dy * z * (1 - a * a)
    return dz @ w.T, x.T @ dz
"""
    assert {*by_text(closed).values()} == {None}


def test_only_gradients_of_differentiable_names_are_paired() -> None:
    found = pairs(FORWARD + edited(BACKWARD, ("    db = dy", "    dq, n = dy, 3\n    db = dy")))
    names = {name for _, name in found}
    assert names == {"db", "dz", "da", "dx", "dw"}


def test_the_gradients_of_a_name_set_twice_belong_to_its_two_values() -> None:
    forward = """
def forward(x):
    h = x * 2
    h = np.tanh(h)
    y = h * 3
    return y, h
"""
    backward = """
def backward(dy, h):
    dh = dy * 3
    dh = dh * (1 - h * h)
    dx = dh * 2
    return dx
"""
    found = pairs(forward + backward, {"x": X})
    assert found[0, "dh"] == Pair(Value("h", 1), 2)
    assert found[1, "dh"] == Pair(Value("h", 0), 1)


# The targets of the package


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_line_below_a_quote_reverses_the_quoted_line(name: str) -> None:
    proof = studied(name).proofs[0]
    assert proof.function.name == line_backward(name)
    steps = studied(name).truth.trace.steps
    found = {
        (steps[line.reverses].statement.text, gradient.name)
        for line in proof.lines
        for gradient in line.gradients
        if line.reverses is not None
    }
    expected = {(quote, gradient) for quote, names in quotes(name) for gradient in names}
    missing = {
        (quote, gradient)
        for quote, gradient in expected - found
        if gradient[1:] in {value.name for value in studied(name).truth.differentiable}
    }
    assert missing == set()
    assert found <= expected | {(quote, gradient) for quote, gradient in found if not quotes(name)}


@pytest.mark.parametrize("name", ["block", "gpt"])
def test_the_backwards_of_layers_reverse_their_forwards_in_order(name: str) -> None:
    sheet = studied(name)
    steps = sheet.truth.trace.steps
    calls = [
        (called(line.step, "backward"), called(steps[line.reverses], "forward"))
        for line in sheet.proofs[0].lines
        if line.step is not None and line.reverses is not None and called(line.step, "backward")
    ]
    assert all(back == forward for back, forward in calls)
    order = [line.reverses for line in sheet.proofs[0].lines if line.reverses is not None]
    assert len(calls) == {"block": 10, "gpt": 7}[name]
    assert order == sorted(order, reverse=True)


def test_layers_in_another_order_are_not_paired() -> None:
    forward = """
class f:
    forward = np.sin
    backward = np.cos

class g(f): ...

def forward(x, w):
    z = f.forward(x)
    y = g.forward(z)
    return y, (x, z)
"""
    backward = """
def backward(dy, saved):
    x, z = saved
    dx = dy * f.backward(x)
    dz = dy * g.backward(z)
    return dx, dz
"""
    assert {*reversals(forward + backward).values()} == {()}
    swapped = edited(
        forward + backward,
        ("dx = dy * f", "dq = dy * g"),
        ("dz = dy * g", "dr = dy * f"),
        ("return dx, dz", "return dq, dr"),
    )
    assert reversals(swapped) == {0: (), 1: (1,), 2: (0,)}
