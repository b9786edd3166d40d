"""Tests of running a backward step by step."""

import numpy as np
import pytest
from helpers.study_targets import BACKWARD, FORWARD, W, X, edited, function, module_of

from tinygpt_np.study.proof.backward_trace import BackwardTrace, trace_backward

DY = np.random.default_rng(3).standard_normal((4, 3))
Z = X @ W


def trace_own(text: str = BACKWARD) -> BackwardTrace:
    given = {"dy": DY.copy(), "saved": (X.copy(), W.copy(), Z.copy(), np.tanh(Z))}
    return trace_backward(function(text, "backward"), module_of(FORWARD + text), given)


def trace_lines(*lines: str) -> BackwardTrace:
    text = "\n".join(f"    {line}" for line in lines)
    return trace_own(f"def backward(dy, saved):\n{text}\n    return dx")


@pytest.mark.parametrize(
    ("line", "factor"),
    [
        ("dx += dy * 3", 3), ("dx -= dy * 3", -3), ("dx = dx + dy * 3", 3),
        ("dx *= 3", None), ("dx[0] += 3", None), ("dx = dy + dx", None), ("dx = dx - dy", None),
        ("dx = dy + 3", None), ("dx = dx", None),
    ],
)  # fmt: skip
def test_the_term_of_a_sum_is_recorded_with_its_sign(line: str, factor: int | None) -> None:
    trace = trace_lines("dx = dy.copy()", line)
    assert [*trace.executed[1].added] == ([] if factor is None else ["dx"])
    if factor is not None:
        np.testing.assert_array_equal(trace.executed[1].added["dx"], factor * DY)
        np.testing.assert_array_equal(trace.returned, DY + factor * DY)


def test_the_term_of_a_sum_is_computed_once() -> None:
    trace = trace_lines("calls = []", "dx = 1", "dx += calls.append(1) or len(calls)", "n = calls")
    assert trace.before[-1]["calls"] == [1]
    assert trace.returned == 2


@pytest.mark.parametrize(
    ("lines", "sets"),
    [
        (("half = dx[:2]", "half[...] = 0"), {"half", "dx"}),
        (("fill = lambda a, b: b.fill(a)", "fill(7, dx)"), {"dx"}),
        (("n = [dx]", "n[0] *= 2"), {"n", "dx"}),
        (("db = dx", "db += 1"), {"db", "dx"}),
        (("k = 0", "np.add.at(dx, 0, 1)"), {"dx"}),
        # A call that only reads, and names that are not read again.
        (("k = 0", "np.isfinite(dx)"), set[str]()),
        (("db = dx", "dx += 1"), {"dx"}),
        (("db = dx", "dx += 1", "db = 3", "dx += db"), {"dx"}),
    ],
)  # fmt: skip
def test_a_step_sets_the_names_it_was_observed_to_change(
    lines: tuple[str, ...], sets: set[str]
) -> None:
    trace = trace_lines("dx = dy * 2", *lines)
    each = trace.executed[2]
    assert {*each.step.statement.sets} - {"n"} == sets - {"n"}
    assert {*each.values} == {*each.step.statement.sets}
    if "dx" in sets and len(lines) == 2:
        np.testing.assert_array_equal(each.values["dx"], trace.returned)


@pytest.mark.parametrize(
    ("old", "new", "overwriting"),
    [
        ("    return", "    w *= 2\n    return", ["w *= 2"]),
        ("dz = dy.copy()", "dz = dy", ["dz += db * a", "dz += da * (1 - a * a)"]),
        ("dz = dy.copy()", "dz = dy + 0", []),
    ],
)
def test_a_step_that_changes_an_input_in_place_is_recorded(
    old: str, new: str, overwriting: list[str]
) -> None:
    trace = trace_own(edited(BACKWARD, (old, new)))
    found = [each.step.statement.text for each in trace.executed if each.overwrites_input]
    assert found == overwriting


def test_the_gradients_of_parameters_are_recorded_by_the_step_that_stores_them() -> None:
    trace = trace_lines(
        "grads = {}", "grads['w'] = dy * 2", "dx = dy", "grads['b'] = dy", "grads['w'] = dx"
    )
    assert [[*each.params] for each in trace.executed] == [[], ["w"], [], ["b"], ["w"]]
    np.testing.assert_array_equal(trace.executed[1].params["w"], 2 * DY)
    np.testing.assert_array_equal(trace.executed[4].params["w"], DY)
