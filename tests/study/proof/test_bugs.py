"""Every planted bug is found, and the first wrong line is the one with the mistake."""

import ast
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.architecture import OPERATIONS, PACKAGE
from helpers.study_targets import planted_bugs, report

from tinygpt_np.gradcheck.causes import VERDICTS, judged
from tinygpt_np.gradcheck.mutations import mutations
from tinygpt_np.study.proof.bugs import Bug
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import MISTAKES
from tinygpt_np.study.source.parse import Names
from tinygpt_np.study.source.targets import user_target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def every() -> list[Bug]:
    return [bug for name in OPERATIONS for bug in planted_bugs(name)]


@pytest.fixture(scope="module")
def visible(every: list[Bug]) -> list[Bug]:
    """Those that change a gradient."""
    return [bug for bug in every if not bug.reason]


def sets_the_variable(bug: Bug) -> bool:
    """Return whether the first wrong or missing line sets a name that the mutated line sets."""
    line, before = bug.first_wrong, bug.mutation.before
    is_result = before.startswith(("return", "(all of it)"))
    if line is None or line.is_return or is_result:
        return line is not None and line.is_return and is_result
    (node,) = ast.parse(before).body
    mutated = Names(node, {}).statement(node, before, "")
    sets = line.step.statement.sets if line.step else (line.text.split()[0],)
    return bool({*mutated.sets} & {*sets})


def is_at_the_line(bug: Bug) -> bool:
    line = bug.first_wrong
    if line is None or line.status == "missing":
        # A dropped term is a missing path, too.
        return bug.mutation.kind in ("path dropped", "term dropped") and sets_the_variable(bug)
    if not bug.mutation.line:  # The whole function is replaced.
        return line.is_return
    last = line.step.statement.node.end_lineno if line.step else None
    return line.line <= bug.mutation.line <= max(last or 0, line.line)


def test_every_bug_that_changes_a_gradient_makes_exactly_one_line_wrong(every: list[Bug]) -> None:
    for bug in every:
        wrong = [line.text for line in bug.proof.lines if line.status in MISTAKES]
        assert len(wrong) == (0 if bug.reason else 1), (bug.mutation, wrong)


def test_the_first_wrong_line_is_nearly_always_the_mutated_one(visible: list[Bug]) -> None:
    missed = [(bug.mutation, bug.first_wrong) for bug in visible if not is_at_the_line(bug)]
    assert len(missed) <= 0.01 * len(visible), missed


def test_a_dropped_path_is_a_missing_line(visible: list[Bug]) -> None:
    dropped = [bug for bug in visible if bug.mutation.kind == "path dropped"]
    found = [bug.first_wrong and bug.first_wrong.status for bug in dropped]
    assert found == ["missing"] * 23


# Layers, their arguments, and the number of statements that add a path.
LAYERS = {
    "gru": (
        "x (N, C), h (N, H), wz (C, H), uz (H, H), wr (C, H), ur (H, H), wn (C, H), un (H, H)", 8,
    ),
    "lstm": (
        "x (N, C), h (N, H), c (N, H), wi (C, H), wf (C, H), wo (C, H), wg (C, H), ui (H, H), "
        "uf (H, H), uo (H, H), ug (H, H)", 10,
    ),
    "gated_mlp": ("x (N, C), wa (C, H), wb (C, H), wc (H, C)", 2),
    "residual": ("x (N, C), w (C, C), v (C, C)", 7),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_each_path_of_a_layer_with_several_paths_is_missed(layer: str) -> None:
    described, count = LAYERS[layer]
    path = Path(__file__).parents[2] / "fixtures" / "layers" / f"{layer}.py"
    target = user_target(f"{path}:forward,backward", described)
    truth, (backward,) = Truth(target), target.backwards
    right = prove(truth, backward)
    assert right.ok
    through = {line.line: line.reverses for line in right.lines}
    every = mutations(path.read_text(encoding="utf-8"), "backward")
    dropped = [mutation for mutation in every if mutation.kind == "path dropped"]
    assert len(dropped) == count
    for mutation in dropped:
        found = prove(truth, replace(backward, node=mutation.tree))
        lines = [line for line in found.lines if line.status in MISTAKES]
        assert [(line.status, line.reverses) for line in lines] == [
            ("missing", through[mutation.line])
        ], (mutation, report(found))


def test_the_cause_is_right_or_not_given(visible: list[Bug]) -> None:
    verdicts = Counter(judged(bug.cause, bug.mutation.kind) for bug in visible)
    assert {*verdicts} <= {*VERDICTS}
    assert verdicts["right"] + verdicts["one of two"] >= 0.95 * len(visible), verdicts
    assert verdicts["wrong"] <= 0.01 * len(visible), verdicts
    # A cause that names two mistakes is for mistakes that have the same effect.
    assert verdicts["one of two"] <= 0.1 * len(visible), verdicts


def test_the_readme_has_these_counts(visible: list[Bug]) -> None:
    readme = (PACKAGE / "study" / "README.md").read_text(encoding="utf-8")
    counts = r"With (\d+) bugs planted in the\s+operations.*? faulty one in (\d+) cases"
    matched = re.search(counts, readme, re.DOTALL)
    assert matched is not None
    right = sum(map(sets_the_variable, visible))
    assert [int(count) for count in matched.groups()] == [len(visible), right]


def test_the_readme_shows_how_often_causes_are_right(visible: list[Bug]) -> None:
    counts: dict[str, Counter[str]] = {}
    for bug in visible:
        counts.setdefault(bug.mutation.kind, Counter())[judged(bug.cause, bug.mutation.kind)] += 1
    others = {kind for kind, count in counts.items() if {*count} == {"right"}}
    chosen = {kind: count for kind, count in counts.items() if kind not in others}
    ordered = dict(sorted(chosen.items(), key=lambda each: (-each[1].total(), each[0])))
    ordered["all other kinds"] = sum((counts[kind] for kind in others), Counter[str]())
    ordered["all"] = sum(counts.values(), Counter[str]())
    table = [f"| kind of bug | {' | '.join(VERDICTS)} |", "|---|---|---|---|---|"]
    for kind, count in ordered.items():
        table.append(f"| {kind} | {' | '.join(str(count[verdict]) for verdict in VERDICTS)} |")
    shown = "\n".join(table)
    assert shown in (PACKAGE / "gradcheck" / "README.md").read_text(encoding="utf-8"), shown
