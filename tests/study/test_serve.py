"""The server of the study pages: what it answers, and what it does not."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from processes import LIMIT

from tinygpt_np.study import targets
from tinygpt_np.study.serve import HOST, LARGEST, Server
from tinygpt_np.study.sheet import Sheet, study
from tinygpt_np.study.source import StudyError

QUESTION = {"target": "linear", "id": "backward:41", "text": "dx = dproduct @ weight.T"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    sheets = {"linear": study(targets.named("linear"))}
    with Server(0, sheets.__getitem__) as server:
        server.files = {"index.html": "<p>✓ the index", "study.js": "'use strict';"}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(LIMIT)


def ask(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    try:
        sent = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, sent, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def predict(server: Server, question: Any, **headers: str) -> tuple[int, str]:
    status, _, text = ask(server, "POST", "/predict", question, **{**JSON, **headers})
    return status, text


def test_a_page_is_served_in_utf8(server: Server) -> None:
    status, headers, text = ask(server, "GET", "/index.html")
    assert (status, text) == (200, "<p>✓ the index")
    assert headers["Content-Type"] == "text/html; charset=utf-8"


def test_the_index_is_served_where_no_page_is_named(server: Server) -> None:
    assert ask(server, "GET", "/")[2] == ask(server, "GET", "/index.html")[2]


def test_pages_load_nothing_from_elsewhere(server: Server) -> None:
    policy = ask(server, "GET", "/")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


@pytest.mark.parametrize(
    "path",
    ["/other.html", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd", "/predict"],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404


def test_a_right_line_is_right(server: Server) -> None:
    status, text = predict(server, QUESTION)
    assert status == 200
    assert json.loads(text)["status"] == "right"


def test_a_wrong_line_is_wrong(server: Server) -> None:
    _, text = predict(server, {**QUESTION, "text": "dx = dproduct @ weight"})
    assert json.loads(text)["status"] == "refused"
    _, text = predict(server, {**QUESTION, "text": "dx = 2 * dproduct @ weight.T"})
    assert json.loads(text)["status"] == "wrong"


@pytest.mark.parametrize(
    "question",
    [
        {**QUESTION, "target": "nothing"},
        {**QUESTION, "id": "backward:1"},
        {**QUESTION, "text": 3},
        {"target": "linear"},
        "[]",
        "not json",
        "[" * 2000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_question_is_a_bad_request(server: Server, question: Any) -> None:
    assert predict(server, question)[0] == 400


def test_a_question_must_be_json(server: Server) -> None:
    # What a form of another site can send without asking first.
    status, _, _ = ask(server, "POST", "/predict", json.dumps(QUESTION))
    assert status == 403
    assert predict(server, QUESTION, **{"Content-Type": "text/plain"})[0] == 403


def test_another_site_is_not_answered(server: Server) -> None:
    assert predict(server, QUESTION, Origin="http://example.org")[0] == 403


def test_its_own_pages_are(server: Server) -> None:
    assert predict(server, QUESTION, Origin=server.address)[0] == 200


def test_another_name_for_this_machine_is_not_answered(server: Server) -> None:
    # A site may give its own name this address, and its scripts would then be of one origin.
    assert ask(server, "GET", "/", Host="example.org")[0] == 403
    assert predict(server, QUESTION, Host=f"example.org:{server.server_port}")[0] == 403


def test_a_long_question_is_refused_unread(server: Server) -> None:
    assert predict(server, {**QUESTION, "text": "x" * LARGEST})[0] == 413


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "٣"])
def test_a_length_that_is_none_is_refused(server: Server, length: str) -> None:
    with socket.create_connection((HOST, server.server_port), timeout=10) as connection:
        host, kind = f"Host: {HOST}:{server.server_port}", "Content-Type: application/json"
        lines = ["POST /predict HTTP/1.1", host, kind, f"Content-Length: {length}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert b" 413 " in connection.recv(200)


def test_what_is_refused_has_the_policy_too(server: Server) -> None:
    assert "default-src 'none'" in ask(server, "PUT", "/")[1]["Content-Security-Policy"]


def test_a_question_without_a_length_is_refused(server: Server) -> None:
    with socket.create_connection((HOST, server.server_port), timeout=10) as connection:
        host = f"Host: {HOST}:{server.server_port}"
        lines = ["POST /predict HTTP/1.1", host, "Content-Type: application/json", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert b" 413 " in connection.recv(200)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_but_get_and_post_is_known(server: Server, method: str) -> None:
    assert ask(server, method, "/index.html")[0] == 501


def test_only_this_machine_can_reach_it(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_it_writes_no_log(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    ask(server, "GET", "/")
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_named(server: Server) -> None:
    with pytest.raises(StudyError, match=f"port {server.server_port} of 127.0.0.1 cannot be"):
        Server(server.server_port, server.sheet)


def named(name: str) -> Sheet:
    raise KeyError(name)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_named(port: int) -> None:
    with pytest.raises(StudyError, match=f"port {port}"):
        Server(port, named)
