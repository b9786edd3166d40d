"""A planted bug typed in as the learner's line is judged wrong at that line, and never accepted."""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from helpers.learners import planted, solved, verdict_on
from helpers.sample import sampled

from tinygpt_np import ops
from tinygpt_np.gradcheck.cases import as_tuple
from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, mutations
from tinygpt_np.learn import judge
from tinygpt_np.learn.course import Exercise, course
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.skeleton import Blank, blanks, plain, skeleton
from tinygpt_np.learn.sources import MODELS, source_of, targets_of
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.targets import Target

pytestmark = pytest.mark.slow

LINES = [each for each in course() if each.kind == "lines"]
CLOSED = [each for each in course() if each.kind == "closed"]
# Every how many bugs one is typed in (all of them take three minutes), and one of how many of these
# while all other lines are open.
EVERY, OPEN = 4, 6
# In a block, they add nothing to the gradient of an open line, which may be wrong itself.
NOT_SEEN = ("dmid = dmid", "dx = dx")


def named(exercises: Sequence[Exercise]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exercise", exercises, ids=[e.name for e in exercises])


@pytest.fixture(autouse=True, scope="module")
def measured_once() -> Iterator[None]:
    """Measure the right gradients of a call once, not for each bug."""
    known = dict[tuple[object, ...], Truth]()

    def truth(target: Target, upstream: float | None = None) -> Truth:
        arrays = [(n, a.tobytes()) for n, a in target.args.items() if isinstance(a, np.ndarray)]
        key = target.name, target.title, target.seed, upstream, *arrays
        if key not in known:
            known[key] = Truth(target, upstream=upstream)
        found = copy.copy(known[key])
        found.target = target
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(judge, "Truth", truth)
        yield


@dataclass(frozen=True)
class Typed:
    """A bug that a learner has typed in on a line, and the verdict."""

    exercise: Exercise
    mutation: Mutation
    line: int
    verdict: Verdict

    @property
    def is_at_the_line(self) -> bool:
        """Whether the verdict names this line."""
        mistake = self.verdict.mistake
        return mistake is not None and mistake.line.number == self.line

    def __str__(self) -> str:
        """Return the bug and the mistake that was found, in a line."""
        mistake = self.verdict.mistake
        found = f"{mistake.line.number}: {mistake.message}" if mistake else "no mistake"
        bug = f"line {self.line}, {self.mutation.before} -> {self.mutation.after}"
        return f"{self.exercise.name}, {bug}; found {found}"


def is_unchanged(exercise: Exercise, mutation: Mutation) -> bool:
    """Return whether a bug in an exercise that is no operation changes no gradient."""
    if exercise.subject in (*ops.__all__, *MODELS):
        return False  # EQUIVALENT has those that do not.
    module = source_of(exercise).module
    names = dict(vars(module))
    exec(compile(ast.Module([mutation.tree], []), "<bug>", "exec"), names)
    for target in targets_of(exercise, seed=9):
        y, saved = module.forward(**target.args)
        upstream = np.cos(np.arange(np.size(y))).reshape(np.shape(y))
        right = as_tuple(module.backward(upstream, saved))
        try:
            found = as_tuple(names["backward"](upstream, saved))
        except Exception:
            return False
        if any(not np.array_equal(a, b) for a, b in zip(right, found, strict=True)):
            return False
    return True


def bugs(exercise: Exercise, text: str) -> list[Mutation]:
    """Return the bugs of a solved file that change a gradient, in the lines that are asked for."""
    subject = "gpt" if exercise.subject in MODELS else exercise.subject
    name = "backward" if exercise.kind == "closed" else source_of(exercise).backward.name
    return [
        each for each in mutations(text, "backward")
        if (subject, name, each.before, each.after) not in EQUIVALENT
        and not is_unchanged(exercise, each)
        and (not exercise.asked or any(is_in(each, blank) for blank in blanks(exercise)))
    ]  # fmt: skip


def is_in(mutation: Mutation, blank: Blank) -> bool:
    """Return whether a bug is in a line of an exercise."""
    return not {*ast.unparse(ast.parse(blank.solution)).splitlines()}.isdisjoint(
        mutation.before.splitlines()
    )


def typed(
    exercise: Exercise, found: Sequence[Mutation], text: Callable[[Mutation], str]
) -> list[Typed]:
    """Return bugs with the verdicts on them, each typed into the text of a file."""
    results = list[Typed]()
    for each in found:
        wrong, line = planted(text(each), each.before, each.after)
        results.append(Typed(exercise, each, line, verdict_on(exercise.name, wrong)))
    return results


@cache
def typed_in(exercise: Exercise) -> list[Typed]:
    """Return the bugs of an exercise, typed into a file with all other lines right."""
    text = solved(exercise.name)
    found = bugs(exercise, text)
    assert len(found) >= 5
    return typed(exercise, sampled(found, EVERY), lambda _: text)


@cache
def typed_into_open_lines(exercise: Exercise) -> list[Typed]:
    """Return some bugs of an exercise, typed into a file whose other lines are open."""

    def text(mutation: Mutation) -> str:
        others = [i for i, blank in enumerate(blanks(exercise)) if not is_in(mutation, blank)]
        return solved(exercise.name, but=others)

    found = sampled(bugs(exercise, solved(exercise.name))[::OPEN], EVERY)
    return typed(exercise, [each for each in found if each.after not in NOT_SEEN], text)


def exceptions(found: Sequence[Typed]) -> list[str]:
    """Print how many bugs were judged wrong at their line; return those that were not."""
    missed = [str(each) for each in found if not each.is_at_the_line]
    names = {each.exercise.name for each in found}
    title = names.pop() if len(names) == 1 else f"{len(names)} exercises"
    print(f"{title}: {len(found)} bugs, {len(found) - len(missed)} found at their line", *missed)
    return missed


@named(LINES)
def test_no_planted_bug_is_accepted(exercise: Exercise) -> None:
    found = typed_in(exercise)
    exceptions(found)
    assert [str(each) for each in found if each.verdict.ok or not each.verdict.mistake] == []


@named(LINES)
def test_no_planted_bug_is_hidden_by_open_lines(exercise: Exercise) -> None:
    found = typed_into_open_lines(exercise)
    exceptions(found)
    assert [str(each) for each in found if not each.verdict.mistake] == []


def test_nearly_every_planted_bug_is_found_at_its_line() -> None:
    for kind in (typed_in, typed_into_open_lines):
        found = [each for exercise in LINES for each in kind(exercise)]
        assert len(exceptions(found)) <= 0.01 * len(found), exceptions(found)


@named(CLOSED)
def test_no_planted_bug_in_a_closed_form_is_accepted(exercise: Exercise) -> None:
    source = inspect.getsource(source_of(exercise).module)
    above = skeleton(exercise).partition("def backward(")[0]
    right = above + plain(find_function(source, "backward", "")) + "\n"
    assert verdict_on(exercise.name, right).ok
    found = typed(exercise, bugs(exercise, right), lambda _: right)
    exceptions(found)
    assert len(found) > 20
    assert [str(each) for each in found if each.verdict.ok or not each.verdict.mistake] == []
