"""The place of a mistake: a step whose right value makes the rest right, or a missing line."""

import numpy as np
import pytest
from helpers.study_targets import proof, report, wrong_lines

from tinygpt_np.study.proof.blame import solve

rng = np.random.default_rng(5)
SQUARE = {"x": rng.standard_normal((4, 5)), "w": rng.standard_normal((5, 5))}
RESIDUAL = """
def forward(x, w):
    u = x @ w
    v = np.tanh(u)
    r = x * x
    y = x + v + r
    return y, (x, w, v)

def backward(dy, saved):
    x, w, v = saved
    du = dy * (1 - v * v)
    dw = x.T @ du
    dx = {}
    return dx, dw
"""
R = "dx lacks the part through line 5, r = x * x"
Y = "dx lacks the part through line 6, y = x + v + r"


def missing(text: str, args: dict[str, np.ndarray] = SQUARE) -> list[str]:
    """Return the messages of the missing lines; no line that is there may be wrong."""
    found = proof(text, args)
    assert not wrong_lines(found), report(found)
    return [line.message for line in found.lines if line.status == "missing"]


@pytest.mark.parametrize(
    ("terms", "messages"),
    [
        ("du @ w.T + dy + 2 * x * dy", []),
        ("du @ w.T + dy", [R]),
        ("du @ w.T", [R, Y]),
        ("dy + 2 * x * dy", ["dx lacks the part through line 3, u = x @ w"]),
        ("np.zeros_like(x)", ["dx lacks the part through line 3, u = x @ w", R, Y]),
    ],
)  # fmt: skip
def test_missing_paths_are_named(terms: str, messages: list[str]) -> None:
    assert missing(RESIDUAL.format(terms)) == messages


TIED = """
def forward(ids, table):
    h = table[ids]
    a = np.tanh(h)
    logits = a @ table.T
    return logits, (ids, table, a)

def backward(dlogits, saved):
    ids, table, a = saved
    dh = dlogits @ table * (1 - a * a)
    dtable = {}
    {}
    return dtable
"""
IDS = {"ids": np.array([0, 2, 2, 1]), "table": rng.standard_normal((5, 3))}


def test_a_forgotten_use_of_a_tied_weight_is_named() -> None:
    product, scatter = "dlogits.T @ a", "np.add.at(dtable, ids, dh)"
    assert missing(TIED.format(product, scatter), IDS) == []
    found = missing(TIED.format(product, "pass"), IDS)
    assert found == ["dtable lacks the part through line 3, h = table[ids]"]
    found = missing(TIED.format("0 * table", scatter), IDS)
    assert found == ["dtable lacks the part through line 5, logits = a @ table.T"]


UNNAMED = """
def forward(x, w):
    z = x @ w
    a = np.tanh(z)
    b = a * z
    y = b + z
    return y, (x, w, z, a)

def backward(grad, saved):
    x, w, z, a = saved
    g = grad.copy()
    g += grad * a
    {}
    return g @ w.T, x.T @ g
"""


def test_a_missing_path_is_named_without_gradient_names() -> None:
    assert missing(UNNAMED.format("g += grad * z * (1 - a * a)")) == []
    assert missing(UNNAMED.format("pass")) == ["g lacks the part through line 4, a = np.tanh(z)"]


def test_a_name_without_a_verdict_is_blamed_if_what_uses_it_shows_what_it_should_be() -> None:
    found = proof(UNNAMED.format("g += 2 * grad * z * (1 - a * a)"), SQUARE)
    assert wrong_lines(found) == ["g += 2 * grad * z * (1 - a * a)"], report(found)


def test_an_overdetermined_input_is_solved_for() -> None:
    matrix = rng.standard_normal((6, 4))
    right, start = rng.standard_normal((2, 2, 2))

    def outputs(value: np.ndarray) -> np.ndarray:
        return matrix @ value.ravel() + 1

    found = solve(outputs, start, outputs(right))
    assert found is not None
    np.testing.assert_allclose(found, right)
    # No input gives other targets, and a square system has a solution for each target.
    assert solve(outputs, start, rng.standard_normal(6)) is None
    assert solve(lambda value: outputs(value) / (value == start).all(), start, np.ones(6)) is None
    assert solve(lambda value: outputs(value)[:4], start, outputs(right)[:4]) is None
