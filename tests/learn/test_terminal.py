"""The output of check: statuses, the first mistake, and what to do next, in 80 columns."""

import io

import pytest
from helpers.learners import planted, solved, verdict_on
from rich.console import Console

from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.terminal import draw, in_one_line, what_next

DTOTAL = "dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)"


def text_of(verdict: Verdict) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(draw(verdict, what_next(verdict, "linear")))
    return out.getvalue()


def with_dtotal(formula: str) -> str:
    return planted(solved("softmax", but=(4,)), DTOTAL, formula)[0]


def test_the_first_mistake_has_the_forward_line_both_values_the_place_and_a_cause() -> None:
    out = text_of(verdict_on("softmax", with_dtotal(DTOTAL.replace("-(", "(", 1))))
    assert "reverses      probs = exps / total" in out
    assert "problem       dtotal: off by 200 %" in out
    assert "yours         -0.20391 at [0, 1, 0], where they differ most" in out
    assert "measured      0.20391" in out
    assert "likely cause  the sign is wrong" in out
    assert "dexps = dprobs / total" in out
    assert out.count("✓ right") == 3
    assert out.count("· open") == 1
    assert "next  repair line 38; tinygpt learn hint helps" in out


def test_a_wrong_shape_is_named_with_the_right_one() -> None:
    out = text_of(verdict_on("softmax", with_dtotal("dtotal = -(dprobs * probs / total).sum()")))
    assert "✗ wrong shape" in out
    assert "wanted shape  (2, 3, 1)" in out


def test_a_line_that_is_right_for_one_call_only_is_right_by_luck() -> None:
    text = planted(solved("softmax"), DTOTAL, DTOTAL.replace("-1", "2"))[0]
    out = text_of(verdict_on("softmax", text))
    assert "✗ right by luck" in out
    assert "wrong for x (6, 11)" in out


@pytest.mark.parametrize("name", ["attention", "gpt", "layer_norm"])
def test_a_verdict_fits_80_columns(name: str) -> None:
    out = text_of(verdict_on(name, solved(name, but=(1, 3))))
    assert max(map(len, out.splitlines())) <= 80


def test_a_solved_exercise_names_the_next_one() -> None:
    out = text_of(verdict_on("softmax", solved("softmax")))
    assert "✓ solved. The whole function is right in 21 calls." in out
    assert "next  tinygpt learn start linear" in out


def test_one_of_several_verdicts_is_one_line() -> None:
    assert in_one_line(verdict_on("softmax", solved("softmax"))).plain.endswith("✓ solved")
    found = in_one_line(verdict_on("softmax", with_dtotal("dtotal = 0 * dprobs"))).plain
    assert " ".join(found.split()) == "softmax 3 of 5 lines ✗ wrong shape, line 38"
