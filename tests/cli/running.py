"""How a person runs a command: in this process, or in its own where signals or imports matter."""

import subprocess

import pytest
from helpers import processes
from helpers.tiny_run import COMMAND, TINY

from tinygpt_np import cli


def train_tiny(*flags: str) -> None:
    cli.main(["train", "--data", "text.txt", *TINY, *flags])


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that must succeed says."""
    cli.main(list(arguments))
    return capsys.readouterr().out


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that must fail says; one paragraph, no traceback."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code not in (0, None)
    message = capsys.readouterr().err
    assert message.startswith("tinygpt: ")
    assert "Traceback" not in message
    return " ".join(message.split())


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return processes.start([*COMMAND, *arguments])
