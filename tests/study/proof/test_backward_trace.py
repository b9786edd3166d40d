"""Tests of running a backward step by step."""

import numpy as np
import pytest
from helpers.study_targets import function

from tinygpt_np.study.proof.backward_trace import BackwardTrace, trace_backward

DY = np.random.default_rng(3).standard_normal((4, 3))


def trace_lines(*lines: str) -> BackwardTrace:
    body = "\n".join(f"    {line}" for line in lines)
    text = f"def backward(dy, saved):\n{body}\n    return dx"
    given = {"dy": DY.copy(), "saved": ()}
    return trace_backward(function(text, "backward"), {"np": np}, given)


@pytest.mark.parametrize(
    ("line", "factor"),
    [
        ("dx += dy * 3", 3), ("dx -= dy * 3", -3), ("dx = dx + dy * 3", 3), ("dx *= 3", None),
        ("dx[0] += 3", None), ("dx = dy + dx", None), ("dx = dx - dy", -1),
    ],
)  # fmt: skip
def test_the_term_of_a_sum_is_recorded_with_its_sign(line: str, factor: int | None) -> None:
    trace = trace_lines("dx = dy.copy()", line)
    added = {name: float(term.sum()) for name, term in trace.executed[1].added.items()}
    assert added == pytest.approx({} if factor is None else {"dx": factor * DY.sum()})


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
    assert {*each.step.statement.sets} - {"n", "n[0]"} == sets - {"n"}
    assert {*each.values} == {*each.step.statement.sets}
    if "dx" in sets and len(lines) == 2:
        np.testing.assert_array_equal(each.values["dx"], trace.returned)


def test_the_gradients_of_parameters_are_recorded_by_the_step_that_stores_them() -> None:
    trace = trace_lines(
        "grads = {}", "grads['w'] = dy * 2", "dx = dy", "grads['b'] = dy", "grads['w'] = dx"
    )
    assert [[*each.params] for each in trace.executed] == [[], ["w"], [], ["b"], ["w"]]
    np.testing.assert_array_equal(trace.executed[1].params["w"], 2 * DY)
    np.testing.assert_array_equal(trace.executed[4].params["w"], DY)
