"""`tinygpt train` saves when it is interrupted, killed, or loses its terminal or its reader."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import processes
from helpers.commands import start
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND, TINY

from tinygpt_np.training import metrics, runs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals and terminals")
LONG = [
    *("train", "--data", "text.txt", *TINY[:-2], "--max-iters", "3000", "--name", "long"),
    *("--backend", "numpy"),
]
# The shell becomes the leader of a session with the given terminal, as in a terminal window.
IN_TERMINAL = 'terminal=$1; shift; exec "$@" <"$terminal" >"$terminal" 2>&1'


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row.step, row.loss) for row in metrics.read(run) if row.loss]


def wait_for_steps(run: Path, steps: int, screen: int | None = None) -> None:
    """Wait until the run has recorded this many steps, and read its terminal in the meantime."""
    deadline = time.monotonic() + LIMIT
    while len(metrics.read(run)) < steps:
        assert time.monotonic() < deadline, "the run does not make progress"
        time.sleep(0.01)
        if screen is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(screen, 1 << 16)


def assert_saved_at_its_last_step(run: Path) -> None:
    last, state = runs.last_checkpoint(run)
    assert int(last.name) == state.step == len(losses(run)) >= 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP] * 3, [signal.SIGUSR1] * 2],
)
def test_a_signal_saves_and_prints_how_to_resume(
    folder: Path, signals: list[signal.Signals]
) -> None:
    process, run = start(*LONG), folder / "runs" / "long"
    wait_for_steps(run, 15)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.001)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "finishing this step and saving" in err
    assert "tinygpt train --resume runs/long" in out
    assert f"stopped before step {len(losses(run))} " in out
    assert_saved_at_its_last_step(run)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_a_reader_of_the_output_that_has_gone_leaves_a_saved_run(
    folder: Path, together: bool
) -> None:
    stderr = subprocess.STDOUT if together else subprocess.PIPE
    process = processes.start([*COMMAND, *LONG, "--eval-interval", "20"], stderr=stderr)
    wait_for_steps(folder / "runs" / "long", 15)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=LIMIT) == 1
    if process.stderr is not None:
        message = " ".join(process.stderr.read().split())
        assert "the reader of the output has gone; training stopped at step" in message
        assert message.endswith("tinygpt train --resume runs/long")
    assert_saved_at_its_last_step(folder / "runs" / "long")


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves(folder: Path) -> None:
    screen, terminal = os.openpty()
    os.set_blocking(screen, False)
    command = ["sh", "-c", IN_TERMINAL, "sh", os.ttyname(terminal), *COMMAND, *LONG]
    process = processes.start(command, stdin=subprocess.DEVNULL, start_new_session=True)
    wait_for_steps(folder / "runs" / "long", 15, screen)
    os.close(terminal)
    os.close(screen)
    assert process.wait(timeout=LIMIT) != -signal.SIGHUP
    assert_saved_at_its_last_step(folder / "runs" / "long")
