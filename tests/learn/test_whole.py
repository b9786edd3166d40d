"""The whole function is called in ways that show what is right for one call only."""

import numpy as np
import pytest
from helpers.learners import solved, verdict_on

from tinygpt_np.learn.attempt import Attempt, read_file
from tinygpt_np.learn.course import Exercise, course, find
from tinygpt_np.learn.sources import MODELS
from tinygpt_np.learn.whole import calls, compared, first_failure

LINES = [each for each in course() if each.kind == "lines"]
every_exercise = pytest.mark.parametrize("exercise", LINES, ids=[e.name for e in LINES])


def attempt(name: str, text: str | None = None) -> Attempt:
    return read_file(find(name), text or solved(name), "own.py")


def failure(name: str, old: str, new: str) -> tuple[str, str]:
    """Return message and call of the first failure of a changed solution."""
    text = solved(name)
    assert old in text
    found, _ = first_failure(attempt(name, text.replace(old, new)))
    assert found is not None
    return found.message, found.call


@every_exercise
def test_a_right_backward_fails_in_no_call(exercise: Exercise) -> None:
    found, count = first_failure(attempt(exercise.name))
    assert found is None
    assert count > 5


@pytest.mark.parametrize(
    "name", [e.name for e in LINES if e.subject not in (*MODELS, "chain")]
)  # chain: only numbers
def test_calls_have_several_seeds_and_axes_of_equal_length_and_of_length_one(name: str) -> None:
    found = list(calls(attempt(name)))
    assert {0, 1, 2} <= {each.seed for each in found}
    shapes = [[s for arg in each.args.values() if (s := np.shape(arg))] for each in found]
    assert any(1 in shape for each in shapes for shape in each)
    assert any({*shape} <= {4, 8} for each in shapes for shape in each)


def test_calls_have_other_numbers_of_axes_where_the_contract_allows_them() -> None:
    assert {each.args["x"].ndim for each in calls(attempt("softmax"))} == {1, 2, 3, 4}
    assert {each.args["x"].ndim for each in calls(attempt("layer_norm"))} == {2}
    assert {each.args["x"].ndim for each in calls(attempt("gelu"))} == {1, 2, 3}


def test_calls_leave_out_each_optional_argument() -> None:
    assert {each.args["bias"] is None for each in calls(attempt("layer_norm"))} == {True, False}


RULES = [
    ("dx = dshifted", "dx = dshifted\n    dprobs += 0 * dx + 1", "changes its input"),
    ("dx = dshifted", "dx = dshifted\n    probs *= 2", "changes its input"),
    ("return dx", "return dprobs", "shares memory with an input of backward; return a copy"),
    ("return dx", "return probs", "shares memory with an input of backward; return a copy"),
    ("return dx", "return dx, dx", "returns 2 gradients, not 1"),
    ("return dx", "return None", "dx is None"),
    ("return dx", "return dx.T", "dx has the shape (11, 3, 2), not (2, 3, 11)"),
    ("return dx", "return dx + 0j", "dx has the dtype complex128"),
    ("return dx", "return dx.astype(object)", "dx has the dtype object"),
    ("return dx", "return 'dx'", "dx must be an array, not str"),
    ("return dx", "return dx * np.nan", "dx is not finite"),
    ("return dx", "return dx * np.inf", "dx is not finite"),
    ("return dx", "return dx * 2", "dx is off by 1 of its norm"),
    ("return dx", "return dx + 1e-8", "dx is off by"),
    ("return dx", "return dx.astype('f4')", "dx is off by"),
    ("return dx", "return [1]", "returns a list; return one gradient itself"),
    ("return dx", "return {'x': dx}", "dx must be an array, not dict"),
    (
        "return dx",
        "return dx / (1 // 0)",
        "raises ZeroDivisionError: integer division or modulo by zero",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), RULES, ids=[new for _, new, _ in RULES])
def test_what_is_wrong_with_a_result_is_said(old: str, new: str, message: str) -> None:
    found, call = failure("softmax", old, new)
    assert message in found
    assert call.startswith("x (")


def test_a_missing_gradient_of_an_absent_argument_may_be_left_out() -> None:
    text = solved("layer_norm")
    shorter = text.replace(
        "return dx, dweight, dbias", "return (dx, dweight, dbias)[: 2 if unbiased else 3]"
    )
    assert shorter != text
    assert first_failure(attempt("layer_norm", shorter))[0] is None


def test_a_gradient_of_an_absent_argument_is_wrong() -> None:
    found, call = failure("layer_norm", "None if unbiased else ", "")
    assert "dbias is not None" in found
    assert "bias None" in call


@pytest.mark.parametrize(
    ("found", "expected", "problem"),
    [
        (np.zeros(3), np.zeros(3), ""),
        (np.full(3, 1e-13), np.zeros(3), ""),
        (np.full(3, 1e-10), np.zeros(3), "is not zero"),
        (np.full(3, np.nan), np.zeros(3), "is not finite"),
        (None, np.zeros(3), "is None"),
        (np.zeros(3), None, "is not None"),
        (None, None, ""),
        (1.0, np.float64(1), ""),
        (np.ones(1), np.ones(()), "has the shape (1,), not ()"),
        (np.ones(3), np.ones(3) + 1e-10, ""),
        (np.ones(3), np.ones(3) + 1e-8, "is off by 1e-08 of its norm"),
    ],
)
def test_a_gradient_is_compared(found: object, expected: object, problem: str) -> None:
    assert compared(found, expected, 1.0) == problem


@pytest.mark.parametrize("returned", ["dx,", "[dx]"])
def test_one_gradient_is_returned_itself(returned: str) -> None:
    text = solved("softmax").replace("return dx", f"return {returned}")
    found = verdict_on("softmax", text)
    assert found.mistake is not None
    assert "return one gradient itself" in found.mistake.message


def test_a_block_is_called_as_a_later_one_too() -> None:
    text = solved("block")
    backward = text.index("def backward")
    wrong = text[:backward] + text[backward:].replace('f"{h}.mlp.c_fc"', '"h.0.mlp.c_fc"')
    found = verdict_on("block", wrong)
    assert found.mistake is not None
    assert found.mistake.line.status == "luck"


@pytest.mark.slow
def test_a_gpt_is_called_with_another_block_size() -> None:
    line = "ops.embedding.backward(dposition_rows, wpe)"
    found = verdict_on("gpt", solved("gpt").replace(line, f"{line}[:5]"))
    assert found.mistake is not None
    assert found.mistake.line.status == "luck"
