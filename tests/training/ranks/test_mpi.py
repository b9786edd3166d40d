"""`tinygpt train` and `tinygpt sample` on several ranks that mpirun starts."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Captured, output_of
from helpers.mpi import mpirun, needs_mpi, one_machine_and_three, start
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND, TEXT, TINY

from tinygpt_np import cli
from tinygpt_np.storage import checkpoint
from tinygpt_np.training.metrics import METRICS
from tinygpt_np.training.runs import CHECKPOINTS, CONFIG

pytestmark = needs_mpi
HOST = socket.gethostname()
# Python that makes another version of NumPy of the one installed.
OTHER_NUMPY = """
from tinygpt_np.training.ranks import group
version = group.version
group.version = lambda name: "1.0" if name == "numpy" else version(name)
"""
TRAIN = [
    *("train", "--data", "text.txt", *TINY, "--dropout", "0.2", "--threads", "1"),
    *("--gradient-accumulation-steps", "6", "--eval-interval", "3"),
    *("--max-iters", "6", "--lr-decay-iters", "6"),
]  # fmt: skip
NUMPY = [*TRAIN, "--backend", "numpy"]  # It starts faster.


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enter a folder with a text, a run of one process, and its first half."""
    path = tmp_path_factory.mktemp("ranks")
    (path / "text.txt").write_text(TEXT)
    with contextlib.chdir(path):
        cli.main([*TRAIN, "--name", "one"])
        cli.main([*TRAIN, "--name", "half", "--max-iters", "3"])
    return path


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in the folder."""
    monkeypatch.chdir(folder)


def files(run: str) -> dict[str, Any]:
    """Return a run's configuration, last checkpoint, and metrics without the speed."""
    path = Path("runs", run)
    found: dict[str, Any] = {
        str(file.relative_to(path)): file.read_bytes()
        for file in [path / CONFIG, *(path / CHECKPOINTS / "000006").iterdir()]
    }
    rows = [json.loads(line) for line in (path / METRICS).read_text().splitlines()]
    return found | {METRICS: [row | {"tokens_per_second": None} for row in rows]}


def error(ranks: int, *command: str, code: int = 1) -> str:
    """Return the only message of a command that fails, without what mpirun says after it."""
    ended = mpirun(ranks, *command)
    assert ended.returncode == code
    assert ended.stderr.count("tinygpt: ") == 1
    assert "Traceback" not in ended.stderr
    return next(line for line in ended.stderr.splitlines() if line.startswith("tinygpt: "))


@one_machine_and_three
def test_three_ranks_write_the_files_of_one_process_and_report_their_threads(
    hosts: list[str],
) -> None:
    name = f"three-{len(hosts)}"
    ended = mpirun(3, *COMMAND, *TRAIN, "--name", name, hosts=hosts)
    assert ended.returncode == 0, ended.stderr
    assert files(name) == files("one")
    assert ended.stdout.count("validation  ") == 1
    assert "ranks       3, each with 2 of 6 batches" in ended.stdout
    for rank, host in enumerate(hosts or [HOST] * 3):
        assert f"rank {rank}      on {host}, 1 thread" in ended.stdout
    assert "\x1b" not in ended.stdout  # Open MPI gives a rank a terminal, but this is a file.


def test_two_ranks_resume_a_run_of_one_process_with_the_same_bits() -> None:
    ended = mpirun(2, *COMMAND, "train", "--resume", "half", "--max-iters", "6")
    assert ended.returncode == 0, ended.stderr
    assert files("half") == files("one")


