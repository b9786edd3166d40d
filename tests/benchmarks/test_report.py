"""What is made of samples, and how it is shown."""

from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.rounds import Measured


def measured() -> Measured:
    """Two rounds: ours takes 1 s and 2 s, a twice and b thrice that, and the peak is 40 FLOP/s."""
    found = Measured(left_out={"c": "c has stopped: no [compiler]"})
    for name, times in (("ours", 1.0), ("b", 3.0), ("a", 2.0)):
        found.ready[name] = {"flops": 12.0, "warm_up_seconds": 5.0}
        found.turns[name] = [[times, times, 9 * times], [2 * times]]
        found.memory[name] = 7_000_000
    found.ready["peak"] = {"flops": 40.0, "warm_up_seconds": 1.0}
    found.turns["peak"], found.memory["peak"] = [[1.0, 2.0], [1.0]], 1
    return found


def summary_of(name: str) -> dict[str, Any]:
    return report.summarise(measured(), tokens=6)["sides"][name]["summary"]


def shown(found: Measured) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        report.show({**report.summarise(found, tokens=6), "name": "toy"}, console)
    return capture.get()


def test_the_median_is_over_rounds_and_the_extremes_over_steps() -> None:
    ours = summary_of("ours")
    assert (ours["median"], ours["min"], ours["max"]) == (1.5, 1.0, 9.0)


def test_speeds_are_of_the_median() -> None:
    ours = summary_of("ours")
    assert (ours["tokens_per_second"], ours["flops_per_second"]) == (4.0, 8.0)


def test_the_share_of_the_peak_is_of_the_one_measured_beside_it() -> None:
    assert summary_of("ours")["share_of_peak"] == 8 / 40


def test_the_ratio_is_theirs_by_ours() -> None:
    assert summary_of("b")["ratio"]["median"] == 3.0


def test_the_better_one_is_the_one_with_the_smaller_median() -> None:
    assert report.summarise(measured(), tokens=6)["better"] == "a"


def test_all_samples_are_kept() -> None:
    sides = report.summarise(measured(), tokens=6)["sides"]
    assert sides["b"]["seconds"] == [[3.0, 3.0, 27.0], [6.0]]


def test_without_the_peak_there_is_no_share_of_it() -> None:
    found = measured()
    del found.ready["peak"], found.turns["peak"]
    assert report.summarise(found, tokens=6)["sides"]["ours"]["summary"]["share_of_peak"] is None


def test_what_was_left_out_is_shown_with_its_reason() -> None:
    assert "left out: c has stopped: no [compiler]" in shown(measured())


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    assert "…" not in shown(measured())


def test_ours_alone_is_shown_too() -> None:
    found = measured()
    for name in ("a", "b"):
        del found.ready[name], found.turns[name]
    assert "1500.0" in shown(found)


def test_a_run_stopped_before_its_first_round_shows_no_table() -> None:
    found = measured()
    found.turns, found.stopped = {name: [] for name in found.turns}, True
    assert shown(found).splitlines()[1:] == ["stopped after 0 whole rounds"]
