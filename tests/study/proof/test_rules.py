"""Each forward line has a rule, and the formulas of each rule give the measured gradients."""

from typing import Any

import numpy as np
import pytest
from helpers.study_targets import function, gradient_of, module_of, truth, truth_of

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof.rules import RULES, Rule, rule_of
from tinygpt_np.study.source.trace import Value

rng = np.random.default_rng(4)
A, B = rng.standard_normal((4, 5)), 2 + rng.random((4, 5))
ROW, SQUARE, TALL = 2 + rng.random((1, 5)), rng.standard_normal((5, 3)), rng.standard_normal((6, 5))
IDS = np.array([2, 0, 2, 1, 2])
FUNCTIONS = """
from tinygpt_np.ops.attention import merge_heads, split_heads
from tinygpt_np.ops.gelu_exact import error_function
"""


def rule(line: str) -> Rule | None:
    statement = function(f"def forward(x):\n    {line}\n    return y").statements[0]
    return rule_of(statement, "np.real" in line)


# Expressions with their rules, and arguments for which the formulas are checked.
EXPRESSIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("a + b", "sum", {"a": A, "b": B}),
    ("a + b", "sum", {"a": A, "b": ROW}),
    ("a - b", "difference", {"a": A, "b": ROW}),
    ("a * b", "product", {"a": A, "b": ROW}),
    ("x * x", "square", {"x": A}),
    ("a / b", "quotient", {"a": A, "b": ROW}),
    ("a @ b", "matrix product", {"a": A, "b": SQUARE}),
    ("a @ b.T", "matrix product with a transpose", {"a": A, "b": TALL}),
    ("np.where(c, a, b)", "selection", {"a": A, "b": B, "c": A > 0}),
    ("np.exp(x)", "exponential", {"x": A}),
    ("np.log(x)", "logarithm", {"x": B}),
    ("np.sqrt(x)", "square root", {"x": B}),
    ("np.tanh(x)", "tanh", {"x": A}),
    ("error_function(x)", "error function", {"x": A}),
    ("x.copy()", "copy", {"x": A}),
    ("x", "copy", {"x": A}),
    ("x.sum(axis=-1, keepdims=True)", "sum over an axis", {"x": A, "n": 5}),
    ("x.mean(axis=-1, keepdims=True)", "mean", {"x": A, "n": 5}),
    ("x.mean()", "mean", {"x": A, "n": 20}),
]
OTHER_LINES = {
    "y = 1 + a": "sum",
    "y: int = (a * b) * c": "product",
    "y = a[0] * a[0]": "square",
    "y = a @ b.mT": "matrix product with a transpose",
    "y = a.T @ b": "matrix product",
    "y = np.real(a).max(axis=-1)": "constant",
    "y = a.reshape(2, -1).swapaxes(0, 1)": "rearrangement",
    "y, z = np.split(a, 2)": "rearrangement",
    "y = a if b is None else a + b": "sum",
    "y = a.copy() if b is None else a * b": "product",
}


def test_a_line_has_the_rule_of_its_operation() -> None:
    lines = {f"y = {line}": name for line, name, _ in EXPRESSIONS} | OTHER_LINES
    assert {line: rule(line) for line in lines} == {line: RULES[n] for line, n in lines.items()}


def test_other_lines_have_no_rule() -> None:
    for line in (
        *("y = a ** 2", "y = a % b", "y = f(a)", "y = np.sinh(a)", "y = a.fill(3)", "y = -a"),
        *("y += a", "y = a[0]", "y = np.exp(a).sum(axis=-1)", "y: int", "y = [a, b]"),
    ):
        assert rule(line) is None, line


def test_a_call_of_a_layer_refers_to_its_derivation() -> None:
    found = rule("y, saved = ops.softmax.forward(x)")
    assert found is not None
    assert (found.name, found.operation) == ("the backward of softmax", "softmax")
    assert found == rule("y, saved = softmax.forward(x)")


@pytest.mark.parametrize("name", [*VARIANTS, "block", "bigram"])
def test_every_differentiable_line_has_a_rule(name: str) -> None:
    found = truth_of(name)
    for step in found.trace.steps:
        if any(value.step == step.index for value in found.differentiable):
            text, each = step.statement.text, rule_of(step.statement)
            # The line reads two values, and only the table has a gradient.
            assert text.startswith("ids, table = ") or (each and (each.operation or each.formulas))


# Whether the formulas are right


