"""The rule of a line has its names, and its gradients are the measured ones."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.study_targets import gradient_of, target, truth_of

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.ops.attention import merge_heads, split_heads
from tinygpt_np.ops.gelu_exact import error_function
from tinygpt_np.study.proof import derivative
from tinygpt_np.study.proof.derivative import PARSED, PATTERNS
from tinygpt_np.study.proof.expression import parsed
from tinygpt_np.study.proof.rules import LineRule, Rule, rule_of
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.trace import Step, Value

rng = np.random.default_rng(4)
# Arguments of homework lines, whose names tell their shapes; those with a p are positive.
ARGS: dict[str, Any] = {
    "x": rng.standard_normal((4, 5)), "z": rng.standard_normal((4, 5)),
    "p": 2 + rng.random((4, 5)), "row": rng.standard_normal(5), "column": 2 + rng.random((4, 1)),
    "W": rng.standard_normal((5, 3)), "U": rng.standard_normal((3, 5)), "v": rng.standard_normal(4),
    "A": rng.standard_normal((2, 3, 4, 5)), "K": rng.standard_normal((2, 3, 6, 5)),
    "G": rng.standard_normal((3, 5, 2)), "s": np.asarray(1.5), "ids": np.array([2, 0, 2, 1, 2]),
    "targets": np.array([1, 0, 4, 1]), "mask": rng.random((4, 5)) > 0.4,
    "params": {"W1": rng.standard_normal((5, 2))}, "n": 3,
}  # fmt: skip


def sigmoid(t: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-t))


def relu(t: Any, slope: float = 0) -> Any:
    return np.maximum(t, slope * t)


def softmax(t: Any) -> Any:
    e = np.exp(t - np.real(t).max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(t: Any) -> Any:
    t = t - np.real(t).max(axis=-1, keepdims=True)
    return t - np.log(np.exp(t).sum(axis=-1, keepdims=True))


def unknown(t: Any) -> Any:
    for _ in range(2):
        t = t * t
    return t


def affine(t: Any, weight: Any) -> tuple[Any, Any]:
    """Return the product and what backward needs."""
    out = t @ weight
    cache = (t, weight)
    return out, cache


HELPERS = (
    sigmoid,
    relu,
    softmax,
    log_softmax,
    unknown,
    affine,
    split_heads,
    merge_heads,
    error_function,
)


# Lines as they are written in courses, and the formulas of their gradients, or None if only their
# values are checked. Σ_{axis 0} and the like: no shape is stated here.
LINES: dict[str, tuple[str, ...] | None] = {
    # Elementwise, with constants and broadcasting.
    "x + z": ("dx = dy", "dz = dy"),
    "x + row": ("dx = dy", "drow = Σ_{axis 0} dy"),
    "x - column": ("dx = dy", "dcolumn = -Σ_{axis 1} dy"),
    "1 - x": ("dx = -dy",),
    "-x": ("dx = -dy",),
    "+x": ("dx = dy",),
    "2 * x": ("dx = 2 dy",),
    "x * 0.5": ("dx = dy / 2",),
    "x * n": ("dx = dy · n",),
    "s * x": ("ds = Σ dy ∘ x", "dx = dy · s"),
    "x * z * p": ("dx = dy ∘ p ∘ z", "dz = dy ∘ p ∘ x", "dp = dy ∘ x ∘ z"),
    "x * x": ("dx = 2 dy ∘ x",),
    "x * x * x": ("dx = 3 dy ∘ x²",),
    "x / p": ("dx = dy / p", "dp = -dy ∘ y / p"),
    "x / 2": ("dx = dy / 2",),
    "x / np.sqrt(n)": ("dx = dy / √n",),
    "1 / p": ("dp = -dy ∘ y / p",),
    "x / column": ("dx = dy / column", "dcolumn = -Σ_{axis 1} (dy ∘ y / column)"),
    "x ** 2": ("dx = 2 dy ∘ x",),
    "x ** 3": ("dx = 3 dy ∘ x²",),
    "p ** -0.5": ("dp = -dy ∘ p^{-1.5} / 2",),
    "p ** z": ("dp = dy ∘ z ∘ p^{z - 1}", "dz = dy ∘ y ∘ log(p)"),
    "np.power(x, 2)": ("dx = 2 dy ∘ x",),
    "np.square(x)": ("dx = 2 dy ∘ x",),
    "np.add(x, np.multiply(z, 3))": ("dx = dy", "dz = 3 dy"),
    # Functions.
    "np.exp(x)": ("dx = dy ∘ y",),
    "np.log(p)": ("dp = dy / p",),
    "np.log(p + 1e-9)": ("dp = dy / (p + 1e-09)",),
    "np.sqrt(p + 1e-5)": ("dp = dy / (2 y)",),
    "np.tanh(x)": ("dx = dy ∘ (1 - y²)",),
    "tanh(x)": ("dx = dy ∘ (1 - y²)",),
    "error_function(x)": ("dx = 2 dy ∘ exp(-x²) / √π",),
    "1 / (1 + np.exp(-x))": ("dx = dy ∘ y ∘ (1 - y)",),
    "sigmoid(x)": ("dx = dy ∘ y ∘ (1 - y)",),
    "x * sigmoid(x)": None,
    "np.sin(x) * np.cos(z)": None,
    "np.sinh(x) + np.cosh(z) + np.arctan(x) + np.log1p(p) + np.expm1(z)": None,
    "np.logaddexp(x, z)": ("dx = dy ∘ exp(x - y)", "dz = dy ∘ exp(z - y)"),
    "(1 - z) * np.tanh(x) + z * p": None,
    "0.5 * x * (1 + np.tanh(0.8 * (x + 0.044715 * x ** 3)))": None,
    # Kinks and masks.
    "np.maximum(x, 0)": ("dx = dy where x > 0, else 0",),
    "np.maximum(0, x)": ("dx = dy where x > 0, else 0",),
    "relu(x)": None,
    "x * (x > 0)": ("dx = dy ∘ [x > 0]",),
    "np.maximum(x, z)": ("dx = dy where x > z, else 0", "dz = dy where z > x, else 0"),
    "np.minimum(x, row)": None,
    "np.where(mask, x, z)": ("dx = dy where mask, else 0", "dz = 0 where mask, else dy"),
    "np.where(x > 0, x, 0.1 * x)": None,
    "np.clip(x, -0.5, 0.5)": ("dx = dy where -0.5 < x and x < 0.5, else 0",),
    "x.clip(-1, 1)": None,
    "np.abs(p)": ("dp = dy ∘ sign(p)",),
    "x * mask": ("dx = dy ∘ mask",),
    "x * mask / (1 - 0.4)": None,
    # Reductions.
    "x.sum()": ("dx = dy",),
    "np.sum(x, axis=0)": ("dx = dy",),
    "x.sum(axis=-1, keepdims=True)": ("dx = dy",),
    "np.sum(x ** 2)": ("dx = 2 dy ∘ x",),
    "x.mean()": ("dx = dy / 20",),
    "x.mean(axis=0)": ("dx = dy / 4",),
    "np.mean(x, axis=1, keepdims=True)": ("dx = dy / 5",),
    "x.var(axis=0)": ("dx = dy ∘ (x - mean_{axis 0}(x)) / 2",),
    "np.std(x, axis=0)": ("dx = dy ∘ (x - mean_{axis 0}(x)) / (4 y)",),
    "x.max(axis=1, keepdims=True)": ("dx = dy where x = y, else 0",),
    "x.min(axis=0)": None,
    "A.mean(axis=(0, 2, 3), keepdims=True)": ("dA = dy / 40",),
    "0.5 * np.sum(x * x) / len(x)": ("dx = dy ∘ x / 4",),
    "(x * row).sum() / row.sum()": None,
    "(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)": None,
    # Matrices.
    "x @ W": ("dx = dy Wᵀ", "dW = xᵀ dy"),
    "np.dot(x, W)": ("dx = dy Wᵀ", "dW = xᵀ dy"),
    "x.dot(W)": ("dx = dy Wᵀ", "dW = xᵀ dy"),
    "x @ U.T": ("dx = dy U", "dU = dyᵀ x"),
    "W.T @ x.T": ("dW = xᵀ dyᵀ", "dx = dyᵀ Wᵀ"),
    "(x @ W).T": ("dx = dyᵀ Wᵀ", "dW = xᵀ dyᵀ"),
    "x @ row": ("dx = outer(dy, row)", "drow = xᵀ dy"),
    "v @ x": ("dv = x dy", "dx = outer(v, dy)"),
    "row @ row": None,
    "x @ W + W.sum(axis=0)": None,
    "A @ K.swapaxes(-1, -2)": ("dA = dy K", "dK = dyᵀ A"),
    "A @ K.transpose(0, 1, 3, 2) / np.sqrt(5)": ("dA = dy K / √5", "dK = dyᵀ A / √5"),
    "A @ G": None,
    "A @ W": None,
    "np.matmul(x, W)": ("dx = dy Wᵀ", "dW = xᵀ dy"),
    "np.einsum('nc,ck->nk', x, W)": (
        "dx_{nc} = Σ_k dy_{nk} W_{ck}", "dW_{ck} = Σ_n dy_{nk} x_{nc}",
    ),
    "np.einsum('bhqd,bhkd->bhqk', A, K) / np.sqrt(n)": (
        "dA_{bhqd} = (Σ_k dy_{bhqk} K_{bhkd}) / √n", "dK_{bhkd} = (Σ_q dy_{bhqk} A_{bhqd}) / √n",
    ),
    "np.einsum('nc,nc->n', x, z)": ("dx_{nc} = dy_n z_{nc}", "dz_{nc} = dy_n x_{nc}"),
    "np.einsum('nc->n', x)": ("dx = dy_n",),
    # Indices.
    "x[ids % 4]": ("dx[ids % 4] = Σ dy over equal indices",),
    "W[ids]": ("dW_v = Σ_{n : ids_n = v} dy_n",),
    "x[np.arange(4), targets]": ("dx[np.arange(4), targets] = dy",),
    "-np.log(p[np.arange(len(x)), targets]).mean()": None,
    "x[:, 1]": ("dx[:, 1] = dy",),
    "x[1:, ::2]": ("dx[1:, ::2] = dy",),
    "x[mask]": ("dx[mask] = dy",),
    "x * v[:, None]": ("dx = dy ∘ v", "dv = Σ_{axis 1} dy ∘ x"),
    "x[:, :2] * x[:, 2:4]": None,
    # Shapes.
    "x.T": ("dx = dyᵀ",),
    "x.reshape(-1)": ("dx = reshape(dy, (4, 5))",),
    "np.reshape(x, (2, 10))": None,
    "x.reshape(4, 5, 1)": ("dx = dy",),
    "A.transpose(0, 2, 1, 3).reshape(2, 4, 15)": None,
    "A.T": None,
    "np.moveaxis(A, 1, -1)": None,
    "x.ravel() @ z.ravel()": None,
    "split_heads(x, 2, 5)": ("dx = merge_heads(dy)",),
    "merge_heads(A)": ("dA = split_heads(dy, 2, 3)",),
    "np.concatenate([x, p], axis=1)": ("dx = dy[:, :5]", "dp = dy[:, 5:10]"),
    "np.hstack((x, column))": None,
    "np.vstack([x, z])": ("dx = dy[:4]", "dz = dy[4:8]"),
    "np.pad(x, ((1, 1), (0, 2)))": ("dx = dy[1:5, 0:5]",),
    "np.stack([x, z], axis=1)": ("dx = dy[:, 0]", "dz = dy[:, 1]"),
    "x.copy()": ("dx = dy",),
    "np.array(x)": ("dx = dy",),
    "x": ("dx = dy",),
    "x if mask is None else x + z": ("dx = dy", "dz = dy"),
    # Well-known functions of several lines.
    "softmax(x)": ("dx = y ∘ (dy - Σ_{axis 1} dy ∘ y)",),
    "log_softmax(x)": ("dx = dy - exp(y) ∘ (Σ_{axis 1} dy)",),
    "softmax(A @ K.swapaxes(-1, -2) * 0.3)": None,
}  # fmt: skip
# Statements that set y, but not as `y = …`.
STATEMENTS = {
    "y, cache = affine(x, W)": ("dx = dy Wᵀ", "dW = xᵀ dy"),
    "y, y2 = x * z, 1": ("dx = dy ∘ z", "dz = dy ∘ x"),
    "y = np.zeros_like(x); y[:, 1:] = x[:, 1:] * 2": ("dx[:, 1:] = 2 dy[:, 1:]",),
    "y = z * 1; y *= x": ("dy = dy ∘ x", "dx = dy ∘ y"),
    "y = z * 1; y = np.tanh(x @ W @ U + y)": None,
    "y, right = np.split(x, 2, axis=0)": None,
    "left, y = np.split(z, [2], axis=1)": None,
    "(y) = x": ("dx = dy",),
    "y: object = -x": ("dx = -dy",),
}  # fmt: skip
UNKNOWN = [
    "unknown(x)", "np.sort(x)", "np.linalg.inv(x[:, :4])", "x % p", "np.cumsum(x)", "[x, z]",
    "np.nan_to_num(x)", "sum(m for m in x)", "x.astype(int) * z",
]  # fmt: skip


def truth_of_line(line: str, result: str = "y") -> Truth:
    """Return the measured gradients of `y = line`, or of another statement that sets y."""
    statement = line if line in STATEMENTS else f"{result} = {line}"
    args = {name: arg for name, arg in ARGS.items() if re.search(rf"\b{name}\b", statement)}
    text = f"def forward({', '.join(args)}):\n    {statement}\n    return {result}, 0"
    made = target(text, args)
    module = {**made.module, "tanh": np.tanh, **{each.__name__: each for each in HELPERS}}
    return Truth(replace(made, module=module, functions=()))


@pytest.mark.parametrize("line", [*LINES, *STATEMENTS])
def test_the_gradients_of_a_rule_are_the_measured_ones(line: str) -> None:
    truth = truth_of_line(line)
    step = truth.trace.steps[-1]
    rule = rule_of(truth, step)
    assert rule is not None
    measured_gradients(truth, step)
    formulas = {**LINES, **STATEMENTS}[line]
    assert formulas is None or rule.formulas[-len(formulas) :] == formulas


def measured_gradients(truth: Truth, step: Step) -> None:
    """Compare the gradients by the rule of a line with the measured terms of the line."""
    line = LineRule(truth, step)
    results = [Value(each.name, step.index) for each in line.results]
    gradients = line.evaluated([gradient_of(truth, value) for value in results], {})
    assert gradients
    for name, gradient in gradients.items():
        value = truth.trace.definition(name, step.index)
        is_value = value in truth.differentiable
        expected = truth.use(value, step.index) if is_value else truth.param(name)
        assert expected.compare(gradient).ok


@pytest.mark.parametrize("name", [*VARIANTS, "heads", "block", "bigram"])
def test_every_line_of_the_package_has_a_rule_that_gives_the_measured_terms(name: str) -> None:
    truth = truth_of(name)
    for step in truth.trace.steps:
        if any(value.step == step.index for value in truth.differentiable):
            rule = rule_of(truth, step)
            assert rule is not None, step.statement.text
            if not rule.operation:
                assert rule.formulas
                assert rule.why
                measured_gradients(truth, step)


@pytest.mark.parametrize("line", UNKNOWN)
def test_a_line_that_is_not_understood_has_no_rule(line: str) -> None:
    truth = truth_of_line(line)
    assert rule_of(truth, truth.trace.steps[-1]) is None


def test_the_axes_of_a_rule_have_the_letters_of_the_source() -> None:
    steps = {step.statement.text: step for step in truth_of("softmax").trace.steps}
    rule = rule_of(truth_of("softmax"), steps["probs = exps / total"])
    assert rule == Rule(
        "quotient",
        (
            "probs = exps / total",
            "dexps = dprobs / total",
            "dtotal = -Σ_V (dprobs ∘ probs / total)",
        ),
        "The numerator has the factor 1/total. The derivative of 1/total is -1/total², and "
        "exps/total² is probs/total. dtotal is summed along V, because total was broadcast along "
        "V.",
    )


def test_a_line_treated_as_constant_has_no_gradient() -> None:
    truth = truth_of("softmax")
    rule = rule_of(truth, truth.trace.steps[0])
    assert rule is not None
    assert rule.name == "constant"
    assert "no gradient flows through this line to x" in rule.why
    np.testing.assert_allclose(gradient_of(truth, Value("largest", 0)), 0, atol=1e-14)


def test_a_call_of_a_layer_refers_to_its_derivation() -> None:
    truth = truth_of("attention")
    found = [rule_of(truth, step) for step in truth.trace.steps]
    assert [rule.operation for rule in found if rule and rule.operation] == ["softmax", "dropout"]


def test_a_wrong_rule_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truth_of_line("np.tanh(x) * z")
    assert rule_of(truth, truth.trace.steps[-1]) is not None
    for gradient in ("dy * (1 - y)", "dy * (1 - y ** 2) * 1.0001", "dy.T", "dy[0]", "nosuch"):
        wrong = replace(PATTERNS[0], name="tanh", gradients={"x": gradient})
        monkeypatch.setattr(derivative, "PARSED", [(wrong, parsed("np.tanh(x)")), *PARSED])
        assert rule_of(truth, truth.trace.steps[-1]) is None, gradient


def test_a_gradient_at_a_tie_or_of_a_line_that_is_read_wrongly_is_not_given() -> None:
    truth = truth_of_line("np.maximum(x, x)")
    assert rule_of(truth, truth.trace.steps[-1]) is None
    truth = truth_of_line("x * z")
    step = truth.trace.steps[-1]
    truth.trace.recorded[Value("y", step.index)] = truth.out + 1e-3
    assert rule_of(truth, step) is None


@pytest.mark.parametrize("line", ["s.sum() * x", "x * np.hstack([s, 2.0, 1, 1, 1])", "x[0, 0] + s"])
def test_a_line_with_single_numbers_gives_no_error(line: str) -> None:
    truth = truth_of_line(line)
    rule_of(truth, truth.trace.steps[-1])
