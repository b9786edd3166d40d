"""Properties of every operation; the facts of a single one are in its own file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
def test_inputs_are_unchanged_and_results_are_new(case: Case) -> None:
    frozen = {name: value.copy() for name, value in case.arrays.items()}
    for array in frozen.values():
        array.setflags(write=False)  # Writing to it raises.
    doutput = np.random.default_rng(7).standard_normal(case.forward().shape)
    doutput.setflags(write=False)
    for backward in case.backwards():
        output = case.forward(**frozen)
        gradients = list(case.gradients(backward, doutput, **frozen).values())
        results = [output, *gradients]
        for i, result in enumerate(results):
            for other in [*frozen.values(), doutput, *results[:i]]:
                assert not np.shares_memory(result, other)
