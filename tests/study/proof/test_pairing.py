"""Tests of which forward line each backward line reverses."""

from collections.abc import Mapping
from typing import Any

from helpers.study_targets import (
    ARGS,
    BACKWARD,
    FORWARD,
    UNQUOTED,
    edited,
    function,
    module_of,
    truth,
)

from tinygpt_np.study.proof.backward_trace import trace_backward
from tinygpt_np.study.proof.pairing import Pair, pair, reversed_steps
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step


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


def test_a_quote_or_the_reversed_order_determines_what_a_line_reverses() -> None:
    expected = {"dz = dy.copy()": 3, "dz += db * a": 2, "dz += da * (1 - a * a)": 1}
    assert by_text(BACKWARD) == expected
    assert by_text(UNQUOTED) == expected  # Without quotes, the order is reversed.
    remarked = edited(BACKWARD, ("# b = a * z", "# b = a * z: a product"))
    assert by_text(remarked) == expected


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


def test_if_lines_and_uses_differ_in_number_each_line_reverses_all_uses() -> None:
    closed = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy * (1 + a)
    dz += dy * z * (1 - a * a)
    return dz @ w.T, x.T @ dz
"""
    assert {*by_text(closed).values()} == {None}


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
