"""The operations and models are right, and every mistake is found at its line."""

import ast
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from helpers.study_targets import (
    ARGS,
    BACKWARD,
    FORWARD,
    UNQUOTED,
    W,
    X,
    edited,
    edited_proof,
    line_with,
    proof,
    report,
    sheet,
    truth,
    wrong_lines,
)

from tinygpt_np.gradcheck.mutations import mutations
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.source.parse import names_stored

# Other forwards


ABS = edited(FORWARD, ("np.tanh(z)", "np.abs(z)"))
BY_ABS = edited(BACKWARD, ("(1 - a * a)", "np.sign(z)"), ("# a = np.tanh(z)", "# a = np.abs(z)"))


def test_a_forward_without_complex_numbers_is_proven_by_richardson_extrapolation() -> None:
    found = proof(ABS + BY_ABS)
    assert found.ok, report(found)
    assert {gradient.row.oracle for gradient in found.lines[-1].gradients} == {"Richardson"}
    wrong = proof(ABS + edited(BY_ABS, ("da = db * z", "da = 1.001 * db * z")))
    assert wrong_lines(wrong) == ["da = 1.001 * db * z"]


def test_float32_gradients_are_checked() -> None:
    args = {name: array.astype(np.float32) for name, array in ARGS.items()}
    found = proof(FORWARD + BACKWARD, args)
    assert found.ok, report(found)
    wrong = proof(FORWARD + edited(BACKWARD, ("db * z", "1.001 * db * z")), args)
    assert wrong_lines(wrong) == ["da = 1.001 * db * z"]


def test_a_forward_that_rounds_to_float32_inside_cannot_be_measured() -> None:
    rough = edited(FORWARD, ("np.tanh(z)", "np.tanh(np.float32(z)).astype(float)"))
    quoted = edited(BACKWARD, ("# a = np.tanh(z)", "# a = np.tanh(np.float32(z)).astype(float)"))
    found = proof(rough + quoted)
    assert not found.ok
    assert any("could not be measured" in line.message for line in found.lines), report(found)


def test_each_value_of_a_reassigned_name_is_proven() -> None:
    text = """
def forward(x):
    h = x * 2
    h = np.tanh(h)
    h = h * x
    return h, (x, np.tanh(2 * x))

def backward(dh, saved):
    x, t = saved
    dx = dh * t
    dh = dh * x
    dh = dh * (1 - t * t)
    dx += dh * 2
    return dx
"""
    found = proof(text, {"x": X})
    assert found.ok, report(found)
    wrong = proof(edited(text, ("(1 - t * t)", "(1 - t)")), {"x": X})
    assert wrong_lines(wrong) == ["dh = dh * (1 - t)"]


# Mistakes


