"""Every rung is right at sizes that nothing divides, and some are the kernels of training."""

import pytest
from helpers.gate import pass_gate

from benchmarks import ROOT, cases, ladders
from benchmarks.ladders import Rung
from benchmarks.worker.rungs import module_of

CASES = [
    (operation, direction, rung, threads)
    for operation in cases.OPERATIONS
    for direction in cases.directions(operation)
    for rung in ladders.rungs(operation)
    for threads in ((1,) if rung.threads == "one" else (1, 3))
    if direction in rung.runners
]


@pytest.mark.parametrize(
    ("operation", "direction", "rung", "threads"),
    CASES,
    ids=lambda part: part.name if isinstance(part, Rung) else str(part),
)
def test_every_rung_is_right(operation: str, direction: str, rung: Rung, threads: int) -> None:
    pass_gate(rung, operation, direction, threads)


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_all_rungs_are_right_where_all_sizes_are_equal_and_small(operation: str, size: int) -> None:
    shape = f"{'='.join(cases.sizes(operation, 'cpu'))}={size}"
    for _, direction, rung, threads in (each for each in CASES if each[0] == operation):
        assert cases.case(operation, direction, shape).flops > 0
        pass_gate(rung, operation, direction, threads, shape)


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_one_rung_is_that_of_training_on_one_thread_and_one_on_several(operation: str) -> None:
    rungs = ladders.rungs(operation)
    assert len({rung.name for rung in rungs}) == len(rungs)
    trained = [rung for rung in rungs if rung.trained]
    assert [rung.threads for rung in trained] == ["one", "several"]
    assert not any(rung.reference for rung in trained)
    for rung in trained:
        assert tuple(rung.runners) == cases.directions(operation)
        for runner in rung.runners.values():
            modules = {module_of(function) for function in runner.compiled}
            assert modules == {f"tinygpt_np.compiled.kernels.{operation}"}


def test_ladders_cases_and_kernels_have_the_same_names() -> None:
    ladders, cases_, kernels = (
        {path.stem for path in (ROOT / folder).glob("*.py")}
        for folder in ("benchmarks/ladders", "benchmarks/cases", "tinygpt_np/compiled/kernels")
    )
    assert ladders - {"__init__", "products"} == set(cases.OPERATIONS)
    assert cases_ & kernels >= set(cases.OPERATIONS)
