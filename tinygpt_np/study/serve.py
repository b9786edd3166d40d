"""`tinygpt study --serve`: the pages on this machine alone, and answers to the lines typed in them.

It listens on 127.0.0.1 and answers only what comes from its own pages: another site that a browser
has open could send requests here too, so the Host, the Origin and the kind of content must be ours.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from tinygpt_np.study.predict import answer
from tinygpt_np.study.sheet import Sheet
from tinygpt_np.study.source import StudyError

HOST = "127.0.0.1"
# Bytes of a question; a line has at most a few hundred characters.
LARGEST = 4096
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Nothing from elsewhere, and no page of ours inside another one.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


class Server(ThreadingHTTPServer):
    """files: the pages by name. sheet: that of a target's name, made when it is asked for; raises
    KeyError for another name."""

    daemon_threads = True

    def __init__(self, port: int, sheet: Callable[[str], Sheet]) -> None:
        self.files: Mapping[str, str] = {}
        self.sheet = cache(sheet)
        # A sheet measures when it is asked, and keeps what it measured.
        self.lock = threading.Lock()
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StudyError(f"port {port} of {HOST} cannot be listened on: {reason}") from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def answered(self, question: Any) -> dict[str, Any] | None:
        """The answer to {"target", "id", "text"}, or None if there is no such line to ask for."""
        parts = cast(dict[str, Any], question) if isinstance(question, dict) else {}
        target, line, text = (parts.get(name) for name in ("target", "id", "text"))
        if not (isinstance(target, str) and isinstance(line, str) and isinstance(text, str)):
            return None
        try:
            with self.lock:
                return answer(self.sheet(target), line, text).to_dict()
        except KeyError:
            return None


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 10

    def do_GET(self) -> None:
        name = self.path.split("?")[0].removeprefix("/") or "index.html"
        if not self.is_ours():
            self.refuse(HTTPStatus.FORBIDDEN)
        elif name not in self.server.files:
            self.refuse(HTTPStatus.NOT_FOUND)
        else:
            kind = KINDS[f".{name.rpartition('.')[2]}"]
            self.reply(HTTPStatus.OK, kind, self.server.files[name].encode())

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self.is_ours() or self.headers.get_content_type() != "application/json":
            self.refuse(HTTPStatus.FORBIDDEN)
        elif self.path != "/predict":
            self.refuse(HTTPStatus.NOT_FOUND)
        elif not re.fullmatch(r"\d{1,6}", length) or int(length) > LARGEST:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self.predict(self.rfile.read(int(length)))

    def predict(self, body: bytes) -> None:
        try:
            found = self.server.answered(json.loads(body))
        except (ValueError, RecursionError):
            found = None
        if found is None:
            self.refuse(HTTPStatus.BAD_REQUEST)
        else:
            self.reply(HTTPStatus.OK, "application/json", json.dumps(found).encode())

    def is_ours(self) -> bool:
        """Whether a request is for this address, and from one of its own pages if from any."""
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origins = {None, *(f"http://{host}" for host in hosts)}
        return self.headers.get("Host") in hosts and self.headers.get("Origin") in origins

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the server of the standard library refuses by itself, in the same way."""
        self.refuse(HTTPStatus(code))

    def refuse(self, status: HTTPStatus) -> None:
        self.reply(status, "text/plain; charset=utf-8", status.phrase.encode())

    def reply(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
        """Nothing: what a learner types is nobody's business."""
