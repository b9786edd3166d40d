"""Every mistake is found at its line, and a right backward is right in any style."""

import ast
import itertools
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_targets import (
    ARGS,
    BACKWARD,
    FORWARD,
    UNQUOTED,
    X,
    edited,
    edited_proof,
    line_with,
    proof,
    report,
    truth,
    wrong_lines,
)

from tinygpt_np.gradcheck.mutations import mutations
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.source.parse import find_function

# Styles

HEAD = "def backward(dy, saved):\n    x, w, z, a = saved\n"
LAST = "    dx = dz @ w.T\n    dw = x.T @ dz\n    return dx, dw\n"
SLOPE = "(1 + a + z * (1 - a * a))"
# Different ways to write the same backward.
STYLES = {
    "with quotes": BACKWARD,
    "without a comment": UNQUOTED,
    "closed form": f"{HEAD}    dz = dy * {SLOPE}\n{LAST}",
    "no d-names": f"{HEAD}    g = dy * {SLOPE}\n    return g @ w.T, x.T @ g",
    "another upstream": f"def backward(g, s):\n    x, w, z, a = s\n    g = g * {SLOPE}\n"
    "    gx, gw = g @ w.T, x.T @ g\n    return gx, gw",
    "x = x + …": edited(UNQUOTED, ("dz += db", "dz = dz + db"), ("dz += da", "dz = dz + da")),
    "-=": edited(UNQUOTED, ("dz += db", "dz -= -db"), ("dz += da", "dz -= -da")),
    "in the order of the forward": f"{HEAD}    dz = dy * z * (1 - a * a)\n    dz += dy * a\n"
    f"    dz += dy\n{LAST}",
    "from zero": f"{HEAD}    dx, dw, dz = np.zeros_like(x), np.zeros_like(w), np.zeros_like(z)\n"
    "    dz += dy\n    dz += dy * a\n    dz += dy * z * (1 - a * a)\n    dx += dz @ w.T\n"
    "    dw += x.T @ dz\n    return dx, dw",
    "some quotes": edited(BACKWARD, ("    # b = a * z\n", ""), ("    # a = np.tanh(z)\n", "")),
    "in place": f"{HEAD}    dz = dy.copy()\n    dz *= {SLOPE}\n{LAST}",
    "out=": f"{HEAD}    dz = np.empty_like(z)\n    np.multiply(dy, {SLOPE}, out=dz)\n{LAST}",
    "tuples": f"{HEAD}    db, dz = dy.copy(), dy.copy()\n    da, dz = db * z, dz + db * a\n"
    "    dz += da * (1 - a * a)\n    dx, dw = dz @ w.T, x.T @ dz\n    return dx, dw",
    "a loop": f"{HEAD}    dz = dy * {SLOPE}\n    dx, dw = np.zeros_like(x), np.zeros_like(w)\n"
    "    for i in range(len(x)):\n        dx[i] = w @ dz[i]\n"
    "        dw += np.outer(x[i], dz[i])\n    return dx, dw",
    "a view": f"{HEAD}    dz = dy * {SLOPE}\n    dx = np.zeros_like(x)\n    top = dx[:1]\n"
    "    rest = dx[1:]\n    top[...] = dz[:1] @ w.T\n    rest[...] = dz[1:] @ w.T\n"
    "    dw = x.T @ dz\n    return dx, dw",
    "helpers": "def slope(a, z):\n    return 1 + a + z * (1 - a * a)\n\n"
    "def add(more, into):\n    into += more\n\n"
    f"{HEAD}    dz = dy * slope(a, z)\n    dx, dw = 0 * x, 0 * w\n    add(dz @ w.T, dx)\n"
    "    add(x.T @ dz, into=dw)\n    return dx, dw",
    "a list": f"{HEAD}    dz = dy * {SLOPE}\n    return [dz @ w.T, x.T @ dz]",
    "a name for something else": f"{HEAD}    z = dy * {SLOPE}\n    return z @ w.T, x.T @ z",
    "a name that looks like a gradient": f"{HEAD}    da = z.shape[1]\n    dz = dy * {SLOPE}\n"
    "    return dz.reshape(-1, da) @ w.T, x.T @ dz",
    "a call that reads a gradient": edited(
        UNQUOTED, ("    dx = dz", "    np.isfinite(dz)\n    dx = dz")
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_right_backward_is_right_in_any_style(style: str) -> None:
    found = proof(FORWARD + STYLES[style])
    assert found.ok, report(found)
    assert {line.status for line in found.lines} <= {"right", "partial", ""}, report(found)
    assert {gradient.status for gradient in found.lines[-1].gradients} == {"right"}
    assert found.worst < 1e-12


@pytest.mark.parametrize("style", ["without a comment", "from zero", "a loop", "x = x + …"])
@pytest.mark.parametrize("place", range(2, 8))
def test_unfinished_sums_before_an_exception_are_not_wrong(style: str, place: int) -> None:
    lines = STYLES[style].splitlines()
    indent = len(lines[place]) - len(lines[place].lstrip())
    lines.insert(place, " " * indent + "raised = None + 1")
    assert wrong_lines(proof(FORWARD + "\n".join(lines))) == ["raised = None + 1"]


# Mistakes


LINES = {
    "db": "db = dy.copy()", "dz 1": "dz = dy.copy()", "da": "da = db * z", "dz 2": "dz += db * a",
    "dz 3": "dz += da * (1 - a * a)", "dx": "dx = dz @ w.T", "dw": "dw = x.T @ dz",
}  # fmt: skip
# The lines that are wrong only because of each line.
DEPENDENTS = {
    "db": ["da", "dz 2", "dz 3", "dx", "dw"], "dz 1": ["dx", "dw"],
    "da": ["dz 3", "dx", "dw"], "dz 2": ["dx", "dw"], "dz 3": ["dx", "dw"],
    "dx": [], "dw": [],
}  # fmt: skip


def broken(name: str, change: str = "1.5 * ({})") -> tuple[str, str]:
    text = LINES[name]
    left, equals, right = text.partition(" = ") if " = " in text else text.partition(" += ")
    return text, f"{left}{equals}{change.format(right)}"


@pytest.mark.parametrize("name", LINES)
def test_the_lines_that_depend_on_a_mistake_inherit_it(name: str) -> None:
    edit = broken(name)
    found = edited_proof(edit)
    assert wrong_lines(found) == [edit[1]], report(found)
    inherited = {line.text: line.message for line in found.lines if line.status == "inherited"}
    assert [*inherited] == [*(LINES[other] for other in DEPENDENTS[name]), "return dx, dw"]
    assert {*inherited.values()} == {f"because of {name[:2]}"}


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(LINES, 2)])
def test_two_mistakes_are_both_found(first: str, second: str) -> None:
    edits = broken(first), broken(second, "({}) / 3")
    found = edited_proof(*edits)
    assert wrong_lines(found) == [edit[1] for edit in edits], report(found)


