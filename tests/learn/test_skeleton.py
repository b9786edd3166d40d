"""The file of an exercise: the source without its formulas, and nothing else of it is lost."""

import ast
import io
import re
import tokenize

import numpy as np
import pytest
from helpers.learners import solved

from tinygpt_np.learn.attempt import read_file
from tinygpt_np.learn.course import Exercise, course, find
from tinygpt_np.learn.skeleton import Blank, blanks, names_of, simple_statements, skeleton
from tinygpt_np.learn.sources import MODELS, source_of, targets_of
from tinygpt_np.study.source.parse import find_function

WRITTEN = [each for each in course() if each.kind in ("lines", "closed")]
every_exercise = pytest.mark.parametrize("exercise", WRITTEN, ids=[e.name for e in WRITTEN])


def formulas(blank: Blank) -> list[str]:
    """Return the right sides of the statements that solve a line."""
    nodes = ast.parse(blank.solution).body
    return [ast.unparse(getattr(node, "value", node)) for node in nodes]


def expressions(text: str) -> set[str]:
    """Return all expressions of a file, and those of its comments and docstrings that are code."""
    found = {ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.expr)}
    comments = (
        token.string.strip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )
    for comment in comments:
        try:
            node = ast.parse(comment)
        except SyntaxError:
            continue
        found |= {ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.expr)}
    return found


@every_exercise
def test_no_formula_of_an_open_line_is_in_the_text(exercise: Exercise) -> None:
    # A line that only passes a gradient on, as dx = dshifted, has a name as its formula.
    found = expressions(skeleton(exercise))
    asked = [f for blank in blanks(exercise) for f in formulas(blank) if not f.isidentifier()]
    assert [formula for formula in asked if formula in found] == []


@every_exercise
def test_no_gradient_is_in_the_docstring(exercise: Exercise) -> None:
    docstring = ast.get_docstring(ast.parse(skeleton(exercise))) or ""
    assert "∂" not in docstring
    assert "Derivation" not in docstring
    assert "mistake:" not in docstring.replace("first mistake", "")


@every_exercise
def test_every_open_line_is_in_the_text_under_its_quoted_line(exercise: Exercise) -> None:
    text = skeleton(exercise)
    backward = find_function(text, "backward", "")
    nodes = [n for n in simple_statements(backward.node.body) if "..." in backward.text(n)]
    nodes = [n for n in nodes if isinstance(n, ast.Assign | ast.AugAssign)]
    targets = [n.target if isinstance(n, ast.AugAssign) else n.targets[0] for n in nodes]
    assert [names_of(t) for t in targets] == [b.names for b in blanks(exercise)]
    if exercise.kind == "lines":
        quotes = [next(iter(backward.comments_above(n.lineno)), "") for n in nodes]
        assert quotes == [b.quote for b in blanks(exercise)]
        assert [backward.statement(n).shape for n in nodes] == [b.shape for b in blanks(exercise)]


@every_exercise
def test_every_comment_of_a_backward_to_be_written_line_by_line_is_kept(
    exercise: Exercise,
) -> None:
    function = source_of(exercise).backward
    if exercise.kind == "lines":
        start, end = function.node.body[0].lineno - 1, function.node.end_lineno
        own = [line.strip() for line in function.lines[start:end] if line.strip().startswith("#")]
        kept = [line.strip() for line in skeleton(exercise).splitlines() if "#" in line]
        assert [line for line in own if line not in kept] == []


@every_exercise
def test_a_file_compiles_fits_the_screen_and_is_ascii_code(exercise: Exercise) -> None:
    text = skeleton(exercise)
    compile(text, exercise.file, "exec")
    assert text.endswith("\n")
    assert "\t" not in text
    contracts = [line for line in text.splitlines() if line.startswith('    """')]
    assert all(len(line) <= 100 for line in text.splitlines() if line not in contracts)


@every_exercise
def test_a_file_has_no_import_and_no_function_that_no_line_reads(exercise: Exercise) -> None:
    tree = ast.parse(skeleton(exercise))
    solutions = ast.parse("\n".join(blank.solution for blank in blanks(exercise)))
    parts = [*ast.walk(tree), *ast.walk(solutions)]
    read = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    made = set[str]()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.FunctionDef):
            made.add(node.name)
    assert made - read - {"numpy", "np"} == {"forward", "backward"}


@every_exercise
def test_the_forward_of_a_file_computes_the_same_bits_as_the_source(exercise: Exercise) -> None:
    if exercise.subject in MODELS:
        return
    forward = read_file(exercise, skeleton(exercise), exercise.file).functions[0]
    for target in targets_of(exercise):
        found, expected = forward(**target.args), target.functions[0](**target.args)
        np.testing.assert_equal(found, expected)  # The saved values, too.
        assert found[0].dtype == expected[0].dtype


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_of_a_model_is_its_source_line_by_line(name: str) -> None:
    exercise = find(name)
    own = find_function(skeleton(exercise), "forward", "").body
    source = source_of(exercise).forward.body
    plain = [re.sub(r"^(\w+): [^=]+ = ", r"\1 = ", ast.unparse(node)) for node in source]
    assert [ast.unparse(node) for node in own] == plain


@every_exercise
def test_the_solved_file_is_the_backward_of_the_source(exercise: Exercise) -> None:
    if exercise.kind == "lines":
        own = find_function(solved(exercise.name), "backward", "").body
        source = source_of(exercise).backward.body
        texts = [ast.unparse(node) for node in own if not ends_in_saved(node)]
        assert texts == [ast.unparse(node) for node in source if not ends_in_saved(node)]


def ends_in_saved(node: ast.stmt) -> bool:
    return ast.unparse(node).endswith(" = saved")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cross_entropy", "    log_probs, total, chosen, counted, count = saved\n"),
        ("cross_entropy_closed", "    log_probs, total, chosen, counted, count = saved\n"),
        ("division", "    a, b, y = saved\n"),
    ],
)
def test_every_saved_value_has_its_name_also_if_the_source_does_not_need_it(
    name: str, line: str
) -> None:
    assert line in skeleton(find(name))


def test_a_grouped_query_exercise_asks_for_its_two_lines_only() -> None:
    assert [b.names for b in blanks(find("grouped_queries"))] == [("dvalues",), ("dkeys",)]
    assert "    dq = dproducts @ k" in skeleton(find("grouped_queries"))


def test_the_docstring_of_the_source_is_the_question_of_the_file() -> None:
    text = skeleton(find("softmax"))
    assert text.startswith('"""Softmax: turn the last axis into a probability distribution.\n')
    assert "It gets dprobs, the gradient of the loss with respect to probs, and what" in text
    assert "returns dx." in text
    assert "\nnp.real(x) marks a value that counts as a constant" in text
    assert "Shapes: V vocabulary, ... any axes." in " ".join(text.split())


def test_a_file_explains_what_its_lines_use() -> None:
    text = " ".join(skeleton(find("attention")).split())
    assert "For each call X.forward(...) there is X.backward(gradient, saved)." in text
    assert "a.mT swaps the last two axes of a." in text
    for letter in ("E = W·D", "R = H/J queries that share one", "W = H + 2J"):
        assert letter in text
    assert "Each letter in a shape is the size of an axis." in skeleton(find("matmul"))
    assert "dbias = ...  # (K,) or None\n" in skeleton(find("linear"))
    assert "\n\n\n    tinygpt" not in skeleton(find("chain"))
