"""The smallest change that makes a line right: which ones are tried, and which is reported."""

import ast
import copy
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.causes import MISTAKES
from tinygpt_np.ops import softmax
from tinygpt_np.study.proof.repairs import Operand, WrongLine, mistakes
from tinygpt_np.study.source.parse import Names, find_function
from tinygpt_np.study.source.paths import Namespace
from tinygpt_np.study.source.steps import Step, compiled

rng = np.random.default_rng(2)
A, B = rng.standard_normal((2, 3, 4))
W, S = rng.standard_normal((4, 5)), rng.standard_normal((4, 4))
MODULES: Namespace = {"np": np, "softmax": softmax}
VALUES: Namespace = {
    **MODULES, "a": A, "b": B, "w": W, "s": S, "column": B[:, :1],
    "row": B[0], "n": 7, "ids": np.array([0, 2, 2]), "pair": (A, B), "mask": None, "flag": True,
    "saved": softmax.forward(A)[1], "total": A * B + 1, "flip": np.flipud,
    "deep": rng.standard_normal((6, 3, 4)),
}  # fmt: skip


FUNCTION = find_function("def backward(d, saved):\n    return d", "backward", "own.py")


def step(text: str) -> Step:
    (node,) = ast.parse(text).body
    return Step(0, Names(node, VALUES).statement(node, text, ""), {}, compiled(node), FUNCTION)


def is_near(value: Any, expected: Any) -> bool:
    same_shape = np.shape(value) == np.shape(expected)
    return same_shape and np.allclose(value, expected, rtol=1e-9, atol=0)


def found(wrong: str, right: str, name: str = "d", **values: Any) -> dict[str, str]:
    """Return the mistakes in a statement, given the right one."""
    expected = (
        copy.deepcopy({n: v for n, v in VALUES.items() if n not in MODULES}) | MODULES | values
    )
    exec(right, expected)

    def is_right(namespace: Namespace) -> bool:
        return is_near(namespace[name], expected[name])

    numbers = [Operand("np.sqrt(n)", 7**0.5)]
    before = {0: {**VALUES, **values}}
    return mistakes(WrongLine([step(wrong)], before, MODULES, is_right, numbers, ["flip"]))


@pytest.mark.parametrize(
    ("wrong", "right", "mistake", "how"),
    [
        ("d = a + b", "d = a - b", "the sign is wrong", "write `a - b` for `a + b`"),
        ("d = -a * b", "d = a * b", "the sign is wrong", "leave out the minus sign"),
        ("d = a * b", "d = -a * b", "the sign is wrong", "negate `d`"),
        ("d = a * b", "d = a / b", "multiplied, not divided", "write `a / b` for `a * b`"),
        ("d = a / b", "d = a * b", "divided, not multiplied", "write `a * b` for `a / b`"),
        ("d = a / b", "d = b / a", "the operands are swapped", "write `b / a` for `a / b`"),
        ("d = a @ a.T @ b", "d = a.T @ a @ b.T", "", ""),
        ("d = s @ w", "d = s.T @ w", "a transpose is missing", "write `s.T` for `s`"),
        ("d = s.T @ w", "d = s @ w", "a transpose too many", "write `s` for `s.T`"),
        ("d = s @ s.T", "d = s.T @ s", "the operands are swapped", "write `s.T @ s` for `s @ s.T`"),
        ("d = a * b * b", "d = a * b", "a factor too many", "leave out `* b`"),
        ("d = a + b + b", "d = a + b", "a term too many", "leave out `+ b`"),
        ("d = a / 2", "d = a", "a factor too many", "leave out `/ 2`"),
        ("d = a", "d = a * b", "a factor is missing", "multiply `d` by `b`"),
        ("d = a * row", "d = a * row / n", "a factor is missing", "divide `d` by `n`"),
        ("d = a", "d = a / 7 ** 0.5", "a factor is missing", "divide `d` by `np.sqrt(n)`"),
        ("d = a", "d = 2 * a", "a factor is missing", "multiply `d` by `2`"),
        (
            "d = a", "d = a * (1 - b * b)", "a factor is missing",
            "multiply `d` by `(1 - b * b)`, the derivative of tanh",
        ),
        (
            "d = a", "d = a * (b > 0)", "a factor is missing",
            "multiply `d` by `(b > 0)`, the mask of a ReLU",
        ),
        ("d = a", "d = a * ids[:, None]", "a factor is missing", "multiply `d` by `ids[:, None]`"),
        ("d = a", "d = a + b", "a term is missing", "add `b` to `d`"),
        ("d = a * b", "d = a * (b - row)", "a term is missing", "subtract `row` from `b`"),
        ("d = a", "d = a + b * column", "a term is missing", "add `column * b` to `d`"),
        (
            "d = a / column",
            "d = (a - b * (a * b).mean(axis=1, keepdims=True)) / column",
            "a term is missing",
            "subtract `b * (b * a).mean(axis=1, keepdims=True)` from `a`",
        ),
        ("d = a.sum(axis=1)", "d = a.mean(axis=1)", "a sum, not a mean", "write `a.mean(axis=1)`"),
        ("d = np.sum(a, 1)", "d = a.sum(axis=0)", "the wrong axis", "write `a.sum(axis=0)` for"),
        ("d = deep.sum(axis=0)", "d = deep.sum(axis=(0, 1))", "the wrong axis", "write `deep.sum"),
        ("d = deep", "d = deep.sum(axis=(0, 1))", "a sum is missing", "write `deep.sum(axis=(0, 1"),
        ("d = a.sum(1)", "d = a.sum(1, keepdims=True)", "keepdims is missing", "write `a.sum(axis"),
        ("d = a", "d = a.sum(axis=0)", "a sum is missing", "write `a.sum(axis=0)` for `a`"),
        ("d = a.sum(axis=0)", "d = a", "a sum too many", "write `a` for `a.sum(axis=0)`"),
        ("d = np.ones_like(a) * b", "d = a * b", "the upstream gradient is ignored", "write `a`"),
        ("d = np.where(a > 0, b, 0)", "d = np.where(a > 0, 0, b)", "the mask is wrong", "write"),
        ("d = a / len(ids)", "d = a / ids.shape[0] * 3 / 7", "the wrong number", "write `n` for"),
        ("total = a", "total = total + a", "not accumulated", "write `total += a` for `total = a`"),
        ("total += a", "pass", "counted twice", "leave out this `total += a`"),
        ("total -= b", "total += b", "the sign is wrong", "write `total += b` for `total -= b`"),
        ("total[ids] += b", "np.add.at(total, ids, b)", "repeated indices are lost", "write"),
        ("e, d = pair", "d, e = pair", "unpacked in the wrong order", "write `d, e = pair`"),
        (
            "d = np.concatenate([a, b])", "d = np.concatenate([b, a])", "the order is wrong",
            "write `[b, a]` for `[a, b]`",
        ),
        (
            "d = b * row[1] if flag else a * row", "d = a * row", "the condition is wrong",
            "write `a * row if flag else b * row[1]` for",
        ),
        ("d = a * mask", "d = a", "a condition is missing", "`mask` is None here"),
        ("d = a", "d = np.exp(a)", "a call is missing", "write `np.exp(a)` for `a`"),
        ("d = a * b", "d = flip(a) * b", "a call is missing", "write `flip(a)` for `a`"),
        ("d = flip(a) * b", "d = a * b", "a call too many", "write `a` for `flip(a)`"),
        (
            "d = b", "d = softmax.backward(b, saved)", "a call is missing",
            "write `softmax.backward(b, saved)` for `b`",
        ),
    ],
)  # fmt: skip
def test_the_smallest_change_that_makes_a_line_right_names_the_mistake(
    wrong: str, right: str, mistake: str, how: str
) -> None:
    name = "total" if "total" in wrong else "d"
    corrected = found(wrong, right, name)
    assert [*corrected] == ([mistake] if mistake else [])
    assert corrected.get(mistake, "").startswith(how)
    assert {*corrected} <= {*MISTAKES}


