"""A worker process, which answers requests.

    python -m benchmarks.worker FILE '{"serve": "module:Class", "options": {…}}'

Requests and answers are lines of JSON on the socket FILE, an open file of that number. For each
``{"do": method, …}`` the worker calls that method of one object of the class with the remaining
values, and sends what it returned. It exits when the socket is closed. Two requests are answered
here: "fork", which comes with the socket and the error file of the fork, and "reap".
"""

import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
import warnings
from typing import Any

from benchmarks.worker import named

# Seconds between two looks whether a fork has exited.
PAUSE = 2e-3


def main() -> None:
    """Serve an object until the socket is closed."""
    file, about = sys.argv[1:]
    faulthandler.enable()  # A crash writes where it was.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The threads that Python warns of are those of BLAS, which is prepared for a fork.
    warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
    request = json.loads(about)
    connection = socket.socket(fileno=int(file))
    answer_requests(connection, named(request["serve"])(**request["options"]))


def answer_requests(connection: socket.socket, served: Any) -> None:
    """Answer requests until the socket is closed."""
    while True:
        text, files = b"", list[int]()
        while not text.endswith(b"\n"):
            part, sent, *_ = socket.recv_fds(connection, 1 << 16, 2)
            if not part:
                return
            text, files = text + part, files + sent
        request = json.loads(text)
        do = request.pop("do")
        if do == "fork":
            answer = fork(connection, served, *files)
        else:
            answer = reap(**request) if do == "reap" else getattr(served, do)(**request)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def fork(connection: socket.socket, served: Any, file: int, errors: int) -> int:
    """Fork this process, and return the number of the fork, which answers on the socket `file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(file)
        os.close(errors)
        return pid
    code = 1
    try:
        connection.close()
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.close(errors)
        answer_requests(socket.socket(fileno=file), served)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # The parent's exit handlers are not for a fork.


def reap(pid: int, patience: float) -> int:
    """Return the exit code of a fork, which is killed after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
