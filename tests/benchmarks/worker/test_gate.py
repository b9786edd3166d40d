"""The gate refuses kernels that are wrong: slightly, at an edge, later, or when they are timed."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.gate import POOL, problems
from helpers.toy_cheats import CHEATS, SOFTMAX_CHEATS, numbered, work

from benchmarks import cases
from benchmarks.cases import Direction, Expected, KernelCase
from benchmarks.ladders import Call, Runner, contiguous
from benchmarks.worker.gate import VARIED, Gate, Trial, refusal
from benchmarks.worker.problem import Problem, WrongResult, problems_of
from tinygpt_np.compiled.threads import limited

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
HONEST = numbered(lambda _, call: work(call))


def truth(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"z": Expected(x + y, 2.0**-24 * np.abs(x + y))}


def truth_in_place(x: np.ndarray, y: np.ndarray) -> dict[str, Expected]:
    return {"x": truth(x, y)["z"]}


ADDITION = Direction({"x": "NV", "y": "NV"}, {"z": "NV"}, truth, lambda _: 1)
IN_PLACE = replace(ADDITION, outputs={}, truth=truth_in_place, changed=("x",))


def addition(how: Direction = ADDITION) -> list[Problem]:
    return problems_of(KernelCase("addition", "forward", "tiny", {"N": 5, "V": 7}, how), 0)


def admit(runner: Runner, given: Sequence[Problem]) -> str:
    """Take a runner through the gate and three turns; return the layouts that it takes."""
    with limited(1):
        gate = Gate(runner, given, 1, POOL)
        gate.open()
        for _ in range(3):
            with gate.turn():
                for _ in range(5):
                    gate.trial.restore()
                    gate.trial.step()
        gate.cpus.clear()  # Threads of other tests may be running.
        return gate.close()


def pass_through(kernel: Callable[..., Any], how: Direction = ADDITION) -> None:
    admit(Runner(lambda call: partial(kernel, *call.arrays.values())), addition(how))


def given(operation: str, shape: str) -> Sequence[Problem]:
    if shape == "tiny":
        return problems(operation, direction_of(operation))
    return problems_of(cases.case(operation, direction_of(operation), shape), 0)


def direction_of(operation: str) -> str:
    return cases.directions(operation)[0]


SMALL = [("softmax", "tiny"), ("matmul", "tiny"), ("adamw", "tiny"), ("softmax", "awkward"),
         ("softmax", "cpu")]  # fmt: skip
LARGE = [("softmax", "lecture"), ("softmax", "gpt2"), ("matmul", "lecture"), ("adamw", "lecture")]


def check_all(operation: str, shape: str) -> None:
    """Check that all cheats are refused and that an honest runner is not."""
    found, passed = given(operation, shape), list[str]()
    cheats = CHEATS | (SOFTMAX_CHEATS if operation == "softmax" else {})
    for name, runner in cheats.items():
        # The memory behind an array may hold anything.
        with np.errstate(all="ignore"), suppress(WrongResult):
            admit(runner, found)
            passed.append(name)
    assert passed == []
    assert admit(HONEST, found) == "any"


@pytest.mark.parametrize(("operation", "shape"), SMALL)
def test_every_cheat_is_refused(operation: str, shape: str) -> None:
    check_all(operation, shape)


def test_cheats_that_do_not_wait_are_refused_before_they_are_timed() -> None:
    waiting = {name for name in CHEATS if "turn" in name} | {
        "assumes contiguous memory", "assumes aligned memory"
    }  # fmt: skip
    for name in CHEATS.keys() - waiting:
        # Its time would tell, too.
        gate = Gate(CHEATS[name], given("softmax", "tiny"), 1, POOL, clock=lambda: 0.0)
        with pytest.raises(WrongResult):
            gate.open()


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "shape"), LARGE)
def test_every_cheat_is_refused_at_large_sizes(operation: str, shape: str) -> None:
    check_all(operation, shape)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaves the last eighth", r"probs\[20, 0\] (was nan when the step returned|is nan,) .*"),
        ("stops in the first turn", r"in turn 1: probs\[.*\] is .*, expected .* ± .* wrong"),
        ("writes 256 bytes behind", "memory behind probs was written to: 256 bytes, .*"),
        ("assumes contiguous memory", "with arrays that are not contiguous: .*"),
        ("assumes aligned memory", "with arrays that are not aligned: .*"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_found(name: str, said: str) -> None:
    with pytest.raises(WrongResult, match=f"^{said}$"):
        admit(CHEATS[name], given("softmax", "tiny"))


def test_an_honest_kernel_passes_a_hundred_times() -> None:
    found = given("softmax", "tiny")
    assert {admit(HONEST, found) for _ in range(100)} == {"any"}


@pytest.mark.parametrize("keeps", [True, False])
def test_a_kernel_that_keeps_results_is_refused_and_finds_none_in_a_sample(keeps: bool) -> None:
    clock, computed = [0.0], list[float]()

    def prepare(call: Call) -> Callable[[], Any]:
        kept: dict[Any, np.ndarray] = {}
        x, y = call.inputs.values()

        def step() -> None:
            key = x.tobytes(), y.tobytes()
            clock[0] += 1e-6
            if not keeps or key not in kept:
                computed.append(clock[0])
                kept[key] = x + y
                clock[0] += 1e-5
            call.outputs["z"][...] = kept[key]

        return step

    gate = Gate(Runner(prepare), addition(), 1, POOL, clock=lambda: clock[0])
    gate.open()
    with gate.turn():
        for _ in range(20):
            gate.trial.restore()
            before = len(computed)
            gate.trial.step()
            gate.trial.step()
            assert len(computed) - before == (1 if keeps else 2)
    if keeps:
        with pytest.raises(WrongResult, match=r"it keeps results: 1 µs .* at least 11 µs"):
            gate.close()
    else:
        assert gate.close() == "any"


def test_a_kernel_that_takes_longer_after_a_pause_keeps_no_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, paused = [0.0], [False]
    draw = Trial.draw

    def slow_draw(trial: Trial) -> Any:
        paused[0] = True
        return draw(trial)

    def prepare(call: Call) -> Callable[[], Any]:
        def step() -> None:
            np.add(*call.arrays.values())
            clock[0] += 2e-6 if paused[0] else 1e-6
            paused[0] = False

        return step

    monkeypatch.setattr(Trial, "draw", slow_draw)
    gate = Gate(Runner(prepare), addition(), 1, POOL, clock=lambda: clock[0])
    gate.open()
    with gate.turn():
        gate.trial.step()
    assert gate.close() == "any"


def test_in_each_turn_the_arrays_have_another_problem_and_poisoned_outputs() -> None:
    gate = Gate(Runner(lambda call: partial(np.add, *call.arrays.values())), addition(), 1, POOL)
    gate.open()
    seen: list[bytes] = []
    for _ in range(3):
        with gate.turn():
            x, _, z = gate.trial.call.arrays.values()
            seen.append(x.tobytes())
            assert np.isnan(z).all()
    assert len({*seen}) == 3


def test_what_varies_between_samples_is_not_what_is_known_and_is_put_back() -> None:
    (problem, *_) = addition(replace(IN_PLACE, known=("y",)))
    trial = Trial(Runner(lambda call: partial(np.add, *call.arrays.values())), problem, 1, POOL)
    trial.give(problem)
    x, y = trial.call.inputs.values()
    seen: list[bytes] = []
    for draw in (True, False, True):
        x.fill(0)  # As the kernel overwrites it.
        assert trial.restore(draw) == ()
        assert 0 < (x != problem.inputs["x"]).sum() <= VARIED
        seen.append(x.tobytes())
    assert seen[0] == seen[1] != seen[2]
    np.testing.assert_array_equal(y, problem.inputs["y"])
    x.fill(0)
    trial.settle()
    np.testing.assert_array_equal(x, problem.inputs["x"])


def test_a_long_step_is_checked_after_some_turns_only() -> None:
    clock, taken = [0.0], [0]

    def step(call: Call) -> None:
        taken[0] += 1
        clock[0] += 1.0
        np.add(*call.arrays.values())

    gate = Gate(
        Runner(lambda call: partial(step, call)), addition(), 1, POOL, clock=lambda: clock[0]
    )
    gate.open()
    before = taken[0]
    for _ in range(400):
        with gate.turn():
            gate.trial.step()
    assert 2 < taken[0] - before - 400 < 60  # 20 are expected.


def test_a_long_step_gets_a_problem_without_poisoned_outputs_after_the_last_turn() -> None:
    runner, clock = SOFTMAX_CHEATS["works only where poisoned"], itertools.count(0, 10**9)
    gate = Gate(runner, given("softmax", "tiny"), 1, POOL, clock=lambda: next(clock))
    gate.open()
    with gate.turn():
        gate.trial.step()
    assert gate.wrong == ""  # No step is taken after a turn.
    with pytest.raises(WrongResult, match=r"^probs\[.* wrong$"):
        gate.close()


@pytest.mark.parametrize(
    ("threads", "cpus", "refused"), [(1, 1.05, False), (1, 1.5, True), (2, 2.05, False)]
)
def test_a_kernel_that_starts_threads_of_its_own_is_refused(
    threads: int, cpus: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: cpus * now[0])
    monkeypatch.setattr("benchmarks.worker.gate.time", clock)
    runner = Runner(lambda call: partial(np.add, *call.arrays.values()))
    gate = Gate(runner, addition(), threads, POOL, clock=lambda: 0.0)
    gate.open()
    for seconds in (1.0, 2.0, 1.0):
        with gate.turn():
            gate.trial.step()
            now[0] += seconds
    if refused:
        with pytest.raises(WrongResult, match=r"it used 1\.5 CPUs, and was asked to use 1"):
            gate.close()
    else:
        assert gate.close() == "any"


def spoils_an_input(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    z[...] = x + y
    y[-1, -1] = 0


SPOT = np.arange(35).reshape(5, 7) == 17
ELEMENT = r"z\[\d, \d\] is .*"
WRONG: list[tuple[str, Kernel]] = [
    (ELEMENT, lambda x, y, z: None),
    (ELEMENT, lambda x, y, z: np.copyto(z[:, :-1], (x + y)[:, :-1])),
    (ELEMENT, lambda x, y, z: np.copyto(z, np.where(SPOT, np.inf, x + y))),
    (ELEMENT, lambda x, y, z: np.copyto(z, (x + y) * np.float32(1 + 2.0**-22))),
    (r"the input y was changed: y\[4, 6\] is 0, expected .*; 1 of 35 elements", spoils_an_input),
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


def test_prepare_sees_garbage_and_a_save_only_what_is_known() -> None:
    seen: dict[str, bool] = {}

    def all_nan(call: Call) -> dict[str, bool]:
        return {name: bool(np.isnan(array).all()) for name, array in call.arrays.items()}

    def prepare(call: Call) -> Callable[[], Any]:
        assert all_nan(call) == {"x": True, "y": True, "z": True}
        call.saves.append(lambda: seen.update(all_nan(call)))
        return partial(np.add, *call.arrays.values())

    admit(Runner(prepare), addition(replace(ADDITION, known=("y",))))
    assert (seen["x"], seen["y"]) == (True, False)


def test_what_a_kernel_refuses_is_told_and_other_errors_are_not_forgiven() -> None:
    def prepare(call: Call, error: type[Exception]) -> Callable[[], Any]:
        if call.arrays["x"].ctypes.data % 64:
            raise error("it must be aligned")
        return partial(np.add, *call.arrays.values())

    honest = {"forward": Runner(partial(prepare, error=TypeError))}
    assert admit(honest["forward"], addition()) == "aligned only"
    assert admit(Runner(partial(prepare, error=AssertionError)), addition()) == "aligned only"
    assert admit(contiguous({"forward": HONEST})["forward"], given("softmax", "tiny")) == (
        "contiguous only"
    )
    assert admit(contiguous(honest)["forward"], addition()) == "aligned and contiguous only"
    with pytest.raises(IndexError):
        admit(Runner(partial(prepare, error=IndexError)), addition())


def test_what_a_step_returns_is_checked_too() -> None:
    def collect(call: Call, returned: np.ndarray) -> None:
        call.outputs["z"][...] = returned

    def runner(least: int) -> Runner:
        """Return a runner that returns zeros from step `least` on."""
        taken: list[int] = []

        def step(call: Call) -> np.ndarray:
            taken.append(0)
            x, y = call.inputs.values()
            return np.multiply(x + y, np.float32(len(taken) < least))

        return Runner(lambda call: partial(step, call), collect=collect)

    assert admit(runner(1000), addition()) == "any"
    with pytest.raises(WrongResult, match=r"^in turn 1: z"):
        admit(runner(6), addition())


def test_an_error_is_told_with_its_traceback() -> None:
    try:
        raise IndexError("out of the toy")
    except IndexError as error:
        found = refusal(error)
    assert found["wrong"] == "IndexError: out of the toy"
    assert "test_gate.py" in found["traceback"]
    assert refusal(WrongResult("z is wrong")) == {"wrong": "z is wrong"}
