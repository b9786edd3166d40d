"""Hints: four for every line, from what is asked to the solution."""

import pytest

from tinygpt_np.learn.course import course, find
from tinygpt_np.learn.hints import STEPS, hints
from tinygpt_np.learn.skeleton import blanks

NAMES = [each.name for each in course() if each.kind in ("lines", "closed")]


def hints_of(name: str, number: int = 0) -> tuple[str, ...]:
    exercise = find(name)
    return hints(exercise, blanks(exercise)[number])


@pytest.mark.parametrize("name", NAMES)
def test_every_line_has_four_hints_and_the_first_two_do_not_give_it(name: str) -> None:
    exercise = find(name)
    for blank in blanks(exercise):
        found = hints(exercise, blank)
        assert len(found) == STEPS
        assert all(found)
        formula = blank.solution.partition("= ")[2].partition("  #")[0]
        if " " in formula and name not in ("product", "division"):  # They have the rule's letters.
            assert not any(formula in text for text in found[:2]), formula
        assert blank.solution in found[-1] or exercise.kind == "closed"


def test_the_first_hint_gives_the_shape_and_the_lines_that_read_the_value() -> None:
    first = hints_of("softmax")[0]
    assert "dexps is the gradient of the loss with respect to exps" in first
    assert "Shape: (..., V), here (2, 3, 11)." in first
    assert "    probs = exps / total   ← this line is its part" in first
    assert "    total = exps.sum(axis=-1, keepdims=True)" in first


def test_the_second_hint_is_the_rule_and_the_third_has_the_names_of_the_line() -> None:
    _, rule, named, _ = hints_of("softmax", 1)
    assert rule == "The rule is called quotient. With y = a / b: da = dy / b, db = -dy * y / b."
    assert "dtotal = -Σ_V (dprobs ∘ probs / total)" in named
    assert "dexps" not in named


def test_the_hint_for_a_call_is_the_contract_of_its_backward() -> None:
    _, rule, contract, _ = hints_of("attention", 4)
    assert "Forward calls softmax" in rule
    assert "dprobs (..., V) -> dx (..., V)" in contract


def test_the_hints_for_a_closed_form_are_the_parts_of_the_derivation() -> None:
    _, first, second, solution = hints_of("softmax_closed")
    assert "∂p_j/∂x_i = p_j (δ_ij - p_i)" in first
    assert "Common mistake" in second
    assert "Source" not in first + second
    assert "dx = probs * (dprobs - weighted_mean)" in solution