MISTAKES: Mapping[str, tuple[tuple[str, str], str, str]] = {
    "saved in the wrong order": (
        ("x, w, z, a = saved", "x, w, a, z = saved"), "x, w, a, z = saved",
        "a is not what it was in forward",
    ),
    "a recomputed value that differs": (
        ("    # y = b + z", "    a = np.tanh(z + 1)\n    # y = b + z"), "a = np.tanh(z + 1)",
        "a is not what it was in forward",
    ),
    "a helper of the wrong shape": (
        ("da = db * z", "da = (db * z).sum(axis=0)"), "da = (db * z).sum(axis=0)",
        "da: the shape must be (4, 3), not (3,)",
    ),
    "overwritten": (
        ("dz += db * a", "dz = db * a"), "dz = db * a", "dz: off by ",
    ),
    "a term dropped": (
        ("    dz += db * a\n", ""), "dz += da * (1 - a * a)",
        "dz lacks the term from b = a * z",
    ),
    "a term counted twice": (
        ("    dz += db * a\n", "    dz += db * a\n    dz +=  db * a\n"), "dz +=  db * a",
        "dz: off by ",
    ),
    "a sign": (("dz += db * a", "dz -= db * a"), "dz -= db * a", "dz: off by 2 of its norm"),
    "not finite": (
        ("dw = x.T @ dz", "dw = x.T @ dz / 0"), "dw = x.T @ dz / 0", "dw: not finite: ",
    ),
    "raises": (("da = db * z", "da = db @ z"), "da = db @ z", "raises ValueError: matmul"),
    "raises at the return": (
        ("return dx, dw", "return dx, dq"), "return dx, dq", "raises NameError: name 'dq'",
    ),
    "too few": (
        ("return dx, dw", "return dx"), "return dx",
        "must return 2 gradients (x, w), not 1",
    ),
    "too many": (
        ("return dx, dw", "return dx, dw, da"), "return dx, dw, da",
        "must return 2 gradients (x, w), not 3",
    ),
    "another order": (
        ("return dx, dw", "return dw, dx"), "return dw, dx",
        "returned: dx: the shape must be (4, 5), not (5, 3)",
    ),
    "None": (
        ("return dx, dw", "return dx, None"), "return dx, None",
        "returned: dw: there is no gradient",
    ),
    "changes what it is given": (
        ("dz = dy.copy()", "dz = dy"), "dz += db * a", "changes an input of backward in place",
    ),
    "changes what was saved": (
        ("    return dx, dw", "    x *= 2\n    return dx, dw"), "x *= 2",
        "changes an input of backward in place",
    ),
    "changes what was saved before it is used": (
        ("    # z = x @ w", "    w *= 2\n    # z = x @ w"), "w *= 2",
        "w is not what it was in forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_at_its_line_and_nowhere_else(mistake: str) -> None:
    edit, text, message = MISTAKES[mistake]
    found = edited_proof(edit)
    assert wrong_lines(found) == [text], report(found)
    assert message in line_with(found, text).message


def test_the_lines_after_an_exception_are_not_reached() -> None:
    found = edited_proof(("da = db * z", "da = db @ z"))
    assert [line.text for line in found.lines[4:]] == [
        "dz += db * a", "dz += da * (1 - a * a)", "dx = dz @ w.T", "dw = x.T @ dz", "return dx, dw"
    ]  # fmt: skip
    assert {line.status for line in found.lines[4:]} == {"unreached"}


@pytest.mark.parametrize(("line", "returned"), [("dx = dy", "dx"), ("dk = dy.sum(axis=0)", "dy")])
def test_a_gradient_that_aliases_the_upstream_gradient_is_wrong(line: str, returned: str) -> None:
    text = (
        "def forward(x, k):\n    y = x + k\n    return y, 0\n\ndef backward(dy, saved):\n"
        f"    {line}\n    return {returned}, dy.sum(axis=0)"
    )
    found = proof(text, {"x": X, "k": X[0] + 1})
    where = line if returned == "dx" else "return dy, dy.sum(axis=0)"
    assert wrong_lines(found) == [where], report(found)
    assert "shares its memory with dout" in line_with(found, where).message


def test_the_gradient_of_an_argument_that_is_none_must_be_none() -> None:
    text = """
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
    for bias in (None, W[0] + 1):
        assert proof(text, {**ARGS, "bias": bias}).ok
    always = edited(text, ("None if unbiased else dy", "dy"))
    found = proof(always, {**ARGS, "bias": None})
    assert wrong_lines(found) == ["dbias = dy.sum(axis=0)"]
    assert line_with(found, "dbias = dy.sum(axis=0)").message == (
        "bias is None, so dbias must be None"
    )


def test_a_wrong_shape_comment_is_a_warning() -> None:
    found = edited_proof(
        ("da = db * z", "da = db * z  # (N, 2K)"), ("db = dy.copy()", "db = dy.copy()  # (N, K)")
    )
    assert found.ok
    assert line_with(found, "da = db * z").status == "warning"
    message = "the comment says (N, 2K), but the shape is (4, 3)"
    assert line_with(found, "da = db * z").message == message


def test_a_different_value_without_effect_is_a_warning() -> None:
    found = edited_proof(("    # y = b + z", "    b = 2 * a * z\n    # y = b + z"))
    assert found.ok
    assert line_with(found, "b = 2 * a * z").status == "warning"


def test_an_in_place_change_of_an_input_is_found_without_calling_the_function() -> None:
    assert sheet(FORWARD + BACKWARD).target.functions != ()
    measured = truth(FORWARD + edited(BACKWARD, ("dz = dy.copy()", "dz = dy")))
    found = prove(measured, measured.target.backwards[0])
    assert found.first_wrong is not None
    assert found.first_wrong.text == "dz += db * a"
    assert "changes an input of backward in place" in found.first_wrong.message


def test_a_gradient_completed_before_a_line_that_raises_is_checked() -> None:
    text = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy.copy()
    da = dy * z
    dz += dy * a
    dz += 2 * da * (1 - a * a)
    dx = dz @ w
    return dx, x.T @ dz
"""
    stopped = proof(FORWARD + text)
    assert wrong_lines(stopped) == ["dz += 2 * da * (1 - a * a)"], report(stopped)


LINES = {
    "db": "db = dy.copy()",
    "dz, first": "dz = dy.copy()",
    "da": "da = db * z",
    "dz, second": "dz += db * a",
    "dz, third": "dz += da * (1 - a * a)",
    "dx": "dx = dz @ w.T",
    "dw": "dw = x.T @ dz",
}
# The lines that are wrong only because of each line.
DEPENDENTS = {
    "db": ("da", "dz, second", "dz, third", "dx", "dw"),
    "dz, first": ("dz, second", "dz, third", "dx", "dw"),
    "da": ("dz, third", "dx", "dw"),
    "dz, second": ("dz, third", "dx", "dw"),
    "dz, third": ("dx", "dw"),
    "dx": (),
    "dw": (),
}


def broken(name: str, change: str = "1.5 * ({})") -> tuple[str, str]:
    """Return an edit that makes one line wrong."""
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
    assert {*inherited.values()} == {f"because of {name.partition(',')[0]}"}


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(LINES, 2)])
def test_two_mistakes_are_both_found(first: str, second: str) -> None:
    edits = broken(first), broken(second, "({}) / 3")
    found = edited_proof(*edits)
    assert wrong_lines(found) == [edit[1] for edit in edits], report(found)


