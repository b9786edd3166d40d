"""Planting the bugs: what a result says, and that each room's mutants are all tried."""

import multiprocessing
from dataclasses import replace

import pytest

from tinygpt_np.compiled.waiting import StuckError
from tinygpt_np.gradcheck import detectors, mutations
from tinygpt_np.gradcheck.detectors import MutantResult
from tinygpt_np.gradcheck.mutations import sites

SMALL = ("embedding", "dropout")


@pytest.fixture(scope="module")
def results() -> list[MutantResult]:
    """All mutants of two small rooms, tried in processes of their own."""
    return list(detectors.run(SMALL, 0))


def find(results: list[MutantResult], after: str) -> MutantResult:
    return next(result for result in results if result.after == after)


def test_every_mutant_of_the_rooms_is_tried_once(results: list[MutantResult]) -> None:
    expected = [
        (site.operation, mutation.before, mutation.after)
        for site in sites()
        if site.operation in SMALL
        for mutation in site.mutations()
    ]
    assert sorted((r.operation, r.before, r.after) for r in results) == sorted(expected)
    assert len(results) == mutations.count(SMALL)


def test_every_bug_is_killed_and_every_other_mutant_listed(results: list[MutantResult]) -> None:
    assert [result for result in results if result.error] == []
    assert all(result.killed != bool(result.reason) for result in results)


def test_a_result_says_what_is_wrong(results: list[MutantResult]) -> None:
    lost = find(results, "dweight[ids] += drows")
    assert lost.kind == "scatter"
    assert lost.line == 33
    assert "weight: off by" in lost.problem


def test_a_mutant_that_raises_says_so_and_is_noticed(results: list[MutantResult]) -> None:
    swapped = find(results, "shape, ids = saved")
    assert swapped.raised
    assert swapped.problem == f"raises {swapped.raised}"
    assert swapped.killed


def test_a_survivor_that_is_not_listed_is_an_error(results: list[MutantResult]) -> None:
    equivalent = find(results, "dweight = -np.zeros(shape, dtype=drows.dtype)")
    assert replace(equivalent, reason="").error == "survived, and is not listed as changing nothing"


def test_a_listed_mutant_that_changes_a_gradient_is_an_error(results: list[MutantResult]) -> None:
    bug = find(results, "dweight[ids] = drows")
    listed = replace(bug, reason="it is harmless")
    assert listed.error == "listed as changing nothing, but it changes a gradient"


def test_a_listed_mutant_is_looked_at_elsewhere_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = next(site for site in sites() if site.operation == "linear")
    # Right wherever there is a bias, so it needs the variant without one.
    mutation = next(m for m in chosen.mutations() if m.after == "dbias = dy.sum(axis=0)")
    key = ("linear", "backward", mutation.before, mutation.after)
    monkeypatch.setitem(detectors.EQUIVALENT, key, "it is harmless")
    assert detectors.plant(chosen, mutation, 0).error


def test_a_judge_that_accuses_the_right_backward_stops_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In this process, where the judge can be made unfair.
    monkeypatch.setattr("tinygpt_np.gradcheck.detectors.STEPS", 1)
    monkeypatch.setattr(detectors, "RESULTS", [Sink()])
    with pytest.raises(RuntimeError, match=r"dropout\.backward is right, .*: loss"):
        detectors.work(("dropout", 0))


class Sink:
    def put(self, result: MutantResult) -> None: ...


def test_all_rooms_have_a_name_that_gradcheck_knows() -> None:
    from tinygpt_np.gradcheck import suite

    assert set(mutations.OPERATIONS) == set(suite.NAMES) - {"block", "bigram", "step"}


def test_a_worker_that_is_killed_ends_the_run_with_an_error() -> None:
    results = detectors.run(("attention",), 0)
    next(results)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(StuckError, match="a worker process has been killed"):
        list(results)
