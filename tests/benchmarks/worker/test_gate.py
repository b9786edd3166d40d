"""The gate refuses kernels that are wrong: slightly, at an edge, or the second time."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import cases
from benchmarks.cases import Direction, Expected, KernelCase
from benchmarks.ladders import Call
from benchmarks.worker.gate import PROBLEMS, Problem, WrongResult, compare

POOL = ThreadPoolExecutor(1)
Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def truth(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"z": Expected(x + y, 2.0**-24 * np.abs(x + y))}


def truth_in_place(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"x": truth(x, y)["z"]}


ADDITION = Direction({"x": "NV", "y": "NV"}, {"z": "NV"}, truth, lambda _: 1)
IN_PLACE = replace(ADDITION, outputs={}, truth=truth_in_place, changed=("x",))


def problem(seed: int = 0, number: int = 0, how: Direction = ADDITION) -> Problem:
    case = KernelCase("addition", "forward", "tiny", {"N": 5, "V": 7}, how)
    return Problem(case, seed, number)


def pass_through(kernel: Callable[..., Any], how: Direction = ADDITION) -> None:
    for number in range(PROBLEMS):
        found = problem(0, number, how)
        call = found.call(1, POOL)
        kernel(*call.arrays.values())
        found.check(call)


def repeats(kept: list[np.ndarray]) -> Kernel:
    def kernel(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        kept.append(x + y)
        z[...] = kept[0]

    return kernel


def spoils_an_input(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    z[...] = x + y
    y[-1, -1] = 0


def writes_outside(offset: int) -> Kernel:
    def kernel(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        z[...] = x + y
        ctypes.c_float.from_address(z.ctypes.data + offset).value = 1.0

    return kernel


SPOT = np.arange(35).reshape(5, 7) == 17
ELEMENT, OUTSIDE = r"z\[\d, \d\] is .*", "memory before or after an array was written to"
WRONG: list[tuple[str, Kernel]] = [
    (ELEMENT, lambda x, y, z: None),
    (ELEMENT, lambda x, y, z: np.copyto(z[:, :-1], (x + y)[:, :-1])),
    (ELEMENT, lambda x, y, z: np.copyto(z, np.where(SPOT, np.inf, x + y))),
    (ELEMENT, lambda x, y, z: np.copyto(z, (x + y) * np.float32(1 + 2.0**-22))),
    (ELEMENT, repeats([])),
    ("the input y was changed", spoils_an_input),
    (OUTSIDE, writes_outside(-4)),
    (OUTSIDE, writes_outside(4 * 35)),
]


@pytest.mark.parametrize(("message", "kernel"), WRONG)
def test_a_wrong_kernel_is_refused(message: str, kernel: Kernel) -> None:
    with pytest.raises(WrongResult, match=f"^{message}$"):
        pass_through(kernel)


def test_an_input_must_be_changed_where_that_is_the_task() -> None:
    def add(x: np.ndarray, y: np.ndarray) -> None:
        x += y

    pass_through(np.add)  # Changes no input.
    pass_through(add, IN_PLACE)
    with pytest.raises(WrongResult, match=r"^x\[\d, \d\] is "):
        pass_through(np.add, IN_PLACE)


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


def test_every_array_begins_with_a_line_of_the_cache() -> None:
    found = Problem(cases.case("cross_entropy", "loss and gradient", "awkward"), 0, 0)
    for _ in range(20):
        call = found.call(1, POOL)
        assert [array.ctypes.data % 64 for array in call.arrays.values()] == [0] * len(call.arrays)
        for name, expected in found.inputs.items():
            np.testing.assert_array_equal(call.inputs[name], expected, strict=True)


def test_the_inputs_of_a_problem_depend_on_its_seed_and_number() -> None:
    sums = [problem(*key).inputs["x"].sum() for key in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert len({*sums}) == 3
    assert sums[0] == sums[1]


# The median over the elements of bound / |value|, in roundings; a bound that grows hides errors.
ROUNDINGS = {
    "matmul": {"y": 600, "dx": 3500, "dweight": 600},
    "softmax": {"probs": 80, "dx": 150},
    "attention": {"y": 1700, "dqkv": 8500},
    "cross_entropy": {"logits": 110, "losses": 20},
    "layer_norm": {"y": 130, "dx": 450, "dweight": 17000, "dbias": 800},
    "gelu": {"y": 9, "dx": 23},
    "adamw": {"param": 14, "first": 8, "second": 7},
}


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_the_truth_passes_a_spoiled_result_is_refused_and_bounds_count_roundings(
    operation: str,
) -> None:
    for direction in cases.directions(operation):
        found = Problem(cases.case(operation, direction, "awkward"), 0, 0)
        found.check(exact(found))
        with pytest.raises(WrongResult):
            found.check(found.call(1, POOL))
        for name, truth in found.truth.items():
            for index, spoiled in ((..., 0.5), (-1, 0.5), (0, np.nan)):
                call = exact(found)
                call.arrays[name].reshape(-1)[index] *= spoiled
                with pytest.raises(WrongResult):
                    found.check(call)
            sizes = np.abs(truth.values)
            bound = np.broadcast_to(truth.bound, sizes.shape)[sizes > 0]
            roundings = float(np.median(bound / sizes[sizes > 0])) / 2.0**-24
            known = ROUNDINGS[operation][name]
            assert known / 2 < roundings < 2 * known, name


def exact(problem: Problem) -> Call:
    """Return a call whose arrays hold the truth, rounded."""
    call = problem.call(1, POOL)
    for name, truth in problem.truth.items():
        call.arrays[name][...] = truth.values
    return call
