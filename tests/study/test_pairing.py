import pytest
from helpers.architecture import OPERATIONS, line_backward, quotes
from study_own import (
    ARGS,
    BACKWARD,
    FORWARD,
    X,
    edited,
    function,
    model,
    names_of,
    operation,
    truth,
)

from tinygpt_np.study.pairing import Pair, called, pair, undone_steps
from tinygpt_np.study.trace import Value
from tinygpt_np.study.truth import Truth
from tinygpt_np.study.undo import undo


def pairs(forward: str, backward: str, true: Truth | None = None) -> dict[tuple[int, str], Pair]:
    true = true or truth(forward + backward)
    text = forward + backward
    each = function(text, "backward")
    run = undo(each, names_of(text), {"dy": true.doutput.copy(), "saved": true.saved})
    steps = [moment.step for moment in run.moments]
    return pair(true.trace, true.flowing, steps, undone_steps(true.trace, each, steps))


def by_text(backward: str) -> dict[str, int | None]:
    """For each line of a backward that sets dz, the forward step that it undoes."""
    body = function(backward, "backward").statements
    found = pairs(FORWARD, backward)
    return {body[index].text: each.use for (index, name), each in found.items() if name == "dz"}


PLAIN = "\n".join(line for line in BACKWARD.splitlines() if "#" not in line)


def test_a_quote_tells_what_the_lines_below_it_undo() -> None:
    expected = {"dz = dy.copy()": 3, "dz += db * a": 2, "dz += da * (1 - a * a)": 1}
    assert by_text(BACKWARD) == expected


def test_without_quotes_the_gradients_of_a_name_come_in_the_reverse_order() -> None:
    assert by_text(PLAIN) == by_text(BACKWARD)


def test_a_quote_outweighs_the_order() -> None:
    # The parts of dz in the order of the forward.
    quoted = """
def backward(dy, saved):
    x, w, z, a = saved
    # a = np.tanh(z)
    dz = dy * z * (1 - a * a)
    # b = a * z
    dz += dy * a
    # y = b + z
    dz += dy
    return dz @ w.T, x.T @ dz
"""
    assert by_text(quoted) == {"dz = dy * z * (1 - a * a)": 1, "dz += dy * a": 2, "dz += dy": 3}


def test_after_a_colon_a_quote_may_go_on_with_a_remark() -> None:
    remarked = edited(BACKWARD, ("# b = a * z", "# b = a * z: a product"))
    assert by_text(remarked) == by_text(BACKWARD)


def test_a_comment_that_quotes_nothing_tells_nothing() -> None:
    remarked = edited(BACKWARD, ("    dz += db * a", "    # the second factor\n    dz += db * a"))
    assert by_text(remarked) == by_text(BACKWARD)


def test_lines_that_are_not_as_many_as_the_uses_undo_all_of_them() -> None:
    closed = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy * (1 + a)
    dz += dy * z * (1 - a * a)
    return dz @ w.T, x.T @ dz
"""
    assert {*by_text(closed).values()} == {None}


def test_only_gradients_of_names_through_which_one_flows_are_paired() -> None:
    found = pairs(FORWARD, edited(BACKWARD, ("    db = dy", "    dq, n = dy, 3\n    db = dy")))
    names = {name for _, name in found}
    assert names == {"db", "dz", "da", "dx", "dw"}


def test_of_a_name_set_twice_each_gradient_is_that_of_its_value() -> None:
    forward = """
def forward(x):
    h = x * 2
    h = np.tanh(h)
    y = h * 3
    return y, h
"""
    backward = """
def backward(dy, h):
    dh = dy * 3
    dh = dh * (1 - h * h)
    dx = dh * 2
    return dx
"""
    true = truth(forward + backward, {"x": X})
    each = function(backward, "backward")
    run = undo(each, names_of(backward), {"dy": true.doutput, "h": true.saved})
    steps = [moment.step for moment in run.moments]
    found = pair(true.trace, true.flowing, steps, undone_steps(true.trace, each, steps))
    assert found[0, "dh"] == Pair(Value("h", 1), 2)
    assert found[1, "dh"] == Pair(Value("h", 0), 1)


# In the package


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_line_below_a_quote_undoes_the_line_that_is_quoted(name: str) -> None:
    proof = operation(name).proofs[0]
    assert proof.function.name == line_backward(name)
    steps = operation(name).truth.trace.steps
    found = {
        (steps[line.undoes].statement.text, gradient.name)
        for line in proof.lines
        for gradient in line.gradients
        if line.undoes is not None
    }
    expected = {(quote, gradient) for quote, names in quotes(name) for gradient in names}
    missing = {
        (quote, gradient)
        for quote, gradient in expected - found
        if gradient[1:] in {value.name for value in operation(name).truth.flowing}
    }
    assert missing == set()
    assert found <= expected | {(quote, gradient) for quote, gradient in found if not quotes(name)}


@pytest.mark.parametrize("name", ["block", "gpt"])
def test_the_backwards_of_layers_undo_their_forwards_in_reverse(name: str) -> None:
    sheet = model(name)
    steps = sheet.truth.trace.steps
    calls = [
        (called(line.step, "backward"), called(steps[line.undoes], "forward"))
        for line in sheet.proofs[0].lines
        if line.step is not None and line.undoes is not None and called(line.step, "backward")
    ]
    assert all(back == ahead for back, ahead in calls)
    order = [line.undoes for line in sheet.proofs[0].lines if line.undoes is not None]
    assert len(calls) == {"block": 10, "gpt": 7}[name]
    assert order == sorted(order, reverse=True)


def test_of_layers_that_come_back_in_another_order_nothing_is_sure() -> None:
    forward = """
class f:
    forward = np.sin
    backward = np.cos

class g(f): ...

def forward(x, w):
    z = f.forward(x)
    y = g.forward(z)
    return y, (x, z)
"""
    backward = """
def backward(dy, saved):
    x, z = saved
    dx = dy * f.backward(x)
    dz = dy * g.backward(z)
    return dx, dz
"""
    text = forward + backward
    true = truth(text, ARGS)
    each = function(text, "backward")
    run = undo(each, names_of(text), {"dy": true.doutput, "saved": true.saved})
    found = undone_steps(true.trace, each, [moment.step for moment in run.moments])
    assert {*found.values()} == {()}
    swapped = edited(backward, ("dx = dy * f", "dq = dy * g"), ("dz = dy * g", "dr = dy * f"))
    each = function(forward + swapped, "backward")
    text = edited(forward + swapped, ("return dx, dz", "return dq, dr"))
    each = function(text, "backward")
    run = undo(each, names_of(text), {"dy": true.doutput, "saved": true.saved})
    found = undone_steps(true.trace, each, [moment.step for moment in run.moments])
    assert found == {0: (), 1: (1,), 2: (0,)}
