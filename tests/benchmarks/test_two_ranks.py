"""Two ranks against one process: the commands, what is read of their runs, and the prediction."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks import two_ranks
from benchmarks.harness import mpi
from benchmarks.network import Job, Machine, Network
from benchmarks.two_ranks import ALONE, TOGETHER
from tinygpt_np.cli.flags import parse
from tinygpt_np.cli.train import Train
from tinygpt_np.training.metrics import Metrics


def test_both_run_the_same_training_with_as_many_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mpi, "mpirun", lambda: "mpirun")
    alone, together = (two_ranks.command(name, Path("text.txt")) for name in (ALONE, TOGETHER))
    assert together[:3] == ["mpirun", "-n", "2"]
    assert alone[:4] == together[3:7] == [sys.executable, "-m", "tinygpt_np", "train"]
    assert alone[-2:] == ["2", "--no-keep-best"]
    assert together[-2:] == ["1", "--no-keep-best"]
    assert alone[:-2] == together[3:-2]


def test_the_flags_of_the_training_are_known() -> None:
    flags = two_ranks.command(ALONE, Path("text.txt"))[4:]
    asked = parse(Train.defaults(flags), "tinygpt train", flags)
    assert (asked.n_layer, asked.batch_size, asked.threads, asked.keep_best) == (12, 2, 2, False)
    assert asked.max_iters - two_ranks.WARM_UP >= 3


def test_the_speeds_are_those_of_the_steps_after_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Metrics(step, None, None, None, None, speed)
            for step, speed in enumerate((10.0, 50.0, 60.0, None))]  # fmt: skip
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    code = f"""
from pathlib import Path
from unittest.mock import Mock
assert Path("text.txt").read_text(encoding="utf-8")
Path("runs/check").mkdir(parents=True)
Path("runs/check/metrics.jsonl").write_text({lines!r})
"""
    monkeypatch.setattr(two_ranks, "command", Mock(return_value=[sys.executable, "-c", code]))
    assert two_ranks.speeds(ALONE) == [50.0, 60.0]


def test_nothing_of_the_exchange_is_hidden_here() -> None:
    # An exchange of n bytes takes n·0.004 seconds.
    between, size = Network(latency=0.0, bandwidth=250.0), 100
    two, one = Machine(0.1, 1.0, 0.5, 0.001), Machine(0.2, 2.0, 0.8, 0.002)
    found = two_ranks.expected(Job(4, size, late=0.3, window=0.5), two, one, between)
    alone, together = 0.1 + 4 * 1.0 + 3 * 0.1 + 0.5, 0.2 + 2 * 2.0 + 0.2 + 0.4 + 0.4
    assert found == pytest.approx({ALONE: alone, TOGETHER: together})


def test_ratios_are_those_of_pairs_and_an_unpaired_run_has_none() -> None:
    runs = {ALONE: [[90.0, 100.0, 500.0], [50.0], [70.0]], TOGETHER: [[80.0, 85.0, 99.0], [60.0]]}
    assert two_ranks.ratios(runs) == pytest.approx([0.85, 1.2])