# Each right-hand side of a formula as code; dy, a, b, x and y are the names in the formulas.
MEANING = {
    "dy": "dy", "-dy": "-dy", "dy ∘ a": "dy * a", "dy ∘ b": "dy * b", "2 dy ∘ x": "2 * dy * x",
    "dy / b": "dy / b", "-dy ∘ a / b²": "-dy * a / b**2", "-dy ∘ y / b": "-dy * y / b",
    "dY Bᵀ": "dy @ b.T", "Aᵀ dY": "a.T @ dy", "dY B": "dy @ b", "dYᵀ A": "dy.T @ a",
    "dy ∘ exp(x)": "dy * np.exp(x)", "dy ∘ y": "dy * y", "dy / x": "dy / x", "dy / n": "dy / n",
    "dy / (2 √x)": "dy / (2 * np.sqrt(x))", "dy / (2 y)": "dy / (2 * y)",
    "dy ∘ (1 - tanh² x)": "dy * (1 - np.tanh(x) ** 2)", "dy ∘ (1 - y²)": "dy * (1 - y**2)",
    "dy ∘ 2/√π exp(-x²)": "dy * 2 / np.pi**0.5 * np.exp(-(x**2))",
    "dy where it holds, else 0": "np.where(c, dy, 0)",
}  # fmt: skip


@pytest.mark.parametrize(("line", "name", "args"), EXPRESSIONS)
def test_the_formulas_of_a_rule_give_the_measured_gradients(
    line: str, name: str, args: dict[str, Any]
) -> None:
    text = f"{FUNCTIONS}\ndef forward({', '.join(args)}):\n    y = {line}\n    return y, 0"
    measured = truth(text, args)
    values: dict[str, Any] = {"np": np, **args, "dy": measured.doutput, "y": measured.out}
    unchecked = {name for name in args if name not in "cn"} - ({"b"} if "c" in args else set())
    for formula in RULES[name].formulas:
        left, *rights = formula.split(" = ")
        argument = left.lower().removesuffix("_i")[1:]
        for right in rights if left[0] == "d" and argument in args else ():
            gradient = eval(MEANING[right], values) + np.zeros_like(args[argument])
            # If one side was broadcast, its gradient is summed over the broadcast axes.
            axes = tuple(np.flatnonzero(np.array(gradient.shape) != args[argument].shape))
            expected = gradient_of(measured, Value(argument, -1))
            np.testing.assert_allclose(gradient.sum(axes, keepdims=True), expected, rtol=1e-10)
            unchecked.discard(argument)
    assert not unchecked


@pytest.mark.parametrize(
    "line", ["x.T", "x.reshape(-1)", "x.swapaxes(0, 1)", "split_heads(x, 2, 5)",
             "merge_heads(x[None, None])", "x.transpose(1, 0)"],
)  # fmt: skip
def test_a_rearrangement_moves_the_gradient_back(line: str) -> None:
    assert rule(f"y = {line}") == RULES["rearrangement"]
    measured = truth(f"{FUNCTIONS}\ndef forward(x):\n    y = {line}\n    return y, 0", {"x": A})
    numbered = np.arange(A.size, dtype=float).reshape(A.shape)
    positions = eval(line, {**module_of(FUNCTIONS), "x": numbered}).astype(int)
    moved = np.zeros(A.size)
    moved[positions.reshape(-1)] = measured.doutput.reshape(-1)
    np.testing.assert_allclose(moved.reshape(A.shape), gradient_of(measured, Value("x", -1)))


def test_a_lookup_adds_the_gradients_of_all_reads_of_a_row() -> None:
    assert rule("y = x[ids]") == RULES["lookup"]
    text = "def forward(x, ids):\n    y = x[ids]\n    return y, 0"
    measured = truth(text, {"x": A, "ids": IDS})
    rows = [measured.doutput[v == IDS].sum(axis=0) for v in range(len(A))]
    np.testing.assert_allclose(rows, gradient_of(measured, Value("x", -1)), atol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "cross_entropy"])
def test_a_line_treated_as_constant_has_no_gradient(name: str) -> None:
    measured = truth_of(name)
    (value,) = (value for value in measured.trace.values() if value.name == "largest")
    assert rule_of(measured.trace.steps[value.step].statement, True) == RULES["constant"]
    np.testing.assert_allclose(gradient_of(measured, value), 0, atol=1e-14)


def test_only_the_largest_element_of_a_maximum_has_a_gradient() -> None:
    assert rule("y = x.max(axis=0)") == RULES["maximum"]
    measured = truth("def forward(x):\n    y = x.max(axis=0)\n    return y, 0", {"x": A})
    expected = np.where(A.max(axis=0) == A, measured.doutput, 0)
    np.testing.assert_allclose(gradient_of(measured, Value("x", -1)), expected, atol=1e-14)


def test_every_rule_is_compared_with_measured_gradients_here() -> None:
    others = {"rearrangement", "lookup", "constant", "maximum"}
    assert {*RULES} == {name for _, name, _ in EXPRESSIONS} | others
