"""Each forward line has a rule, and the formulas of each rule give the measured gradients."""

from typing import Any

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from helpers.study_targets import function, gradient_of, module_of, truth, truth_of

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof import rules
from tinygpt_np.study.proof.rules import CALLS, METHODS, Rule, rule_of
from tinygpt_np.study.source.parse import Statement
from tinygpt_np.study.source.trace import Value

rng = np.random.default_rng(4)
A, B = rng.standard_normal((4, 5)), 2 + rng.random((4, 5))
ROW, SQUARE, TALL = 2 + rng.random((1, 5)), rng.standard_normal((5, 3)), rng.standard_normal((6, 5))
IDS = np.array([2, 0, 2, 1, 2])
HEADS = """
def split_heads(rows, batch=2, n_head=5):
    return rows.reshape(batch, -1, n_head, rows.shape[-1] // n_head).swapaxes(1, 2)

def merge_heads(heads):
    return heads[None].swapaxes(1, 2).reshape(-1)

def error_function(x):
    return sum(2 / np.pi**0.5 * (-1) ** k * x ** (2 * k + 1) / (fac(k) * (2 * k + 1))
               for k in range(60))

def fac(k):
    return 1.0 if k == 0 else k * fac(k - 1)
"""


def rule(line: str) -> Rule | None:
    statement = function(f"def forward(x):\n    {line}\n    return y").statements[0]
    return rule_of(statement, "np.real" in line)


# The rule of a line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("y = a + b", rules.SUM),
        ("y = 1 + a", rules.SUM),
        ("y = a - b", rules.DIFFERENCE),
        ("y = a * b", rules.PRODUCT),
        ("y = (a * b) * c", rules.PRODUCT),
        ("y = a * a", rules.SQUARE),
        ("y = a[0] * a[0]", rules.SQUARE),
        ("y = a / b", rules.QUOTIENT),
        ("y = a / 2", rules.QUOTIENT),
        ("y = a @ b", rules.MATRIX_PRODUCT),
        ("y = a @ b.mT", rules.TRANSPOSED_PRODUCT),
        ("y = a @ b.T", rules.TRANSPOSED_PRODUCT),
        ("y = a.T @ b", rules.MATRIX_PRODUCT),
        ("y = np.where(c, a, b)", rules.SELECTION),
        ("y = a.sum(axis=-1)", rules.AXIS_SUM),
        ("y = a.mean(axis=-1, keepdims=True)", rules.MEAN),
        ("y = a[ids]", rules.LOOKUP),
        ("y = np.real(a)", rules.CONSTANT),
        ("y = np.real(a).max(axis=-1)", rules.CONSTANT),
        ("y = a.max()", rules.MAXIMUM),
        ("y = a", rules.COPY),
        ("y = a.copy()", rules.COPY),
        ("y = a.T", rules.REARRANGEMENT),
        ("y = a.reshape(-1)", rules.REARRANGEMENT),
        ("y = a.reshape(2, -1).swapaxes(0, 1)", rules.REARRANGEMENT),
        ("y, z = np.split(a, 2)", rules.REARRANGEMENT),
        ("y = split_heads(a, 2, 3)", rules.REARRANGEMENT),
        ("y = a if b is None else a + b", rules.SUM),
        ("y = a.copy() if b is None else a * b", rules.PRODUCT),
        ("y: int = a * b", rules.PRODUCT),
        ("y = np.exp(a)", CALLS["np.exp"]),
        ("y = np.sqrt(a)", CALLS["np.sqrt"]),
        ("y = error_function(a)", CALLS["error_function"]),
    ],
)
def test_a_line_has_the_rule_of_its_operation(line: str, expected: Rule) -> None:
    assert rule(line) == expected


@pytest.mark.parametrize(
    "line", ["y = a ** 2", "y = a % b", "y = f(a)", "y = np.sinh(a)", "y = a.fill(3)", "y = -a",
             "y += a", "y = a[0]", "y = np.exp(a).sum(axis=-1)", "y: int",
             "for y in a: pass", "y = [a, b]"],
)  # fmt: skip
def test_other_lines_have_no_rule(line: str) -> None:
    assert rule(line) is None


