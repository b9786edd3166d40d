"""When a rank dies or fails, all ranks end and one message says why."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import processes
from helpers.processes import LIMIT

from tinygpt_np.training.ranks import monitor

# Starts a rank for each piece of code, which runs with `monitor`, and prints their exit codes.
RANKS = """
import ctypes, errno, json, os, signal, socket, sys, time
from pathlib import Path
from tinygpt_np.training.ranks import monitor as module
from tinygpt_np.training.ranks.monitor import Monitor

folder, setup, advice, *codes = Path(sys.argv[1]), *sys.argv[2:]
children = []
for rank in range(len(codes)):
    if not (child := os.fork()):
        break
    children.append(child)
else:
    found = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps([children, found]))
    sys.exit()

def share(value):
    share.round += 1
    (folder / f"{rank}.new").write_text(json.dumps(value))
    (folder / f"{rank}.new").rename(folder / f"{share.round} {rank}")
    files = [folder / f"{share.round} {each}" for each in range(len(codes))]
    while not all(file.exists() for file in files):
        time.sleep(0.001)
    return [json.loads(file.read_text()) for file in files]

share.round = 0
exec(setup)
monitor = Monitor(rank, share, lambda: eval(advice))
exec(codes[rank])
"""
WAIT, CLOSE, DIE = "time.sleep(20)", "monitor.close()", "os.kill(os.getpid(), signal.SIGKILL)"
FAIL = "monitor.failed('the disk is full')"
HOST = socket.gethostname()


def run(
    folder: Path, *codes: str, setup: str = "", advice: str = "'resume with: tinygpt'"
) -> tuple[list[int], list[int], str]:
    """Return the process of each rank, its exit code, and what they print on stderr."""
    command = [sys.executable, "-c", RANKS, str(folder), setup, advice, *codes]
    process = processes.start(command, stdin=subprocess.DEVNULL)
    out, err = process.communicate(timeout=LIMIT)
    numbers, exits = json.loads(out)
    return numbers, exits, err


@pytest.mark.parametrize(
    "codes",
    [[WAIT, WAIT, DIE, WAIT], [DIE, WAIT, WAIT], [WAIT, DIE], [CLOSE, CLOSE, WAIT + DIE, CLOSE]],
    ids=["rank 2", "rank 0", "rank 1 of two", "while others close"],
)
def test_a_death_ends_all_ranks_with_one_message(tmp_path: Path, codes: list[str]) -> None:
    dead = next(rank for rank, code in enumerate(codes) if DIE in code)
    codes[dead] = codes[dead].replace(WAIT, "time.sleep(0.1);")
    numbers, exits, err = run(tmp_path, *codes)
    assert err == (
        f"tinygpt: rank {dead} (process {numbers[dead]} on {HOST}) has died, so training stops; "
        "resume with: tinygpt\n"
    )
    assert exits == [-9 if rank == dead else 1 for rank in range(len(codes))]


def test_the_death_of_both_hubs_ends_the_others_with_a_message(tmp_path: Path) -> None:
    # They are stopped first, so that they die at the same time.
    kill = """
for number in (signal.SIGSTOP, signal.SIGKILL):
    for _, process in monitor.members[:2]:
        os.kill(process, number)
"""
    numbers, exits, err = run(tmp_path, WAIT, WAIT, kill + WAIT)
    assert re.fullmatch(rf"tinygpt: rank [01] \(process ({numbers[0]}|{numbers[1]}) on .*\n", err)
    assert exits == [-9, -9, 1]


def test_a_hub_that_dies_when_it_has_printed_the_message_is_not_followed_by_another(
    tmp_path: Path,
) -> None:
    # MPI may end it, as a consequence of the death of the other rank.
    killed = "time.sleep = lambda seconds: os.kill(os.getpid(), signal.SIGKILL); signal.pause()"
    numbers, exits, err = run(tmp_path, killed, WAIT, f"time.sleep(0.2); {DIE}", WAIT)
    assert err.startswith(f"tinygpt: rank 2 (process {numbers[2]} ")
    assert err.count("\n") == 1
    assert exits == [-9, 1, -9, 1]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_ends_all_ranks_with_its_message(tmp_path: Path, failing: int) -> None:
    codes = [WAIT, WAIT, WAIT]
    codes[failing] = "monitor.failed('the disk\\033[2J is full', 3)"
    _, exits, err = run(tmp_path, *codes)
    assert err == f"tinygpt: rank {failing} ({HOST}): the disk\\x1b[2J is full\n"
    assert exits == [3, 3, 3]


def test_of_several_failures_one_is_printed(tmp_path: Path) -> None:
    _, exits, err = run(tmp_path, *[FAIL] * 4)
    assert err.count("the disk is full") == err.count("\n") == 1
    assert exits == [1] * 4


def test_a_death_is_printed_instead_of_a_failure_that_it_causes(tmp_path: Path) -> None:
    die_next = f"time.sleep(0.05); {DIE}"
    _, _, err = run(tmp_path, FAIL, WAIT, die_next, setup="module.SETTLE = 1.0")
    assert err.startswith("tinygpt: rank 2 (process ")
    assert err.count("\n") == 1


def test_if_rank_0_is_busy_the_next_hub_ends_the_others(tmp_path: Path) -> None:
    busy = "ctypes.PyDLL(None).usleep(3000000)"  # It holds the GIL.
    _, exits, err = run(tmp_path, busy, WAIT, WAIT, FAIL, setup="module.GRACE = 0.6")
    assert err == f"tinygpt: rank 3 ({HOST}): the disk is full\n"
    assert exits == [1] * 4


def test_ranks_that_close_print_nothing_and_go_on(tmp_path: Path) -> None:
    late = "time.sleep(0.1); monitor.close(); sys.exit(3)"
    _, exits, err = run(tmp_path, CLOSE, CLOSE, late, "monitor.close(); " + DIE)
    assert err == ""
    assert exits == [0, 0, 3, -9]


def test_a_rank_that_exits_without_closing_ends_the_others_silently(tmp_path: Path) -> None:
    _, exits, err = run(tmp_path, WAIT, "sys.exit('an error')", WAIT)
    assert err == "an error\n"
    assert exits == [1, 1, 1]


@pytest.mark.parametrize("advice", ["1 / 0", "time.sleep(20)"])
def test_a_death_is_printed_without_the_advice_if_there_is_none(
    tmp_path: Path, advice: str
) -> None:
    _, exits, err = run(tmp_path, WAIT, DIE, setup="module.ADVICE_LIMIT = 0.1", advice=advice)
    assert err.endswith("has died, so training stops\n")
    assert exits == [1, -9]


BLOCK = """
module.EXIT_LIMIT = 1
if rank == 0:
    full = os.pipe()[1]
    os.write(full, bytes(1 << 16))
    os.dup2(full, 2)
