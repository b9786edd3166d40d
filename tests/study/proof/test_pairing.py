"""Tests of which forward line each backward line reverses."""

import pytest
from helpers.study_targets import BACKWARD, FORWARD, UNQUOTED, edited, proof

PAIRS = {"dz = dy.copy()": 3, "dz += db * a": 2, "dz += da * (1 - a * a)": 1}
# The terms of dz in the order of the forward.
REORDERED = """
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
CLOSED = """
def backward(dy, saved):
    x, w, z, a = saved
    dz = dy * (1 + a)
    dz += dy * z * (1 - a * a)
    return dz @ w.T, x.T @ dz
"""
LAYERS = """
class f:
    forward = np.sin
    backward = np.cos

class g(f): ...

def forward(x, w):
    z = f.forward(x)
    y = g.forward(z) + 0 * w[0, 0]
    return y, (x, z, w)

def backward(dy, saved):
    x, z, w = saved
    dz = dy * g.backward(z)
    dx = dz * f.backward(x)
    return dx, 0 * w
"""


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        (BACKWARD, PAIRS),
        (UNQUOTED, PAIRS),  # Without quotes, the order is reversed.
        (edited(BACKWARD, ("# b = a * z", "# b = a * z: a product")), PAIRS),
        (REORDERED, {"dz = dy * z * (1 - a * a)": 1, "dz += dy * a": 2, "dz += dy": 3}),
        # If lines and uses differ in number, each line reverses all uses.
        (CLOSED, {"dz = dy * (1 + a)": None, "dz += dy * z * (1 - a * a)": None}),
    ],
)
def test_a_quote_or_else_the_reversed_order_determines_what_a_line_reverses(
    backward: str, expected: dict[str, int | None]
) -> None:
    lines = proof(FORWARD + backward).lines
    pairs = {
        line.text: g.pair for line in lines if line.step for g in line.gradients if g.name == "dz"
    }
    assert {text: pair and pair.use for text, pair in pairs.items()} == expected


def test_layers_are_paired_only_if_they_come_in_reverse_order() -> None:
    assert [line.reverses for line in proof(LAYERS).lines] == [None, 1, 0, None]
    # Names that forward does not have, so that only the calls count.
    renamed = edited(
        LAYERS, ("    dz =", "    dr ="), ("dx = dz *", "dq = dr *"), ("return dx", "return dq")
    )
    assert [line.reverses for line in proof(renamed).lines] == [None, 1, 0, None]
    swapped = edited(
        renamed, ("g.backward(z)", "f.backward(x)"), ("dr * f.backward(x)", "dr * g.backward(z)")
    )
    assert [line.reverses for line in proof(swapped).lines] == [None] * 4
