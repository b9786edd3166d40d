"""metrics.jsonl is written and read exactly; damage is reported; the plot shows both losses."""

import json
import math
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


def test_metrics_are_read_as_they_were_written(run: Path) -> None:
    assert metrics.read(run) == ROWS


def test_every_line_is_a_json_object_with_the_keys_in_the_readme(run: Path) -> None:
    rows = [json.loads(line) for line in (run / metrics.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    keys = ["step", "loss", "val_loss", "lr", "grad_norm", "tokens_per_second"]
    assert all(list(row) == keys for row in rows)


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


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_of_a_wrong_type_is_refused_with_its_line(
    run: Path, name: str, value: object
) -> None:
    path = run / metrics.METRICS
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {name: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 2"):
        metrics.read(run)


@pytest.mark.parametrize(
    "line", ['{"step": 1, "lo', '{"step": 1,\r"lo', "{}", "[1]", "\xff", "[" * 100_000]
)
def test_other_damage_is_refused_and_nothing_is_lost(run: Path, line: str) -> None:
    path = run / metrics.METRICS
    lines = path.read_text().splitlines(keepends=True)
    damaged = "".join([lines[0], line, "\n", *lines[2:]]).encode("latin-1")
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 2"):
        metrics.keep_before(run, 2)
    assert path.read_bytes() == damaged


def test_keep_before_removes_the_lines_from_a_step_on(run: Path) -> None:
    metrics.keep_before(run, 1)
    assert metrics.read(run) == ROWS[:1]


def test_the_plot_has_both_losses_and_text(run: Path) -> None:
    plot_losses(run)
    text = (run / metrics.PLOT).read_text(encoding="utf-8")
    assert ">training</text>" in text
    assert ">validation</text>" in text
    assert ">loss (nats per character)</text>" in text


@pytest.mark.parametrize("name", ["cash$_$", "第一"])
def test_the_plot_has_any_name(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    run.mkdir()
    metrics.record(run, ROWS[0])
    plot_losses(run)
    assert f">{name}</text>" in (run / metrics.PLOT).read_text(encoding="utf-8")


def test_a_run_without_metrics_has_no_plot(tmp_path: Path) -> None:
    plot_losses(tmp_path)
    assert list(tmp_path.iterdir()) == []
