"""A right backward is right however it is written: nobody is accused who is right."""

import ast

import numpy as np
import pytest
from study_own import BACKWARD, FORWARD, blamed, edited, edited_proof, line_of, proof, told, truth

from tinygpt_np.gradcheck.mutations import mutations
from tinygpt_np.study.prover import prove
from tinygpt_np.study.source import names_stored

PLAIN = "\n".join(line for line in BACKWARD.splitlines() if "#" not in line)
HEAD = "def backward(dy, saved):\n    x, w, z, a = saved\n"
LAST = "    dx = dz @ w.T\n    dw = x.T @ dz\n    return dx, dw\n"
SLOPE = "(1 + a + z * (1 - a * a))"
# Other ways to write the same backward.
STYLES = {
    "with quotes": BACKWARD,
    "without a comment": PLAIN,
    "closed form": f"{HEAD}    dz = dy * {SLOPE}\n{LAST}",
    "no d-names": f"{HEAD}    g = dy * {SLOPE}\n    return g @ w.T, x.T @ g",
    "another upstream": f"def backward(g, s):\n    x, w, z, a = s\n    g = g * {SLOPE}\n"
    "    gx, gw = g @ w.T, x.T @ g\n    return gx, gw",
    "x = x + …": edited(PLAIN, ("dz += db", "dz = dz + db"), ("dz += da", "dz = dz + da")),
    "x = … + x": edited(PLAIN, ("dz += db * a", "dz = db * a + dz")),
    "-=": edited(PLAIN, ("dz += db", "dz -= -db"), ("dz += da", "dz -= -da")),
    "in the order of the forward": f"{HEAD}    dz = dy * z * (1 - a * a)\n    dz += dy * a\n"
    f"    dz += dy\n{LAST}",
    "from zero": f"{HEAD}    dx, dw, dz = np.zeros_like(x), np.zeros_like(w), np.zeros_like(z)\n"
    "    dz += dy\n    dz += dy * a\n    dz += dy * z * (1 - a * a)\n    dx += dz @ w.T\n"
    "    dw += x.T @ dz\n    return dx, dw",
    "two parts in one": f"{HEAD}    dz = np.zeros_like(z)\n    dz += dy\n"
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
    "a look at a gradient": edited(PLAIN, ("    dx = dz", "    np.isfinite(dz)\n    dx = dz")),
}


# Styles in which a name of forward, or a d-name, is something else: that much is said.
ODD = ("a name for something else", "a name that looks like a gradient")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_backward_is_right_in_any_style(style: str, seed: int) -> None:
    found = proof(FORWARD + STYLES[style], seed=seed)
    assert found.ok, told(found)
    seen = {line.status for line in found.lines}
    assert seen <= {"right", "begun", "", *(("odd",) if style in ODD else ())}, told(found)
    assert {gradient.status for gradient in found.lines[-1].gradients} == {"right"}
    assert found.worst < 1e-12


@pytest.mark.parametrize("style", ["without a comment", "from zero", "a loop", "x = x + …"])
@pytest.mark.parametrize("place", range(2, 8))
def test_whoever_has_not_come_to_the_end_is_not_accused(style: str, place: int) -> None:
    lines = STYLES[style].splitlines()
    indent = len(lines[place]) - len(lines[place].lstrip())
    lines.insert(place, " " * indent + "raised = None + 1")
    assert blamed(proof(FORWARD + "\n".join(lines))) == ["raised = None + 1"]


def test_a_planted_bug_is_blamed_on_its_variable_without_a_comment_too() -> None:
    (body,) = (node for node in ast.parse(PLAIN).body if isinstance(node, ast.FunctionDef))
    statements = {ast.unparse(node): node for node in body.body}
    true = truth(FORWARD + PLAIN)
    planted = mutations(FORWARD + PLAIN, "backward")
    for mutation in planted:
        found = prove(true, true.target.backwards[0].changed(mutation.tree))
        wrong, mutated = found.first_wrong, statements[mutation.before]
        if "copy()" in mutation.before and "copy()" not in mutation.after:
            continue  # A matter of manners, which are not looked at here.
        assert wrong is not None, mutation
        sets = {*names_stored(mutated)}
        assert sets & {*(wrong.step.statement.sets if wrong.step else ())} or not sets, mutation
        assert (wrong.step is None) == isinstance(mutated, ast.Return), mutation
    assert len(planted) > 40


def test_what_is_surely_wrong_is_told_though_a_later_line_raises() -> None:
    found = edited_proof(("dz = dy.copy()", "dz = -dy"), ("da = db * z", "da = db @ z"))
    assert blamed(found) == ["dz = -dy", "da = db @ z"]


def test_of_a_part_that_stands_in_for_another_the_second_is_blamed() -> None:
    twice = edited(PLAIN, ("dz += da * (1 - a * a)", "dz += a * db"))
    found = proof(FORWARD + twice)
    assert blamed(found) == ["dz += a * db"]
    assert line_of(found, "dz += db * a").status == "right"


def test_a_look_at_a_gradient_is_not_blamed_for_it() -> None:
    look = edited(STYLES["a look at a gradient"], ("dz += db * a", "dz -= db * a"))
    assert blamed(proof(FORWARD + look)) == ["dz -= db * a"]


@pytest.mark.parametrize(
    ("style", "line"),
    [
        ("in the order of the forward", "dz += dy * a"),
        ("some quotes", "dz += db * a"),
        ("x = x + …", "dz = dz + db * a"),
        ("-=", "dz -= -db * a"),
    ],
)
def test_each_part_of_a_sum_has_a_verdict_in_any_style(style: str, line: str) -> None:
    (gradient,) = line_of(proof(FORWARD + STYLES[style]), line).gradients
    assert (gradient.name, gradient.status, gradient.is_part) == ("dz", "right", True)
    expected = gradient.expected.gradient
    assert expected is not None
    np.testing.assert_allclose(gradient.found, expected, rtol=1e-12)
    assert gradient.pair is not None
    assert gradient.pair.use == 2


def test_what_fills_a_gradient_from_elsewhere_has_its_verdict() -> None:
    for style, line in [
        ("out=", f"np.multiply(dy, {SLOPE}, out=dz)"), ("view", "rest[...] = dz[1:] @ w.T"),
        ("helpers", "add(dz @ w.T, dx)"),
    ]:  # fmt: skip
        text = next(text for name, text in STYLES.items() if name.endswith(style))
        names = {g.name: g.status for g in line_of(proof(FORWARD + text), line).gradients}
        assert "right" in names.values(), (style, names)
