import copy
from typing import Any

import numpy as np
import pytest
from study_own import ARGS, FORWARD, W, X, names_of, trace

from tinygpt_np.study.source import StudyError
from tinygpt_np.study.trace import ROUNDS, Value

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
    """The forward of study_own from z on."""
    return np.tanh(z) * z + z


# Steps


def test_a_straight_forward_is_a_step_a_statement() -> None:
    traced = trace(FORWARD)
    texts = ["z = x @ w", "a = np.tanh(z)", "b = a * z", "y = b + z"]
    assert [step.statement.text for step in traced.steps] == texts
    assert [step.index for step in traced.steps] == [0, 1, 2, 3]
    np.testing.assert_array_equal(traced.returned[0], after_z(Z))


def test_before_each_step_is_known_what_was_set_before_it() -> None:
    traced = trace(FORWARD)
    assert [name in traced.before[1] for name in ("x", "z", "a")] == [True, True, False]
    assert {"x", "w", "z", "a", "b", "y"} <= {*traced.before[-1]}


def test_a_loop_is_a_step_for_each_statement_of_each_round() -> None:
    traced = trace(LOOP, {**ARGS, "n": 2})
    assert [step.round for step in traced.steps] == ["", *["i = 0"] * 2, *["i = 1"] * 2, ""]
    np.testing.assert_array_equal(traced.returned[1], np.tanh(np.tanh(Z) + 1))


@pytest.mark.parametrize(
    "loop",
    [
        f"for i in range({ROUNDS + 1}):\n        z = z + i",
        "for i in range(2):\n        if i:\n            z = z + i",
        "for i in range(2):\n        z = z + i\n    else:\n        z = z + 9",
        "for i, j in [(1, 2), (3, 4)]:\n        z = z + i + j",
        "for i in []:\n        z = z + i",
        "while z[0] < 9:\n        z = z + 1",
    ],
)
def test_a_loop_that_is_long_or_not_plain_is_one_step(loop: str) -> None:
    text = f"def forward(x):\n    z = x * 2\n    {loop}\n    return z, x"
    traced = trace(text, {"x": np.arange(3.0)})
    assert len(traced.steps) == 2
    np.testing.assert_array_equal(traced.returned[0], names_of(text)["forward"](np.arange(3.0))[0])


def test_the_longest_loop_that_is_taken_apart_has_16_rounds() -> None:
    text = "def forward(x, n):\n    for i in range(n):\n        x = x + i\n    return x, n"
    assert len(trace(text, {"x": X, "n": ROUNDS}).steps) == ROUNDS == 16


def test_loop_variables_are_known_in_their_round() -> None:
    traced = trace(LOOP, {**ARGS, "n": 3})
    run = traced.one_step("h", 3, ("a",))
    np.testing.assert_array_equal(run(OTHER), (OTHER + 1).reshape(-1))


# Values


def test_a_name_set_twice_is_two_values() -> None:
    traced = trace(LOOP, {**ARGS, "n": 2})
    values = [value for value in traced.values() if value.name == "h"]
    assert values == [Value("h", 0), Value("h", 2), Value("h", 4)]
    helds = [Z, np.tanh(Z), np.tanh(np.tanh(Z) + 1)]
    for value, held in zip(values, helds, strict=True):
        np.testing.assert_array_equal(traced.held(value), held)


def test_a_step_reads_the_value_that_was_set_last() -> None:
    traced = trace(LOOP, {**ARGS, "n": 2})
    assert traced.reaching("h", 0) == Value("h", -1)
    assert traced.reaching("h", 2) == Value("h", 0)
    assert traced.reaching("h", 5) == Value("h", 4)


def test_arguments_are_values_before_the_first_step() -> None:
    traced = trace(FORWARD)
    assert [*traced.values()][:2] == [Value("x", -1), Value("w", -1)]
    np.testing.assert_array_equal(traced.held(Value("w", -1)), W)


def test_the_uses_of_a_value_are_the_steps_that_read_it_until_it_is_set_again() -> None:
    traced = trace(FORWARD)
    assert traced.uses(Value("z", 0)) == [1, 2, 3]
    assert traced.uses(Value("y", 3)) == []
    twice = trace(LOOP, {**ARGS, "n": 2})
    assert twice.uses(Value("h", 0)) == [1]
    assert twice.uses(Value("h", 4)) == [5]


# The rest with one value changed


def test_the_rest_is_what_a_computation_by_hand_gives() -> None:
    traced = trace(FORWARD)
    np.testing.assert_array_equal(traced.rest(Value("z", 0))(OTHER), after_z(OTHER))
    np.testing.assert_array_equal(traced.rest(Value("a", 1))(OTHER), OTHER * Z + Z)
    np.testing.assert_array_equal(traced.rest(Value("y", 3))(OTHER), OTHER)
    np.testing.assert_array_equal(traced.rest(Value("x", -1))(2 * X), after_z((2 * X) @ W))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, np.tanh(OTHER) * Z + Z),
        (2, np.tanh(Z) * OTHER + Z),
        (3, np.tanh(Z) * Z + OTHER),
    ],
)
def test_where_one_step_reads_another_value_the_others_read_the_true_one(
    step: int, expected: np.ndarray
) -> None:
    found = trace(FORWARD).rest_where_read(Value("z", 0), step)(OTHER)
    np.testing.assert_array_equal(found, expected)


