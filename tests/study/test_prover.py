"""The package is right at every seed; whatever is wrong is found, at its line."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from study_own import (
    ARGS,
    BACKWARD,
    FORWARD,
    W,
    X,
    blamed,
    edited,
    edited_proof,
    line_of,
    model,
    operation,
    proof,
    sheet,
    told,
    truth,
    variants_of,
)

from tinygpt_np.study import targets
from tinygpt_np.study.prover import prove
from tinygpt_np.study.source import find
from tinygpt_np.study.truth import Truth

# Targets of the package


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_right_at_every_seed(name: str, seed: int) -> None:
    for variant in variants_of(name):
        for found in operation(variant, seed).proofs:
            assert {line.status for line in found.lines} <= {"right", "begun", ""}, told(found)


@pytest.mark.parametrize(
    ("name", "seed"),
    [*(("block", s) for s in range(3)), ("gpt", 0), *(("bigram", s) for s in range(5))],
)
def test_every_model_is_right(name: str, seed: int) -> None:
    (found,) = model(name, seed).proofs
    assert {line.status for line in found.lines} <= {"right", "begun", ""}, told(found)


# Forwards of other kinds


ABS = edited(FORWARD, ("np.tanh(z)", "np.abs(z)"))
BY_ABS = edited(BACKWARD, ("(1 - a * a)", "np.sign(z)"), ("# a = np.tanh(z)", "# a = np.abs(z)"))


@pytest.mark.parametrize("seed", range(3))
def test_a_forward_that_takes_no_complex_numbers_is_proven_by_richardson(seed: int) -> None:
    found = proof(ABS + BY_ABS, seed=seed)
    assert found.ok, told(found)
    assert {gradient.row.oracle for gradient in found.lines[-1].gradients} == {"Richardson"}
    wrong = proof(ABS + edited(BY_ABS, ("da = db * z", "da = 1.001 * db * z")), seed=seed)
    assert blamed(wrong) == ["da = 1.001 * db * z"]


def test_in_float32_the_right_is_right_and_the_wrong_wrong() -> None:
    args = {name: array.astype(np.float32) for name, array in ARGS.items()}
    found = proof(FORWARD + BACKWARD, args)
    assert found.ok, told(found)
    wrong = proof(FORWARD + edited(BACKWARD, ("db * z", "1.001 * db * z")), args)
    assert blamed(wrong) == ["da = 1.001 * db * z"]


def test_a_forward_that_rounds_to_float32_inside_cannot_be_proven_and_says_so() -> None:
    rough = edited(FORWARD, ("np.tanh(z)", "np.tanh(np.float32(z)).astype(float)"))
    quoted = edited(BACKWARD, ("# a = np.tanh(z)", "# a = np.tanh(np.float32(z)).astype(float)"))
    found = proof(rough + quoted)
    assert not found.ok
    assert any("could not be measured" in line.says for line in found.lines), told(found)


def test_a_name_that_is_set_again_and_again_is_proven_value_by_value() -> None:
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
    assert found.ok, told(found)
    wrong = proof(edited(text, ("(1 - t * t)", "(1 - t)")), {"x": X})
    assert blamed(wrong) == ["dh = dh * (1 - t)"]


# What is wrong


FAULTS: Mapping[str, tuple[tuple[str, str], str, str]] = {
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
    "a part dropped": (
        ("    dz += db * a\n", ""), "dz += da * (1 - a * a)",
        "dz lacks the part that comes by way of b = a * z",
    ),
    "a part counted twice": (
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
        "a gradient for each of x, w is to be returned, 2 in all, not 1",
    ),
    "too many": (
        ("return dx, dw", "return dx, dw, da"), "return dx, dw, da", "2 in all, not 3",
    ),
    "nothing": (("return dx, dw", "return None"), "return None", "2 in all, not 0"),
    "another order": (
        ("return dx, dw", "return dw, dx"), "return dw, dx",
        "returned: dx: the shape must be (4, 5), not (5, 3)",
    ),
    "None": (
        ("return dx, dw", "return dx, None"), "return dx, None",
        "returned: dw: there is no gradient",
    ),
    "a dict without one": (
        ("return dx, dw", "return {'x': dx}"), "return {'x': dx}",
        "returned: dw: there is no gradient",
    ),
    "changes what it is given": (
        ("dz = dy.copy()", "dz = dy"), "dz += db * a", "changes in place what it was given",
    ),
    "changes what was saved": (
        ("    return dx, dw", "    x *= 2\n    return dx, dw"), "x *= 2",
        "changes in place what it was given",
    ),
    "changes what was saved before it is used": (
        ("    # z = x @ w", "    w *= 2\n    # z = x @ w"), "w *= 2",
        "w is not what it was in forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_its_line_and_nowhere_else(fault: str) -> None:
    edit, text, says = FAULTS[fault]
    found = edited_proof(edit)
    assert blamed(found) == [text], told(found)
    assert says in line_of(found, text).says


def test_a_fault_names_the_line_of_the_file() -> None:
    found = edited_proof(("da = db * z", "da = db * z * 2"))
    written = (FORWARD + edited(BACKWARD, ("da = db * z", "da = db * z * 2"))).splitlines()
    assert found.first_wrong is not None
    assert written[found.first_wrong.line - 1].strip() == "da = db * z * 2"
    assert found.first_wrong.cause == "too large by a factor of 2: counted twice"


def test_a_backward_that_raises_is_proven_up_to_that_line() -> None:
    found = edited_proof(("da = db * z", "da = db @ z"))
    texts = [line.text for line in found.lines]
    assert texts[:4] == ["x, w, z, a = saved", "db = dy.copy()", "dz = dy.copy()", "da = db @ z"]
    assert [line.status for line in found.lines[:4]] == ["", "right", "right", "wrong"]


def test_the_lines_after_it_are_there_and_not_reached() -> None:
    found = edited_proof(("da = db * z", "da = db @ z"))
    assert [line.text for line in found.lines[4:]] == [
        "dz += db * a", "dz += da * (1 - a * a)", "dx = dz @ w.T", "dw = x.T @ dz", "return dx, dw"
    ]  # fmt: skip
    assert {line.status for line in found.lines[4:]} == {"unreached"}


@pytest.mark.parametrize(("line", "returned"), [("dx = dy", "dx"), ("dk = dy.sum(axis=0)", "dy")])
def test_a_gradient_that_is_memory_of_another_is_found_where_it_is_set(
    line: str, returned: str
) -> None:
    text = (
        "def forward(x, k):\n    y = x + k\n    return y, 0\n\ndef backward(dy, saved):\n"
        f"    {line}\n    return {returned}, dy.sum(axis=0)"
    )
    found = proof(text, {"x": X, "k": X[0] + 1})
    where = line if returned == "dx" else "return dy, dy.sum(axis=0)"
    assert blamed(found) == [where], told(found)
    assert "shares that of dout" in line_of(found, where).says


def test_a_gradient_for_an_argument_that_is_none_must_be_none() -> None:
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
    assert blamed(found) == ["dbias = dy.sum(axis=0)"]
    assert line_of(found, "dbias = dy.sum(axis=0)").says == (
        "there is no bias here, so dbias must be None"
    )


def test_a_stated_shape_that_is_another_is_odd_and_not_wrong() -> None:
    found = edited_proof(
        ("da = db * z", "da = db * z  # (N, 2K)"), ("db = dy.copy()", "db = dy.copy()  # (N, K)")
    )
    assert found.ok
    assert line_of(found, "da = db * z").status == "odd"
    assert line_of(found, "da = db * z").says == "the comment says (N, 2K), but the shape is (4, 3)"


def test_a_value_that_differs_and_that_no_gradient_suffers_from_is_odd() -> None:
    found = edited_proof(("    # y = b + z", "    b = 2 * a * z\n    # y = b + z"))
    assert found.ok
    assert line_of(found, "b = 2 * a * z").status == "odd"


# Runs do not leak


DESTROYER = edited(
    BACKWARD, ("    # z = x @ w", "    for each in saved:\n        each[...] = 7\n    # z = x @ w")
)


def test_a_backward_that_destroys_what_was_saved_leaves_the_next_proof_right() -> None:
    true = truth(FORWARD + BACKWARD)
    before = copy.deepcopy((true.saved, true.doutput, true.target.args))
    right, wrong = true.target.backwards[0], find(DESTROYER, "backward", "own.py")
    assert prove(true, right).ok
    assert not prove(true, wrong).ok
    assert prove(true, right).ok
    after = (true.saved, true.doutput, true.target.args)
    for found, expected in zip(arrays(after), arrays(before), strict=True):
        np.testing.assert_array_equal(found, expected)


def arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    parts = cast(Any, value).values() if isinstance(value, dict) else value
    return [array for part in parts for array in arrays(part)]


# Models


BLOCK = Truth(targets.block())


def block_with(old: str, new: str) -> Any:
    text = targets.source_of(targets.model)
    backward = text.index("def block_backward")
    text = text[:backward] + edited(text[backward:], (old, new))
    return prove(BLOCK, find(text, "GPT.block_backward", "gpt.py"))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("dmid = dmid + grads", "dmid = grads", "dmid = grads."),
        ("dx, dkept_1 = dmid, dmid", "dx, dkept_1 = dy, dmid", "dx, dkept_1 = dy, dmid"),
        ('keep(f"{h}.ln_1"', 'keep(f"{h}.ln_2"', "dx = dx + "),
        ('grads.keep(f"{h}.ln_1", ops.layer_norm.backward(dnormed_1, ln_1))',
         "ops.layer_norm.backward(dnormed_1, ln_1)[0]", "return dx"),
        ("return dx\n\n    @", "return dmid\n\n    @", "return dmid"),
    ],
)  # fmt: skip
def test_a_fault_in_a_block_is_found_at_its_line(old: str, new: str, line: str) -> None:
    found = block_with(old, new)
    assert len(blamed(found)) == 1, told(found)
    assert blamed(found)[0].startswith(line), told(found)


def test_what_changes_its_input_is_found_in_a_study_without_functions_too() -> None:
    assert sheet(FORWARD + BACKWARD).target.functions != ()
    true = truth(FORWARD + edited(BACKWARD, ("dz = dy.copy()", "dz = dy")))
    found = prove(true, true.target.backwards[0])
    assert found.first_wrong is not None
    assert found.first_wrong.text == "dz += db * a"
    assert "changes in place what it was given" in found.first_wrong.says


def test_a_gradient_completed_just_before_a_line_that_raises_has_its_verdict() -> None:
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
    assert blamed(stopped) == ["dz += 2 * da * (1 - a * a)"], told(stopped)
