"""Tests of running a function step by step and rerunning it with a value replaced."""

import copy

import numpy as np
import pytest
from helpers.study_targets import ARGS, FORWARD, W, X, module_of, trace

from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.trace import MAX_ITERATIONS, Value

Z = X @ W
OTHER = np.random.default_rng(2).standard_normal(Z.shape)
LOOP = """
def forward(x, w, n):
    h = x @ w
    for i in range(n):
        a = h + i
        h = np.tanh(a)
    y = 2 * h
    return y, h
"""
IN_PLACE = """
def forward(x, w):
    z = x @ w
    z += 1
    z[0] = 3
    np.multiply(z, z, out=z)
    y = z * 2
    return y, z
"""


def after_z(z: np.ndarray) -> np.ndarray:
    """Compute the part of FORWARD after z."""
    return np.tanh(z) * z + z


# Steps


def test_each_statement_is_a_step() -> None:
    traced = trace(FORWARD)
    texts = ["z = x @ w", "a = np.tanh(z)", "b = a * z", "y = b + z"]
    assert [step.statement.text for step in traced.steps] == texts
    assert [step.index for step in traced.steps] == [0, 1, 2, 3]
    np.testing.assert_array_equal(traced.returned[0], after_z(Z))


def test_each_statement_in_each_iteration_of_a_loop_is_a_step() -> None:
    traced = trace(LOOP, {**ARGS, "n": 2})
    assert [step.iteration for step in traced.steps] == ["", *["i = 0"] * 2, *["i = 1"] * 2, ""]
    longest = trace(LOOP, {**ARGS, "n": MAX_ITERATIONS})
    assert len(longest.steps) == 2 * MAX_ITERATIONS + 2 == 34
    np.testing.assert_array_equal(traced.returned[1], np.tanh(np.tanh(Z) + 1))


@pytest.mark.parametrize(
    "loop",
    [
        f"for i in range({MAX_ITERATIONS + 1}):\n        z = z + i",
        "for i in range(2):\n        if i:\n            z = z + i",
        "for i in range(2):\n        z = z + i\n    else:\n        z = z + 9",
        "for i, j in [(1, 2), (3, 4)]:\n        z = z + i + j",
        "for i in []:\n        z = z + i",
        "while z[0] < 9:\n        z = z + 1",
    ],
)
def test_a_long_or_complicated_loop_is_one_step(loop: str) -> None:
    text = f"def forward(x):\n    z = x * 2\n    {loop}\n    return z, x"
    traced = trace(text, {"x": np.arange(3.0)})
    assert len(traced.steps) == 2
    np.testing.assert_array_equal(traced.returned[0], module_of(text)["forward"](np.arange(3.0))[0])


# Values


def test_the_uses_of_a_value_are_the_steps_that_read_it_until_it_is_set_again() -> None:
    traced = trace(FORWARD)
    assert traced.uses(Value("z", 0)) == [1, 2, 3]
    assert traced.uses(Value("y", 3)) == []
    twice = trace(LOOP, {**ARGS, "n": 2})
    assert twice.uses(Value("h", 0)) == [1]
    assert twice.uses(Value("h", 4)) == [5]


# Rerunning with a value replaced


def test_the_output_with_a_value_replaced_is_right() -> None:
    traced = trace(FORWARD)
    np.testing.assert_array_equal(traced.output_with(Value("z", 0))(OTHER), after_z(OTHER))
    np.testing.assert_array_equal(traced.output_with(Value("a", 1))(OTHER), OTHER * Z + Z)
    np.testing.assert_array_equal(traced.output_with(Value("y", 3))(OTHER), OTHER)
    np.testing.assert_array_equal(traced.output_with(Value("x", -1))(2 * X), after_z((2 * X) @ W))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1, np.tanh(OTHER) * Z + Z), (2, np.tanh(Z) * OTHER + Z), (3, np.tanh(Z) * Z + OTHER)],
)
def test_a_value_replaced_for_one_use_keeps_its_original_elsewhere(
    step: int, expected: np.ndarray
) -> None:
    found = trace(FORWARD).output_with_use(Value("z", 0), step)(OTHER)
    np.testing.assert_array_equal(found, expected)


def test_a_step_that_overwrites_the_replaced_value_keeps_its_result() -> None:
    traced = trace(LOOP, {**ARGS, "n": 1})
    in_place = trace("def forward(x):\n    x += 1\n    y = 3 * x\n    return y, 0", {"x": X})
    found = in_place.output_with_use(Value("x", -1), 0)(2 * X)
    np.testing.assert_array_equal(found, 3 * (2 * X + 1))
    np.testing.assert_array_equal(
        traced.output_with_use(Value("h", 0), 1)(OTHER), 2 * np.tanh(OTHER)
    )


# In-place changes


def test_in_place_changes_do_not_affect_other_reruns() -> None:
    args = {"x": X.copy(), "w": W.copy()}
    traced = trace(IN_PLACE, args)
    expected = traced.returned[0].copy()
    starts = [OTHER.copy(), Z.copy(), OTHER.copy()]
    for value in (Value("z", 0), Value("z", 1), Value("x", -1)):
        run = traced.output_with(value)
        data = copy.deepcopy(traced.data(value))
        first, again = run(data.copy()), run(data.copy())
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(traced.data(value), data)
    np.testing.assert_array_equal(starts[0], OTHER)
    np.testing.assert_array_equal(args["x"], X)


def test_a_forward_may_change_its_argument_in_place() -> None:
    x = X.copy()
    traced = trace("def forward(x):\n    x *= 2\n    y = x + 1\n    return y, 0", {"x": x})
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(traced.returned[0], 2 * X + 1)
    np.testing.assert_array_equal(traced.output_with(Value("x", -1))(-X), 1 - 2 * X)
    np.testing.assert_array_equal(traced.data(Value("x", -1)), X)


def test_aliases_stay_aliases_in_a_rerun() -> None:
    text = (
        "def forward(x):\n    a = x * 2\n    b = a\n    c = x * 1\n    b += c\n"
        "    y = a * 3\n    return y, 0"
    )
    traced = trace(text, {"x": X})
    np.testing.assert_array_equal(traced.output_with(Value("c", 2))(-X), 3 * (2 * X - X))


# Errors


@pytest.mark.parametrize(
    ("line", "number", "error"),
    [
        ("z = x @ x", 3, "ValueError: matmul"),
        ("for i in range(3): z = x[7]", 3, "IndexError"),
        ("for i in 5: z = 1", 3, "TypeError"),
        ("z = 1", 4, "NameError: name 'y' is not defined"),
    ],
)
def test_a_forward_that_raises_is_refused_with_file_and_line(
    line: str, number: int, error: str
) -> None:
    with pytest.raises(StudyError, match=rf"^own.py, line \d: forward raises {error}") as raised:
        trace(f"def forward(x):\n    a = 1\n    {line}\n    return y, 0", {"x": X})
    if "in 5" not in line:
        assert f"line {number}:" in str(raised.value)


@pytest.mark.parametrize("count", [3, 40])
def test_a_loop_over_an_iterator_uses_it_once(count: int) -> None:
    text = (
        f"def forward(x):\n    items = iter(range({count}))\n    y = x\n"
        "    for t in items:\n        y = y * 0.9\n    return y, 0"
    )
    found = trace(text, {"x": X})
    np.testing.assert_allclose(found.returned[0], X * 0.9**count)
    np.testing.assert_allclose(found.output_with(Value("x", -1))(2 * X), 2 * X * 0.9**count)
