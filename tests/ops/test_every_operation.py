"""What holds for each operation alike. What is special to one is in its own file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ops.cases import CASES, IDS_OF_CASES, Case
from oracles import central_differences, complex_step, relative_error

import tinygpt_np as tg

every_case = pytest.mark.parametrize("case", CASES, ids=IDS_OF_CASES)
every_backward = pytest.mark.parametrize(
    ("case", "backward", "argument"),
    [
        pytest.param(case, backward, argument, id=f"{case.name}-{backward.__name__}-{argument}")
        for case in CASES
        for backward in case.backwards()
        for argument in case.differentiable
    ],
)


def upstream(case: Case, seed: int = 7) -> np.ndarray:
    """A random upstream gradient: a sum would hide whatever softmax and layer norm get wrong."""
    return np.random.default_rng(seed).standard_normal(case.forward().shape)


def as_dtype(case: Case, dtype: Any) -> dict[str, np.ndarray]:
    """The float arrays among the arguments of a case, in another dtype."""
    floats = {n: array for n, array in case.arrays.items() if array.dtype == np.float64}
    return {name: array.astype(dtype) for name, array in floats.items()}


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == set(tg.ops.__all__)


@every_backward
@pytest.mark.parametrize(("oracle", "bound"), [(complex_step, 1e-12), (central_differences, 1e-7)])
def test_the_gradient_equals_the_numerical_one(
    case: Case,
    backward: Callable[..., Any],
    argument: str,
    oracle: Callable[..., np.ndarray],
    bound: float,
) -> None:
    doutput = upstream(case)

    def loss(value: np.ndarray) -> np.ndarray:
        return np.sum(doutput * case.forward(**{argument: value}))

    expected = oracle(loss, case.args[argument])
    found = case.gradients(backward, doutput)[argument]
    error = relative_error(found, expected)
    assert error < bound, f"{case.name}: d{argument} is off by {error:.1e} of its norm"


@every_backward
def test_a_gradient_has_the_shape_and_dtype_of_its_argument(
    case: Case, backward: Callable[..., Any], argument: str
) -> None:
    args = as_dtype(case, np.float32)
    doutput = upstream(case).astype(np.float32)
    found = case.gradients(backward, doutput, **args)[argument]
    assert (found.shape, found.dtype) == (args[argument].shape, np.float32)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_the_forward_keeps_the_dtype(case: Case, dtype: Any) -> None:
    assert case.forward(**as_dtype(case, dtype)).dtype == dtype


@every_case
def test_the_forward_in_float32_is_the_one_in_float64_rounded(case: Case) -> None:
    found = case.forward(**as_dtype(case, np.float32)).astype(np.float64)
    # A few operations on sums of at most 20 terms of order one: 100 roundings are plenty.
    assert relative_error(found, case.forward()) < 100 * np.finfo(np.float32).eps


@every_backward
def test_the_backward_is_linear_in_the_upstream_gradient(
    case: Case, backward: Callable[..., Any], argument: str
) -> None:
    one, other = upstream(case, 1), upstream(case, 2)
    whole = case.gradients(backward, 2 * one - 3 * other)[argument]
    parts = 2 * case.gradients(backward, one)[argument]
    parts = parts - 3 * case.gradients(backward, other)[argument]
    assert relative_error(whole, parts) < 1e-12


@every_case
def test_inputs_are_left_alone_and_results_are_new(case: Case) -> None:
    frozen = {name: value.copy() for name, value in case.arrays.items()}
    for array in frozen.values():
        array.setflags(write=False)  # Writing to it raises.
    doutput = upstream(case)
    doutput.setflags(write=False)
    for backward in case.backwards():
        output = case.forward(**frozen)
        gradients = list(case.gradients(backward, doutput, **frozen).values())
        results = [output, *gradients]
        for i, result in enumerate(results):
            for other in [*frozen.values(), doutput, *results[:i]]:
                assert not np.shares_memory(result, other)


@every_case
def test_strided_inputs_give_the_same_output(case: Case) -> None:
    strided = {n: np.repeat(array, 2, axis=-1)[..., ::2] for n, array in case.arrays.items()}
    assert relative_error(case.forward(**strided), case.forward()) < 1e-14


@pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.backwards()) > 1], ids=lambda case: case.name
)
def test_backward_steps_and_the_closed_form_agree(case: Case) -> None:
    doutput = upstream(case)
    closed = case.gradients(case.module.backward, doutput)
    for argument, gradient in case.gradients(case.module.backward_steps, doutput).items():
        assert relative_error(closed[argument], gradient) < 1e-12
