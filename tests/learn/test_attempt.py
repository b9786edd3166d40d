"""A learner's file is read, or one sentence says why not; open lines are found and filled."""

import ast

import numpy as np
import pytest
from helpers.learners import solved

from tinygpt_np.learn.attempt import Attempt, AttemptError, read_file
from tinygpt_np.learn.course import course, find
from tinygpt_np.learn.skeleton import blanks, skeleton
from tinygpt_np.study.source.parse import Function

SOFTMAX = find("softmax")
TEXT = skeleton(SOFTMAX)
FORWARD = TEXT.partition("def backward")[0]
BACKWARD = TEXT.removeprefix(FORWARD)


def read(text: str, name: str = "softmax") -> Attempt:
    return read_file(find(name), text, "own.py")


def line_with(text: str, part: str) -> int:
    """Return the number of the only line that has this part."""
    (number,) = (n for n, line in enumerate(text.splitlines(), 1) if part in line)
    return number


def edited(old: str, new: str, text: str = TEXT) -> str:
    assert text.count(old) == 1, text.count(old)
    return text.replace(old, new)


NUMPY = "import numpy as np"
UNREADABLE = {
    "half a line": ("dx = ...", "dx = (", "'(' was never closed: this is not valid Python"),
    "a tab": (
        "    dx = ...",
        "\tdx = ...",
        "inconsistent use of tabs and spaces in indentation: this is not valid Python",
    ),
    "an indent": ("    dx = ...", "      dx = ...", "unexpected indent: this is not valid Python"),
    "an arrow": ("dx = ...", "dx ← dy", "invalid character '←' (U+2190): this is not valid Python"),
    "an error": (NUMPY, f"{NUMPY}\n1 / 0", "raises ZeroDivisionError: division by zero"),
    "a module": (NUMPY, "import nunpy", "raises ModuleNotFoundError: No module named 'nunpy'"),
    "a name": (NUMPY, f"{NUMPY}\nx = nmpy", "raises NameError: name 'nmpy' is not defined"),
}


