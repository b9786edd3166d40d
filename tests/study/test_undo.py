import ast
from typing import Any

import numpy as np
import pytest
from study_own import BACKWARD, FORWARD, W, X, edited, function, names_of

from tinygpt_np.study.source import Statement
from tinygpt_np.study.undo import Undone, as_sum, undo

DY = np.random.default_rng(3).standard_normal((4, 3))
Z = X @ W
A = np.tanh(Z)


def run(text: str = BACKWARD, **args: Any) -> Undone:
    given = args or {"dy": DY.copy(), "saved": (X.copy(), W.copy(), Z.copy(), A.copy())}
    return undo(function(text, "backward"), names_of(FORWARD + text), given)


def body(*lines: str, returned: str = "dx") -> str:
    text = "\n".join(f"    {line}" for line in lines)
    return f"def backward(dy, saved):\n{text}\n    return {returned}"


def at(undone: Undone, text: str) -> int:
    """The number of the one moment with this text."""
    (found,) = [i for i, m in enumerate(undone.moments) if m.step.statement.text == text]
    return found


def test_a_backward_returns_what_it_returns_when_it_is_called() -> None:
    expected = names_of(BACKWARD)["backward"](DY, (X, W, Z, A))
    for found, right in zip(run().returned, expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_of_each_step_is_kept_what_the_names_it_sets_hold_then() -> None:
    undone = run()
    first, second = (undone.moments[at(undone, t)] for t in ("dz = dy.copy()", "dz += db * a"))
    np.testing.assert_array_equal(first.values["dz"], DY)
    np.testing.assert_array_equal(second.values["dz"], DY + DY * A)


def test_before_each_moment_is_known_what_the_names_held_then() -> None:
    undone = run()
    index = at(undone, "dz += db * a")
    np.testing.assert_array_equal(undone.names[index]["dz"], DY)
    np.testing.assert_array_equal(undone.names[index + 1]["dz"], DY + DY * A)
    assert len(undone.names) == len(undone.moments) + 1


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
def test_what_adds_to_a_name_is_a_sum(text: str, expected: tuple[str, int, str] | None) -> None:
    found = as_sum(Statement(ast.parse(text).body[0], text, ""))
    assert expected == (found and (found[0], found[1], ast.unparse(found[2])))


@pytest.mark.parametrize(
    ("line", "sign"), [("dx += dy * 3", 1), ("dx -= dy * 3", -1), ("dx = dx + dy * 3", 1)]
)
def test_what_a_sum_adds_is_kept_with_its_sign(line: str, sign: int) -> None:
    undone = run(body("dx = dy.copy()", line))
    np.testing.assert_array_equal(undone.moments[1].added["dx"], sign * 3 * DY)
    np.testing.assert_array_equal(undone.returned, DY + sign * 3 * DY)
    assert undone.moments[0].added == {}


def test_what_is_added_is_computed_once() -> None:
    undone = run(body("calls = []", "dx = 1", "dx += calls.append(1) or len(calls)", "n = calls"))
    assert undone.names[-1]["calls"] == [1]
    assert undone.returned == 2


def test_what_is_added_is_no_name_of_the_backward_afterwards() -> None:
    undone = run(body("dx = dy.copy()", "dx += dy"))
    assert {*undone.names[-1]} - {"dy", "saved", "dx"} <= {*names_of(FORWARD + BACKWARD)}


def test_a_sum_in_a_loop_is_a_moment_a_round() -> None:
    undone = run(body("dx = 0 * dy", "for i in range(3):", "    dx += i * dy"))
    assert [moment.step.bindings for moment in undone.moments] == [
        {},
        *({"i": i} for i in range(3)),
    ]
    for i in range(3):
        np.testing.assert_array_equal(undone.moments[i + 1].added["dx"], i * DY)


# Errors


def test_a_step_that_raises_is_the_last_moment_and_says_what() -> None:
    undone = run(edited(BACKWARD, ("dz += db * a", "dz += db @ a")))
    last = undone.moments[-1]
    assert last.step.statement.text == "dz += db @ a"
    assert last.error.startswith("ValueError: matmul")
    assert undone.raised
    assert undone.returned is None


def test_a_return_that_raises_is_no_moment() -> None:
    undone = run(edited(BACKWARD, ("return dx, dw", "return dx, dq")))
    assert not undone.raised
    assert undone.error == "NameError: name 'dq' is not defined"


# What depends on what


def test_the_sources_of_a_moment_are_the_latest_that_set_what_it_reads() -> None:
    undone = run()
    texts = [moment.step.statement.text for moment in undone.moments]
    sources = [texts[i] for i in undone.sources(at(undone, "dz += da * (1 - a * a)"))]
    assert sources == ["x, w, z, a = saved", "da = db * z", "dz += db * a"]


def test_the_ancestors_are_the_sources_of_the_sources() -> None:
    undone = run(edited(BACKWARD, ("    db = dy.copy()", "    dq = dy\n    db = dy.copy()")))
    texts = [moment.step.statement.text for moment in undone.moments]
    ancestors = [texts[i] for i in undone.ancestors(at(undone, "dx = dz @ w.T"))]
    assert ancestors == [text for text in texts[: at(undone, "dx = dz @ w.T")] if text != "dq = dy"]


# What is changed without saying so


@pytest.mark.parametrize(
    ("lines", "touching"),
    [
        (("dx = dy * 2", "half = dx[:2]", "half[...] = 0"), "half[...] = 0"),
        (("dx = dy * 2", "fill = lambda a, b: b.fill(a)", "fill(7, dx)"), "fill(7, dx)"),
        (("dx = dy * 2", "n = [dx]", "n[0] *= 2"), "n[0] *= 2"),
        (("dx = db = dy * 2", "db += 1"), "db += 1"),
    ],
)
def test_a_step_that_was_seen_to_change_a_name_sets_it(
    lines: tuple[str, ...], touching: str
) -> None:
    undone = run(body(*lines))
    moment = undone.moments[at(undone, touching)]
    assert "dx" in moment.step.statement.sets
    np.testing.assert_array_equal(moment.values["dx"], undone.returned)
    assert undone.moments[0].step.statement.sets == ("dx", "db")[: 1 + ("db" in lines[0])]


def test_a_call_that_only_looks_at_a_name_does_not_set_it() -> None:
    undone = run(body("dx = dy * 2", "np.isfinite(dx)", "np.add.at(dx, 0, 1)"))
    assert undone.moments[1].step.statement.sets == ()
    assert undone.moments[1].values == {}
    assert undone.moments[2].step.statement.sets == ("dx",)


def test_what_becomes_of_a_name_that_is_not_read_any_more_is_of_no_interest() -> None:
    undone = run(body("db = dy * 2", "dx = db", "dx += 1"))
    assert undone.moments[2].step.statement.sets == ("dx",)
    set_anew = run(body("db = dy * 2", "dx = db", "dx += 1", "db = 3", "dx += db"))
    assert set_anew.moments[2].step.statement.sets == ("dx",)


def test_a_step_that_changes_what_was_given_spoils_it() -> None:
    undone = run(edited(BACKWARD, ("    dw = x.T @ dz", "    dw = x.T @ dz\n    w *= 2")))
    assert [m.step.statement.text for m in undone.moments if m.spoils] == ["w *= 2"]
    undone = run(edited(BACKWARD, ("    dz = dy.copy()", "    dz = dy")))
    assert [m.step.statement.text for m in undone.moments if m.spoils] == [
        "dz += db * a",
        "dz += da * (1 - a * a)",
    ]
    assert not any(moment.spoils for moment in run().moments)


# Gradients of parameters


def test_the_gradients_of_parameters_are_kept_by_the_moment_that_keeps_them() -> None:
    text = body(
        "grads = {}", "grads['w'] = dy * 2", "dx = dy", "grads['b'] = dy", "grads['w'] = dx"
    )
    undone = run(text)
    assert [[*moment.params] for moment in undone.moments] == [[], ["w"], [], ["b"], ["w"]]
    np.testing.assert_array_equal(undone.moments[1].params["w"], 2 * DY)
    np.testing.assert_array_equal(undone.moments[4].params["w"], DY)
