"""The bug hunt: its forty bugs, the files, and the two steps of naming and repairing a line."""

import ast
from collections import Counter
from dataclasses import replace

import pytest
from helpers.learners import verdict_on

from tinygpt_np.gradcheck.mutations import EQUIVALENT, sites
from tinygpt_np.learn.bugs import CHOSEN, ChosenBug, hints
from tinygpt_np.learn.course import Exercise, course
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.skeleton import blanks, plain, simple_statements, skeleton
from tinygpt_np.learn.sources import source_of, targets_of
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import Proof
from tinygpt_np.study.source.parse import find_function

HUNTS = {each.name: each for each in course() if each.kind == "bug"}
# A proof of a model, or of an operation with a costly forward, takes over a second.
COSTLY = ("gpt", "block", "gelu_exact", "attention")
every_hunt = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if each.subject in COSTLY else [])
        for name, each in HUNTS.items()
    ],
)
# Softmax: the sign of dtotal. Its line is the sixth statement.
HUNT = "bug_09"
WRONG = "    dtotal = (dprobs * probs / total).sum(axis=-1, keepdims=True)  # (..., 1)"
RIGHT = "    dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)  # (..., 1)"
OTHER = "    dshifted = dexps * exps  # (..., V)"


def bug_of(name: str) -> ChosenBug:
    bug = HUNTS[name].bug
    assert bug is not None
    return bug


def proof_of(exercise: Exercise) -> Proof:
    """Prove the mutant of a hunt."""
    bug, target = bug_of(exercise.name), next(targets_of(exercise))
    function = next(each for each in target.backwards if each.name == bug.function)
    return prove(Truth(target), replace(function, node=bug.mutation.tree))


def changed(*edits: tuple[str, str]) -> str:
    """Return the file of HUNT with lines replaced."""
    text = skeleton(HUNTS[HUNT])
    for before, after in edits:
        assert text.count(f"{before}\n") == 1
        text = text.replace(f"{before}\n", f"{after}\n")
    return text


def line_of(text: str, start: str) -> int:
    """Return the number of the line that starts like this."""
    return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def gives_nothing_away(found: Verdict) -> bool:
    """Return whether a verdict is open and shows no line, no value and no cause."""
    is_whole = [each.text.startswith("def backward(") for each in found.lines] == [True]
    return not found.ok and found.right == 0 and found.mistake is None and is_whole


# The forty bugs


def test_forty_different_bugs_are_chosen() -> None:
    assert len(CHOSEN) == len(HUNTS) == 40
    assert len({(each.operation, each.function, each.after) for each in CHOSEN}) == 40


def test_every_operation_and_both_methods_of_the_model_have_a_bug() -> None:
    assert {each.operation for each in CHOSEN} == {site.operation for site in sites()}
    assert {"block", "gpt"} <= {each.subject for each in CHOSEN}


@pytest.mark.slow
def test_no_kind_of_mistake_is_asked_for_more_than_five_times() -> None:
    assert max(Counter(each.mutation.kind for each in CHOSEN).values()) <= 5


def test_every_bug_changes_a_gradient() -> None:
    assert not {(b.operation, b.function, b.before, b.after) for b in CHOSEN} & {*EQUIVALENT}


@every_hunt
def test_the_proof_finds_a_bug_at_its_line_and_no_line_raises(name: str) -> None:
    found = proof_of(HUNTS[name])
    assert found.first_wrong is not None
    assert found.first_wrong.status == "wrong"
    assert found.first_wrong.line == bug_of(name).mutation.line
    assert not any(each.error for each in found.trace.executed)


# The files