@pytest.mark.parametrize(("old", "new", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_python_cannot_run_is_refused_with_its_line(
    old: str, new: str, message: str
) -> None:
    with pytest.raises(AttemptError) as raised:
        read(edited(old, new))
    assert str(raised.value) == message
    assert raised.value.line in (line_with(TEXT, old), line_with(TEXT, old) + 1)


NO_BACKWARD = "own.py has no function backward; functions found: forward"
WRONG_FUNCTIONS = {
    "no backward": (BACKWARD, "", NO_BACKWARD),
    "no forward": (FORWARD, "", "own.py has no function forward; functions found: backward"),
    "an empty file": (TEXT, "", "own.py has no function forward; functions found: none"),
    "another name": ("backward(dprobs", "backwards(dprobs", f"{NO_BACKWARD}, backwards"),
    "a lambda": (BACKWARD, "\nbackward = lambda dprobs, saved: dprobs", NO_BACKWARD),
    "a class": ("def backward(dprobs, saved)", "class backward(object)", "not valid Python"),
    "async": ("def backward", "async def backward", NO_BACKWARD),
    "no return": ("return dx", "pass", "own.py: backward must return a value; it has no return"),
    "an empty return": ("return dx", "return", f"on line {TEXT[:-1].count(chr(10)) + 1} has none"),
    "a generator": ("return dx", "yield dx; return dx", "a plain function, without yield"),
    "a global name": ("return dx", "global np; return dx", "a plain function, without global"),
    "a number": (
        "return dx",
        "return dx\n\nbackward = 3",
        "forward and backward must be functions",
    ),
    "deleted": ("return dx", "return dx\n\ndel forward", "forward and backward must be functions"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG_FUNCTIONS.values(), ids=WRONG_FUNCTIONS)
def test_a_file_without_the_two_functions_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(AttemptError) as raised:
        read(edited(old, new))
    assert str(raised.value).endswith(message)
    assert "\n" not in str(raised.value)


WRONG_ARGUMENTS = (
    *("", "dprobs", "dprobs, saved, x", "saved, dprobs", "saved, x"),
    *("*args", "dprobs, *, saved", "dprobs, saved=(), *, axis"),
)


@pytest.mark.parametrize("signature", WRONG_ARGUMENTS)
def test_a_backward_with_other_arguments_is_refused(signature: str) -> None:
    with pytest.raises(AttemptError) as raised:
        read(edited("(dprobs, saved)", f"({signature})"))
    assert str(raised.value) == (
        f"backward must take the arguments backward(dprobs, saved), not backward({signature})"
    )
    assert raised.value.line == line_with(TEXT, "def backward")


@pytest.mark.parametrize("signature", ["forward()", "forward(y)", "forward(x, y)", "forward(*, x)"])
def test_a_forward_with_other_arguments_is_refused(signature: str) -> None:
    with pytest.raises(AttemptError) as raised:
        read(edited("forward(x)", signature))
    assert str(raised.value) == f"forward must take the arguments forward(x), not {signature}"


def test_arguments_with_defaults_may_be_added() -> None:
    text = TEXT.replace("(dprobs, saved)", "(dprobs, saved, axis=-1, *, epsilon=0)")
    assert read(text).backward.arguments == ("dprobs", "saved", "axis", "epsilon")


def test_the_arguments_of_the_backward_of_a_model_have_their_names() -> None:
    text = skeleton(find("gpt")).replace("(self, dlogits, saved)", "(self, grad, saved)")
    with pytest.raises(AttemptError, match=r"must take the arguments backward\(self, dlogits, sav"):
        read(text, "gpt")


def test_the_upstream_gradient_may_have_another_name() -> None:
    text = TEXT.replace("(dprobs, saved)", "(grad, cache)").replace("= saved", "= cache")
    assert read(text).backward.arguments == ("grad", "cache")


OPEN = {
    "dx = ...": True,
    "dx += ...": True,
    "dx, dy = ...": True,
    "dx = dy * ...": True,
    "dx = grads.keep('x', ...)": True,
    "dx = np.zeros(...)": True,
    "dx = [..., 1]": True,
    "dx = x[..., None]": False,
    "dx[...] = dy": False,
    "dx = x[..., :3] * y[...]": False,
    "dx = '...'": False,
    "...": False,
    "pass": False,
}


@pytest.mark.parametrize(("line", "is_open"), OPEN.items(), ids=OPEN)
def test_dots_outside_an_index_make_a_line_open(line: str, is_open: bool) -> None:
    text = solved("softmax").replace("return dx", f"{line}\n    return dx")
    assert len(read(text).open_lines) == is_open


def test_open_lines_in_loops_and_conditions_are_found_in_order() -> None:
    body = (
        "for row in probs:\n        dexps = ...\n        if row:\n            dx = ...\n"
        "        else:\n            dtotal = ...\n    try:\n        dshifted = ...\n"
        "    except ValueError:\n        dexps += ...\n    with np.errstate():\n        dx += ...\n"
    )
    text = edited("return dx", f"{body}    return dx", solved("softmax"))
    first = line_with(text, "for row")
    assert [node.lineno - first for node in read(text).open_lines] == [1, 3, 5, 7, 9, 11]


def with_solutions(found: Attempt) -> Function:
    """Return the backward with the lines of the source in the place of the open ones."""
    blank_of = found.blank_of
    return found.with_source({n.lineno: b for n in found.open_lines if (b := blank_of(n))}, {})


@pytest.mark.parametrize("name", [e.name for e in course() if e.kind == "lines"])
def test_every_open_line_of_a_new_file_is_filled_by_the_line_of_the_source(name: str) -> None:
    found = read(skeleton(find(name)), name)
    assert [found.blank_of(node) for node in found.open_lines] == [*blanks(find(name))]
    source = ast.parse(solved(name)).body[-1]
    filled = with_solutions(found).node
    assert ast.unparse(filled) == ast.unparse(source)


def test_an_open_line_is_filled_by_the_source_line_under_the_same_quoted_line() -> None:
    # The learner has written the second of two lines only.
    text = edited("    dexps = ...  # (..., V)\n", "", TEXT)
    found = read(text)
    assert [b.quote for node in found.open_lines if (b := found.blank_of(node))] == [
        b.quote for b in blanks(SOFTMAX)[1:]
    ]
    added = found.blank_of(found.open_lines[1])
    assert added is not None
    assert added.solution.startswith("dexps += dtotal")


def test_an_open_line_of_the_learners_own_stays_open() -> None:
    found = read(edited("dx = ...", "mean = ...\n    dx = ..."))
    (own,) = (node for node in found.open_lines if found.blank_of(node) is None)
    assert ast.unparse(own) == "mean = ..."
    assert "mean = ..." in ast.unparse(with_solutions(found).node)


UNCHANGED = {
    "nothing": ("", ""),
    "a comment": ("return probs, (", "# the end\n    return probs, ("),
    "its docstring": ("Rows sum to 1;", "Rows have the sum 1;"),
    "blank lines": ("return probs, (", "\n\n\n    return probs, ("),
}


@pytest.mark.parametrize(("old", "new"), UNCHANGED.values(), ids=UNCHANGED)
def test_a_forward_with_the_same_code_is_not_changed(old: str, new: str) -> None:
    assert not read(edited(old, new) if old else TEXT).is_own_forward


def test_a_forward_with_other_code_is_changed() -> None:
    assert read(edited("probs, (probs, total)", "probs, (probs, total, x)")).is_own_forward


def test_the_functions_run_in_the_names_of_the_file() -> None:
    text = solved("softmax") + "\nprobs, saved = forward(np.zeros((1, 2)))\n"
    module = read(text).module
    np.testing.assert_array_equal(module["probs"], [[0.5, 0.5]])
    assert module["__name__"] == "softmax"
