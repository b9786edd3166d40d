"""Tests of running a backward step by step."""

import ast
from typing import Any

import numpy as np
import pytest
from helpers.study_targets import BACKWARD, FORWARD, W, X, edited, function, module_of

from tinygpt_np.study.proof.backward_trace import BackwardTrace, as_sum, trace_backward
from tinygpt_np.study.source.parse import Statement

DY = np.random.default_rng(3).standard_normal((4, 3))
Z = X @ W
A = np.tanh(Z)


def trace_own(text: str = BACKWARD, **args: Any) -> BackwardTrace:
    given = args or {"dy": DY.copy(), "saved": (X.copy(), W.copy(), Z.copy(), A.copy())}
    return trace_backward(function(text, "backward"), module_of(FORWARD + text), given)


def body(*lines: str, returned: str = "dx") -> str:
    text = "\n".join(f"    {line}" for line in lines)
    return f"def backward(dy, saved):\n{text}\n    return {returned}"


def index_of(trace: BackwardTrace, text: str) -> int:
    """Return the index of the only step with a text."""
    (found,) = [i for i, each in enumerate(trace.executed) if each.step.statement.text == text]
    return found


# Sums


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x += a * b", ("x", 1, "a * b")),
        ("x -= a", ("x", -1, "a")),
        ("x = x + a", ("x", 1, "a")),
        ("x *= a", None),
        ("x[0] += a", None),
        ("x = a + x", None),
        ("x = x - a", None),
        ("x = y + a", None),
        ("x = x", None),
    ],
)
def test_sums_are_recognized(text: str, expected: tuple[str, int, str] | None) -> None:
    found = as_sum(Statement(ast.parse(text).body[0], text, ""))
    assert expected == (found and (found[0], found[1], ast.unparse(found[2])))


@pytest.mark.parametrize(
    ("line", "sign"), [("dx += dy * 3", 1), ("dx -= dy * 3", -1), ("dx = dx + dy * 3", 1)]
)
def test_the_term_of_a_sum_is_recorded_with_its_sign(line: str, sign: int) -> None:
    trace = trace_own(body("dx = dy.copy()", line))
    np.testing.assert_array_equal(trace.executed[1].added["dx"], sign * 3 * DY)
    np.testing.assert_array_equal(trace.returned, DY + sign * 3 * DY)
    assert trace.executed[0].added == {}


def test_the_term_of_a_sum_is_computed_once() -> None:
    trace = trace_own(
        body("calls = []", "dx = 1", "dx += calls.append(1) or len(calls)", "n = calls")
    )
    assert trace.before[-1]["calls"] == [1]
    assert trace.returned == 2


# Observed changes


@pytest.mark.parametrize(
    ("lines", "changing"),
    [
        (("dx = dy * 2", "half = dx[:2]", "half[...] = 0"), "half[...] = 0"),
        (("dx = dy * 2", "fill = lambda a, b: b.fill(a)", "fill(7, dx)"), "fill(7, dx)"),
        (("dx = dy * 2", "n = [dx]", "n[0] *= 2"), "n[0] *= 2"),
        (("dx = db = dy * 2", "db += 1"), "db += 1"),
    ],
)
def test_a_step_that_was_observed_to_change_a_name_sets_it(
    lines: tuple[str, ...], changing: str
) -> None:
    trace = trace_own(body(*lines))
    each = trace.executed[index_of(trace, changing)]
    assert "dx" in each.step.statement.sets
    np.testing.assert_array_equal(each.values["dx"], trace.returned)
    assert trace.executed[0].step.statement.sets == ("dx", "db")[: 1 + ("db" in lines[0])]


def test_a_call_that_only_reads_a_name_does_not_set_it() -> None:
    trace = trace_own(body("dx = dy * 2", "np.isfinite(dx)", "np.add.at(dx, 0, 1)"))
    assert trace.executed[1].step.statement.sets == ()
    assert trace.executed[1].values == {}
    assert trace.executed[2].step.statement.sets == ("dx",)


def test_changes_of_a_name_that_is_not_read_again_are_ignored() -> None:
    trace = trace_own(body("db = dy * 2", "dx = db", "dx += 1"))
    assert trace.executed[2].step.statement.sets == ("dx",)
    reassigned = trace_own(body("db = dy * 2", "dx = db", "dx += 1", "db = 3", "dx += db"))
    assert reassigned.executed[2].step.statement.sets == ("dx",)


def test_a_step_that_changes_an_input_in_place_is_recorded() -> None:
    trace = trace_own(edited(BACKWARD, ("    dw = x.T @ dz", "    dw = x.T @ dz\n    w *= 2")))
    assert [m.step.statement.text for m in trace.executed if m.overwrites_input] == ["w *= 2"]
    trace = trace_own(edited(BACKWARD, ("    dz = dy.copy()", "    dz = dy")))
    assert [m.step.statement.text for m in trace.executed if m.overwrites_input] == [
        "dz += db * a",
        "dz += da * (1 - a * a)",
    ]
    assert not any(each.overwrites_input for each in trace_own().executed)


# Gradients of parameters


def test_the_gradients_of_parameters_are_recorded_by_the_step_that_stores_them() -> None:
    text = body(
        "grads = {}", "grads['w'] = dy * 2", "dx = dy", "grads['b'] = dy", "grads['w'] = dx"
    )
    trace = trace_own(text)
    assert [[*each.params] for each in trace.executed] == [[], ["w"], [], ["b"], ["w"]]
    np.testing.assert_array_equal(trace.executed[1].params["w"], 2 * DY)
    np.testing.assert_array_equal(trace.executed[4].params["w"], DY)
