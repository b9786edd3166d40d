"""Tests of running a function step by step and rerunning it with a value replaced."""

import numpy as np
import pytest
from helpers.study_targets import ARGS, FORWARD, W, X, module_of, trace

from tinygpt_np.study.source.steps import MAX_ITERATIONS
from tinygpt_np.study.source.trace import Value

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
    x *= 2
    z = x @ w
    z += 1
    z[0] = 3
    np.multiply(z, z, out=z)
    y = z * 2
    return y, z
"""
ALIASES = """
def forward(x):
    a = x * 2
    b = a
    c = x * 1
    b += c
    y = a * 3
    return y, 0
"""


# Steps


def test_each_statement_in_each_iteration_of_a_loop_is_a_step() -> None:
    traced = trace(LOOP, {**ARGS, "n": 2})
    assert [step.index for step in traced.steps] == [*range(6)]
    assert [step.iteration for step in traced.steps] == ["", *["i = 0"] * 2, *["i = 1"] * 2, ""]
    longest = trace(LOOP, {**ARGS, "n": MAX_ITERATIONS})
    assert len(longest.steps) == 2 * MAX_ITERATIONS + 2 == 34
    np.testing.assert_array_equal(traced.returned[1], np.tanh(np.tanh(Z) + 1))
    assert traced.uses(Value("h", 0)) == [1]
    assert traced.uses(Value("h", 4)) == [5]


@pytest.mark.parametrize(
    "loop",
    [
        f"for i in range({MAX_ITERATIONS + 1}):\n        z = z + i",
        "for i in range(2):\n        z = z + i\n    else:\n        z = z + 9",
        "try:\n        z = z + 1\n    except ValueError:\n        z = z + 9",
    ],
)
def test_another_compound_statement_is_one_step(loop: str) -> None:
    text = f"def forward(x):\n    z = x * 2\n    {loop}\n    return z, x"
    traced = trace(text, {"x": np.arange(3.0)})
    assert len(traced.steps) == 2
    np.testing.assert_array_equal(traced.returned[0], module_of(text)["forward"](np.arange(3.0))[0])


# Rerunning with a value replaced


def test_the_output_with_a_value_replaced_is_right() -> None:
    traced = trace(FORWARD)
    for value, output in [
        (Value("z", 0), np.tanh(OTHER) * OTHER + OTHER), (Value("a", 1), OTHER * Z + Z),
        (Value("y", 3), OTHER),
    ]:  # fmt: skip
        np.testing.assert_array_equal(traced.output_with(value, OTHER), output)
    expected = np.tanh(2 * Z) * (2 * Z) + 2 * Z
    np.testing.assert_array_equal(traced.output_with(Value("x", -1), 2 * X), expected)
    # Replaced for one use only.
    assert traced.uses(Value("z", 0)) == [1, 2, 3]
    for step, output in [
        (1, np.tanh(OTHER) * Z + Z), (2, np.tanh(Z) * OTHER + Z), (3, np.tanh(Z) * Z + OTHER)
    ]:  # fmt: skip
        found = traced.output_with_use(Value("z", 0), step, OTHER)
        np.testing.assert_array_equal(found, output)


def test_a_step_that_only_saves_a_value_does_not_use_it() -> None:
    text = (
        "def forward(x):\n    z = 2 * x\n    cache = (x, z)\n    mean = z.mean()\n"
        "    y = z * z\n    return y, (cache, mean)"
    )
    traced = trace(text, {"x": X})
    assert traced.live == {0, 3}
    assert traced.uses(Value("z", 0)) == [3]


def test_a_step_that_overwrites_the_replaced_value_keeps_its_result() -> None:
    in_place = trace("def forward(x):\n    x += 1\n    y = 3 * x\n    return y, 0", {"x": X})
    found = in_place.output_with_use(Value("x", -1), 0, 2 * X)
    np.testing.assert_array_equal(found, 3 * (2 * X + 1))
    found = trace(LOOP, {**ARGS, "n": 1}).output_with_use(Value("h", 0), 1, OTHER)
    np.testing.assert_array_equal(found, 2 * np.tanh(OTHER))


@pytest.mark.parametrize("count", [3, 40])
def test_a_loop_over_an_iterator_uses_it_once(count: int) -> None:
    text = (
        f"def forward(x):\n    items = iter(range({count}))\n    y = x\n"
        "    for t in items:\n        y = y * 0.9\n    return y, 0"
    )
    found = trace(text, {"x": X})
    np.testing.assert_allclose(found.returned[0], X * 0.9**count)
    np.testing.assert_allclose(found.output_with(Value("x", -1), 2 * X), 2 * X * 0.9**count)


# In-place changes


def test_in_place_changes_do_not_affect_other_reruns() -> None:
    args = {"x": X.copy(), "w": W.copy()}
    traced = trace(IN_PLACE, args)
    expected = traced.returned[0].copy()
    for value in (Value("z", 1), Value("z", 2), Value("x", 0), Value("x", -1)):
        data = traced.data(value).copy()
        for _ in range(2):
            np.testing.assert_array_equal(traced.output_with(value, data.copy()), expected)
        np.testing.assert_array_equal(traced.data(value), data)
    np.testing.assert_array_equal(args["x"], X)


def test_aliases_stay_aliases_and_generators_restart_in_a_rerun() -> None:
    traced = trace(ALIASES, {"x": X})
    np.testing.assert_array_equal(traced.output_with(Value("c", 2), -X), 3 * (2 * X - X))
    text = "def forward(x, rng):\n    k = rng.random()\n    y = k * x\n    return y, 0"
    drawing = trace(text, {"x": X, "rng": np.random.default_rng(1)})
    found = drawing.output_with(Value("x", -1), 2 * X)
    np.testing.assert_array_equal(found, 2 * drawing.returned[0])


@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        (("out = 0 * x", "top = out[:1]", "top += x[:1]"), {"top", "out"}),
        (("out = 0 * x", "add(out, x)", "out = out + 1"), {"out"}),
        (("out = x * 1", "done = add(out, x)", "k = 0"), {"out", "done"}),
        (("out = x * 1", "n = [out]", "n[0] *= x"), {"out", "n[0]"}),
    ],
)  # fmt: skip
def test_an_array_that_changes_under_another_name_has_a_new_value(
    lines: tuple[str, ...], changes: set[str]
) -> None:
    body = "\n    ".join(lines)
    text = f"def add(a, b):\n    a += b\n\ndef forward(x):\n    {body}\n    return out * x, 0"
    traced = trace(text, {"x": X.copy()})
    assert {
        *next(s for s in traced.steps if "out" in s.statement.changes).statement.sets
    } == changes
    assert traced.live >= {s.index for s in traced.steps if "out" in s.statement.sets}
    found = traced.output_with(Value("x", -1), 2 * X)
    np.testing.assert_array_equal(found, module_of(text)["forward"](2 * X)[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("def forward(x):\n    a = b = x * 2\n    a += 1\n    return a * b, 0", Value("a", 0)),
        (
            "def forward(x):\n    y = 0 * x\n    a = y[:1]\n    a += x[1:2]\n    return y + x, 0",
            Value("a", 1),
        ),
    ],
)
def test_a_value_that_changes_under_another_name_is_not_replaced(text: str, value: Value) -> None:
    traced = trace(text, {"x": X})
    assert value in traced.values()
    assert not traced.can_be_replaced(value)
    assert traced.can_be_replaced(Value("x", -1))
    assert trace(LOOP, {**ARGS, "n": 2}).can_be_replaced(Value("h", 2))
