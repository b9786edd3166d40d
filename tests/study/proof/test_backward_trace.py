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


def test_a_backward_returns_what_it_returns_when_it_is_called() -> None:
    expected = module_of(BACKWARD)["backward"](DY, (X, W, Z, A))
    for found, right in zip(trace_own().returned, expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_each_step_records_the_values_of_the_names_it_sets() -> None:
    trace = trace_own()
    first, second = (trace.executed[index_of(trace, t)] for t in ("dz = dy.copy()", "dz += db * a"))
    np.testing.assert_array_equal(first.values["dz"], DY)
    np.testing.assert_array_equal(second.values["dz"], DY + DY * A)


def test_the_namespace_before_each_step_is_recorded() -> None:
    trace = trace_own()
    index = index_of(trace, "dz += db * a")
    np.testing.assert_array_equal(trace.before[index]["dz"], DY)
    np.testing.assert_array_equal(trace.before[index + 1]["dz"], DY + DY * A)
    assert len(trace.before) == len(trace.executed) + 1


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


def test_the_term_of_a_sum_leaves_no_name_behind() -> None:
    trace = trace_own(body("dx = dy.copy()", "dx += dy"))
    assert {*trace.before[-1]} - {"dy", "saved", "dx"} <= {*module_of(FORWARD + BACKWARD)}


def test_a_sum_in_a_loop_is_one_step_per_iteration() -> None:
    trace = trace_own(body("dx = 0 * dy", "for i in range(3):", "    dx += i * dy"))
    assert [each.step.bindings for each in trace.executed] == [
        {},
        *({"i": i} for i in range(3)),
    ]
    for i in range(3):
        np.testing.assert_array_equal(trace.executed[i + 1].added["dx"], i * DY)


# Errors


def test_a_step_that_raises_is_the_last_one_and_has_the_error() -> None:
    trace = trace_own(edited(BACKWARD, ("dz += db * a", "dz += db @ a")))
    last = trace.executed[-1]
    assert last.step.statement.text == "dz += db @ a"
    assert last.error.startswith("ValueError: matmul")
    assert trace.raised
    assert trace.returned is None


def test_an_error_in_the_return_is_not_that_of_a_step() -> None:
    trace = trace_own(edited(BACKWARD, ("return dx, dw", "return dx, dq")))
    assert not trace.raised
    assert trace.error == "NameError: name 'dq' is not defined"


# Dependencies


def test_the_sources_of_a_step_are_the_latest_that_set_what_it_reads() -> None:
    trace = trace_own()
    texts = [each.step.statement.text for each in trace.executed]
    sources = [texts[i] for i in trace.sources(index_of(trace, "dz += da * (1 - a * a)"))]
    assert sources == ["x, w, z, a = saved", "da = db * z", "dz += db * a"]


def test_the_ancestors_are_the_sources_of_the_sources() -> None:
    trace = trace_own(edited(BACKWARD, ("    db = dy.copy()", "    dq = dy\n    db = dy.copy()")))
    texts = [each.step.statement.text for each in trace.executed]
    ancestors = [texts[i] for i in trace.ancestors(index_of(trace, "dx = dz @ w.T"))]
    assert ancestors == [
        text for text in texts[: index_of(trace, "dx = dz @ w.T")] if text != "dq = dy"
    ]


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