@pytest.mark.parametrize("name", HUNTS)
def test_one_line_of_the_source_is_changed_and_its_comment_is_kept(name: str) -> None:
    text, exercise = skeleton(HUNTS[name]), HUNTS[name]
    right = plain(source_of(exercise).backward).splitlines()
    found = text[text.index("def backward(") :].splitlines()
    different = [pair for pair in zip(right, found, strict=True) if pair[0] != pair[1]]
    assert len(different) == 1
    assert different[0][0].partition("  #")[1:] == different[0][1].partition("  #")[1:]
    assert len(different[0][1]) <= 100


@pytest.mark.parametrize("name", HUNTS)
def test_the_wrong_line_is_that_of_the_mutant(name: str) -> None:
    text, bug = skeleton(HUNTS[name]), bug_of(name)
    nodes = simple_statements(find_function(text, "backward", "").node.body)
    mutant = simple_statements(bug.mutation.tree.body)
    assert [ast.unparse(each) for each in nodes[1:]] == [ast.unparse(each) for each in mutant[1:]]


@pytest.mark.parametrize("name", HUNTS)
def test_a_file_contains_neither_the_derivation_nor_the_common_mistakes(name: str) -> None:
    text = skeleton(HUNTS[name])
    assert "Derivation" not in text
    assert "ommon mistake" not in text
    assert "# bug" in text[: text.index("def forward(")]


@pytest.mark.parametrize("name", HUNTS)
def test_the_right_line_is_the_only_one_to_write(name: str) -> None:
    (blank,) = blanks(HUNTS[name])
    assert ast.unparse(ast.parse(blank.solution)) == bug_of(name).before


# The two steps


@every_hunt
def test_a_new_file_is_not_solved_and_nothing_is_given_away(name: str) -> None:
    found = verdict_on(name, skeleton(HUNTS[name]))
    assert gives_nothing_away(found)
    assert found.note.startswith("Put the comment `# bug`")


def test_a_mark_on_another_line_is_refused_and_nothing_is_given_away() -> None:
    text = changed((OTHER, f"{OTHER}  # bug"))
    found = verdict_on(HUNT, text)
    assert gives_nothing_away(found)
    assert found.note == f"Line {line_of(text, OTHER)} is not the wrong one."


def test_a_mark_on_the_return_statement_is_refused() -> None:
    text = changed(("    return dx", "    return dx  # bug"))
    assert (
        verdict_on(HUNT, text).note
        == f"Line {line_of(text, '    return dx')} is not the wrong one."
    )


def test_marks_on_several_lines_are_refused_even_if_one_of_them_is_right() -> None:
    found = verdict_on(HUNT, changed((OTHER, f"{OTHER}  # bug"), (WRONG, f"{WRONG}  # bug")))
    assert gives_nothing_away(found)
    assert found.note.startswith("More than one line")


@pytest.mark.parametrize("mark", ["  # bug", "# BUG", "  #bug", " bug", "  # bug: the sign"])
def test_a_mark_on_the_wrong_line_is_said_to_be_right(mark: str) -> None:
    text = changed((WRONG, f"{WRONG}{mark}"))
    found = verdict_on(HUNT, text)
    assert gives_nothing_away(found)
    assert found.note.startswith(f"Line {line_of(text, WRONG)} is the wrong one.")


def test_other_line_numbers_do_not_matter() -> None:
    text = changed((WRONG, f"\n    # What is this?\n{WRONG}  # bug")).replace(
        "import numpy", "\n\nimport numpy"
    )
    assert "is the wrong one" in verdict_on(HUNT, text).note


def test_a_comment_on_a_line_of_its_own_is_no_mark() -> None:
    found = verdict_on(HUNT, changed((OTHER, f"    # bug\n{OTHER}")))
    assert found.note.startswith("Put the comment `# bug`")


def test_a_repaired_line_without_a_mark_asks_for_the_mark() -> None:
    found = verdict_on(HUNT, changed((WRONG, RIGHT)))
    assert gives_nothing_away(found)
    assert found.note.startswith("backward is right now. Put the comment")


