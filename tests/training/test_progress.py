"""A training shows its progress and ends with a loss, or with a saved run after an interrupt."""

import io
import math
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.thread_ranks import on_ranks
from helpers.tiny_run import CONFIG, DATA
from rich.console import Console

from tinygpt_np import machine
from tinygpt_np.training import runs
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.progress import train_and_save, why_stop
from tinygpt_np.training.ranks.group import Group
from tinygpt_np.training.trainer import Trainer


class Closed(io.StringIO):
    """An output whose reader has gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


class Raising(Console):
    """A console that raises BrokenPipeError instead of exiting."""

    def on_broken_pipe(self) -> None:
        raise


def test_a_training_prints_its_evaluations_and_returns_the_last_loss(tmp_path: Path) -> None:
    out = io.StringIO()
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    loss = train_and_save(trainer, Console(file=out, width=200), "resume it")
    assert re.findall(r"^step (\d+) ", out.getvalue(), re.M) == ["0", "4", "8", "10"]
    assert loss is not None
    assert f"val {loss:.3f}" in out.getvalue().rstrip().splitlines()[-1]  # Older rich adds a line.


def test_an_interrupt_ends_a_training_after_its_step_and_saves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(trainer: Trainer, row: Metrics) -> Metrics:
        if row.step == 6:
            signal.raise_signal(signal.SIGINT)
        return row

    monkeypatch.setattr(Trainer, "record", record)
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    assert train_and_save(trainer, Console(file=io.StringIO()), "resume it") == "interrupt"
    assert runs.last_checkpoint(tmp_path / "run")[1].step == trainer.step == 7


def test_a_time_limit_ends_a_training_before_a_step_that_would_be_saved_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    monkeypatch.setattr(machine, "minutes_running", lambda: float(trainer.step))
    monkeypatch.setattr(trainer, "seconds_to_next_save", lambda: 90.0)
    console = Console(file=io.StringIO())
    assert train_and_save(trainer, console, "resume it", minutes=7.5) == "time limit"
    # A step takes a minute, and after 6 minutes the next one would be saved just in time.
    assert runs.last_checkpoint(tmp_path / "run")[1].step == trainer.step == 7


def test_an_interrupt_counts_even_if_the_time_is_up(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run", CONFIG, DATA)
    assert why_stop(trainer, lambda: True, minutes=0.0) == "interrupt"
    assert why_stop(trainer, lambda: False, minutes=0.0) == "time limit"
    assert why_stop(trainer, lambda: False, minutes=math.inf) == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_stop_for_the_reason_of_one(tmp_path: Path, rank: int) -> None:
    def reasons(group: Group) -> list[str]:
        config = replace(CONFIG, gradient_accumulation_steps=2)
        trainer, is_it = Trainer(tmp_path / "run", config, DATA, group=group), group.rank == rank
        return [
            why_stop(trainer, lambda: is_it, minutes=math.inf),
            why_stop(trainer, lambda: False, minutes=0.0 if is_it else math.inf),
            why_stop(trainer, lambda: False, minutes=math.inf),
        ]

    assert on_ranks(2, reasons) == [["interrupt", "time limit", ""]] * 2


def test_if_the_reader_of_the_output_has_gone_the_error_has_the_command(tmp_path: Path) -> None:
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    with pytest.raises(BrokenPipeError, match="step 1 and is saved: resume it with the command"):
        train_and_save(trainer, Raising(file=Closed()), "the command")
    assert runs.last_checkpoint(tmp_path / "run")[1].step == 1
