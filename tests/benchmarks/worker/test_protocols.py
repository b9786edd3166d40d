"""The other clocks: a plain C program, and timeit."""

from unittest.mock import Mock

import pytest
from helpers.optional import needs_programs

from benchmarks.worker import protocols


@needs_programs("cc")
def test_the_program_compiles_without_a_warning_and_prints_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    warnings = ("-Wall", "-Wextra", "-Werror")
    monkeypatch.setattr(protocols, "COMPILER", (*protocols.COMPILER, *warnings))
    program = protocols.Program()
    program.compile()
    assert capfd.readouterr().err == ""
    for name, threads in (("peak", 1), ("peak", 2), ("triad", 1), ("triad", 2)):
        program.open(name, threads, 1 << 18)
        found = program.turn()["seconds"]
        assert len(found) == 9
        # From an emulated processor to one with a hundred times today's speed.
        assert all(1e-14 < each < 1e-5 for each in found)
    program.folder.cleanup()


def test_timeit_repeats_the_step_that_the_clock_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Mock(autorange=Mock(return_value=(50, 0.2)))
    timer.repeat.return_value = [3.0, 2.0, 9.0]
    monkeypatch.setattr(protocols.timeit, "Timer", made := Mock(return_value=timer))
    found = protocols.Timeit("benchmarks.ladders", 0, {})
    found.begin("softmax", "forward", "awkward")
    with found.limit:
        assert found.open("NumPy", 1)["wrong"] is None
        assert found.timeit() == {"seconds": [3.0 / 50]}
    timer.repeat.assert_called_once_with(protocols.REPEATS, 50)
    made.assert_called_once_with(found.timed.step)
