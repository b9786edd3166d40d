"""Expressions are simplified without changing their values, and written as formulas."""

import ast

import numpy as np
import pytest

from tinygpt_np.study.proof import operations
from tinygpt_np.study.proof.expression import evaluated, parsed
from tinygpt_np.study.proof.formula import Writer

rng = np.random.default_rng(5)
NAMES = {
    "np": np, "op": operations, "n": 3, "a": 1 + rng.random((4, 4)), "b": 1 + rng.random((4, 4)),
    "c": 1 + rng.random((4, 4)),
}  # fmt: skip


def is_number(tree: ast.expr) -> bool:
    names = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)}
    return names <= {"n", "np", "op"}


WRITER = Writer(is_number)
FORMULAS = {
    "a * b / c": "a ∘ b / c", "a / b / c": "a / (b ∘ c)", "a / b * c": "a ∘ c / b",
    "-(-a)": "a", "-a * -b": "a ∘ b", "-a / b": "-a / b", "2 * a * 3": "6 a", "a / 2 * 2": "a",
    "a / 0.3": "a / 0.3", "0.5 * a": "a / 2", "a * a * b": "a² ∘ b", "a * n": "a · n",
    "a + -b": "a - b", "a - (b + c)": "a - (b + c)", "(a + b) * c": "(a + b) ∘ c",
    "a ** 1": "a", "a ** (3 - 1)": "a²", "(a + b) ** 2": "(a + b)²", "a ** -0.5": "a^{-0.5}",
    "np.sqrt(a + b) ** 2": "a + b", "np.sqrt(a)": "√a", "np.sqrt(a / b)": "√(a / b)",
    "a @ b": "a b", "a @ (b * c)": "a (b ∘ c)", "(a @ b) * c": "(a b) ∘ c",
    "(a / n) @ b": "a b / n",
    "a @ (-b)": "-a b", "op.transpose(a @ b)": "bᵀ aᵀ", "op.transpose(op.transpose(a))": "a",
    "op.transpose(-a)": "-aᵀ", "op.transpose(a * b)": "(a ∘ b)ᵀ", "2 * (a @ b)": "2 a b",
    "op.sum_to(-2 * a * b, (4,), 'N')": "-2 (Σ_N a ∘ b)", "op.sum_to(a / b, (4,), '')": "Σ (a / b)",
    "op.sum_to(a, (1, 4), 'axis 0') * b": "(Σ_{axis 0} a) ∘ b",
    "op.spread(-a, (4, 4), ()) / n": "-a / n", "a * (b > 1)": "a ∘ [b > 1]",
    "np.where(a > 1, b, 0)": "b where a > 1, else 0",
    "2 * np.where(a > 1, b, 0)": "2 (b where a > 1, else 0)",
    "np.maximum(a, b)": "max(a, b)", "np.abs(a - b)": "|a - b|", "a[:, 1]": "a[:, 1]",
    "op.aggregate('mean', a, (1,), True, 'C')": "mean_C(a)",
    "op.aggregate('sum', a * b, (0, 1), True, 'N,C')": "Σ_{N,C} a ∘ b",
    "op.shaped(a, (16,), '(N)')": "reshape(a, (N))", "op.shaped(a, (4, 1, 4), '')": "a",
    "a / op.size(4, 'C')": "a / C", "np.pi * a": "π · a", "np.exp(-a)": "exp(-a)",
    "np.einsum('nc,ck->nk', a, b)": "Σ_c a_{nc} b_{ck}", "1e-05 + a": "1e-05 + a",
    "(a > 1) & (a < 2)": "a > 1 and a < 2",
}  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_short_and_has_the_value_of_its_expression(text: str) -> None:
    simple = WRITER.simplified(parsed(text))
    assert WRITER.formula(simple) == FORMULAS[text]
    expected = np.broadcast_to(evaluated(parsed(text), NAMES), np.shape(evaluated(simple, NAMES)))
    np.testing.assert_allclose(evaluated(simple, NAMES), expected, rtol=1e-14)


def test_equal_terms_are_joined_and_zeros_left_out() -> None:
    terms = [parsed(text) for text in ("2 * a * b", "-c", "a * b", "0 * c")]
    assert WRITER.formula(WRITER.total(terms)) == "3 a ∘ b - c"
    assert WRITER.formula(WRITER.total([parsed("a"), parsed("-a")])) == "0"


def test_the_indices_of_a_sum_are_those_of_its_result() -> None:
    for text in ("np.einsum('nc,ck->nk', a, b)", "-np.einsum('nc,ck->nk', a, b) / n"):
        assert WRITER.indices(parsed(text)) == "nk"
    assert WRITER.indices(parsed("a * np.einsum('nc,ck->nk', a, b)")) == ""
