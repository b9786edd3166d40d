import ast
import re

import pytest
from helpers.architecture import OPERATIONS, source
from study_own import WHERE, function

from tinygpt_np.study.source import Function, Statement, StudyError, find

MODEL = ("forward", "backward", "block_forward", "block_backward")


def statement(text: str) -> Statement:
    """The first statement of a body."""
    return function(f"def forward(x):\n    {text}\n    return x").statements[0]


def functions() -> list[Function]:
    """Every function of the package that is studied."""
    found = [
        find(source("ops", f"{name}.py"), kind, f"{name}.py")
        for name in OPERATIONS
        for kind in ("forward", "backward", "backward_steps")
        if f"def {kind}(" in source("ops", f"{name}.py")
    ]
    return found + [find(source("model", "gpt.py"), f"GPT.{name}", "gpt.py") for name in MODEL]


# The text of a statement


def test_every_statement_of_the_package_is_read_as_it_stands() -> None:
    checked = 0
    for each in functions():
        for one in each.statements:
            written = each.lines[one.line - 1 : one.node.end_lineno]
            assert not any('"#' in line for line in written)
            text = " ".join(line.partition("  # ")[0].strip() for line in written)
            if isinstance(one.node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr):
                assert one.text == text, f"{each.where}, line {one.line}"
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
def test_a_statement_is_one_line_without_its_comment(written: str, text: str) -> None:
    assert statement(written).text == text


def test_a_hash_in_a_string_is_no_comment() -> None:
    assert ast.dump(ast.parse(statement('y = f("#1", x)  # (N,)').text)) == ast.dump(
        ast.parse('y = f("#1", x)')
    )


def test_docstring_and_return_are_no_statements() -> None:
    each = function('def forward(x):\n    "What it does."\n    y = x\n    return y')
    assert [one.text for one in each.statements] == ["y = x"]
    assert each.docstring == "What it does."


def test_of_a_planted_bug_the_tree_is_shown_not_the_source() -> None:
    each = function("def forward(x):\n    y = x + 1  # (N,)\n    return y")
    planted = ast.parse("def forward(x):\n    y = x - 1\n    return y").body[0]
    assert isinstance(planted, ast.FunctionDef)
    assert [one.text for one in each.changed(planted).statements] == ["y = x - 1"]
    assert each.statements[0].text == "y = x + 1"


# The shape that a comment states


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
def test_the_shape_is_what_ends_the_last_line(written: str, shape: str) -> None:
    assert statement(written).shape == shape


# What it sets and reads


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
def test_a_statement_sets_what_it_stores_or_may_change(written: str, sets: tuple[str, ...]) -> None:
    assert set(statement(written).sets) == {*sets}
    assert len(statement(written).sets) == len(sets)


@pytest.mark.parametrize(
    ("written", "changes"),
    [("y = x", set[str]()), ("y += x", {"y"}), ("y[x] = z", {"y"}), ("a, y[x] = z", {"y"})],
)
def test_what_is_stored_anew_is_not_changed_in_place(written: str, changes: set[str]) -> None:
    assert {*statement(written).changes} == changes


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
def test_values_that_are_compared_or_measured_do_not_flow(written: str, reads: set[str]) -> None:
    assert statement(written).reads == reads


def test_all_that_is_read_is_mentioned() -> None:
    assert statement("y[i] = a if b is None else c.shape").mentions == {"y", "i", "a", "b", "c"}
    assert "y" not in statement("y = a").mentions


# Where a function is found


def test_comments_above_a_line_come_nearest_first_and_only_from_inside() -> None:
    each = function(
        "# outside\ndef forward(x):\n    # first\n    y = x  # no\n    # second\n    z = y\n"
        "    # below\n    return z"
    )
    assert each.comments_above(each.statements[1].line) == ["second", "first"]


def test_a_method_is_found_by_its_class() -> None:
    text = "\n".join(f"class {name}:\n    def f(self):\n        return 1" for name in "AB")
    assert find(text, "B.f", WHERE).node.lineno == 5
    assert find(text, "B.f", WHERE).name == "f"


def test_of_two_definitions_the_last_one_counts() -> None:
    assert function("def forward(x):\n    return 1\n\ndef forward(y):\n    return 2").arguments == (
        "y",
    )


def test_all_kinds_of_arguments_are_named_in_order() -> None:
    assert function("def forward(a, /, b, c=1, *, d=2):\n    return a").arguments == (
        *("a", "b", "c", "d"),
    )


def test_returns_and_yields_of_functions_inside_do_not_count() -> None:
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
    ("text", "says"),
    [
        ("def forward(x:\n    return x", f"{WHERE} is no Python source: .*line 1"),
        ("x\0", f"{WHERE} is no Python source: "),
        ("def other(x):\n    return x", f"{WHERE} has no function forward; it has: other"),
        ("y = 1", f"{WHERE} has no function forward; it has: none at all"),
        ("async def forward(x):\n    return x", f"{WHERE} has no function forward"),
        ("def forward(x):\n    y = x", f"{WHERE}: forward must return once, .* not on line none"),
        ("def forward(x):\n    return", f"{WHERE}: forward must return once, a value, at its end"),
        (
            "def forward(x):\n    if x:\n        return 1\n    return 2",
            f"{WHERE}: forward must return once, a value, at its end, not on line 3, 4",
        ),
        ("def forward(x):\n    if x:\n        return 1", "at its end, not on line 3"),
        ("def forward(x):\n    yield x\n    return x", f"{WHERE}: forward .* without yield"),
        ("def forward(x):\n    global y\n    return x", f"{WHERE}: forward .* without global"),
    ],
)
def test_what_cannot_be_studied_is_refused_by_file_function_and_line(text: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        function(text)


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(StudyError, match=re.escape("has no function A.f; it has: none at all")):
        find("def f(x):\n    return x", "A.f", WHERE)
