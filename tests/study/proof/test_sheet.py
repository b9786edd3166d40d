import itertools

import numpy as np
import pytest
from helpers.architecture import OPERATIONS, flowing, line_backward, quotes
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    UNQUOTED,
    edited,
    gradient_of,
    proof,
    report,
    sheet,
    studied,
)

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof.pairing import called
from tinygpt_np.study.proof.sheet import Sheet
from tinygpt_np.study.proof.verdicts import Proof
from tinygpt_np.study.source.trace import Value

SEEDS = range(2)
# The names through which a gradient flows, determined by hand.
DIFFERENTIABLE = {
    "attention": "qkv q_rows k_rows v_rows q k v products scores masked probs kept heads y",
    "cross_entropy": "logits shifted exps total log_total log_probs picked summed loss",
    "dropout": "x y",
    "embedding": "weight rows",
    "gelu": "x square cube bend bent inner tanh raised gate y",
    "gelu_exact": "x scaled erf raised cdf y",
    "layer_norm": "x weight bias mean centered square var padded_var std xhat scaled y",
    "linear": "x weight bias product y",
    "softmax": "x shifted exps total probs",
}
MODEL_VALUES = {
    "bigram": "table logits",
    "block": "x normed_1 qkv heads out_1 kept_1 mid normed_2 hidden activated out_2 kept_2 y",
    "gpt": "token_rows position_rows embedded x normed head_weight logits",
}
MODELS = [("block", 0), ("block", 1), ("gpt", 0), ("bigram", 0), ("bigram", 1)]
CLOSED = """
def backward(dy, saved):
    x, w, z, a = saved
    # y = b + z
    slope = 1 + a + z * (1 - a * a)
    dz = dy * slope
    return dz @ w.T, x.T @ dz
"""


def verdicts(proof: Proof) -> set[str]:
    """Return the gradients that are right, and the names checked together with them."""
    names = {proof.function.arguments[0]}
    for line in proof.lines:
        right = {gradient.name for gradient in line.gradients if gradient.status == "right"}
        names |= right
        if right:
            names |= {*line.fused}
    return names


# Every name has a verdict


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_differentiable_name_of_every_operation_has_a_verdict(variant: str) -> None:
    found = studied(variant)
    missing = {name for name, value in found.target.args.items() if value is None}
    names = {*DIFFERENTIABLE[VARIANTS[variant].operation].split()} - missing
    wanted = {f"d{name}" for name in names}
    assert wanted <= verdicts(found.proofs[0]), report(found.proofs[0])
    assert not any(found.fused(value) for value in found.values)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_differentiable_values_of_an_operation_are_those_of_its_source(name: str) -> None:
    assert {value.name for value in studied(name).values} == {*DIFFERENTIABLE[name].split()}
    assert flowing(name) == {*DIFFERENTIABLE[name].split()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), MODELS)
def test_every_parameter_and_value_of_a_model_has_a_verdict(name: str, seed: int) -> None:
    found = studied(name, seed)
    right = {gradient.name for gradient in found.all_verdicts if gradient.status == "right"}
    assert {*found.target.params} - right == set()
    assert {value.name for value in found.values} == {*MODEL_VALUES[name].split()}
    assert [value for value in found.values if not has_verdict(found, value)] == []


def has_verdict(found: Sheet, value: Value) -> bool:
    judged = [gradient.status for _, _, gradient in found.verdicts(value)]
    return "right" in judged or found.gradient(value) is not None or bool(found.fused(value))


@pytest.mark.parametrize(("name", "seed"), [*itertools.product(VARIANTS, SEEDS), *MODELS])
def test_no_line_is_wrong_and_the_relative_errors_are_below_1e_12(name: str, seed: int) -> None:
    found = studied(name, seed)
    worst = max(
        gradient.row.relative for gradient in found.all_verdicts if not gradient.row.is_zero
    )
    assert worst < 1e-12
    assert found.worst == pytest.approx(worst, abs=0)
    assert found.ok
    for each in found.proofs:
        assert {line.status for line in each.lines} <= {"right", "partial", ""}, report(each)


# Names that are checked together with others


@pytest.mark.parametrize("name", ["cross_entropy", "layer_norm", "softmax"])
def test_the_other_names_of_a_closed_form_are_checked_together_with_a_gradient(
    name: str,
) -> None:
    closed = Sheet(studied(name).truth, studied(name).proofs[1:])
    right = {gradient.name for gradient in closed.all_verdicts if gradient.status == "right"}
    fused = {value.name: closed.fused(value) for value in closed.values if closed.fused(value)}
    assert len(fused) >= 3
    for value, names in fused.items():
        assert f"d{value}" not in right
        assert {*names} <= right
    assert all(has_verdict(closed, value) for value in closed.values)


def test_a_name_without_a_gradient_lists_the_gradients_it_is_checked_with() -> None:
    found = sheet(FORWARD + CLOSED)
    by_name = {value.name: value for value in found.values}
    assert found.fused(by_name["a"]) == ("dx", "dw", "dz")
    assert found.fused(by_name["b"]) == ("dx", "dw", "dz")
    assert found.fused(by_name["z"]) == ()
    assert found.fused(by_name["y"]) == ()


