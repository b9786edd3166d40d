"""Each gradient is accounted for: the terms that it has, and those that it lacks."""

import numpy as np
import pytest
from helpers.study_targets import target

from tinygpt_np.study.proof.accounts import Account, Accounts
from tinygpt_np.study.proof.backward_trace import trace_backward
from tinygpt_np.study.proof.pairing import reversed_steps
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.trace import Value

rng = np.random.default_rng(4)
ARGS = {"x": rng.standard_normal((4, 5)), "w": rng.standard_normal((5, 5))}
# Three lines read x: 0, 2 and 3.
TEXT = """
def forward(x, w):
    u = x @ w
    v = np.maximum(u, 0)
    r = x * x
    y = x + v + r
    return y, (x, w, u)

def backward(dy, saved):
    x, w, u = saved
    du = dy * (u > 0)
    dw = x.T @ du
    {lines}
    return dx, dw
"""


def accounts(*lines: str) -> dict[str, Account]:
    """Return the accounts of a backward by the name of the gradient."""
    chosen = target(TEXT.format(lines="\n    ".join(lines)), ARGS)
    truth, (backward,) = Truth(chosen), chosen.backwards
    trace = trace_backward(backward, chosen.module, truth.given(backward))
    reverses = reversed_steps(truth.trace, backward, [each.step for each in trace.executed])
    return {each.name: each for each in Accounts(truth, trace, reverses).found}


@pytest.mark.parametrize(
    ("lines", "parts", "missing"),
    [
        (["dx = dy + du @ w.T + 2 * x * dy"], [(0, 2, 3)], ()),
        (["dx = dy + 2 * x * dy"], [(2, 3)], (0,)),
        (["dx = du @ w.T"], [(0,)], (2, 3)),
        (["dx = np.zeros_like(x)", "dx += dy", "dx += du @ w.T"], [(), (3,), (0,)], (2,)),
        (["dx = dy.copy()", "dx -= 2 * x * dy"], [(3,), None], (0, 2)),
        (["dx = dy.copy()", "dx += dy"], [(3,), None], (0, 2)),
    ],
)  # fmt: skip
def test_each_step_adds_the_terms_of_some_forward_lines(
    lines: list[str], parts: list[tuple[int, ...] | None], missing: tuple[int, ...]
) -> None:
    found = accounts(*lines)["dx"]
    assert [part and tuple(sorted(part)) for part in found.parts] == parts
    assert found.missing == missing
    assert found.is_complete == (not missing)


def test_an_assignment_that_loses_a_term_is_noted() -> None:
    found = accounts("dx = dy.copy()", "dx = du @ w.T", "dx += 2 * x * dy")["dx"]
    assert (found.overwriting, found.missing) == (1, (3,))
    # Nothing is lost if the old array was used.
    found = accounts("dx = dy.copy()", "dx = dx + du @ w.T", "dx += 2 * x * dy")["dx"]
    assert (found.overwriting, found.missing) == (None, ())


def test_an_array_that_is_masked_in_place_is_the_gradient_of_the_value_before_the_mask() -> None:
    text = TEXT.replace("du = dy * (u > 0)", "dv = dy.copy()\n    dv[u <= 0] = 0\n    du = dv")
    chosen = target(text.format(lines="dx = dy + du @ w.T + 2 * x * dy"), ARGS)
    truth, (backward,) = Truth(chosen), chosen.backwards
    trace = trace_backward(backward, chosen.module, truth.given(backward))
    found = Accounts(truth, trace, dict.fromkeys(range(9), ())).found
    values = [each.value for each in found if each.name == "dv"]
    assert values == [Value("v", 1), Value("u", 0)]
    assert all(each.is_complete for each in found)
