"""Run commands as a user does: in this process, or in a new one where signals or imports matter."""

import subprocess

import pytest
from helpers import processes
from helpers.tiny_run import COMMAND, TINY

from tinygpt_np import cli

Captured = pytest.CaptureFixture[str]


def train_tiny(*flags: str) -> None:
    """Train on text.txt."""
    cli.main(["train", "--data", "text.txt", *TINY, *flags])


def output_of(capsys: Captured, *arguments: str) -> str:
    """Return what a successful command prints."""
    capsys.readouterr()
    cli.main(list(arguments))
    return capsys.readouterr().out


def error_of(capsys: Captured, *arguments: str) -> str:
    """Return the message of a command that fails: one paragraph without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code not in (0, None)
    message = capsys.readouterr().err
    assert message.startswith("tinygpt: ")
    assert "Traceback" not in message
    return " ".join(message.split())


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command in a new process."""
    return processes.start([*COMMAND, *arguments])