def test_a_line_lists_the_names_its_gradient_depends_on() -> None:
    (line,) = (each for each in proof(FORWARD + CLOSED).lines if each.text == "dz = dy * slope")
    assert line.fused == ("slope",)
    found = studied("layer_norm").proofs[1]
    (line,) = (each for each in found.lines if each.text.startswith("dx = "))
    assert {"along_ones", "along_xhat"} <= {*line.fused}


# The gradient of a value


def test_the_gradient_of_a_value_is_the_final_sum() -> None:
    found = sheet(FORWARD + BACKWARD)
    for value in found.values:
        expected = gradient_of(found.truth, value)
        np.testing.assert_allclose(found.gradient(value), expected, rtol=1e-12)


# Rows


@pytest.mark.parametrize("name", [*OPERATIONS, "block"])
def test_the_backward_is_in_order_from_bottom_to_top(name: str) -> None:
    found = studied(name)
    upwards = [line for row in found.rows[::-1] for line in row.backward[::-1]]
    assert upwards == [*found.proofs[0].lines]


def test_the_forward_is_in_order_from_top_to_bottom() -> None:
    found = sheet(FORWARD + BACKWARD).rows
    texts = ["def forward(x, w)", "z = x @ w", "a = np.tanh(z)", "b = a * z", "y = b + z"]
    assert [row.text for row in found] == [*texts, "return y, (x, w, z, a)"]
    assert [row.line for row in found] == [2, *range(3, 8)]
    assert [row.shape for row in found] == ["", "(N, K)", "", "", "", ""]


def test_a_backward_line_is_next_to_the_line_it_reverses() -> None:
    aligned = {
        row.text: [each.text for each in row.backward] for row in sheet(FORWARD + BACKWARD).rows
    }
    assert aligned == {
        "def forward(x, w)": ["return dx, dw"],
        "z = x @ w": ["dw = x.T @ dz", "dx = dz @ w.T"],
        "a = np.tanh(z)": ["dz += da * (1 - a * a)"],
        "b = a * z": ["dz += db * a", "da = db * z"],
        "y = b + z": ["dz = dy.copy()", "db = dy.copy()"],
        "return y, (x, w, z, a)": ["x, w, z, a = saved"],
    }


def test_a_preparing_line_is_next_to_the_line_it_prepares() -> None:
    found = sheet(FORWARD + edited(UNQUOTED, ("    dz += da", "    s = a * a\n    dz += da"))).rows
    aligned = next(row for row in found if row.text == "a = np.tanh(z)")
    assert [line.text for line in aligned.backward] == ["dz += da * (1 - a * a)", "s = a * a"]


# Two backwards


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_backwards_agree_to_rounding(name: str) -> None:
    for seed in SEEDS:
        agreement = studied(name, seed).agreement
        if len(studied(name, seed).proofs) == 1:
            assert agreement is None
        else:
            assert agreement is not None
            assert 0 <= agreement < 1e-14


def test_the_difference_of_two_backwards_is_relative_to_the_gradient() -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), ("dw = x.T", "dw = 1.01 * x.T"))
    found = sheet(FORWARD + BACKWARD + second)
    assert found.agreement == pytest.approx(0.01)
    assert not found.ok


@pytest.mark.parametrize("returned", ["return dx, None", "return dx, dw.T", "return dq"])
def test_a_missing_gradient_or_another_shape_has_no_agreement(returned: str) -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), ("return dx, dw", returned))
    assert sheet(FORWARD + BACKWARD + second).agreement is None


# Pairs of lines


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_line_below_a_quote_reverses_the_quoted_line(name: str) -> None:
    proof = studied(name).proofs[0]
    assert proof.function.name == line_backward(name)
    steps = studied(name).truth.trace.steps
    found = {
        (steps[line.reverses].statement.text, gradient.name)
        for line in proof.lines
        for gradient in line.gradients
        if line.reverses is not None
    }
    expected = {(quote, gradient) for quote, names in quotes(name) for gradient in names}
    missing = {
        (quote, gradient)
        for quote, gradient in expected - found
        if gradient[1:] in {value.name for value in studied(name).truth.differentiable}
    }
    assert missing == set()
    assert found <= expected | {(quote, gradient) for quote, gradient in found if not quotes(name)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block", "gpt"])
def test_the_backwards_of_layers_reverse_their_forwards_in_order(name: str) -> None:
    sheet = studied(name)
    steps = sheet.truth.trace.steps
    calls = [
        (called(line.step, "backward"), called(steps[line.reverses], "forward"))
        for line in sheet.proofs[0].lines
        if line.step is not None and line.reverses is not None and called(line.step, "backward")
    ]
    assert all(back == forward for back, forward in calls)
    order = [line.reverses for line in sheet.proofs[0].lines if line.reverses is not None]
    assert len(calls) == {"block": 10, "gpt": 7}[name]
    assert order == sorted(order, reverse=True)