def test_what_a_step_makes_of_another_value_of_the_name_it_sets_is_kept() -> None:
    traced = trace(LOOP, {**ARGS, "n": 1})
    in_place = trace("def forward(x):\n    x += 1\n    y = 3 * x\n    return y, 0", {"x": X})
    found = in_place.rest_where_read(Value("x", -1), 0)(2 * X)
    np.testing.assert_array_equal(found, 3 * (2 * X + 1))
    np.testing.assert_array_equal(
        traced.rest_where_read(Value("h", 0), 1)(OTHER), 2 * np.tanh(OTHER)
    )


def test_one_step_alone_gives_its_outputs_one_after_another() -> None:
    text = "def forward(x):\n    a, b = x + 1, x * 2\n    y = a + b\n    return y, 0"
    found = trace(text, {"x": X}).one_step("x", 0, ("a", "b"))(-X)
    np.testing.assert_array_equal(found, [*(1 - X).ravel(), *(-2 * X).ravel()])


def test_values_of_a_loop_are_replayed_from_their_round_on() -> None:
    traced = trace(LOOP, {**ARGS, "n": 3})
    expected = 2 * np.tanh(np.tanh(OTHER + 1) + 2)
    np.testing.assert_array_equal(traced.rest(Value("h", 2))(OTHER), expected)


# What changes in place


def test_what_a_forward_changes_in_place_does_not_leak_between_replays() -> None:
    args = {"x": X.copy(), "w": W.copy()}
    traced = trace(IN_PLACE, args)
    expected = traced.returned[0].copy()
    starts = [OTHER.copy(), Z.copy(), OTHER.copy()]
    for value in (Value("z", 0), Value("z", 1), Value("x", -1)):
        run = traced.rest(value)
        held = copy.deepcopy(traced.held(value))
        first, again = run(held.copy()), run(held.copy())
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(traced.held(value), held)
    np.testing.assert_array_equal(starts[0], OTHER)
    np.testing.assert_array_equal(args["x"], X)


def test_a_forward_may_change_its_argument_and_ours_is_as_it_was() -> None:
    x = X.copy()
    traced = trace("def forward(x):\n    x *= 2\n    y = x + 1\n    return y, 0", {"x": x})
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(traced.returned[0], 2 * X + 1)
    np.testing.assert_array_equal(traced.rest(Value("x", -1))(-X), 1 - 2 * X)
    np.testing.assert_array_equal(traced.held(Value("x", -1)), X)


def test_what_is_changed_beside_another_value_does_not_leak_either() -> None:
    text = (
        "def forward(x):\n    a = x * 2\n    b = x * 3\n    a += b\n    y = a * b\n    return y, 0"
    )
    traced = trace(text, {"x": X})
    for _ in range(2):
        np.testing.assert_array_equal(traced.rest(Value("b", 1))(-X), (2 * X - X) * -X)
        found = traced.rest_where_read(Value("b", 1), 2)(-X)
        np.testing.assert_array_equal(found, (2 * X - X) * (X * 3))
        np.testing.assert_array_equal(traced.one_step("b", 2, ("a",))(-X), (2 * X - X).ravel())


def test_two_names_of_one_array_stay_one_array_in_a_replay() -> None:
    text = (
        "def forward(x):\n    a = x * 2\n    b = a\n    c = x * 1\n    b += c\n"
        "    y = a * 3\n    return y, 0"
    )
    traced = trace(text, {"x": X})
    np.testing.assert_array_equal(traced.rest(Value("c", 2))(-X), 3 * (2 * X - X))


# What is returned


@pytest.mark.parametrize(
    ("returned", "out"),
    [("y", 1.0), ("(y, x)", 1.0), ("[y, x]", [1.0, 0]), ("(y, x, 5)", (1, 0, 5))],
)
def test_of_two_results_the_output_is_the_first(returned: str, out: Any) -> None:
    traced = trace(f"def forward(x):\n    y = x + 1\n    return {returned}", {"x": 0})
    assert traced.output(traced.returned) == out


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
def test_a_forward_that_raises_is_refused_by_file_and_line(
    line: str, number: int, error: str
) -> None:
    with pytest.raises(StudyError, match=rf"^own.py, line \d: forward raises {error}") as raised:
        trace(f"def forward(x):\n    a = 1\n    {line}\n    return y, 0", {"x": X})
    if "in 5" not in line:
        assert f"line {number}:" in str(raised.value)


@pytest.mark.parametrize("rounds", [3, 40])
def test_a_loop_over_an_iterator_goes_through_it_once(rounds: int) -> None:
    text = (
        f"def forward(x):\n    rounds = iter(range({rounds}))\n    y = x\n"
        "    for t in rounds:\n        y = y * 0.9\n    return y, 0"
    )
    found = trace(text, {"x": X})
    np.testing.assert_allclose(found.returned[0], X * 0.9**rounds)
    np.testing.assert_allclose(found.rest(Value("x", -1))(2 * X), 2 * X * 0.9**rounds)
