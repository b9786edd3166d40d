"""Properties of every operation; the facts of a single one are in its own file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error

from tinygpt_np.gradcheck.cases import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
every_backward = pytest.mark.parametrize(
    ("case", "backward"),
    [
        pytest.param(case, backward, id=f"{case.name}-{backward.__name__}")
        for case in CASES
        for backward in case.backwards()
    ],
)


def upstream(case: Case, seed: int = 7) -> np.ndarray:
    """Return a random upstream gradient; all ones would hide errors of softmax and layer norm."""
    return np.random.default_rng(seed).standard_normal(case.forward().shape)


@every_backward
def test_the_gradient_equals_the_numerical_one(case: Case, backward: Callable[..., Any]) -> None:
    report = case.check().report(backward)
    assert report.ok, report
    assert [row.name for row in report.rows] == list(case.differentiable)
    for row in report.rows:
        assert row.relative < 1e-12, report
        assert row.checked == case.arrays[row.name].size


@every_backward
def test_in_float32_the_gradient_is_right_and_stays_float32(
    case: Case, backward: Callable[..., Any]
) -> None:
    # Another dtype is a problem in the report.
    report = case.check(dtype="float32").report(backward)
    assert report.ok, report


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_the_forward_keeps_the_dtype(case: Case, dtype: Any) -> None:
    assert case.forward(**case.as_dtype(dtype)).dtype == dtype


@every_case
def test_the_forward_in_float32_is_right_up_to_rounding(case: Case) -> None:
    found = case.forward(**case.as_dtype(np.float32)).astype(np.float64)
    # A few operations on sums of at most 20 terms of order one: less than 100 rounding errors.
    assert relative_error(found, case.forward()) < 100 * np.finfo(np.float32).eps


@every_backward
def test_the_backward_is_linear_in_the_upstream_gradient(
    case: Case, backward: Callable[..., Any]
) -> None:
    one, other = upstream(case, 1), upstream(case, 2)
    for_one, for_other = case.gradients(backward, one), case.gradients(backward, other)
    for argument, combined in case.gradients(backward, 2 * one - 3 * other).items():
        parts = 2 * for_one[argument] - 3 * for_other[argument]
        assert relative_error(combined, parts) < 1e-12, argument


@every_case
def test_inputs_are_unchanged_and_results_are_new(case: Case) -> None:
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


@pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.backwards()) > 1], ids=lambda case: case.name
)
def test_backward_steps_and_the_closed_form_agree(case: Case) -> None:
    doutput = upstream(case)
    closed = case.gradients(case.module.backward, doutput)
    for argument, gradient in case.gradients(case.module.backward_steps, doutput).items():
        assert relative_error(closed[argument], gradient) < 1e-12
