"""metrics.jsonl is written and read exactly; damage is reported; the plot shows both losses."""

import json
import math
from dataclasses import asdict, astuple
from pathlib import Path

import pytest

from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.training import metrics
from tinygpt_np.training.metrics import Metrics, plot_losses

ROWS = [
    Metrics(0, 4.14, 4.2, 1e-3, 2.5, 12000.5),
    Metrics(1, 1 / 3, None, 1e-3, 2.25, 11000.0),
    Metrics(2, None, 3.7, None, None, None),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for row in ROWS:
        metrics.record(tmp_path, row)
    return tmp_path


def test_metrics_are_json_lines_and_read_as_they_were_written(run: Path) -> None:
    assert metrics.read(run) == ROWS
    keys = ["step", "loss", "val_loss", "lr", "grad_norm", "tokens_per_second"]
    for line, row in zip((run / metrics.METRICS).read_text().splitlines(), ROWS, strict=True):
        assert list(json.loads(line).items()) == list(zip(keys, astuple(row), strict=True))
    metrics.keep_before(run, 1)
    assert metrics.read(run) == ROWS[:1]


def test_nan_is_not_written(run: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        metrics.record(run, Metrics(3, float("nan"), None, None, None, None))


def test_an_incomplete_last_line_is_left_out(run: Path) -> None:
    path = run / metrics.METRICS
    path.write_bytes(path.read_bytes()[:-9])
    assert metrics.read(run) == ROWS[:2]
    path.write_bytes(path.read_bytes() + b"\n")  # A complete line is not due to a crash.
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 3"):
        metrics.read(run)


WRONG: list[tuple[str, object]] = [
    ("step", "x"), ("step", 1.5), ("step", True), ("step", -1), ("val_loss", True),
    ("loss", math.nan), ("lr", []), ("grad_norm", math.inf), ("tokens_per_second", "fast"),
]  # fmt: skip
DAMAGE = ['{"step": 1, "lo', '{"step": 1,\r"lo', "{}", "[1]", "\xff", "[" * 100_000]


@pytest.mark.parametrize(
    "line", [*(json.dumps(asdict(ROWS[1]) | {name: value}) for name, value in WRONG), *DAMAGE]
)
def test_a_damaged_line_is_refused_and_nothing_is_lost(run: Path, line: str) -> None:
    path = run / metrics.METRICS
    lines = path.read_text().splitlines(keepends=True)
    damaged = "".join([lines[0], line, "\n", *lines[2:]]).encode("latin-1")
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 2"):
        metrics.keep_before(run, 2)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("name", ["cash$_$", "第一"])
def test_the_plot_has_both_losses_text_and_any_name(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    run.mkdir()
    plot_losses(run)
    assert list(run.iterdir()) == []
    metrics.record(run, ROWS[0])
    plot_losses(run)
    text = (run / metrics.PLOT).read_text(encoding="utf-8")
    for shown in ("training", "validation", "loss (nats per character)", name):
        assert f">{shown}</text>" in text
