"""Tests of parsing functions."""

import ast

import pytest
from helpers.architecture import OPERATIONS, source
from helpers.study_targets import FILE, function

from tinygpt_np.study.source.parse import Function, Statement, StudyError, find_function

MODEL = ("forward", "backward", "block_forward", "block_backward")


def statement(text: str) -> Statement:
    """Parse the first statement of a body."""
    return function(f"def forward(x):\n    {text}\n    return x").statements[0]


def functions() -> list[Function]:
    """Return all functions of the package that can be studied."""
    found = [
        find_function(source("ops", f"{name}.py"), kind, f"{name}.py")
        for name in OPERATIONS
        for kind in ("forward", "backward", "backward_steps")
        if f"def {kind}(" in source("ops", f"{name}.py")
    ]
    return found + [
        find_function(source("model", "gpt.py"), f"GPT.{name}", "model/gpt.py") for name in MODEL
    ]


# The text of a statement


def test_the_text_of_every_statement_of_the_package_is_its_source() -> None:
    checked = 0
    for each in functions():
        for one in each.statements:
            written = each.lines[one.line - 1 : one.node.end_lineno]
            assert not any('"#' in line for line in written)
            text = " ".join(line.partition("  # ")[0].strip() for line in written)
            if isinstance(one.node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr):
                assert one.text == text, f"{each.file}, line {one.line}"
                checked += 1
    assert checked > 120


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("y = x + 1  # (N, C)", "y = x + 1"),
        ("y  =  x+1", "y  =  x+1"),
        ("y = (\n        x\n        + 1\n    )", "y = ( x + 1 )"),
        ("y = (  # why\n        x  # not\n        + 1\n    )  # (N,)", "y = ( x + 1 )"),
        ("é = x + 'é'; y = 2 * é  # after bytes", "é = x + 'é'"),
        ("for i in x:  # each\n        y = i", "for i in x: …"),
        ("if x:\n        y = 1", "if x: …"),
    ],
)
def test_the_text_is_one_line_without_comments(written: str, text: str) -> None:
    assert statement(written).text == text


def test_a_hash_in_a_string_is_not_a_comment() -> None:
    assert ast.dump(ast.parse(statement('y = f("#1", x)  # (N,)').text)) == ast.dump(
        ast.parse('y = f("#1", x)')
    )


def test_the_text_of_a_planted_bug_comes_from_the_tree() -> None:
    each = function("def forward(x):\n    y = x + 1  # (N,)\n    return y")
    planted = ast.parse("def forward(x):\n    y = x - 1\n    return y").body[0]
    assert isinstance(planted, ast.FunctionDef)
    assert [one.text for one in each.with_tree(planted).statements] == ["y = x - 1"]
    assert each.statements[0].text == "y = x + 1"


# The shape in the comment


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        ("y = x  # (N, C)", "(N, C)"),
        ("y = x  #  (...)  ", "(...)"),
        ("y, z = x  # (N,), (C, V)", "(N,), (C, V)"),
        ("y = (\n        x\n    )  # (N, 3C)", "(N, 3C)"),
        ("y = x", ""),
        ("y = x  # why", ""),
        ("y = x  # (N, C), as it was", ""),
    ],
)
def test_the_shape_is_at_the_end_of_the_last_line(written: str, shape: str) -> None:
    assert statement(written).shape == shape


# The names that it sets and reads


@pytest.mark.parametrize(
    ("written", "sets"),
    [
        ("y = x", ("y",)),
        ("y, (z, _) = x", ("y", "z", "_")),
        ("y: int = x", ("y",)),
        ("y += x", ("y",)),
        ("y[0] = x", ("y",)),
        ("y[0] += x", ("y",)),
        ("np.add.at(y, x, 1)", ("y",)),
        ("y.append(x)", ("x", "y")),
        ("y = np.exp(x)", ("y",)),
        ("np.exp(x, out=y)", ("x", "np", "y")),
        ("z = np.exp(x, out=y)", ("z", "y")),
        ("for i in x:\n        y[i] = z", ("i", "y")),
        ("if x:\n        y = z", ("y",)),
        ("y = [i for i, j in x]", ("y",)),
        ("print(1)", ()),
    ],
)
def test_a_statement_sets_what_it_assigns_or_may_change(
    written: str, sets: tuple[str, ...]
) -> None:
    assert set(statement(written).sets) == {*sets}
    assert len(statement(written).sets) == len(sets)


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("y = a + np.exp(b)", {"a", "b", "np"}),
        ("y = np.zeros(a.shape) + b.ndim", {"np"}),
        ("y = np.real(a).max() + b", {"b"}),
        ("y = a if b is None else c", {"a", "c"}),
        ("y = np.where(a > 0, b, 0)", {"np", "b"}),
        ("y = f(a, axis=b)", {"f", "a", "b"}),
        ("y += a", {"y", "a"}),
        ("y[a] = b", {"y", "b"}),
    ],
)
def test_no_gradient_flows_through_comparisons_and_shapes(written: str, reads: set[str]) -> None:
    assert statement(written).reads == reads


# Finding functions


def test_comments_above_a_line_are_those_of_the_function_nearest_first() -> None:
    each = function(
        "# outside\ndef forward(x):\n    # first\n    y = x  # no\n    # second\n    z = y\n"
        "    # below\n    return z"
    )
    assert each.comments_above(each.statements[1].line) == ["second", "first"]


def test_the_last_of_two_definitions_counts() -> None:
    assert function("def forward(x):\n    return 1\n\ndef forward(y):\n    return 2").arguments == (
        "y",
    )


def test_returns_and_yields_of_nested_functions_do_not_count() -> None:
    text = """
    def forward(x):
        def inner(y):
            if y:
                return 1
            yield 2
        f = lambda y: (yield y)
        return x
    """
    assert len(function(text).statements) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def forward(x:\n    return x", f"{FILE} is not valid Python: .*line 1"),
        ("x\0", f"{FILE} is not valid Python: "),
        ("def other(x):\n    return x", f"{FILE} has no function forward; functions found: other"),
        ("y = 1", f"{FILE} has no function forward; functions found: none"),
        ("async def forward(x):\n    return x", f"{FILE} has no function forward"),
        ("def forward(x):\n    y = x", f"{FILE}: forward must have one return, .* on line: none"),
        (
            "def forward(x):\n    return",
            f"{FILE}: forward must have one return, with a value, as its last statement",
        ),
        (
            "def forward(x):\n    if x:\n        return 1\n    return 2",
            f"{FILE}: forward must have one return, .* returns found on line: 3, 4",
        ),
        ("def forward(x):\n    if x:\n        return 1", "returns found on line: 3"),
        ("def forward(x):\n    yield x\n    return x", f"{FILE}: forward .* without yield"),
        ("def forward(x):\n    global y\n    return x", f"{FILE}: forward .* without global"),
    ],
)
def test_a_function_that_cannot_be_studied_is_refused_with_file_and_line(
    text: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        function(text)