Edits = tuple[tuple[str, str], ...]
# Edits of BACKWARD, the lines that are then wrong, and what the message of the last one contains.
MISTAKES: list[tuple[Edits, list[str], str]] = [
    (
        (("x, w, z, a = saved", "x, w, a, z = saved"),), ["x, w, a, z = saved"],
        "a is not what it was in forward",
    ),
    (
        (("da = db * z", "da = (db * z).sum(axis=0)"),), ["da = (db * z).sum(axis=0)"],
        "da: the shape must be (4, 3), not (3,)",
    ),
    (
        (("    dz += db * a\n", "    dz += db * a\n    dz +=  db * a\n"),), ["dz +=  db * a"],
        "dz: off by",
    ),
    ((("da = db * z", "da = db @ z"),), ["da = db @ z"], "raises ValueError: matmul"),
    ((("return dx, dw", "return dx, dq"),), ["return dx, dq"], "raises NameError: name 'dq'"),
    ((("return dx, dw", "return dx"),), ["return dx"], "dw: there is no gradient"),
    (
        (("return dx, dw", "return dw, dx"),), ["return dw, dx"],
        "returned: dx: the shape must be (4, 5), not (5, 3)",
    ),
    ((("dz = dy.copy()", "dz = dy"),), ["dz += db * a"], "changes an input of backward in place"),
    (
        (("    # z = x @ w", "    w *= 2\n    # z = x @ w"),), ["w *= 2"],
        "w is not what it was in forward",
    ),
    # A harmless difference does not hide a mistake.
    (
        (("    # y = b + z", "    b = 0 * a\n    # y = b + z"), broken("dx")),
        ["dx = 1.5 * (dz @ w.T)"], "dx: off by",
    ),
    # A name that forward does not have is wrong if a gradient depends on it.
    (
        (("x, w, z, a = saved", "x, w, a, k = saved"), ("da = db * z", "da = db * k")),
        ["x, w, a, k = saved"], "a is not what it was in forward",
    ),
    # A difference is not the mistake if correcting it does not help.
    (
        (broken("dz 3"), ("    # z = x", "    a = w + 0 * dz.sum()\n    # z = x")),
        ["dz += 1.5 * (da * (1 - a * a))"], "dz: off by",
    ),
    # Neither a value that is not finite nor an exception hides another mistake.
    (
        (("dz = dy.copy()", "dz = dy * np.inf"), broken("dx")),
        ["dz = dy * np.inf", "dx = 1.5 * (dz @ w.T)"], "dx: off by",
    ),
    # A small mistake on a line that reads a wrong gradient, so that it is checked alone.
    (
        (broken("dz 3"), broken("dx", "1.00000001 * ({})")),
        ["dz += 1.5 * (da * (1 - a * a))", "dx = 1.00000001 * (dz @ w.T)"], "dx: off by",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "lines", "message"), MISTAKES)