def training(ranks: int, name: str, hosts: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start to train a run that does not end, and wait for its second checkpoint."""
    command = [*COMMAND, *NUMPY, "--name", name, "--max-iters", "100000"]
    process = start(ranks, *command, hosts=hosts)
    deadline = time.monotonic() + LIMIT / 2
    while not Path("runs", name, CHECKPOINTS, "000003").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@one_machine_and_three
def test_a_rank_that_is_killed_ends_all_with_one_message_and_an_intact_run(
    hosts: list[str],
) -> None:
    run = Path(f"runs/killed-{len(hosts)}")
    process = training(3, run.name, hosts)
    victim = rank_of(process.pid, 1)
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    said = re.findall(r"tinygpt: .*", err)
    host = hosts[1] if hosts else HOST
    death = f"tinygpt: rank 1 (process {victim} on {host}) has died, so training stops; "
    assert [each[: len(death)] for each in said] == [death]
    saved = [int(path.name) for path in checkpoint.steps_in(run / CHECKPOINTS)]
    steps = [
        f"resume with tinygpt train --resume {run}, from the checkpoint of step {step:,}"
        for step in saved
    ]
    assert said[0].endswith(tuple(steps))
    cli.main(["train", "--resume", run.name, "--max-iters", str(saved[-1] + 1)])


def rank_of(process: int, rank: int) -> int:
    """Return the process of a rank, among the processes that a process has started."""
    waiting = [process]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                names = (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK")
                if any(name + b"=%d" % rank in environment for name in names):
                    return child
                waiting.append(child)
    raise AssertionError(f"there is no rank {rank}")


def test_a_signal_to_mpirun_saves_the_run_once() -> None:
    process = training(2, "stopped")
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=LIMIT / 2)
    assert (err.count("finishing this step"), err.count("tinygpt: ")) == (1, 0)
    stopped = re.search(r"stopped before step (\d+) and saved; resume with\n.* runs/stopped\n", out)
    saved = checkpoint.steps_in(Path("runs/stopped", CHECKPOINTS))
    assert (process.returncode, int(saved[-1].name)) == (130, int(stopped[1]) if stopped else None)


def test_a_rank_with_other_settings_data_or_versions_is_refused() -> None:
    Path("other.txt").write_text(TEXT.replace("be", "eb"))
    other = [
        *(*COMMAND[:-1], OTHER_NUMPY + COMMAND[-1], *NUMPY),
        *("--data", "other.txt", "--seed", "5", "--name", "refused"),
    ]
    message = error(1, *COMMAND, *NUMPY, "--name", "refused", ":", "-n", "1", *other)
    differs = (
        f"tinygpt: rank 1 ({HOST}) differs from rank 0 ({HOST}), so they cannot train together"
    )
    assert message.startswith(f"{differs}: NumPy: 1.0, not ")
    assert "; seed: 5, not 1337; data: " in message
    assert not Path("runs/refused").exists()


def test_ranks_evaluate_and_sample_as_one_process_does(capsys: Captured) -> None:
    for command in (
        # A number of batches that cannot be divided does not matter.
        ["train", "--resume", "one", "--eval-only", "--gradient-accumulation-steps", "5"],
        ["sample", "one", "--num-samples", "3", "--seed", "1", "--tokens", "20"],
    ):
        ended = mpirun(2, *COMMAND, *command)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == output_of(capsys, *command)


def test_fast_reduction_changes_bits_only() -> None:
    ended = mpirun(2, *COMMAND, *TRAIN, "--name", "fast", "--reduction", "fast")
    assert ended.returncode == 0, ended.stderr
    losses = [[row["val_loss"] or 0 for row in files(run)[METRICS]] for run in ("fast", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_wrong_command_line_is_explained_once() -> None:
    assert error(2, *COMMAND, "train", "--layers", "3", code=2) == (
        "tinygpt: there is no flag --layers; did you mean --n-layer? (see tinygpt train --help)"
    )


def test_batches_that_cannot_be_divided_are_explained_once() -> None:
    message = error(2, *COMMAND, *NUMPY, "--gradient-accumulation-steps", "5")
    assert message == (
        "tinygpt: gradient_accumulation_steps = 5 cannot be divided among 2 ranks: start 1 or 5, "
        "or a new run with --gradient-accumulation-steps 4 or 6"
    )
