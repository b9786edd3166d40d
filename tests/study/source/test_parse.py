"""Tests of parsing functions."""

import ast
from dataclasses import replace

import pytest
from helpers.study_targets import FILE, function

from tinygpt_np.study.source.parse import Statement, StudyError


def statement(text: str) -> Statement:
    return function(f"def forward(x):\n    {text}\n    return x").statements[0]


# The text of a statement, and the shape in its comment


@pytest.mark.parametrize(
    ("written", "text", "shape"),
    [
        ("y = x + 1  # (N, C)", "y = x + 1", "(N, C)"),
        ("y  =  x+1  #  (...)  ", "y  =  x+1", "(...)"),
        (
            "y = (  # why\n        x  # not\n        + 1\n    )  # (N,), (C, V)", "y = ( x + 1 )",
            "(N,), (C, V)",
        ),
        ("é = x + 'é'; y = 2 * é  # after bytes", "é = x + 'é'", ""),
        ("for i in x:  # each\n        y = i  # (N, C), as it was", "for i in x: …", ""),
        ("if x:\n        y = 1", "if x: …", ""),
        ('y = f("#1", x)  # (N,)', "y = f('#1', x)", "(N,)"),
    ],
)  # fmt: skip
def test_the_text_is_one_line_and_the_shape_is_at_its_end(
    written: str, text: str, shape: str
) -> None:
    assert (statement(written).text, statement(written).shape) == (text, shape)


def test_the_text_of_a_planted_bug_comes_from_the_tree() -> None:
    each = function("def forward(x):\n    y = x + 1  # (N,)\n    return y")
    planted = ast.parse("def forward(x):\n    y = x - 1\n    return y").body[0]
    assert isinstance(planted, ast.FunctionDef)
    assert [one.text for one in replace(each, node=planted).statements] == ["y = x - 1"]


# The names that it sets and reads


@pytest.mark.parametrize(
    ("written", "sets"),
    [
        ("y, (z, _) = x", "y z _"), ("y: int = x", "y"), ("y[0] += x", "y"),
        ("np.add.at(y, x, 1)", "y"), ("y.append(x)", "x y"), ("np.exp(x, out=y)", "x np y"),
        ("z = np.exp(x, out=y)", "z y"), ("for i in x:\n        y[i] = z", "i y"),
        ("if x:\n        y = z", "y"), ("y = [i for i, j in x]", "y"), ("print(1)", ""),
    ],
)  # fmt: skip
def test_a_statement_sets_what_it_assigns_or_may_change(written: str, sets: str) -> None:
    assert sorted(statement(written).sets) == sorted(sets.split())


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("y = a + np.exp(b)", "a b np"), ("y = np.zeros(a.shape) + b.ndim", "np"),
        ("y = np.real(a).max() + b", "b"), ("y = a if b is None else c", "a c"),
        ("y = np.where(a > 0, b, 0)", "np b"), ("y = f(a, axis=b)", "f a b"), ("y += a", "y a"),
        ("y[a] = b", "y b"),
    ],
)  # fmt: skip
def test_no_gradient_flows_through_comparisons_and_shapes(written: str, reads: str) -> None:
    assert statement(written).reads == {*reads.split()}


# Finding functions


def test_the_last_definition_counts_and_returns_of_nested_functions_do_not() -> None:
    text = """
    def forward(x):
        return 1

    def forward(y):
        def inner(y):
            if y:
                return 1
            yield 2
        f = lambda y: (yield y)
        return y
    """
    assert function(text).arguments == ("y",)
    assert len(function(text).statements) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def forward(x:\n    return x", f"{FILE} is not valid Python: .*line 1"),
        ("x\0", f"{FILE} is not valid Python: "),
        ("def other(x):\n    return x", f"{FILE} has no function forward; functions found: other"),
        ("async def forward(x):\n    return x", f"{FILE} has no function forward; .*: none"),
        ("def forward(x):\n    y = x", f"{FILE}: forward must return a value; it has no return"),
        ("def forward(x):\n    return", "must return a value; the return on line 2 has none"),
        ("def forward(x):\n    yield x\n    return x", f"{FILE}: forward .* without yield"),
        ("def forward(x):\n    global y\n    return x", f"{FILE}: forward .* without global"),
    ],
)
def test_a_function_that_cannot_be_studied_is_refused_with_file_and_line(
    text: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        function(text)
