"""Every rung does its task, at sizes that nothing divides; and the last is what training uses."""

import pytest
from gated import pass_gate

from benchmarks import ladders, tasks
from benchmarks.compiles import module_of
from benchmarks.ladders import Rung
from benchmarks.workers import ROOT

CASES = [
    (operation, direction, rung, threads)
    for operation in tasks.OPERATIONS
    for direction in tasks.directions(operation)
    for rung in ladders.rungs(operation)
    for threads in ((1,) if rung.threads == "one" else (1, 3))
    if direction in rung.ways
]
NAMES = [f"{operation}-{way}-{rung.name}-{threads}" for operation, way, rung, threads in CASES]
every_rung = pytest.mark.parametrize(
    ("operation", "direction", "rung", "threads"), CASES, ids=NAMES
)


@every_rung
def test_every_rung_is_right(operation: str, direction: str, rung: Rung, threads: int) -> None:
    pass_gate(rung, operation, direction, threads)


@pytest.mark.parametrize("operation", tasks.OPERATIONS)
def test_the_last_rung_is_the_kernel_of_training_itself(operation: str) -> None:
    *_, last = [rung for rung in ladders.rungs(operation) if not rung.reference]
    for way in last.ways.values():
        rooms = {module_of(function) for function in way.compiled}
        assert rooms == {f"tinygpt_np.compiled.kernels.{operation}"}


def test_ladders_tasks_and_kernels_have_the_same_names() -> None:
    for room in ("benchmarks/ladders", "benchmarks/tasks", "tests/benchmarks/tasks"):
        names = {path.stem.removeprefix("test_") for path in (ROOT / room).glob("*.py")}
        assert names - {"__init__"} == set(tasks.OPERATIONS), room
    assert {path.stem for path in (ROOT / "tinygpt_np/compiled/kernels").glob("*.py")} >= set(
        tasks.OPERATIONS
    )


@pytest.mark.parametrize("operation", tasks.OPERATIONS)
def test_the_last_rung_goes_in_every_direction(operation: str) -> None:
    *_, last = [rung for rung in ladders.rungs(operation) if not rung.reference]
    assert tuple(last.ways) == tasks.directions(operation)


@pytest.mark.parametrize("operation", tasks.OPERATIONS)
def test_rungs_have_names_of_their_own_and_ideas_that_are_sentences(operation: str) -> None:
    rungs = ladders.rungs(operation)
    assert len({rung.name for rung in rungs}) == len(rungs)
    assert all(rung.idea.endswith(".") for rung in rungs)


@pytest.mark.parametrize("operation", tasks.OPERATIONS)
def test_every_shape_has_sizes(operation: str) -> None:
    assert tuple(tasks.module(operation).SIZES) == tasks.SHAPES
