"""Every planted bug is found, and the line to blame is the one with the mistake."""

import ast
import re
from collections.abc import Callable

import pytest
from helpers.architecture import OPERATIONS, TESTS

from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation
from tinygpt_np.study.bugs import Bug, bugs
from tinygpt_np.study.proof import Line

ENOUGH = 0.98
# What stands for the text of a function that is another altogether.
WHOLE = "(all of it)"


@pytest.fixture(scope="module")
def planted() -> dict[str, list[Bug]]:
    """All bugs, by operation: proven once for all tests here."""
    return {name: [*bugs(name)] for name in OPERATIONS}


@pytest.fixture(scope="module")
def every(planted: dict[str, list[Bug]]) -> list[Bug]:
    return [bug for found in planted.values() for bug in found]


@pytest.fixture(scope="module")
def visible(every: list[Bug]) -> list[Bug]:
    """Those that change a gradient."""
    return [bug for bug in every if not bug.reason]


def mutated(mutation: Mutation) -> set[str]:
    """The names that the statement with the mistake sets, or adds to; of a return, nothing."""
    names: set[str] = set()
    if mutation.before.startswith(("return", WHOLE)):
        return names
    for node in ast.walk(ast.parse(mutation.before)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Attribute(), attr="at"), args=[table, *_]):
                names.add(ast.unparse(table))
            case _:
                pass
    return names


def is_at_the_line(bug: Bug, line: Line) -> bool:
    return line.line == bug.mutation.line


def sets_the_variable(bug: Bug, line: Line) -> bool:
    if line.step is None:
        return bug.mutation.before.startswith(("return", WHOLE))
    return bool(mutated(bug.mutation) & {*line.step.statement.sets})


def is_verified_with_the_variable(bug: Bug, line: Line) -> bool:
    return sets_the_variable(bug, line) or bool(mutated(bug.mutation) & {*line.fused})


def share(visible: list[Bug], holds: Callable[[Bug, Line], bool]) -> tuple[float, str]:
    """How many of the bugs are blamed so, and a list of the others."""
    missed = [bug for bug in visible if bug.blamed is None or not holds(bug, bug.blamed)]
    texts = [
        f"{bug.mutation.function}: {bug.mutation.before} -> {bug.mutation.after}, "
        f"blamed: {bug.blamed and bug.blamed.text}"
        for bug in missed
    ]
    return 1 - len(missed) / len(visible), "\n".join(texts)


def test_there_are_many_bugs_in_every_backward(planted: dict[str, list[Bug]]) -> None:
    assert sum(map(len, planted.values())) >= 600
    for name, found in planted.items():
        assert len({bug.mutation.kind for bug in found}) >= (2 if name == "embedding" else 3), name


def test_every_bug_that_changes_a_gradient_is_found(visible: list[Bug]) -> None:
    missed = [bug.mutation for bug in visible if bug.blamed is None]
    assert missed == []


def test_a_bug_that_changes_no_gradient_accuses_nobody(every: list[Bug]) -> None:
    accused = [(bug.mutation, bug.blamed) for bug in every if bug.reason and bug.blamed]
    assert accused == []


def test_every_equivalent_of_an_operation_is_among_the_bugs(every: list[Bug]) -> None:
    reasons = {bug.reason for bug in every if bug.reason}
    operations = {key: reason for key, reason in EQUIVALENT.items() if key[0] in OPERATIONS}
    assert reasons == {*operations.values()}


def test_the_variable_with_the_mistake_or_its_companion_is_blamed(visible: list[Bug]) -> None:
    found, missed = share(visible, is_verified_with_the_variable)
    assert found >= ENOUGH, f"{found:.1%}\n{missed}"


def test_the_very_variable_with_the_mistake_is_blamed_in_nearly_all(visible: list[Bug]) -> None:
    found, missed = share(visible, sets_the_variable)
    assert found >= 0.96, f"{found:.1%}\n{missed}"


def test_the_very_line_with_the_mistake_is_blamed_in_most(visible: list[Bug]) -> None:
    found, missed = share(visible, is_at_the_line)
    assert found >= 0.95, f"{found:.1%}\n{missed}"


def test_where_another_line_is_blamed_the_one_with_the_mistake_has_no_verdict_or_is_gone(
    visible: list[Bug],
) -> None:
    for bug in visible:
        assert bug.blamed is not None
        for line in bug.proof.lines:
            if line.line == bug.mutation.line and line.text == bug.mutation.after:
                accused = bug.blamed.line == line.line
                assert accused or line.status in ("", "right", "begun"), bug.mutation


def test_in_backwards_that_go_line_for_line_the_line_is_blamed(visible: list[Bug]) -> None:
    line_for_line = [
        bug
        for bug in visible
        if any(line.undoes is not None for line in bug.proof.lines)
        and bug.mutation.before.startswith("d")
        and bug.mutation.kind != "term dropped"
    ]
    found, missed = share(line_for_line, is_at_the_line)
    assert found >= ENOUGH, f"{found:.1%} of {len(line_for_line)}\n{missed}"


def test_every_bug_says_what_is_wrong(visible: list[Bug]) -> None:
    assert all(bug.blamed and bug.blamed.says for bug in visible)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("sign", "the sign is wrong"), ("factor 1/2", "half of it: a 2 is lost")],
)
def test_the_likely_cause_of_a_simple_bug_is_told(
    visible: list[Bug], kind: str, cause: str
) -> None:
    # Of the whole right-hand side: a sign inside it has other marks.
    whole = [
        bug
        for bug in visible
        if bug.mutation.kind == kind
        and bug.blamed is not None
        and bug.blamed.line == bug.mutation.line
        and any(mark in bug.mutation.after for mark in ("= -(", "/ 2", "-= "))
        and bug.blamed.gradients
    ]
    told = [bug for bug in whole if bug.blamed and bug.blamed.cause == cause]
    missed = [(b.mutation.after, b.blamed and b.blamed.cause) for b in whole if b not in told]
    assert len(told) >= 0.9 * len(whole) > 9, missed


def test_one_mistake_makes_one_wrong_line(visible: list[Bug]) -> None:
    several = [
        (bug.mutation.before, bug.mutation.after, wrong)
        for bug in visible
        if len(wrong := [line.text for line in bug.proof.lines if line.status == "wrong"]) > 1
    ]
    assert several == []


def test_the_readme_counts_them_so(visible: list[Bug]) -> None:
    readme = (TESTS.parent / "README.md").read_text(encoding="utf-8")
    told = re.search(
        r"Of (\d+) bugs planted in the operations.*? mistake in (\d+);", readme, re.DOTALL
    )
    assert told is not None
    right = [bug for bug in visible if bug.blamed and sets_the_variable(bug, bug.blamed)]
    assert [int(count) for count in told.groups()] == [len(visible), len(right)]
