"""The use of the CPUs, and what sets their speed."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks import cpus

# user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second
BEFORE = """cpu  0 0 0 0 0 0 0 0 0 0
cpu0 100 0 50 1000 10 5 5 20 0 0
cpu1 100 0 50 1000 10 5 5 20 0 0
cpu7 1 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""
AFTER = BEFORE.replace("cpu0 100 0 50 1000", "cpu0 150 10 60 1020").replace(
    "cpu1 100 0 50 1000 10 5 5 20", "cpu1 100 0 50 1078 17 5 5 25"
)


@pytest.fixture
def statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stat"
    path.write_text(BEFORE)
    monkeypatch.setattr(cpus, "STATISTICS", path)
    monkeypatch.setattr(cpus, "affinity", lambda: [0, 1])
    monkeypatch.setattr(cpus.os, "sysconf", Mock(return_value=100))
    monkeypatch.setattr(cpus.os, "times", lambda: (1.0, 0.5, 4.0, 1.0, 99.0))
    return path


def test_a_cpu_that_comes_or_goes_during_a_run_is_left_out(
    statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "affinity", lambda: None)
    before = cpus.times()
    statistics.write_text(AFTER.replace("cpu7", "cpu8"))
    usage = cpus.usage(before)
    assert usage is not None
    assert list(usage["busy"]) == ["0", "1"]
    statistics.write_text("cpu9 1 1 1 1 1 1 1 1\n")
    assert cpus.usage(before) is None


def test_others_used_what_this_process_and_its_children_did_not(
    statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cpus.times()

    def sleep(_: float) -> None:
        statistics.write_text(AFTER)

    monkeypatch.setattr(cpus.time, "sleep", sleep)
    expected: dict[str, Any] = {
        "busy": {"0": round(0.7 / 0.9, 3), "1": 0.0}, "steal": {"0": 0.0, "1": round(0.05 / 0.9, 3)}
    }  # fmt: skip
    assert cpus.watch() == {**expected, "others": round(0.7 / 0.9, 2)}
    monkeypatch.setattr(cpus.os, "times", lambda: (1.1, 0.5, 4.1, 1.1, 99.0))
    assert cpus.usage(before) == {**expected, "others": round(0.4 / 0.9, 2)}


def test_what_the_system_does_not_say_is_unknown(
    statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "FOLDER", tmp_path)
    for text in ("cpu0 0 0 0 0 0 0 0 0 0 0\n", "cpu0 1 2 3\n", ""):
        statistics.write_text(text)
        assert cpus.watch() is None
    statistics.unlink()
    assert cpus.watch() is None
    monkeypatch.setattr(cpus, "affinity", lambda: None)
    facts = {**cpus.facts(), "load": None, "usage": None}
    assert set(cpus.in_words(facts).values()) == {"unknown"}
    assert cpus.busy(None) == []


def test_what_sets_the_speed_of_cpus_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "FOLDER", tmp_path)
    monkeypatch.setattr(cpus, "affinity", lambda: [0, 2])
    monkeypatch.setattr(cpus.os, "cpu_count", lambda: 4)
    for cpu in range(4):
        for name, line in (
            ("cpufreq/scaling_governor", "powersave"),
            ("topology/thread_siblings_list", f"{cpu % 2},{cpu % 2 + 2}"),
        ):
            path = tmp_path / f"cpu{cpu}" / name
            path.parent.mkdir(parents=True)
            path.write_text(f"{line}\n")
    usage = {"busy": {"0": 0.1, "2": 0.97}, "steal": {"0": 0.0, "2": 0.04}, "others": 1.07}
    facts = {**cpus.facts(), "load": 1.0, "cpus": 2, "usage": usage}
    assert cpus.in_words(facts) == {
        "pinned to CPUs": "0, 2", "CPUs of one core": "0,2 and 1,3", "governor": "powersave",
        "load per CPU": "0.50", "other processes": "1.07 CPUs, steal 4%",
    }  # fmt: skip
    assert cpus.busy(usage) == ["CPU 2 is 97% busy"]
    assert cpus.busy({**usage, "others": 0.1}) == []  # It is this process.
    monkeypatch.setattr(cpus, "affinity", lambda: [0, 1, 2, 3])
    for path in tmp_path.glob("*/topology/*"):
        path.write_text("0\n")
    words = cpus.in_words({**cpus.facts(), "load": 1.0, "cpus": 4, "usage": usage})
    assert (words["pinned to CPUs"], words["CPUs of one core"]) == ("no", "none")
