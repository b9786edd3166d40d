"""The cause of a wrong line: what it is compared with, and what is said about it."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.study_targets import FORWARD, edited_proof, proof, truth_of

from tinygpt_np.gradcheck.cases import variants_of
from tinygpt_np.gradcheck.mutations import sites
from tinygpt_np.study.proof.bugs import planted
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import Proof
from tinygpt_np.study.source import targets


def cause(proof: Proof) -> str:
    first = proof.first_wrong
    assert first is not None
    return first.cause


def cause_of(operation: str, after: str) -> str:
    """Return the cause that the planted bug with this statement is given."""
    site = next(site for site in sites() if site.operation == operation)
    mutation = next(mutation for mutation in site.mutations() if mutation.after == after)
    return planted(site, mutation, [*map(truth_of, variants_of(operation))]).cause


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # A gradient, one term of a sum, and a sum.
        ("da = db * z", "da = db", "a factor is missing: multiply `da` by `z`"),
        ("dz += db * a", "dz += db", "a factor is missing: multiply `db` by `a`"),
        ("dz += db * a", "dz = db * a", "not accumulated: write `dz += db * a` for `dz = db * a`"),
        # A line that raises.
        ("dz @ w.T", "dz @ w", "a transpose is missing: write `w.T` for `w`"),
        # A value of forward, and the returned gradients.
        (
            "x, w, z, a = saved", "x, w, a, z = saved",
            "unpacked in the wrong order: write `x, w, z, a = saved` for `x, w, a, z = saved`",
        ),
        ("return dx, dw", "return dw, dx", "the order is wrong: write `(dx, dw)` for `(dw, dx)`"),
        (
            "return dx, dw", "return dx, None",
            "a condition is missing: `dw` is None, and it should be a gradient",
        ),
        (
            "dw = x.T @ dz", "dw = None",
            "a condition is missing: `dw` is None, and it should be a gradient",
        ),
        (
            "dz = dy.copy()", "dz = dy.copy() / 2",
            "a factor too many: leave out `/ 2`; dz is too small by a factor of 2 or √4",
        ),
        ("dz @ w.T", "np.tanh(dz) @ w.T", ""),
    ],
)  # fmt: skip
def test_a_wrong_line_is_given_its_cause(old: str, new: str, said: str) -> None:
    found = edited_proof((old, new))
    assert cause(found) == said
    line = found.first_wrong
    assert line is not None
    wrong = [g.row.cause for g in line.gradients if g.status == "wrong"]
    assert wrong == [said] * len(wrong)


def test_a_line_whose_right_value_is_unknown_is_judged_by_the_next_line_that_uses_it() -> None:
    found = proof(
        FORWARD
        + """
def backward(dy, saved):
    x, w, z, a = saved
    slope = 1 + a * a  # (N, K)
    dz = dy + dy * a + dy * z * slope
    return dz @ w.T, x.T @ dz
"""
    )
    assert found.first_wrong is not None
    assert found.first_wrong.text.startswith("dz =")
    assert cause(found) == "the sign is wrong: write `1 - a * a` for `1 + a * a`"


def test_a_line_that_makes_a_later_line_raise_is_judged_by_that_line() -> None:
    said = cause_of("layer_norm", "along_ones = dxhat.mean(axis=-1)")
    assert said.startswith("keepdims is missing: write `dxhat.mean(axis=-1, keepdims=True)` for")


def test_numbers_that_only_forward_computes_may_be_the_missing_factor() -> None:
    found = proof(
        """
def forward(x, w):
    y = x @ w / np.sqrt(x.shape[1] + 1)
    return y, (x, w)

def backward(dy, saved):
    x, w = saved
    dx = dy @ w.T
    dw = x.T @ dy / np.sqrt(6)
    return dx, dw
"""
    )
    said = "a factor is missing: divide `dx` by `np.sqrt(x.shape[1] + 1)`; dx is too large by a"
    assert cause(found).startswith(said)


def test_the_memory_of_the_upstream_gradient_must_be_copied() -> None:
    said = cause_of("dropout", "dx = dy if mask is None else dy * mask")
    assert said == "a copy is missing: the gradient shares its memory with dout"


def test_a_call_of_the_forward_in_one_branch_only_is_found() -> None:
    said = cause_of("rotary", "dx = dhalves")
    assert said == "a call is missing: write `interleave(dhalves)` for `dhalves`"
    said = cause_of("rotary", "dx = interleave(dhalves)")
    assert said == "a call too many: write `dhalves` for `interleave(dhalves)`"


def test_a_missing_line_is_its_own_cause() -> None:
    said = cause_of("gelu_exact", "(nothing)")
    assert said == ("a path is missing: dx lacks the part through line 39, scaled = x / SQRT_2")


def test_arrays_measured_along_directions_only_have_causes_too() -> None:
    rng = np.random.default_rng(0)
    args = {"x": rng.standard_normal((60, 50)), "w": rng.standard_normal((50, 3))}
    text = """
def forward(x, w):
    y = x @ w
    return y, (x, w)

def backward(dy, saved):
    x, w = saved
    dx = -dy @ w.T
    return dx, x.T @ dy
"""
    assert cause(proof(text, args)) == "the sign is wrong: leave out the minus sign"


def test_a_gradient_kept_under_the_name_of_another_layer_has_no_made_up_cause() -> None:
    target = targets.named_target("block")
    site = next(site for site in sites() if site.function == "block_backward")
    kept = "dmid = dmid + grads.keep(f'{h}.ln_1', self.norm.backward(dnormed_2, ln_2))"
    mutation = next(mutation for mutation in site.mutations() if mutation.after == kept)
    found = prove(Truth(target), replace(target.backwards[0], node=mutation.tree))
    assert found.first_wrong is not None
    assert found.first_wrong.line == mutation.line
    assert cause(found) == ""


@pytest.mark.parametrize("value", ["db.astype(str)", "[[1], [1, 2]]", "np", "db.astype(object)"])
def test_a_value_that_is_no_gradient_is_wrong_where_it_is_set(value: str) -> None:
    found = edited_proof(("da = db * z", f"da = {value}"))
    assert found.first_wrong is not None
    assert found.first_wrong.text in (f"da = {value}", "dz += da * (1 - a * a)")
