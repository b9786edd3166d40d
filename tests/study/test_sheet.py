import ast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS, flowing
from study_own import (
    BACKWARD,
    FORWARD,
    edited,
    gradient_of,
    model,
    operation,
    proof,
    sheet,
    told,
    truth,
    variants_of,
)

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof import Proof
from tinygpt_np.study.sheet import Sheet, rows, study
from tinygpt_np.study.trace import Value

SEEDS = range(5)
# Through which names a gradient flows, read by a person.
FLOWING = {
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
MODELS = [
    *(("block", seed) for seed in range(3)),
    ("gpt", 0),
    *(("bigram", seed) for seed in SEEDS),
]
CLOSED = """
def backward(dy, saved):
    x, w, z, a = saved
    # y = b + z
    slope = 1 + a + z * (1 - a * a)
    dz = dy * slope
    return dz @ w.T, x.T @ dz
"""


def verdicts(proof: Proof) -> set[str]:
    """The names of which a gradient was proven right by a figure, or is verified with one."""
    names = {proof.function.arguments[0]}
    for line in proof.lines:
        right = {gradient.name for gradient in line.gradients if gradient.status == "right"}
        names |= right
        if right:
            names |= {*line.fused}
    return names


# Every name carries a verdict


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_differentiable_name_of_every_operation_carries_a_verdict(
    variant: str, seed: int
) -> None:
    found = operation(variant, seed)
    names = {*FLOWING[VARIANTS[variant].operation].split()} - missing_arguments(found)
    assert {f"d{name}" for name in names} - verdicts(found.proofs[0]) == set(), told(
        found.proofs[0]
    )
    assert not any(found.fused(value) for value in found.values)


def missing_arguments(found: Sheet) -> set[str]:
    """The arguments that are None in this call: there is nothing to differentiate."""
    return {name for name, value in found.target.args.items() if value is None}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_values_of_an_operation_are_those_that_its_source_says(name: str) -> None:
    assert {value.name for value in operation(name).values} == {*FLOWING[name].split()}
    assert flowing(name) == {*FLOWING[name].split()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_a_closed_form_every_argument_carries_a_verdict(variant: str) -> None:
    found = operation(variant)
    for each in found.proofs:
        returned = {gradient.name: gradient.status for gradient in each.lines[-1].gradients}
        assert returned == {f"d{name}": "right" for name in VARIANTS[variant].differentiable}


@pytest.mark.parametrize(("name", "seed"), MODELS)
def test_every_parameter_and_every_value_of_a_model_carries_a_verdict(name: str, seed: int) -> None:
    found = model(name, seed)
    right = {gradient.name for gradient in found.judged if gradient.status == "right"}
    assert {*found.target.params} - right == set()
    assert {value.name for value in found.values} == {*MODEL_VALUES[name].split()}
    assert [value for value in found.values if not is_verified(found, value)] == []


def is_verified(found: Sheet, value: Value) -> bool:
    judged = [gradient.status for _, _, gradient in found.gradients(value)]
    return "right" in judged or found.found(value) is not None or bool(found.fused(value))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_verdict_is_off_by_more_than_a_billionth_of_a_thousandth(
    variant: str, seed: int
) -> None:
    found = operation(variant, seed)
    worst = max(g.row.relative for g in found.judged if not g.row.is_zero)
    assert worst < 1e-12
    assert found.worst == pytest.approx(worst, abs=0)
    assert found.ok


@pytest.mark.parametrize(("name", "seed"), MODELS)
def test_no_verdict_of_a_model_is_off_by_more_than_that(name: str, seed: int) -> None:
    found = model(name, seed)
    assert found.ok
    assert 0 < found.worst < 1e-12


def test_a_gradient_that_is_zero_to_rounding_is_left_out_of_the_worst() -> None:
    for seed in SEEDS:
        zeros = [g for g in operation("cross_entropy", seed).judged if g.row.is_zero]
        assert all(np.isnan(gradient.row.relative) for gradient in zeros)


# Names that are verified together with others


@pytest.mark.parametrize("name", ["cross_entropy", "layer_norm", "softmax"])
def test_in_a_closed_form_the_other_names_are_verified_with_those_that_have_a_verdict(
    name: str,
) -> None:
    closed = Sheet(operation(name).truth, operation(name).proofs[1:])
    judged = {gradient.name for gradient in closed.judged if gradient.status == "right"}
    fused = {value.name: closed.fused(value) for value in closed.values if closed.fused(value)}
    assert len(fused) >= 3
    for value, names in fused.items():
        assert f"d{value}" not in judged
        assert {*names} <= judged
    assert all(is_verified(closed, value) for value in closed.values)


def test_a_name_without_a_gradient_names_those_with_which_it_is_verified() -> None:
    found = sheet(FORWARD + CLOSED)
    by_name = {value.name: value for value in found.values}
    assert found.fused(by_name["a"]) == ("dx", "dw", "dz")
    assert found.fused(by_name["b"]) == ("dx", "dw", "dz")
    assert found.fused(by_name["z"]) == ()
    assert found.fused(by_name["y"]) == ()


def test_what_flows_into_a_gradient_is_named_by_its_line() -> None:
    (line,) = (each for each in proof(FORWARD + CLOSED).lines if each.text == "dz = dy * slope")
    assert line.fused == ("slope",)
    found = operation("layer_norm").proofs[1]
    (line,) = (each for each in found.lines if each.text.startswith("dx = "))
    assert {"along_ones", "along_xhat"} <= {*line.fused}


# What is found of a value


def test_the_gradient_of_a_value_is_what_the_backward_has_at_last() -> None:
    found = sheet(FORWARD + BACKWARD)
    for value in found.values:
        expected = gradient_of(found.truth, value)
        np.testing.assert_allclose(found.found(value), expected, rtol=1e-12)


def test_the_gradient_of_the_output_is_what_came_in() -> None:
    found = sheet(FORWARD + BACKWARD)
    np.testing.assert_array_equal(found.found(Value("y", 3)), found.truth.doutput)


def test_the_verdicts_on_a_value_are_those_of_all_lines_and_backwards() -> None:
    second = CLOSED.replace("def backward", "def backward_closed")
    found = sheet(FORWARD + BACKWARD + second)
    texts = [line.text for _, line, _ in found.gradients(Value("z", 0))]
    first = ["dz = dy.copy()", "dz += db * a", "dz += da * (1 - a * a)"]
    assert texts == [*first, "dz = dy * slope"]


# Rows


@pytest.mark.parametrize("name", [*OPERATIONS, "block", "bigram"])
def test_every_line_of_a_backward_stands_beside_one_forward_line(name: str) -> None:
    found = operation(name) if name in OPERATIONS else model(name)
    beside = [line for row in found.rows for line in row.backward]
    assert {id(line) for line in beside} == {id(line) for line in found.proofs[0].lines}
    assert len(beside) == len(found.proofs[0].lines)


@pytest.mark.parametrize("name", [*OPERATIONS, "block"])
def test_read_upwards_the_right_side_is_the_backward(name: str) -> None:
    found = operation(name) if name in OPERATIONS else model(name)
    upwards = [line for row in found.rows[::-1] for line in row.backward[::-1]]
    assert upwards == [*found.proofs[0].lines]


def test_read_downwards_the_left_side_is_the_forward() -> None:
    found = sheet(FORWARD + BACKWARD).rows
    texts = ["def forward(x, w)", "z = x @ w", "a = np.tanh(z)", "b = a * z", "y = b + z"]
    assert [row.text for row in found] == [*texts, "return y, (x, w, z, a)"]
    assert [row.line for row in found] == [2, *range(3, 8)]
    assert [row.shape for row in found] == ["", "(N, K)", "", "", "", ""]


def test_a_line_stands_beside_the_line_that_it_undoes() -> None:
    beside = {
        row.text: [each.text for each in row.backward] for row in sheet(FORWARD + BACKWARD).rows
    }
    assert beside == {
        "def forward(x, w)": ["return dx, dw"],
        "z = x @ w": ["dw = x.T @ dz", "dx = dz @ w.T"],
        "a = np.tanh(z)": ["dz += da * (1 - a * a)"],
        "b = a * z": ["dz += db * a", "da = db * z"],
        "y = b + z": ["dz = dy.copy()", "db = dy.copy()"],
        "return y, (x, w, z, a)": ["x, w, z, a = saved"],
    }


def test_what_prepares_a_line_stands_beside_what_that_undoes() -> None:
    plain = "\n".join(line for line in BACKWARD.splitlines() if "#" not in line)
    found = sheet(FORWARD + edited(plain, ("    dz += da", "    s = a * a\n    dz += da"))).rows
    beside = next(row for row in found if row.text == "a = np.tanh(z)")
    assert [line.text for line in beside.backward] == ["dz += da * (1 - a * a)", "s = a * a"]


def test_a_line_through_which_no_gradient_flows_is_constant() -> None:
    found = operation("softmax")
    constant = [row.text for row in found.rows if found.is_constant(row)]
    assert constant == ["largest = np.real(x).max(axis=-1, keepdims=True)"]


def test_rows_are_those_of_the_backward_that_goes_line_for_line() -> None:
    found = operation("layer_norm")
    assert [each.function.name for each in found.proofs] == ["backward_steps", "backward"]
    again = rows(found.target.forward, found.truth.trace.steps, found.proofs[1])
    assert [row.text for row in again] == [row.text for row in found.rows]
    assert again != found.rows


# Two backwards


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_backwards_agree_to_rounding(name: str) -> None:
    for seed in SEEDS:
        agreement = operation(name, seed).agreement
        if len(operation(name, seed).proofs) == 1:
            assert agreement is None
        else:
            assert agreement is not None
            assert 0 <= agreement < 1e-14


def test_how_far_two_backwards_lie_apart_is_a_share_of_the_gradient() -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), ("dw = x.T", "dw = 1.01 * x.T"))
    found = sheet(FORWARD + BACKWARD + second)
    assert found.agreement == pytest.approx(0.01)
    assert not found.ok


@pytest.mark.parametrize("returned", ["return dx, None", "return dx, dw.T", "return dq"])
def test_what_is_missing_or_of_another_shape_does_not_agree(returned: str) -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), ("return dx, dw", returned))
    assert sheet(FORWARD + BACKWARD + second).agreement is None


def test_a_study_is_wrong_if_one_of_its_backwards_is() -> None:
    second = edited(BACKWARD, ("def backward", "def backward_2"), ("dx = dz", "dx = -dz"))
    found = sheet(FORWARD + BACKWARD + second)
    assert [each.ok for each in found.proofs] == [True, False]
    assert not found.ok


def test_a_study_measures_nothing_of_its_own() -> None:
    true = truth(FORWARD + BACKWARD)
    again = study(true.target)
    for value in again.values:
        left, right = again.truth.total(value).gradient, true.total(value).gradient
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_texts_of_all_rows_are_python(name: str) -> None:
    for variant in variants_of(name):
        for row in operation(variant).rows[1:-1]:
            ast.parse(row.text)
