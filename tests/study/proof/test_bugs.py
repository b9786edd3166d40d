"""Every planted bug is found, and the first wrong line is the one with the mistake."""

import ast
import re
from collections.abc import Callable

import pytest
from helpers.architecture import OPERATIONS, PACKAGE

from tinygpt_np.gradcheck.mutations import Mutation
from tinygpt_np.study.proof.bugs import Bug, bugs
from tinygpt_np.study.proof.verdicts import BackwardLine

pytestmark = pytest.mark.slow
# The text of a mutation that replaces the whole function.
REPLACED = "(all of it)"


@pytest.fixture(scope="module")
def planted() -> dict[str, list[Bug]]:
    """All bugs by operation, proven once for all tests in this module."""
    return {name: [*bugs(name)] for name in OPERATIONS}


@pytest.fixture(scope="module")
def every(planted: dict[str, list[Bug]]) -> list[Bug]:
    return [bug for found in planted.values() for bug in found]


@pytest.fixture(scope="module")
def visible(every: list[Bug]) -> list[Bug]:
    """Those that change a gradient."""
    return [bug for bug in every if not bug.reason]


def mutated(mutation: Mutation) -> set[str]:
    """Return the names that the statement with the mistake sets; none for a return."""
    names: set[str] = set()
    if mutation.before.startswith(("return", REPLACED)):
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


def is_at_the_line(bug: Bug, line: BackwardLine) -> bool:
    return line.line == bug.mutation.line


def sets_the_variable(bug: Bug, line: BackwardLine) -> bool:
    if line.step is None:
        return bug.mutation.before.startswith(("return", REPLACED))
    return bool(mutated(bug.mutation) & {*line.step.statement.sets})


def fraction(
    visible: list[Bug], condition: Callable[[Bug, BackwardLine], bool]
) -> tuple[float, str]:
    """Return the fraction of bugs whose first wrong line meets a condition, and the others."""
    missed = [
        bug for bug in visible if bug.first_wrong is None or not condition(bug, bug.first_wrong)
    ]
    texts = [
        f"{bug.mutation.function}: {bug.mutation.before} -> {bug.mutation.after}, "
        f"first_wrong: {bug.first_wrong and bug.first_wrong.text}"
        for bug in missed
    ]
    return 1 - len(missed) / len(visible), "\n".join(texts)


def test_every_backward_has_many_bugs(planted: dict[str, list[Bug]]) -> None:
    assert sum(map(len, planted.values())) >= 600
    for name, found in planted.items():
        assert len({bug.mutation.kind for bug in found}) >= (2 if name == "embedding" else 3), name


def test_every_bug_that_changes_a_gradient_is_found(visible: list[Bug]) -> None:
    missed = [bug.mutation for bug in visible if bug.first_wrong is None]
    assert missed == []


def test_a_bug_that_changes_no_gradient_makes_no_line_wrong(every: list[Bug]) -> None:
    wrong = [(bug.mutation, bug.first_wrong) for bug in every if bug.reason and bug.first_wrong]
    assert wrong == []


def test_the_first_wrong_line_sets_the_mutated_variable_in_nearly_all_cases(
    visible: list[Bug],
) -> None:
    found, missed = fraction(visible, sets_the_variable)
    assert found >= 0.96, f"{found:.1%}\n{missed}"


def test_the_first_wrong_line_is_the_mutated_line_in_most_cases(visible: list[Bug]) -> None:
    found, missed = fraction(visible, is_at_the_line)
    assert found >= 0.95, f"{found:.1%}\n{missed}"


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("sign", "the sign is wrong"), ("factor 1/2", "half of it: a factor of 2 is missing")],
)
def test_simple_bugs_have_their_likely_cause(visible: list[Bug], kind: str, cause: str) -> None:
    # Only bugs in the whole right-hand side; a sign inside it has another cause.
    simple = [
        bug
        for bug in visible
        if bug.mutation.kind == kind
        and bug.first_wrong is not None
        and bug.first_wrong.line == bug.mutation.line
        and any(mark in bug.mutation.after for mark in ("= -(", "/ 2", "-= "))
        and bug.first_wrong.gradients
    ]
    matched = [bug for bug in simple if bug.first_wrong and bug.first_wrong.cause == cause]
    missed = [
        (b.mutation.after, b.first_wrong and b.first_wrong.cause)
        for b in simple
        if b not in matched
    ]
    assert len(matched) >= 0.9 * len(simple) > 9, missed


def test_one_mistake_makes_exactly_one_line_wrong(visible: list[Bug]) -> None:
    several = [
        (bug.mutation.before, bug.mutation.after, wrong)
        for bug in visible
        if len(wrong := [line.text for line in bug.proof.lines if line.status == "wrong"]) > 1
    ]
    assert several == []


def test_the_readme_has_these_counts(visible: list[Bug]) -> None:
    readme = (PACKAGE / "study" / "README.md").read_text(encoding="utf-8")
    matched = re.search(
        r"With (\d+) bugs planted in the operations.*? faulty one in (\d+) cases", readme, re.DOTALL
    )
    assert matched is not None
    right = [bug for bug in visible if bug.first_wrong and sets_the_variable(bug, bug.first_wrong)]
    assert [int(count) for count in matched.groups()] == [len(visible), len(right)]