"""


def test_output_that_is_blocked_does_not_keep_a_rank(tmp_path: Path) -> None:
    _, exits, _ = run(tmp_path, WAIT, DIE, setup=BLOCK)
    assert exits == [-signal.SIGALRM, -9]


IS_OPEN = """
def is_open(peer):
    try:
        return bool(os.fstat(peer.connection.fileno()))
    except OSError:
        return False

assert any(map(is_open, monitor.peers.values())) != monitor.has_own_files
monitor.close()
"""


def test_only_the_thread_has_the_connections_if_the_system_allows_it(tmp_path: Path) -> None:
    _, exits, err = run(tmp_path, IS_OPEN, IS_OPEN)
    assert (exits, err) == ([0, 0], "")


def test_a_death_ends_all_ranks_if_the_system_does_not_allow_it(tmp_path: Path) -> None:
    _, exits, err = run(tmp_path, WAIT, DIE, setup="module.unshare_files = lambda: False")
    assert err.endswith("so training stops; resume with: tinygpt\n")
    assert exits == [1, -9]


@pytest.mark.parametrize(
    ("hosts", "hubs"),
    [("a", [0]), ("aaa", [0, 1]), ("aabb", [0, 2]), ("abab", [0, 1])],
)
def test_the_second_hub_is_on_another_machine_if_there_is_one(hosts: str, hubs: list[int]) -> None:
    assert monitor.choose_hubs(hosts) == hubs


def test_a_lost_machine_is_noticed_within_ten_seconds() -> None:
    with socket.socket() as connection:
        monitor.keep_alive(connection)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, probes = (connection.getsockopt(socket.IPPROTO_TCP, n) for n in names)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    # Ending the ranks takes the rest.
    assert idle + interval * probes + monitor.ADVICE_LIMIT + monitor.LINGER < 10


TIME_OUT = """
def recv(connection, size, receive=socket.socket.recv):
    if data := receive(connection, size):
        return data
    raise OSError(errno.ETIMEDOUT, "no answer to keepalive")

socket.socket.recv = recv
"""


def test_a_rank_whose_machine_is_lost_does_not_answer(tmp_path: Path) -> None:
    _, _, err = run(tmp_path, WAIT, DIE, setup=TIME_OUT)
    assert f"on {HOST}) does not answer, so training stops; resume with: tinygpt\n" in err


STRANGER = """
def call(self, hub, port, token, addresses, call=Monitor.call):
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(module.greeting("another token", self.rank, hub))
        assert stranger.recv(1) == b""
    return call(self, hub, port, token, addresses)

Monitor.call = call
"""


def test_a_connection_without_the_token_is_closed(tmp_path: Path) -> None:
    _, exits, err = run(tmp_path, CLOSE, CLOSE, setup=STRANGER)
    assert (exits, err) == ([0, 0], "")


def test_if_a_rank_cannot_connect_all_raise_its_error(tmp_path: Path) -> None:
    setup = "module.own_addresses = lambda: []; module.JOIN_LIMIT = 0.1"
    _, exits, err = run(tmp_path, CLOSE, CLOSE, CLOSE, setup=setup)
    # The lines of three tracebacks may be mixed.
    error = rf"rank 2 \({HOST}\) cannot connect to rank 0 \({HOST}\) at port"
    assert len(re.findall(error, err)) == 3
    assert exits == [1, 1, 1]
