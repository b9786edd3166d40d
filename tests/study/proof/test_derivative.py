"""Every rule of differentiation agrees with the numerical derivative of its expression."""

import ast
from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.proof.derivative import CALLS, PATTERNS, Match, Term, gradients_of, matched
from tinygpt_np.study.proof.expression import Reader, UnknownError, evaluated, parsed

rng = np.random.default_rng(6)
# Positive, so that every function is defined.
NAMES: dict[str, Any] = {
    name: 0.5 + rng.random((4, 4)) for name in ("a", "b", "x", "n", "y", "dy")
} | {"c": rng.random((4, 4)) > 0.5, "low": 0.6, "high": 1.2, "np": np}  # fmt: skip


def reader() -> Reader:
    return Reader(NAMES, lambda name: name in ("a", "b", "x", "n"), lambda name: "", {})


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.expression)
def test_the_gradients_of_a_pattern_are_its_numerical_derivatives(pattern: Any) -> None:
    each, tree = reader(), parsed(pattern.expression)
    value = each.value(tree)
    for name, text in pattern.gradients.items():
        step = 1e-6 * rng.standard_normal((4, 4))
        up, down = (
            evaluated(tree, each.names | {name: NAMES[name] + sign * step}) for sign in (1, -1)
        )
        gradient = evaluated(parsed(text), each.names | {"y": value})
        numeric = float(np.sum(NAMES["dy"] * (up - down))) / 2
        assert float(np.sum(gradient * step)) == pytest.approx(numeric, rel=1e-6)


def test_the_first_pattern_that_fits_is_applied_with_its_reasons() -> None:
    assert matched(parsed("x * x"), reader()).name == "square"
    assert matched(parsed("x * a"), reader()).name == "product"
    assert matched(parsed("1.0 / (1 + np.exp(-a))"), reader()).name == "sigmoid"
    assert matched(parsed("1.0 / (2 + np.exp(-a))"), reader()).name == "quotient"
    with pytest.raises(UnknownError):
        matched(parsed("a % b"), reader())


def test_the_chain_rule_gives_a_term_for_each_place_of_a_name() -> None:
    found = [*gradients_of(parsed("a * b + a"), parsed("dy"), parsed("y"), reader())]
    assert [each.name for each in found if isinstance(each, Match)] == ["sum", "product"]
    terms = {(each.name, ast.unparse(each.value)) for each in found if isinstance(each, Term)}
    assert terms == {("a", "dy * b"), ("b", "dy * a"), ("a", "dy")}


def test_every_rule_of_a_call_is_used_in_the_tests_of_lines() -> None:
    # In test_rules.py, whose lines have measured gradients.
    assert {name.removeprefix("op.").removeprefix("np.") for name in CALLS} == {
        *("aggregate", "shaped", "permuted", "transpose", "split_heads", "merge_heads"),
        *("concatenate", "stack", "pad", "einsum", "softmax", "log_softmax"),
    }