def test_a_call_of_a_layer_refers_to_its_derivation() -> None:
    found = rule("y, saved = ops.softmax.forward(x)")
    assert found is not None
    assert (found.name, found.operation) == ("the backward of softmax", "softmax")
    assert found == rule("y, saved = softmax.forward(x)")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_differentiable_line_has_a_rule(name: str) -> None:
    for variant in (v for v in VARIANTS if VARIANTS[v].operation == name):
        for statement in differentiable_statements(variant):
            each = rule_of(statement)
            assert each is not None, statement.text
            assert each != rules.CONSTANT, statement.text
            assert each.operation or each.formulas, statement.text


@pytest.mark.parametrize("name", ["block", "bigram"])
def test_every_line_of_a_model_has_a_rule(name: str) -> None:
    missing = [each.text for each in differentiable_statements(name) if rule_of(each) is None]
    assert missing == [text for text in missing if text.startswith("ids, table = ")]


def differentiable_statements(name: str) -> list[Statement]:
    """Return the statements of a forward through which a gradient flows."""
    found = truth_of(name)
    steps = {value.step for value in found.differentiable}
    return [step.statement for step in found.trace.steps if step.index in steps]


# Whether the formulas are right


def summed_over_broadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient over the broadcast axes."""
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def moved_back(dy: np.ndarray, positions: np.ndarray) -> np.ndarray:
    found = np.zeros(positions.size)
    found[positions.reshape(-1)] = dy.reshape(-1)
    return found


# Each right-hand side of a formula as code; dy, a, b, x and y are the names in the formulas.
MEANING = {
    "dy": "dy",
    "-dy": "-dy",
    "dy ∘ a": "dy * a",
    "dy ∘ b": "dy * b",
    "2 dy ∘ x": "2 * dy * x",
    "dy / b": "dy / b",
    "-dy ∘ a / b²": "-dy * a / b**2",
    "-dy ∘ y / b": "-dy * y / b",
    "dY Bᵀ": "dy @ b.T",
    "Aᵀ dY": "a.T @ dy",
    "dY B": "dy @ b",
    "dYᵀ A": "dy.T @ a",
    "dy ∘ exp(x)": "dy * np.exp(x)",
    "dy ∘ y": "dy * y",
    "dy / x": "dy / x",
    "dy / (2 √x)": "dy / (2 * np.sqrt(x))",
    "dy / (2 y)": "dy / (2 * y)",
    "dy ∘ (1 - tanh² x)": "dy * (1 - np.tanh(x) ** 2)",
    "dy ∘ (1 - y²)": "dy * (1 - y**2)",
    "dy ∘ 2/√π exp(-x²)": "dy * 2 / np.pi**0.5 * np.exp(-(x**2))",
    "dy where it holds, else 0": "np.where(c, dy, 0)",
    "dy / n": "dy / n",
}
# A line for each rule, and its arguments.
LINES: list[tuple[str, dict[str, Any]]] = [
    ("a + b", {"a": A, "b": B}),
    ("a + b", {"a": A, "b": ROW}),
    ("a - b", {"a": A, "b": B}),
    ("a - b", {"a": A, "b": ROW}),
    ("a * b", {"a": A, "b": B}),
    ("a * b", {"a": A, "b": ROW}),
    ("x * x", {"x": A}),
    ("a / b", {"a": A, "b": B}),
    ("a / b", {"a": A, "b": ROW}),
    ("a @ b", {"a": A, "b": SQUARE}),
    ("a @ b.T", {"a": A, "b": TALL}),
    ("np.where(c, a, b)", {"a": A, "b": B, "c": A > 0}),
    ("np.exp(x)", {"x": A}),
    ("np.log(x)", {"x": B}),
    ("np.sqrt(x)", {"x": B}),
    ("np.tanh(x)", {"x": A}),
    ("error_function(x)", {"x": A}),
    ("x.copy()", {"x": A}),
    ("x", {"x": A}),
    ("x.sum(axis=-1, keepdims=True)", {"x": A, "n": 5}),
    ("x.mean(axis=-1, keepdims=True)", {"x": A, "n": 5}),
    ("x.mean()", {"x": A, "n": 20}),
]


@pytest.mark.parametrize(("line", "args"), LINES, ids=[line for line, _ in LINES])
def test_the_formulas_of_a_rule_give_the_measured_gradients(
    line: str, args: dict[str, Any]
) -> None:
    found = rule(f"y = {line}")
    assert found is not None
    text = f"{HEADS}\ndef forward({', '.join(args)}):\n    y = {line}\n    return y, 0"
    measured = truth(text, args)
    values: dict[str, Any] = {**args, "dy": measured.doutput, "y": measured.out}
    checked = 0
    for formula in found.formulas:
        left, *rights = formula.split(" = ")
        name = left.lower().removesuffix("_i").removeprefix("d")
        if not left.startswith("d") or name not in args:
            continue
        expected = gradient_of(measured, Value(name, -1))
        for right in rights:
            gradient = np.asarray(eval(MEANING[right], {"np": np, **values}))
            full = np.broadcast_to(gradient, np.broadcast_shapes(gradient.shape, args[name].shape))
            np.testing.assert_allclose(
                summed_over_broadcast(full, args[name].shape), expected, rtol=1e-10
            )
            checked += 1
    assert checked >= (1 if len([n for n in args if n not in "cn"]) < 2 or "c" in args else 2)


@pytest.mark.parametrize(
    "line", ["x.T", "x.reshape(-1)", "x.swapaxes(0, 1)", "split_heads(x)", "merge_heads(x)",
             "x.transpose(1, 0)"],
)  # fmt: skip
def test_a_rearrangement_moves_the_gradient_back(line: str) -> None:
    assert rule(f"y = {line}") == rules.REARRANGEMENT
    measured = truth(f"{HEADS}\ndef forward(x):\n    y = {line}\n    return y, 0", {"x": A})
    positions = eval(line, {**module_of(HEADS), "x": np.arange(A.size).reshape(A.shape)})
    expected = gradient_of(measured, Value("x", -1))
    np.testing.assert_allclose(moved_back(measured.doutput, positions).reshape(A.shape), expected)
    assert rules.REARRANGEMENT.formulas == ("y_i = x_{p(i)}", "dx_{p(i)} = dy_i")


def test_a_lookup_adds_the_gradients_of_all_reads_of_a_row() -> None:
    text = "def forward(x, ids):\n    y = x[ids]\n    return y, 0"
    measured = truth(text, {"x": A, "ids": IDS})
    expected = gradient_of(measured, Value("x", -1))
    rows = [measured.doutput[v == IDS].sum(axis=0) for v in range(len(A))]
    np.testing.assert_allclose(rows, expected, atol=1e-14)
    assert rules.LOOKUP.formulas[1] == "dx_v = Σ_{n : i(n) = v} dy_n"


@pytest.mark.parametrize("name", ["softmax", "cross_entropy"])
def test_a_line_treated_as_constant_has_no_gradient(name: str) -> None:
    measured = truth_of(name)
    (value,) = (value for value in measured.trace.values() if value.name == "largest")
    statement = measured.trace.steps[value.step].statement
    assert rule_of(statement, True) == rules.CONSTANT
    np.testing.assert_allclose(gradient_of(measured, value), 0, atol=1e-14)


def test_only_the_largest_element_of_a_maximum_has_a_gradient() -> None:
    measured = truth("def forward(x):\n    y = x.max(axis=0)\n    return y, 0", {"x": A})
    expected = np.where(A.max(axis=0) == A, measured.doutput, 0)
    np.testing.assert_allclose(gradient_of(measured, Value("x", -1)), expected, atol=1e-14)
    assert rule("y = x.max(axis=0)") == rules.MAXIMUM


def test_every_rule_is_compared_with_measured_gradients_here() -> None:
    shown = [rule(f"y = {line}") for line, _ in LINES]
    known = {each.name for each in (*CALLS.values(), *METHODS.values())}
    known |= {each.name for each in vars(rules).values() if isinstance(each, Rule)}
    tested_elsewhere = {"rearrangement", "lookup", "constant", "maximum"}
    assert known == {each.name for each in shown if each} | tested_elsewhere