def test_an_error_can_be_inherited_from_two_lines() -> None:
    found = edited_proof(broken("dx"), broken("dw"))
    line = line_with(found, "return dx, dw")
    assert (line.status, line.message) == ("inherited", "because of dx, dw")


def test_the_lines_that_read_a_wrong_value_inherit_the_error() -> None:
    found = edited_proof(("x, w, z, a = saved", "x, w, a, z = saved"))
    assert wrong_lines(found) == ["x, w, a, z = saved"]
    inherited = [line for line in found.lines if line.status == "inherited"]
    assert len(inherited) == 6
    assert all(line.message == "because of x, w, a, z" for line in inherited)


# Edits of BACKWARD, and the lines that are then wrong.
EDITS: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "a harmless warning does not hide a mistake": (
        [("    # y = b + z", "    b = 0 * a\n    # y = b + z"), broken("dx")],
        ["dx = 1.5 * (dz @ w.T)"],
    ),
    "a swapped name that forward does not have is wrong if a gradient depends on it": (
        [("x, w, z, a = saved", "x, w, a, k = saved"), ("da = db * z", "da = db * k")],
        ["x, w, a, k = saved"],
    ),
    "a warning is not an error if correcting it does not help": (
        [
            broken("dz, third"),
            ("    # z = x @ w", "    w = w + 0 * dz.sum() + 1e-9\n    # z = x @ w"),
        ],
        [broken("dz, third")[1]],
    ),
    "the lines after a gradient of the wrong shape are not wrong": (
        [("da = db * z", "da = (db * z)[:1]")], ["da = (db * z)[:1]"],
    ),
    "a mistake after a gradient that is not finite cannot be found": (
        [("dz = dy.copy()", "dz = dy * np.inf"), broken("dx")], ["dz = dy * np.inf"],
    ),
    "a mistake is found even if a later line raises": (
        [("dz = dy.copy()", "dz = -dy"), ("da = db * z", "da = db @ z")],
        ["dz = -dy", "da = db @ z"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", EDITS)
def test_only_the_lines_with_a_mistake_are_wrong(rule: str) -> None:
    edits, wrong = EDITS[rule]
    found = edited_proof(*edits)
    assert wrong_lines(found) == wrong, report(found)


def test_a_mistake_in_one_iteration_of_a_loop_is_found_in_that_iteration() -> None:
    text = """
def forward(x):
    y = x
    for i in range(3):
        a = y + i
        y = np.tanh(a)
    return y, [np.tanh(x), np.tanh(np.tanh(x) + 1), np.tanh(np.tanh(np.tanh(x) + 1) + 2)]

def backward(dy, saved):
    for i in reversed(range(3)):
        da = dy * (1 - saved[i] ** 2 * (1 + (i == 1)))
        dy = da
    dx = dy
    return dx.copy()
"""
    found = proof(text, {"x": X})
    wrong = [line for line in found.lines if line.status == "wrong"]
    assert [line.step.iteration for line in wrong if line.step] == ["i = 1"], report(found)
    assert np.shape(wrong[0].values["da"]) == X.shape


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


def test_the_gradient_of_another_value_of_a_name_is_not_an_incoming_gradient() -> None:
    assert proof(GATES).ok
    wrong = proof(edited(GATES, ("(1 - y * y)", "(1 - y)")))
    assert wrong_lines(wrong) == ["dc = dy * (1 - y)"], report(wrong)


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
    "x = … + x": edited(UNQUOTED, ("dz += db * a", "dz = db * a + dz")),
    "-=": edited(UNQUOTED, ("dz += db", "dz -= -db"), ("dz += da", "dz -= -da")),
    "in the order of the forward": f"{HEAD}    dz = dy * z * (1 - a * a)\n    dz += dy * a\n"
    f"    dz += dy\n{LAST}",
    "from zero": f"{HEAD}    dx, dw, dz = np.zeros_like(x), np.zeros_like(w), np.zeros_like(z)\n"
    "    dz += dy\n    dz += dy * a\n    dz += dy * z * (1 - a * a)\n    dx += dz @ w.T\n"
    "    dw += x.T @ dz\n    return dx, dw",
    "two terms in one": f"{HEAD}    dz = np.zeros_like(z)\n    dz += dy\n"
    f"    dz += dy * (a + z * (1 - a * a))\n{LAST}",
    "some quotes": edited(BACKWARD, ("    # b = a * z\n", ""), ("    # a = np.tanh(z)\n", "")),
    "in place": f"{HEAD}    dz = dy.copy()\n    dz *= {SLOPE}\n{LAST}",
    "out=": f"{HEAD}    dz = np.empty_like(z)\n    np.multiply(dy, {SLOPE}, out=dz)\n{LAST}",
    "tuples": f"{HEAD}    db, dz = dy.copy(), dy.copy()\n    da, dz = db * z, dz + db * a\n"
    "    dz += da * (1 - a * a)\n    dx, dw = dz @ w.T, x.T @ dz\n    return dx, dw",
    "a loop": f"{HEAD}    dz = dy * {SLOPE}\n    dx, dw = np.zeros_like(x), np.zeros_like(w)\n"
    "    for i in range(len(x)):\n        dx[i] = w @ dz[i]\n"
    "        dw += np.outer(x[i], dz[i])\n    return dx, dw",
    "a loop with a condition": f"{HEAD}    dz = dy * {SLOPE}\n    dx = 0 * x\n"
    "    for i in range(len(x)):\n        if i >= 0:\n            dx[i] = w @ dz[i]\n"
    "    dw = x.T @ dz\n    return dx, dw",
    "a view": f"{HEAD}    dz = dy * {SLOPE}\n    dx = np.zeros_like(x)\n    top = dx[:1]\n"
    "    rest = dx[1:]\n    top[...] = dz[:1] @ w.T\n    rest[...] = dz[1:] @ w.T\n"
    "    dw = x.T @ dz\n    return dx, dw",
    "helpers": "def slope(a, z):\n    return 1 + a + z * (1 - a * a)\n\n"
    "def add(more, into):\n    into += more\n\n"
    f"{HEAD}    dz = dy * slope(a, z)\n    dx, dw = 0 * x, 0 * w\n    add(dz @ w.T, dx)\n"
    "    add(x.T @ dz, into=dw)\n    return dx, dw",
    "np.add.at": f"{HEAD}    dz = dy * {SLOPE}\n    dx, dw = np.zeros_like(x), x.T @ dz\n"
    "    np.add.at(dx, np.arange(len(x)), dz @ w.T)\n    return dx, dw",
    "a dict": f"{HEAD}    dz = dy * {SLOPE}\n    return {{'w': x.T @ dz, 'x': dz @ w.T}}",
    "a list": f"{HEAD}    dz = dy * {SLOPE}\n    return [dz @ w.T, x.T @ dz]",
    "two names of one gradient": f"{HEAD}    dz1 = dy * z * (1 - a * a)\n    dz2 = dy * a + dy\n"
    f"    dz = dz1 + dz2\n{LAST}",
    "a name for something else": f"{HEAD}    z = dy * {SLOPE}\n    return z @ w.T, x.T @ z",
    "a name that looks like a gradient": f"{HEAD}    da = z.shape[1]\n    dz = dy * {SLOPE}\n"
    "    return dz.reshape(-1, da) @ w.T, x.T @ dz",
    "a call that reads a gradient": edited(
        UNQUOTED, ("    dx = dz", "    np.isfinite(dz)\n    dx = dz")
    ),
}


# Styles with a warning, because a name of forward, or a name d…, has another meaning.
WARNED = ("a name for something else", "a name that looks like a gradient")


@pytest.mark.parametrize("style", STYLES)
def test_a_right_backward_is_right_in_any_style(style: str) -> None:
    found = proof(FORWARD + STYLES[style])
    assert found.ok, report(found)
    allowed = {"right", "partial", "", *(("warning",) if style in WARNED else ())}
    assert {line.status for line in found.lines} <= allowed, report(found)
    assert {gradient.status for gradient in found.lines[-1].gradients} == {"right"}
    assert found.worst < 1e-12


@pytest.mark.parametrize("style", ["without a comment", "from zero", "a loop", "x = x + …"])
@pytest.mark.parametrize("place", range(2, 8))
def test_unfinished_sums_before_an_exception_are_not_wrong(style: str, place: int) -> None:
    lines = STYLES[style].splitlines()
    indent = len(lines[place]) - len(lines[place].lstrip())
    lines.insert(place, " " * indent + "raised = None + 1")
    assert wrong_lines(proof(FORWARD + "\n".join(lines))) == ["raised = None + 1"]


def test_the_first_wrong_line_sets_the_mutated_variable_without_quotes() -> None:
    (body,) = (node for node in ast.parse(UNQUOTED).body if isinstance(node, ast.FunctionDef))
    statements = {ast.unparse(node): node for node in body.body}
    measured = truth(FORWARD + UNQUOTED)
    planted = mutations(FORWARD + UNQUOTED, "backward")
    for mutation in planted:
        found = prove(measured, measured.target.backwards[0].with_tree(mutation.tree))
        wrong, mutated = found.first_wrong, statements[mutation.before]
        if "copy()" in mutation.before and "copy()" not in mutation.after:
            continue  # Only aliases an input, which is not checked here.
        assert wrong is not None, mutation
        sets = {*names_stored(mutated)}
        assert sets & {*(wrong.step.statement.sets if wrong.step else ())} or not sets, mutation
        assert (wrong.step is None) == isinstance(mutated, ast.Return), mutation
    assert len(planted) > 40


def test_if_a_term_is_added_twice_instead_of_another_the_second_is_wrong() -> None:
    twice = edited(UNQUOTED, ("dz += da * (1 - a * a)", "dz += a * db"))
    found = proof(FORWARD + twice)
    assert wrong_lines(found) == ["dz += a * db"]
    assert line_with(found, "dz += db * a").status == "right"


def test_a_call_that_only_reads_a_gradient_is_not_wrong() -> None:
    reading = edited(STYLES["a call that reads a gradient"], ("dz += db * a", "dz -= db * a"))
    assert wrong_lines(proof(FORWARD + reading)) == ["dz -= db * a"]


@pytest.mark.parametrize(
    ("style", "line"),
    [
        ("in the order of the forward", "dz += dy * a"),
        ("-=", "dz -= -db * a"),
    ],
)
def test_each_term_of_a_sum_has_a_verdict_in_any_style(style: str, line: str) -> None:
    (gradient,) = line_with(proof(FORWARD + STYLES[style]), line).gradients
    assert (gradient.name, gradient.status, gradient.is_term) == ("dz", "right", True)
    expected = gradient.expected.gradient
    assert expected is not None
    np.testing.assert_allclose(gradient.found, expected, rtol=1e-12)
    assert gradient.pair is not None
    assert gradient.pair.use == 2


def test_a_call_that_fills_a_gradient_has_a_verdict() -> None:
    for style, line in [
        ("out=", f"np.multiply(dy, {SLOPE}, out=dz)"), ("view", "rest[...] = dz[1:] @ w.T"),
        ("helpers", "add(dz @ w.T, dx)"),
    ]:  # fmt: skip
        text = next(text for name, text in STYLES.items() if name.endswith(style))
        names = {g.name: g.status for g in line_with(proof(FORWARD + text), line).gradients}
        assert "right" in names.values(), (style, names)