def test_a_mistake_is_found_at_its_line_and_nowhere_else(
    edits: Edits, lines: list[str], message: str
) -> None:
    found = edited_proof(*edits)
    assert wrong_lines(found) == lines, report(found)
    assert message in line_with(found, lines[-1]).message
    unreached = [line.text for line in found.lines if line.status == "unreached"]
    assert len(unreached) == (5 if message.startswith("raises ValueError") else 0)


def test_a_missing_path_is_named_and_no_line_is_wrong() -> None:
    found = edited_proof(("    dz += db * a\n", ""))
    first = found.first_wrong
    assert first is not None, report(found)
    assert first.message == "dz lacks the part through line 5, b = a * z"
    assert not wrong_lines(found)
    assert [line.text for line in found.lines if line.status == "inherited"] == [
        "dx = dz @ w.T", "dw = x.T @ dz", "return dx, dw",
    ]  # fmt: skip


def test_a_comment_with_another_shape_is_a_warning() -> None:
    found = edited_proof(
        ("da = db * z", "da = db * z  # (N, 2K)"), ("db = dy.copy()", "db = dy.copy()  # (N, K)")
    )
    assert found.ok
    warned = {line.text: line.message for line in found.lines if line.status == "warning"}
    assert warned == {"da = db * z": "the comment says (N, 2K), but the shape is (4, 3)"}


def test_a_name_of_forward_for_something_else_is_no_warning_if_nothing_uses_it() -> None:
    other = ("    # y = b", "    b = 2 * a * z\n    # y = b")
    assert {line.status for line in edited_proof(other).lines} <= {"right", ""}
    wrong = edited_proof(other, broken("dx"))
    assert wrong_lines(wrong) == [broken("dx")[1]]
    assert line_with(wrong, "b = 2 * a * z").status == ""


LOSS = """
def forward(x):
    a = np.tanh(x)
    loss = (a * a).sum()
    return loss, (x, a)

def backward(dloss, saved):
    x, a = saved
    da = 2 * a
    dx = da * (1 - a * a)
    return dx * dloss
"""


def test_a_loss_may_be_multiplied_by_its_gradient_in_the_end() -> None:
    assert proof(LOSS, {"x": X}).ok
    found = proof(edited(LOSS, ("1 - a", "1 + a")), {"x": X})
    assert wrong_lines(found) == ["dx = da * (1 + a * a)"], report(found)
    found = proof(edited(LOSS, ("da = 2 * a", "da = a")), {"x": X})
    assert wrong_lines(found) == ["da = a"], report(found)
    assert found.first_wrong is not None
    # With dloss = 1 this is right.
    found = proof(edited(LOSS, ("dx * dloss", "dx.copy()")), {"x": X})
    assert wrong_lines(found), report(found)


GATES = """
def forward(x, w):
    z = x @ w
    a, b = z[:, :1], z[:, 1:]
    a, b = 1 / (1 + np.exp(-a)), np.tanh(b)
    c = a * b
    y = np.tanh(c)
    return y, (x, w, a, b, y)

def backward(dy, saved):
    x, w, a, b, y = saved
    dc = dy * (1 - y * y)
    da = (dc * b).sum(axis=1, keepdims=True)
    db = dc * a
    dz = np.concatenate([da * a * (1 - a), db * (1 - b * b)], axis=1)
    dx = dz @ w.T
    dw = x.T @ dz
    return dx, dw
"""


