"""tinygpt train when its terminal goes, under nohup, and started several times at once."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.running import start
from cli.test_train import LONG, losses, wait_for_steps
from helpers import processes
from helpers.tiny_run import COMMAND, TINY

from tinygpt_np.training import metrics, runs

SECONDS = 120
pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals and terminals")

# Becomes the leader of a session whose terminal is the one given, as a shell in a window is.
IN_TERMINAL = 'terminal=$1; shift; exec "$@" <"$terminal" >"$terminal" 2>&1'


def assert_saved_where_it_stopped(run: Path) -> None:
    last, state = runs.last_checkpoint(run)
    assert int(last.name) == state.step == len(losses(run)) >= 15


def test_hangups_save_and_say_how_to_go_on(folder: Path) -> None:
    process = start(*LONG)
    wait_for_steps(folder / "runs" / "long", 15)
    for _ in range(3):  # One from the shell, one from the system.
        process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "tinygpt train --resume runs/long" in out
    assert_saved_where_it_stopped(folder / "runs" / "long")


@pytest.mark.parametrize("together", [False, True])
def test_a_reader_of_the_output_that_goes_away_leaves_a_saved_run(
    folder: Path, together: bool
) -> None:
    stderr = subprocess.STDOUT if together else subprocess.PIPE
    process = processes.start([*COMMAND, *LONG, "--eval-interval", "20"], stderr=stderr)
    wait_for_steps(folder / "runs" / "long", 15)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=SECONDS) == 1
    if process.stderr is not None:
        message = " ".join(process.stderr.read().split())
        assert "the reader of the output has gone; training stopped at step" in message
        assert message.endswith("tinygpt train --resume runs/long")
    assert_saved_where_it_stopped(folder / "runs" / "long")


@pytest.mark.parametrize("command", [["gradcheck", "softmax"], ["lecture"]])
def test_a_reader_that_goes_away_is_no_error_of_other_commands(command: list[str]) -> None:
    process = processes.start([*COMMAND, *command])
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=SECONDS) == 0


def test_a_terminal_that_is_closed_saves(folder: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["sh", "-c", IN_TERMINAL, "sh", os.ttyname(theirs), *COMMAND, *LONG],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.set_blocking(ours, False)
    try:
        deadline = time.monotonic() + SECONDS
        while len(metrics.read(folder / "runs" / "long")) < 15:
            assert time.monotonic() < deadline, "the run does not get on"
            time.sleep(0.01)
            with contextlib.suppress(BlockingIOError):  # A terminal shows what it is given.
                os.read(ours, 1 << 16)
        os.close(theirs)
        os.close(ours)
        process.wait(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode != -signal.SIGHUP
    assert_saved_where_it_stopped(folder / "runs" / "long")


def test_under_nohup_a_hangup_is_ignored(folder: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);" + COMMAND[2]
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *LONG],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_steps(folder / "runs" / "long", 15)
        process.send_signal(signal.SIGHUP)
        wait_for_steps(folder / "runs" / "long", len(losses(folder / "runs" / "long")) + 20)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(timeout=SECONDS)


def test_three_runs_started_together_get_three_folders(folder: Path) -> None:
    flags = ["train", "--data", "text.txt", *TINY[:-2], "--max-iters", "2", "--backend", "numpy"]
    processes = [start(*flags) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    assert {run.name for run in (folder / "runs").iterdir()} == {"cpu", "cpu-2", "cpu-3"}
    for run in (folder / "runs").iterdir():
        assert int(runs.last_checkpoint(run)[0].name) == 2
