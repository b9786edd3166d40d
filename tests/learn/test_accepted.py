"""Any correct formula solves an exercise: ten for each operation, by different learners."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.learners import verdict_on

from tinygpt_np.learn.course import Exercise, course, find
from tinygpt_np.learn.skeleton import skeleton

FOLDER = Path(__file__).parent / "formulas"
NAMES = {path.stem for path in FOLDER.glob("*.py")}
# The exercise of grouped queries asks for two lines of attention, whose others have values in it.
WRITTEN = [
    e for e in course()
    if e.kind in ("lines", "closed") and e.subject in NAMES and e.name != "grouped_queries"
]  # fmt: skip


def files(exercise: Exercise) -> Iterator[tuple[str, str]]:
    """Yield each formula of an operation with the file of an exercise that contains it.

    The helper functions above it are in the file, and its own imports.
    """
    above = skeleton(exercise).partition("def backward(")[0]
    text = (FOLDER / f"{exercise.subject}.py").read_text()
    for node in ast.parse(text).body:
        part = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.FunctionDef) and node.name.startswith("backward_"):
            yield node.name, above + part.replace(node.name, "backward") + "\n"
        else:
            above += part + "\n\n\n"


@pytest.mark.slow
@pytest.mark.parametrize("exercise", WRITTEN, ids=[e.name for e in WRITTEN])
def test_every_formula_solves_the_exercise_and_no_line_of_it_is_wrong(exercise: Exercise) -> None:
    found = {name: verdict_on(exercise.name, text) for name, text in files(exercise)}
    assert len(found) == 10
    assert {name: verdict for name, verdict in found.items() if not verdict.ok} == {}
    for name, verdict in found.items():
        assert all(line.status == "right" for line in verdict.lines), name
        assert verdict.right == verdict.asked


def test_every_operation_and_every_closed_form_is_among_them() -> None:
    assert {e.name for e in WRITTEN if e.kind == "closed"} == {
        f"{name}_closed" for name in ("softmax", "cross_entropy", "layer_norm")
    }
    assert {e.subject for e in WRITTEN} == NAMES
    assert len(NAMES) == 16


@pytest.mark.parametrize("name", ["linear", "softmax", "softmax_closed", "relu"])
def test_formulas_that_are_quick_to_check_are_accepted(name: str) -> None:
    for formula, text in files(find(name)):
        assert verdict_on(name, text).ok, formula