def test_changes_that_correct_different_mistakes_are_all_found() -> None:
    # `half` has the value that the division by 2 gives.
    corrected = found("d = b / 2", "d = b", half=B / 2, double=2 * B)
    assert corrected == {
        "a factor too many": "leave out `/ 2`", "the wrong value": "write `double` for `b`",
    }  # fmt: skip
    # A replacement of a name may lack a factor as well.
    corrected = found("d = a", "d = b", ratio=B / A)
    assert [*corrected] == ["the wrong value", "a factor is missing"]


def test_the_latest_of_names_with_the_same_value_is_proposed() -> None:
    assert found("d = a", "d = a * b", early=B, late=B)["a factor is missing"].endswith("`late`")


def test_a_line_that_no_small_change_makes_right_has_no_mistake() -> None:
    assert found("d = a", "d = np.cos(a) * b") == {}
    assert found("d = unknown * a", "d = a @ w") == {}


def test_a_line_that_is_right_has_no_mistake() -> None:
    assert found("d = a + b", "d = b + a") == {}


def test_a_statement_in_a_loop_that_is_one_step_is_changed() -> None:
    loop = "for i in range(3):\n    total = total {} row * i"
    corrected = found(loop.format("-"), loop.format("+"), "total")
    assert corrected == {"the sign is wrong": "write `total + row * i` for `total - row * i`"}
    loop = "for i in ids:\n    total[i] {} b[i]"
    assert [*found(loop.format("="), loop.format("+="), "total")] == ["not accumulated"]


def test_an_earlier_line_may_have_the_mistake() -> None:
    steps = [step("m = a.mean(axis=0)"), step("d = a - m")]
    before = {1: {**VALUES, "m": A.mean(axis=0)}, 0: VALUES}
    right = A - A.sum(axis=0)

    def is_right(namespace: Namespace) -> bool:
        return is_near(namespace["d"], right)

    corrected = mistakes(WrongLine(steps, before, MODULES, is_right))
    assert corrected["a mean, not a sum"] == "write `a.sum(axis=0)` for `a.mean(axis=0)`"


def test_trying_changes_changes_nothing() -> None:
    before = VALUES["total"].copy()
    found("total[ids] += b", "total[ids] += b * row", "total")
    assert np.array_equal(VALUES["total"], before)
