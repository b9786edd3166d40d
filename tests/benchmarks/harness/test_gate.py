"""The gate refuses kernels that are wrong: slightly, at an edge, or the second time."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import cases
from benchmarks.cases import Direction, Expected, KernelCase
from benchmarks.harness.gate import PROBLEMS, Problem, WrongResult, compare
from benchmarks.ladders import Call

POOL = ThreadPoolExecutor(1)
SIZES = {"N": 5, "V": 7}
Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def truth(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"z": Expected(x + y, 2.0**-24 * np.abs(x + y))}


def truth_in_place(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"x": truth(x, y)["z"]}


ADDITION = Direction({"x": "NV", "y": "NV"}, {"z": "NV"}, truth, lambda _: 1)
IN_PLACE = replace(
    ADDITION, outputs={}, truth=truth_in_place, changed=("x",)
)  # fmt: skip


def add(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    z[...] = x + y


class Last:
    """A kernel that returns its first result again."""

    def __init__(self) -> None:
        self.kept: np.ndarray | None = None

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        self.kept = x + y if self.kept is None else self.kept
        z[...] = self.kept


SPOT = np.arange(35).reshape(5, 7) == 17
WRONG: dict[str, Kernel] = {
    "zeros": lambda x, y, z: z.fill(0),
    "nothing": lambda x, y, z: None,
    "one row short": lambda x, y, z: np.copyto(z[:-1], (x + y)[:-1]),
    "one column short": lambda x, y, z: np.copyto(z[:, :-1], (x + y)[:, :-1]),
    "one row off": lambda x, y, z: np.copyto(z, np.roll(x, 1, axis=0) + y),
    "one element infinite": lambda x, y, z: np.copyto(z, np.where(SPOT, np.inf, x + y)),
    "a bit off": lambda x, y, z: np.copyto(z, (x + y) * np.float32(1 + 2.0**-22)),
}


def spoils_an_input(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    z[...] = x + y
    y[-1, -1] = 0


def pass_through(kernel: Kernel, how: Direction = ADDITION) -> None:
    case = KernelCase("addition", "forward", "tiny", SIZES, how)
    for number in range(PROBLEMS):
        problem = Problem(case, 0, number)
        call = problem.call(1, POOL)
        kernel(*call.arrays.values())
        problem.check(call)


@pytest.mark.parametrize("kernel", [*WRONG.values(), Last()], ids=[*WRONG, "repeated"])
def test_a_wrong_kernel_is_refused(kernel: Kernel) -> None:
    with pytest.raises(WrongResult, match=r"^z\[\d, \d\] is "):
        pass_through(kernel)


def test_an_input_that_is_changed_is_named() -> None:
    with pytest.raises(WrongResult, match=r"^the input y was changed$"):
        pass_through(spoils_an_input)


def test_an_input_must_be_changed_where_that_is_the_task() -> None:
    pass_through(add)  # Nothing is changed.

    def add_in_place(x: np.ndarray, y: np.ndarray, times: int = 1) -> None:
        x += times * y

    pass_through(add_in_place, IN_PLACE)  # pyright: ignore[reportArgumentType]
    with pytest.raises(WrongResult, match=r"^x\[\d, \d\] is "):
        pass_through(lambda x, y: add_in_place(x, y, 0), IN_PLACE)  # pyright: ignore


def test_the_worst_element_is_named_and_the_wrong_ones_are_counted() -> None:
    found = np.array([[1.0, 2.5, 3.0], [4.0, 5.0, 8.0]], np.float32)
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    bound = np.array([[1.0, 0.1, 1.0], [1.0, 1.0, 1.0]])
    message = r"^z\[0, 1\] is 2.5, expected 2 ± 0.1; 2 of 6 elements are wrong$"
    with pytest.raises(WrongResult, match=message):
        compare("z", found, Expected(values, bound))


def test_nan_and_not_an_exact_element_with_a_bound_of_zero_is_the_worst() -> None:
    found = np.array([0.0, 3.0], np.float32)
    with pytest.raises(WrongResult, match=r"^z\[1\] is 3.*; 1 of 2 elements are wrong$"):
        compare("z", found, Expected(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    found[1] = np.nan
    with pytest.raises(WrongResult, match=r"^z\[1\] is nan"):
        compare("z", found, Expected(np.full(2, 0.5), 1.0))


def test_where_the_truth_is_known_for_some_rows_the_others_must_be_finite() -> None:
    truth = Expected(np.zeros((1, 2)), 0.5, np.array([2]))
    found = np.zeros((3, 2), np.float32)
    found[0] = 9  # Not compared.
    compare("z", found, truth)
    found[2, 1] = 1
    with pytest.raises(WrongResult, match=r"^z\[2, 1\] is 1, expected 0"):
        compare("z", found, truth)
    found[0, 1] = np.nan
    with pytest.raises(WrongResult, match=r"^z\[0, 1\] is nan"):
        compare("z", found, truth)


@pytest.mark.parametrize("place", [-1, 1])
def test_a_kernel_that_writes_outside_an_array_is_refused(place: int) -> None:
    def add_and_more(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        add(x, y, z)
        beside = z.ctypes.data - 4 if place < 0 else z.ctypes.data + z.nbytes
        ctypes.c_float.from_address(beside).value = 1.0

    with pytest.raises(WrongResult, match=r"^memory before or after an array was written to$"):
        pass_through(add_and_more)


def test_every_array_begins_with_a_line_of_the_cache() -> None:
    problem = Problem(cases.case("cross_entropy", "loss and gradient", "awkward"), 0, 0)
    for _ in range(20):
        for name, array in problem.call(1, POOL).arrays.items():
            assert array.ctypes.data % 64 == 0
            expected = problem.inputs.get(name)
            if expected is not None:
                np.testing.assert_array_equal(array, expected)
                assert array.dtype == expected.dtype


def test_the_inputs_of_a_problem_depend_on_its_seed_and_number() -> None:
    case = KernelCase("addition", "forward", "tiny", SIZES, ADDITION)
    first, second, again = (Problem(case, 0, number).inputs["x"] for number in (0, 1, 0))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, Problem(case, 1, 0).inputs["x"])


def half(array: np.ndarray) -> None:
    array[...] *= 0.5


def repeat_the_last_element(array: np.ndarray) -> None:
    flat = array.reshape(-1)
    flat[-1] = flat[-2]


def leave_unwritten(array: np.ndarray) -> None:
    array.fill(np.nan)


@pytest.mark.parametrize("operation", cases.OPERATIONS)
@pytest.mark.parametrize("spoil", [half, repeat_the_last_element, leave_unwritten])
def test_of_every_operation_the_truth_passes_and_a_spoiled_result_is_refused(
    operation: str, spoil: Callable[[np.ndarray], None]
) -> None:
    for direction in cases.directions(operation):
        problem = Problem(cases.case(operation, direction, "awkward"), 0, 0)
        problem.check(exact(problem))
        for name in problem.truth:
            call = exact(problem)
            spoil(call.arrays[name])
            with pytest.raises(WrongResult):
                problem.check(call)


def test_results_that_are_not_written_are_refused() -> None:
    problem = Problem(cases.case("softmax", "forward", "awkward"), 0, 0)
    with pytest.raises(WrongResult):
        problem.check(problem.call(1, POOL))


# The median over the elements of bound / |value|, in roundings; a bound that grows hides errors.
ROUNDINGS = {
    "matmul forward y": 600,
    "matmul dx dx": 3500,
    "matmul dweight dweight": 600,
    "softmax forward probs": 80,
    "softmax backward dx": 150,
    "attention forward y": 1700,
    "attention backward dqkv": 8500,
    "cross_entropy loss and gradient logits": 110,
    "cross_entropy loss and gradient losses": 20,
    "layer_norm forward y": 130,
    "layer_norm backward dx": 450,
    "layer_norm backward dweight": 17000,
    "layer_norm backward dbias": 800,
    "gelu forward y": 9,
    "gelu backward dx": 23,
    "adamw update param": 14,
    "adamw update first": 8,
    "adamw update second": 7,
}


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_a_bound_is_no_larger_than_the_roundings_it_counts(operation: str) -> None:
    for direction in cases.directions(operation):
        problem = Problem(cases.case(operation, direction, "awkward"), 0, 0)
        for name, truth in problem.truth.items():
            sizes = np.abs(truth.values)
            bound = np.broadcast_to(truth.bound, sizes.shape)[sizes > 0]
            roundings = float(np.median(bound / sizes[sizes > 0])) / 2.0**-24
            known = ROUNDINGS[f"{operation} {direction} {name}"]
            assert known / 2 < roundings < 2 * known, name


def exact(problem: Problem) -> Call:
    """Return a call whose arrays hold the truth, rounded."""
    call = problem.call(1, POOL)
    for name, truth in problem.truth.items():
        call.arrays[name][...] = truth.values
    return call
