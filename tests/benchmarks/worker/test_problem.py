"""Right results are accepted, wrong ones are named, and bounds count roundings."""

from typing import Any

import numpy as np
import pytest
from helpers.gate import tiny_case

from benchmarks import cases
from benchmarks.cases import Expected
from benchmarks.worker.problem import (
    SPOTS,
    Problem,
    WrongResult,
    accept,
    compare,
    problems_of,
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (  # The worst element is named, and the wrong ones are counted.
            [[1.0, 2.5, 3.0], [4.0, 5.0, 8.0]],
            Expected(np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([[1, 0.1, 1], [1, 1, 1]])),
            r"z\[0, 1\] is 2.5, expected 2 ± 0.1; 2 of 6 elements are wrong",
        ),
        # An exact element with a bound of zero is not the worst, but NaN is.
        ([0, 3], Expected(np.array([0.0, 1]), np.array([0.0, 1])), r"z\[1\] is 3.*; 1 of 2 .*"),
        ([0, np.nan], Expected(np.full(2, 0.5), 1.0), r"z\[1\] is nan.*"),
        # If the truth is known for some rows only, the others must be finite.
        ([[9.0], [0], [1]], Expected(np.zeros((1, 1)), 0.5, np.array([2])), r"z\[2, 0\] is 1, .*"),
        ([[np.nan], [0], [0]], Expected(np.zeros((1, 1)), 0.5, np.array([2])), r"z\[0, 0\] is nan"),
    ],
)
def test_the_worst_element_is_named(found: Any, expected: Expected, message: str) -> None:
    with pytest.raises(WrongResult, match=f"^{message}$"):
        compare("z", np.array(found, np.float32), expected)


def test_the_inputs_of_a_problem_depend_on_its_seed_and_number() -> None:
    case = tiny_case("softmax", "forward")
    sums = [Problem(case, *key).inputs["x"].sum() for key in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert len({*sums}) == 3
    assert sums[0] == sums[1]


def test_two_problems_of_a_case_differ_in_a_few_elements_only() -> None:
    _, before, after = problems_of(tiny_case("matmul", "forward"), 0)
    for name, array in before.inputs.items():
        assert 0 < (array != after.inputs[name]).sum() <= SPOTS


# The median over the elements of bound / |value|, in roundings; a bound that grows hides errors.
ROUNDINGS = {
    "matmul": {"y": 600, "dx": 3500, "dweight": 600},
    "softmax": {"probs": 80, "dx": 150},
    "attention": {"y": 1700, "dqkv": 8500},
    "cross_entropy": {"logits": 110, "losses": 20},
    "layer_norm": {"y": 130, "dx": 450, "dweight": 17000, "dbias": 800},
    "gelu": {"y": 9, "dx": 23},
    "adamw": {"param": 14, "first": 8, "second": 7},
    "rms_norm": {"normed": 57, "dstream": 150, "dweight": 980},
    "rotary": {"x": 2, "pairs": 2},
    "swiglu": {"y": 9, "dhalves": 14},
    "relu_squared": {"squares": 2, "dhidden": 2},
    "muon": {"y": 30000},
}


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_the_truth_passes_a_spoiled_result_is_refused_and_bounds_count_roundings(
    operation: str,
) -> None:
    for direction in cases.directions(operation):
        found = Problem(cases.case(operation, direction, "awkward"), 0, 0)
        expected = found.case.truth(found.inputs)
        exact = {name: truth.values.astype(np.float32) for name, truth in expected.items()}
        found.check(found.inputs | exact)
        for name, truth in expected.items():
            for index, spoiled in ((..., 0.5), (-1, 0.5), (0, np.nan)):
                array = exact[name].copy()
                array.reshape(-1)[index] *= spoiled
                with pytest.raises(WrongResult):
                    found.check(found.inputs | exact | {name: array})
            sizes = np.abs(truth.values)
            bound = np.broadcast_to(truth.bound, sizes.shape)[sizes > 0]
            roundings = float(np.median(bound / sizes[sizes > 0])) / 2.0**-24
            known = ROUNDINGS[operation][name]
            assert known / 2 < roundings < 2 * known, name


def test_what_is_accepted_is_within_the_bound_to_the_last_float32() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    for bound in (0.0, np.abs(values) * 2.0**-23, 1e-3):
        accepted = accept(Expected(values, bound))
        for start in (values - bound, values, values + bound):
            near = start.astype(np.float32)
            for far in (-9, 9):
                array = np.nextafter(near, np.float32(far))
                right = np.abs(array.astype(np.float64) - values) <= bound
                np.testing.assert_array_equal(
                    (array >= accepted.low) & (array <= accepted.high), right
                )
