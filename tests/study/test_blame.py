import numpy as np
import pytest
from study_own import FORWARD, X, blamed, edited, edited_proof, line_of, proof, told

LINES = {
    "db": "db = dy.copy()",
    "dz, first": "dz = dy.copy()",
    "da": "da = db * z",
    "dz, second": "dz += db * a",
    "dz, third": "dz += da * (1 - a * a)",
    "dx": "dx = dz @ w.T",
    "dw": "dw = x.T @ dz",
}
# What each line passes on to: the lines that are wrong only because of it.
HEIRS = {
    "db": ("da", "dz, second", "dz, third", "dx", "dw"),
    "dz, first": ("dz, second", "dz, third", "dx", "dw"),
    "da": ("dz, third", "dx", "dw"),
    "dz, second": ("dz, third", "dx", "dw"),
    "dz, third": ("dx", "dw"),
    "dx": (),
    "dw": (),
}


def broken(name: str, change: str = "1.5 * ({})") -> tuple[str, str]:
    """An edit that makes one line wrong."""
    text = LINES[name]
    left, equals, right = text.partition(" = ") if " = " in text else text.partition(" += ")
    return text, f"{left}{equals}{change.format(right)}"


@pytest.mark.parametrize("name", LINES)
def test_the_line_with_a_mistake_is_wrong_and_its_heirs_are_not(name: str) -> None:
    edit = broken(name)
    found = edited_proof(edit)
    assert blamed(found) == [edit[1]], told(found)
    inherited = [line.text for line in found.lines if line.status == "inherited"]
    assert inherited == [*(LINES[heir] for heir in HEIRS[name]), "return dx, dw"], told(found)


@pytest.mark.parametrize("name", LINES)
def test_what_is_inherited_says_because_of_what(name: str) -> None:
    found = edited_proof(broken(name))
    says = {line.says for line in found.lines if line.status == "inherited"}
    assert says == {f"because of {name.partition(',')[0]}"}


@pytest.mark.parametrize("second", LINES)
@pytest.mark.parametrize("first", LINES)
def test_of_two_mistakes_each_is_wrong(first: str, second: str) -> None:
    if first != second:
        edits = broken(first), broken(second, "({}) / 3")
        found = edited_proof(*edits)
        wrong = [edit[1] for edit in edits]
        assert sorted(blamed(found)) == sorted(wrong), told(found)


def test_of_three_mistakes_in_one_sum_each_is_wrong() -> None:
    names = ("dz, first", "dz, second", "dz, third")
    edits = [broken(name, "-({})") for name in names]
    found = edited_proof(*edits)
    assert blamed(found) == [edit[1] for edit in edits], told(found)
    parts = [line for line in found.lines if line.status == "wrong"]
    assert {line.cause for line in parts} == {"the sign is wrong"}


def test_two_lines_that_do_not_meet_are_both_first() -> None:
    found = edited_proof(broken("dx"), broken("dw"))
    line = line_of(found, "return dx, dw")
    assert (line.status, line.says) == ("inherited", "because of dx, dw")


def test_what_a_wrong_value_did_is_not_held_against_the_lines_that_read_it() -> None:
    found = edited_proof(("x, w, z, a = saved", "x, w, a, z = saved"))
    assert blamed(found) == ["x, w, a, z = saved"]
    heirs = [line for line in found.lines if line.status == "inherited"]
    assert len(heirs) == 6
    assert all(line.says == "because of x, w, a, z" for line in heirs)


def test_a_wrong_line_is_wrong_beside_one_that_is_odd() -> None:
    found = edited_proof(("    # y = b + z", "    b = 0 * a\n    # y = b + z"), broken("dx"))
    assert blamed(found) == ["dx = 1.5 * (dz @ w.T)"]
    assert line_of(found, "b = 0 * a").status == "odd"


def test_an_odd_line_is_wrong_once_a_gradient_suffers_from_it() -> None:
    found = edited_proof(("    # y = b + z", "    a = 0 * a\n    # y = b + z"))
    assert blamed(found) == ["a = 0 * a"]


def test_an_odd_line_that_sets_a_name_forward_has_not_is_wrong_once_a_gradient_suffers() -> None:
    found = edited_proof(
        ("x, w, z, a = saved", "x, w, a, k = saved"), ("da = db * z", "da = db * k")
    )
    assert blamed(found) == ["x, w, a, k = saved"], told(found)


def test_an_odd_line_without_which_the_results_are_no_better_is_not_wrong() -> None:
    odd = ("    # z = x @ w", "    w = w + 0 * dz.sum() + 1e-9\n    # z = x @ w")
    found = edited_proof(broken("dz, third"), odd)
    assert blamed(found) == [broken("dz, third")[1]], told(found)


def test_a_gradient_of_the_wrong_shape_passes_on_no_guilt() -> None:
    found = edited_proof(("da = db * z", "da = (db * z)[:1]"))
    assert blamed(found) == ["da = (db * z)[:1]"], told(found)


def test_a_mistake_behind_one_that_is_not_finite_cannot_be_told() -> None:
    found = edited_proof(("dz = dy.copy()", "dz = dy * np.inf"), broken("dx"))
    assert blamed(found) == ["dz = dy * np.inf"]


def test_without_comments_each_of_two_mistakes_is_wrong_too() -> None:
    text = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy.copy()
    da = 2 * dy * z
    dz -= dy * a
    dz += da * (1 - a * a)
    dx = dz @ w.T
    dw = x.T @ dz / len(x)
    return dx, dw
"""
    expected = ["da = 2 * dy * z", "dz -= dy * a", "dw = x.T @ dz / len(x)"]
    found = proof(FORWARD + text)
    assert blamed(found) == expected, told(found)


def test_a_mistake_in_one_round_of_a_loop_is_wrong_in_that_round() -> None:
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
    assert [line.step.round for line in wrong if line.step] == ["i = 1"], told(found)
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


def test_the_gradient_of_another_value_of_a_name_is_not_taken_for_what_came_in() -> None:
    assert proof(GATES).ok
    wrong = proof(edited(GATES, ("(1 - y * y)", "(1 - y)")))
    assert blamed(wrong) == ["dc = dy * (1 - y)"], told(wrong)


def test_of_two_mistakes_in_a_sum_the_one_that_reads_what_came_in_is_wrong_too() -> None:
    text = """
def backward(dy, saved):
    x, w, z, a = saved
    # a = np.tanh(z)
    dz = -dy * z * (1 - a * a)
    # b = a * z
    dz += dy * a
    # y = b + z
    dz += 3 * dy
    return dz @ w.T, x.T @ dz
"""
    found = proof(FORWARD + text)
    assert blamed(found) == ["dz = -dy * z * (1 - a * a)", "dz += 3 * dy"], told(found)