NONE = """
def forward(x, w, bias=None):
    y = x @ w if bias is None else x @ w + bias
    return y, (x, w, bias is None)

def backward(dy, saved):
    x, w, unbiased = saved
    dbias = None if unbiased else dy.sum(axis=0)
    dx = dy @ w.T
    dw = x.T @ dy
    return dx, dw, dbias
"""
LOOP = """
def forward(x):
    y = x
    for i in range(3):
        a = y + i
        y = np.tanh(a)
    return y, [np.tanh(x), np.tanh(np.tanh(x) + 1), np.tanh(np.tanh(np.tanh(x) + 1) + 2)]

def backward(dy, saved):
    for i in reversed(range(3)):
        da = dy * (1 - saved[i] ** 2)
        dy = da
    dx = dy
    return dx.copy()
"""
ALIASING = """
def forward(x, k):
    y = x + k
    return y, 0

def backward(dy, saved):
    dx = dy + 0
    return dx, dy.sum(axis=0)
"""
K = {"x": X, "k": X[0] + 1}
# A right source and its arguments, edits, and the line that is then the first wrong one.
OTHERS = {
    "float32": (
        FORWARD + BACKWARD, {name: array.astype(np.float32) for name, array in ARGS.items()},
        [("da = db", "da = 1.001 * db")], "da = 1.001 * db * z", "da: off by",
    ),
    "names that are assigned twice": (
        GATES, ARGS, [("(1 - y * y)", "(1 - y)")], "dc = dy * (1 - y)", "dc: off by"
    ),
    "an argument that is None": (
        NONE, {**ARGS, "bias": None}, [("None if unbiased else dy", "dy")],
        "dbias = dy.sum(axis=0)", "bias is None, so dbias must be None",
    ),
    "one iteration of a loop": (
        LOOP, {"x": X}, [("** 2", "** 2 * (1 + (i == 1))")],
        "da = dy * (1 - saved[i] ** 2 * (1 + (i == 1)))", "da: off by",
    ),
    "a line that aliases the upstream gradient": (
        ALIASING, K, [("dx = dy + 0", "dx = dy")], "dx = dy", "shares its memory with dout"
    ),
    "a return that aliases it": (
        ALIASING, K, [("dx = dy", "dk = dy"), ("return dx", "return dy")],
        "return dy, dy.sum(axis=0)", "shares its memory with dout",
    ),
    "a gradient completed before a line that raises": (
        FORWARD + STYLES["in the order of the forward"], ARGS,
        [("dz = dy * z * (1 - a * a)", "dz = dy"), ("dz += dy * a", "da = dy * z"),
         ("dz += dy\n", "dz += dy * a\n    dz += 2 * da * (1 - a * a)\n"), ("dz @ w.T", "dz @ w")],
        "dz += 2 * da * (1 - a * a)", "dz: off by",
    ),
    "a term that is added twice instead of another": (
        FORWARD + UNQUOTED, ARGS, [("dz += da * (1 - a * a)", "dz += a * db")], "dz += a * db",
        "dz: off by",
    ),
    "a call that only reads a gradient": (
        FORWARD + STYLES["a call that reads a gradient"], ARGS,
        [("dz += db * a", "dz -= db * a")], "dz -= db * a", "dz: off by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_mistake_in_another_source_is_found_at_its_line(name: str) -> None:
    text, args, edits, wrong, message = OTHERS[name]
    assert proof(text, args).ok, report(proof(text, args))
    found = proof(edited(text, *edits), args)
    raising = ["dx = dz @ w"] if "raises" in name else []
    assert wrong_lines(found) == [wrong, *raising], report(found)
    first = found.first_wrong
    assert first is not None
    assert message in first.message
    if "loop" in name:
        assert first.step is not None
        assert (first.step.iteration, np.shape(first.values["da"])) == ("i = 1", X.shape)


def test_the_first_wrong_line_sets_the_mutated_variable_without_quotes() -> None:
    backward = find_function(FORWARD + UNQUOTED, "backward", "own.py")
    statements = {
        ast.unparse(each.node): each for each in (*backward.statements, backward.returned)
    }
    measured = truth(FORWARD + UNQUOTED)
    planted = mutations(FORWARD + UNQUOTED, "backward")
    for mutation in planted:
        if "copy()" in mutation.before and "copy()" not in mutation.after:
            continue  # Only aliases an input, which is not checked here.
        if mutation.before.replace("db", "dz") == mutation.after:
            continue  # Both are dy there.
        found = prove(measured, replace(measured.target.backwards[0], node=mutation.tree))
        wrong, mutated = found.first_wrong, statements[mutation.before]
        assert wrong is not None, mutation
        sets, blamed = {*mutated.sets}, wrong.step.statement.sets if wrong.step else ()
        if wrong.status == "missing":
            assert mutation.kind == "path dropped", mutation
            blamed = (wrong.text.split()[0],)
        assert sets & {*blamed} or not sets, mutation
        assert wrong.is_return == isinstance(mutated.node, ast.Return), mutation
    assert len(planted) > 40
