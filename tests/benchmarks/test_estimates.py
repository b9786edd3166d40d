"""Cases that are too large to be measured."""

from dataclasses import replace
from unittest.mock import Mock

import pytest

from benchmarks import cases, estimates
from benchmarks.cases.sweeps import Sweep
from benchmarks.plan import Plan

SWEEP = Plan(["attention"], ["cpu"], [1], rounds=1, sweep=Sweep((), (8, 64, 512)))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the machine two gigabytes."""
    monkeypatch.setattr(estimates, "available_memory", lambda: 2e9)


def test_memory_grows_with_the_numbers_and_the_candidates() -> None:
    small, large = (cases.case("gelu", "forward", f"P={size}") for size in (1000, 3000))
    assert small.numbers == 2000
    more, most = (estimates.memory(each, SWEEP) - estimates.LEAST for each in (small, large))
    assert most == 3 * more > 0
    more = replace(SWEEP, peers=("torch",))
    assert estimates.memory(small, more) > estimates.memory(small, SWEEP) + 2000 * estimates.TRUTH


def test_the_scores_of_attention_count_as_numbers() -> None:
    case = cases.case("attention", "forward", "B=2,T=10,H=3,D=5")
    assert case.numbers == 2 * 10 * 3 * 5 * 4 + 2 * 3 * 10 * 10


def test_what_needs_too_much_memory_is_named_with_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = replace(SWEEP, sweep=Sweep((), (8, 4096, 8192)))
    lines = [*estimates.in_words(estimates.obstacles(plan))]
    assert len(lines) == 2
    assert lines[0].startswith("attention forward at T=4096 and 1 larger, which needs about ")
    assert lines[0].endswith(" GB of memory, 2.0 GB are free")
    needed = estimates.memory(cases.case("attention", "forward", "T=4096"), plan)
    for free in (needed * 1.001, needed * 0.999):
        monkeypatch.setattr(estimates, "available_memory", Mock(return_value=free))
        left_out = ("attention", "forward", "T=4096") in estimates.obstacles(plan)
        assert left_out == (needed > free)
    typed = replace(plan, sweep=None, shapes=["cpu", "T=8192"])
    assert [names[-1] for names in estimates.obstacles(typed)] == ["T=8192"] * 2


def test_named_shapes_are_always_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "available_memory", lambda: 0)
    assert estimates.obstacles(replace(SWEEP, sweep=None)) == {}


def test_what_takes_too_long_is_left_out_of_a_sweep_only(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.case("attention", "backward", "T=512")
    monkeypatch.setattr(estimates, "PATIENCE", estimates.seconds(case, SWEEP) - 1e-9)
    found = estimates.obstacles(SWEEP)
    assert {*found} == {("attention", "backward", "T=512")}
    assert list(found.values()) == ["takes about 0 minutes"]
    assert estimates.obstacles(replace(SWEEP, sweep=None, shapes=["T=512"])) == {}
    longer = replace(SWEEP, rounds=9)
    assert estimates.seconds(case, longer) > estimates.seconds(case, SWEEP)
