"""Tests of the choice of the bugs that a page asks about."""

import pytest
from helpers.architecture import OPERATIONS
from helpers.study_targets import studied_target

from tinygpt_np.gradcheck.mutations import KINDS
from tinygpt_np.study.render.questions import COUNT, TYPICAL, questions

pytestmark = pytest.mark.slow  # Proves many bugs.


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_questions_of_an_operation_are_about_many_kinds_and_lines(name: str) -> None:
    found = questions(studied_target(name).truth)
    kinds = [bug.mutation.kind for bug in found]
    small = {"dropout": 8, "embedding": 3, "relu": 6}  # Their backwards have one line each.
    assert len(found) == small.get(name, COUNT)
    assert len({*kinds}) >= ({"embedding": 2, "relu": 5}.get(name, 6))
    lines = {(bug.mutation.function, bug.mutation.line) for bug in found}
    assert len(lines) >= (1 if name in small else 4)
    # Each kind once, the most typical first, before any kind twice.
    first = [*dict.fromkeys(kinds)]
    assert kinds[: len(first)] == first == sorted(first, key=TYPICAL.index)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_question_has_one_answer_and_its_line_does_not_give_it_away(name: str) -> None:
    for bug in questions(studied_target(name).truth):
        assert bug.reason == ""
        assert bug.first_wrong is not None
        assert bug.first_wrong.line == bug.mutation.line
        assert "raises" not in bug.first_wrong.message
        assert ";" not in bug.mutation.after
        assert bug.mutation.after != "(nothing)"
        assert any(gradient.status == "wrong" for gradient in bug.proof.lines[-1].gradients)


def test_the_choice_is_always_the_same() -> None:
    truth = studied_target("softmax").truth
    first, second = ([bug.mutation for bug in questions(truth)] for _ in range(2))
    assert first == second


def test_the_typical_kinds_are_kinds_of_bugs() -> None:
    assert {*TYPICAL} <= {*KINDS}
