"""Which operation the parameters of a function fit, and what each of them stands for."""

import numpy as np
import pytest
from helpers.gate import CASES, tiny_case

from benchmarks.cases import shape_of
from benchmarks.mine.signature import INTEGERS, Parameter, Signature

FORWARD, BACKWARD = Signature("matmul", "forward"), Signature("attention", "backward")


def of(names: str, kind: str = "") -> list[Parameter]:
    return [Parameter(name, kind) for name in names.split()]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("x weight y", True),
        ("y weight x", True),
        ("x weight", True),  # It returns y.
        ("x weight y threads", True),
        ("K weight y x N", True),
        ("x y", False),
        ("x weight y bias", False),
        ("x weight weight y", False),
        ("x weight y saved", True),
        ("x saved weight y", False),  # It must be the last.
        ("a b c", False),
    ],
)
def test_names_fit_in_any_order_if_all_arrays_are_there(names: str, expected: bool) -> None:
    assert FORWARD.by_name(of(names)) == (names.split() if expected else None)


def test_c_returns_nothing_so_it_takes_the_outputs() -> None:
    assert FORWARD.by_name(of("x weight", "float *")) is None


@pytest.mark.parametrize(
    ("signature", "names", "kind", "expected"),
    [
        (FORWARD, "a b c", "", "x weight y"),
        (FORWARD, "a b c threads", "", "x weight y threads"),
        (FORWARD, "a b", "", None),
        (FORWARD, "a b c d", "", None),
        (FORWARD, "a b c n m k", "float *", "x weight y N C K"),
        (FORWARD, "a b c n m k threads", "float *", "x weight y N C K threads"),
        (BACKWARD, "d a out saved", "", "dy qkv dqkv saved"),
    ],
)
def test_other_names_stand_for_the_arrays_in_order(
    signature: Signature, names: str, kind: str, expected: str | None
) -> None:
    assert signature.by_position(of(names, kind)) == (expected and expected.split())


def test_no_two_operations_have_kernels_of_the_same_names() -> None:
    every = [Signature(*names) for names in CASES]
    for signature in every:
        fitting = [each for each in every if each.by_name(signature.parameters(in_c=True))]
        assert fitting == [signature]


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_a_signature_has_the_arrays_of_the_case_in_their_order(
    operation: str, direction: str
) -> None:
    signature = Signature(operation, direction)
    case = tiny_case(operation, direction)
    inputs = case.inputs(np.random.default_rng(0))
    assert signature.arrays == (*inputs, *case.output_shapes)
    assert signature.sizes == tuple(case.sizes)
    for name, array in inputs.items():
        assert array.shape == shape_of(signature.how.inputs[name], case.sizes)
        assert array.dtype == (np.int64 if name in INTEGERS else np.float32)


def test_definitions_say_what_may_be_written() -> None:
    adamw, loss = Signature("adamw", "update"), Signature("cross_entropy", "loss and gradient")
    assert FORWARD.definition("product", in_c=False) == "def product(x, weight, y)"
    assert FORWARD.definition("product", in_c=True) == (
        "void product(const float *x, const float *weight, float *y, "
        "int64_t N, int64_t C, int64_t K)"
    )
    assert loss.definition("both", in_c=True) == (
        "void both(float *logits, const int64_t *targets, float *losses, int64_t N, int64_t V)"
    )
    assert adamw.definition("update", in_c=False) == (
        "def update(param, grad, first, second, scale, learning_rate, weight_decay, beta1, beta2, "
        "epsilon, correction1, correction2)"
    )
    assert "float *param, const float *grad, float *first" in adamw.definition("f", in_c=True)