def test_a_repair_with_the_mark_on_another_line_asks_for_the_mark() -> None:
    found = verdict_on(HUNT, changed((WRONG, RIGHT), (OTHER, f"{OTHER}  # bug")))
    assert not found.ok
    assert found.note.startswith("backward is right now. Put the comment")


@pytest.mark.parametrize(
    "repair",
    [
        # Another correct form, on several lines, and with a helper before or after it.
        "    dtotal = (-dprobs * probs).sum(axis=-1, keepdims=True) / total  # bug",
        "    dtotal = -np.sum(\n        dprobs * probs / total, -1, keepdims=True\n    )  # bug",
        "    each = dprobs * probs\n    dtotal = -each.sum(axis=-1, keepdims=True) / total  # bug",
        "    each = dprobs * probs  # bug\n    dtotal = -each.sum(axis=-1, keepdims=True) / total",
    ],
)
def test_the_right_line_in_another_form_is_accepted(repair: str) -> None:
    assert verdict_on(HUNT, changed((WRONG, repair))).ok


def test_a_found_line_that_is_still_wrong_is_judged_as_any_line() -> None:
    still = "    dtotal = -(dprobs * probs).sum(axis=-1, keepdims=True)  # (..., 1)  # bug"
    found = verdict_on(HUNT, changed((WRONG, still)))
    assert not found.ok
    assert found.mistake is not None
    assert found.mistake.line.text == still.strip().partition("  #")[0]


def test_another_line_that_is_broken_too_is_not_accepted() -> None:
    found = verdict_on(HUNT, changed((WRONG, f"{RIGHT}  # bug"), (OTHER, "    dshifted = dexps")))
    assert not found.ok
    assert found.mistake is not None


def test_a_changed_forward_is_a_problem_and_no_mark_is_asked_for() -> None:
    exps = "    exps = np.exp(shifted)  # (..., V)"
    found = verdict_on(HUNT, changed((exps, "    exps = np.exp2(shifted)")))
    assert found.problem.startswith("forward was changed")
    assert not found.note


# Hints


def hints_of(name: str) -> tuple[str, ...]:
    return hints(bug_of(name), next(targets_of(HUNTS[name])))


def test_four_hints_lead_to_the_right_line() -> None:
    assert hints_of(HUNT) == (
        "The wrong line reverses `probs = exps / total`.",
        "The kind of mistake: minus for plus.",
        "The cause: the sign is wrong: negate `dtotal`.",
        "The right line: `dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)`.",
    )


@pytest.mark.parametrize(
    ("after", "part"),
    [
        # A line that computes a value of forward again, and lines of closed forms.
        ("exps = np.exp(log_probs)", "first"),
        (
            "dlogits = (chosen - probs) * counted[:, None] * (float(dloss) / count)",
            "middle",
        ),
        ("along_ones = dxhat.mean(axis=0, keepdims=True)", "middle"),
        ("dx = (dxhat - along_ones - along_xhat) / std", "last"),
    ],
)
def test_a_line_that_reverses_no_forward_line_is_placed_in_a_third(after: str, part: str) -> None:
    name = next(n for n in HUNTS if bug_of(n).after == after)
    assert hints_of(name)[0] == f"The wrong line is in the {part} third of backward."


def test_a_bug_without_a_cause_has_its_error_as_a_hint() -> None:
    name = next(n for n in HUNTS if bug_of(n).mutation.kind == "wrong name")
    assert hints_of(name)[2].startswith("The error: h.0.attn.c_proj.")


def test_a_repair_in_another_line_solves_a_hunt_if_the_wrong_line_is_marked() -> None:
    name = next(f"bug_{n:02}" for n, bug in enumerate(CHOSEN, 1) if bug.operation == "relu_squared")
    text = skeleton(HUNTS[name])
    (line,) = (line for line in text.splitlines() if "drectified = dy * rectified" in line)
    twice = f"{line}  # bug\n    drectified += drectified"
    assert verdict_on(name, text.replace(line, twice)).ok
