"""Processes that tests start, and how long they may take."""

import atexit
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

# Seconds after which a process or a thread that a test waits for counts as stuck. Alone on a
# machine, none takes more than ten.
LIMIT = 120.0


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process that is killed after LIMIT seconds, so that no wait for it is endless."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process: subprocess.Popen[str] = subprocess.Popen(
        command, text=True, encoding="utf-8", **(pipes | options)
    )
    timer = threading.Timer(LIMIT, process.kill)
    timer.daemon = True
    timer.start()
    atexit.register(process.kill)
    return process


def printed(code: str, *options: str, timeout: float = LIMIT, **others: Any) -> str:
    """Run Python code in a process that must succeed; return what it writes to both streams."""
    command = [sys.executable, *options, "-c", code]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    found = subprocess.run(command, text=True, timeout=timeout, check=False, **streams, **others)
    assert found.returncode == 0, found.stdout
    return found.stdout
