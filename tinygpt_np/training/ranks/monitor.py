"""A monitor that ends all ranks when one of them dies or fails, with one message.

MPI waits forever for a rank that has died, unless its launcher ends the others: Open MPI's mpirun
and MPICH's mpiexec do, srun does not. So each rank has a TCP connection to two hubs: rank 0, and
the first rank on another machine. A daemon thread waits on them. If a process ends, its system
closes its connections; if a machine loses power, TCP keepalive notices it after seven seconds.

The message is printed by the first hub that is alive. The others wait for it to tell them to end.
If it does not, the second hub prints the message after a moment, and then any rank does.

The thread needs the GIL, which kernels, MPI and the compiler release.
"""

import atexit
import contextlib
import ctypes
import errno
import fcntl
import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

# Seconds that a rank waits for each hub before it, which may be busy, to end all ranks.
GRACE = 2.0
# Seconds before a failure is printed. It may be a consequence of a death that is noticed next.
SETTLE = 0.2
# Seconds for the caller's advice, which may read from a disk that does not answer.
ADVICE_LIMIT = 1.0
# Seconds after a death in which the launcher notices it too, and not first that others have ended.
NOTICE = 0.1
# Seconds that a hub waits for the others to end before it ends.
LINGER = 1.0
# Seconds after which a rank that is ending is killed, even if its output is blocked.
EXIT_LIMIT = 5
# Seconds for one attempt to connect, for one message, and for all ranks to connect.
CONNECT_LIMIT, SEND_LIMIT, JOIN_LIMIT = 3.0, 1.0, 60.0
# A peer that does not answer is lost after 3 + 4 * 1 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 4}
UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
CLONE_FILES = 0x400
# The request of Linux for the IPv4 address of a network interface.
SIOCGIFADDR = 0x8915
SHOW_CURSOR = "\x1b[?25h"  # A progress bar hides it.


class Cause(NamedTuple):
    """Why the ranks end: what to print, if anything, and the exit code."""

    died: bool
    message: str
    code: int


@dataclass
class Peer:
    """A rank at the other end of a connection."""

    rank: int
    connection: socket.socket
    received: bytes = b""
    closed: bool = False
    lost: bool = False

    def send(self, **message: Any) -> None:
        """Send a message, unless the connection is lost."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")


class Monitor:
    """The connections of a rank to the others, and the thread that waits on them.

    All ranks create it at the same time. A rank that leaves without `close`, by an exception for
    example, ends the others silently.

    Parameters
    ----------
    rank : int
        The number of this process.
    share : callable
        ``share(value) -> list`` gathers one JSON value from each rank, sorted by rank.
    advice : callable
        ``advice() -> str`` returns the end of the message about a death: how to resume. It is
        called then, in another thread, on any rank.

    Raises
    ------
    ConnectionError
        On all ranks, with the same message, if two of them cannot connect.
    """

    def __init__(
        self, rank: int, share: Callable[[Any], list[Any]], advice: Callable[[], str]
    ) -> None:
        self.rank, self.advice = rank, advice
        # The host and the process of each rank.
        self.members: list[tuple[str, int]] = share([socket.gethostname(), os.getpid()])
        self.hubs = choose_hubs([host for host, _ in self.members])
        self.peers: dict[int, Peer] = {}
        self.cause: Cause | None = None
        # The messages of the ranks that have failed.
        self.failures: dict[int, str] = {}
        self.noticed = 0.0
        self.connect(share)
        # The main thread talks to the monitor's thread as other ranks do.
        main, own = socket.socketpair()
        self.main, self.own = Peer(rank, main), Peer(rank, own)
        self.has_own_files, self.started = False, threading.Event()
        numbers = [peer.connection.fileno() for peer in (self.own, *self.peers.values())]
        self.selector = selectors.DefaultSelector()
        self.thread = threading.Thread(target=self.watch, name="monitor", daemon=True)
        self.thread.start()
        self.started.wait()
        for number in [*numbers, self.selector.fileno()] if self.has_own_files else []:
            os.close(number)  # The thread has its own copy.
        atexit.register(self.failed, "")

    # Called by the main thread

    def close(self) -> None:
        """Wait until all ranks have closed their monitors. After that, nothing is printed.

        Until then, the death of a rank ends this one too.
        """
        self.main.send(kind="closed")
        self.thread.join()
        self.main.connection.close()
        atexit.unregister(self.failed)

    def failed(self, message: str, code: int = 1) -> NoReturn:
        """End all ranks with this code after printing which rank failed, and the message.

        Nothing is printed if the message is empty, or if another rank failed or died before.
        """
        self.main.send(kind="failed", message=message, code=code)
        self.thread.join(GRACE + EXIT_LIMIT)  # The thread ends the process.
        say(f"{self.name(self.rank)}: {message}" if message else "")
        leave(code)

    # Connecting

    def connect(self, share: Callable[[Any], list[Any]]) -> None:
        """Connect to the hubs before this rank, and if it is a hub, to the ranks after it."""
        token, problem = secrets.token_hex(), ""
        with listen() as listener:
            offers = share([listener.getsockname()[1], token, own_addresses()])
            try:
                for hub in self.hubs_before():
                    self.peers[hub] = Peer(hub, self.call(hub, *offers[hub]))
                if self.rank in self.hubs:
                    self.accept(listener, token)
            except OSError as error:
                problem = str(error)
        if problems := [each for each in share(problem) if each]:
            raise ConnectionError(problems[-1])  # The caller knows more than the hub it calls.
        for peer in self.peers.values():
            peer.connection.settimeout(SEND_LIMIT)
            keep_alive(peer.connection)

    def call(self, hub: int, port: int, token: str, addresses: list[str]) -> socket.socket:
        """Return a connection to a hub. Several machines may have the same private address."""
        if self.members[hub][0] != self.members[self.rank][0]:
            addresses = [address for address in addresses if not address.startswith("127.")]
        for address in addresses:
            with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
                connection = socket.create_connection((address, port), CONNECT_LIMIT)
                opened.callback(connection.close)
                connection.sendall(greeting(token, self.rank, hub))
                if hmac.compare_digest(read_line(connection), greeting(token, hub, self.rank)):
                    opened.pop_all()
                    return connection
        raise ConnectionError(
            f"{self.name(self.rank)} cannot connect to {self.name(hub)} at port {port} of "
            f"{', '.join(addresses)}; does a firewall separate them?"
        )

    def accept(self, listener: socket.socket, token: str) -> None:
        """Wait for the ranks that are to connect, and ignore whatever else connects."""
        deadline = time.monotonic() + JOIN_LIMIT
        while missing := {*range(len(self.members))} - {self.rank, *self.peers}:
            listener.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                raise ConnectionError(
                    f"{self.name(min(missing))} has not connected to {self.name(self.rank)} "
                    f"within {JOIN_LIMIT:.0f} seconds"
                ) from None
            connection.settimeout(CONNECT_LIMIT)
            with contextlib.suppress(OSError, ValueError):
                line = read_line(connection)
                rank = int(line.split(b" ")[0])
                if rank in missing and hmac.compare_digest(line, greeting(token, rank, self.rank)):
                    connection.sendall(greeting(token, self.rank, rank))
                    self.peers[rank] = Peer(rank, connection)
                    continue
            connection.close()

    # Run by the monitor's thread

    def watch(self) -> None:
        """Receive messages until all ranks have closed, or end this process."""
        self.has_own_files = unshare_files()
        for peer in (self.own, *self.peers.values()):
            self.selector.register(peer.connection, selectors.EVENT_READ, peer)
        self.started.set()
        while not self.complete():
            wait = max(self.due() - time.monotonic(), 0) if self.cause else None
            for key, _ in self.selector.select(wait):
                self.receive(key.data)
            if self.cause and time.monotonic() >= self.due():
                # If this thread has waited for the GIL, another rank may have ended all by now.
                for key, _ in self.selector.select(0):
                    self.receive(key.data)
                self.end(self.cause)
        for peer in (self.own, *self.peers.values()):
            peer.connection.close()
        self.selector.close()

    def receive(self, peer: Peer) -> None:
        """Receive messages from a peer, or the end of its connection."""
        error = None
        try:
            data = peer.connection.recv(1 << 16)
        except OSError as caught:
            data, error = b"", caught
        *lines, peer.received = (peer.received + data).split(b"\n")
        for line in lines:
            self.handle(peer, json.loads(line))
        if not data:
            self.selector.unregister(peer.connection)
            peer.lost = True
            if not peer.closed:
                unreachable = error is not None and error.errno in UNREACHABLE
                self.blame(Cause(True, self.obituary(peer.rank, unreachable), 1))

    def handle(self, peer: Peer, message: dict[str, Any]) -> None:
        """Act on a message of a rank or of the main thread, which the others are told too."""
        if message["kind"] == "end":
            leave(message["code"])
        if peer is self.own:
            for other in self.peers.values():
                other.send(**message)
        if message["kind"] == "closed":
            peer.closed = True
        elif message["kind"] == "printed":
            # MPI may end the hub that has printed before it ends this rank.
            self.cause, self.noticed = Cause(True, "", message["code"]), time.monotonic()
        else:
            self.failures[peer.rank] = message["message"]
            self.blame(Cause(False, self.failure(peer.rank), message["code"]))

    def blame(self, cause: Cause) -> None:
        """Remember the first death, or else the first failure."""
        if self.cause is None or (cause.died and not self.cause.died):
            self.cause, self.noticed = cause, time.monotonic()

    def due(self) -> float:
        """Return when this rank has to end the others."""
        assert self.cause is not None
        alive = sum(not self.peers[hub].lost for hub in self.hubs_before())
        return self.noticed + alive * GRACE + (0 if self.cause.died else SETTLE)

    def complete(self) -> bool:
        """Return whether all ranks have closed. The hubs see it, and end their connections."""
        closed = all(peer.closed for peer in (self.own, *self.peers.values()))
        return closed and (self.rank in self.hubs or all(peer.lost for peer in self.peers.values()))

    def end(self, cause: Cause) -> NoReturn:
        """Print the message, end the other ranks, and then this one."""
        signal.alarm(EXIT_LIMIT)
        if not cause.died and len(self.failures) == len(self.members):
            # If all have the same message, such as that a flag is wrong, it is not about one rank.
            messages = {*self.failures.values()}
            cause = cause._replace(message=messages.pop()) if len(messages) == 1 else cause
        advice = self.ask_advice() if cause.died and cause.message else ""
        say(f"{cause.message}; {advice}" if advice else cause.message)
        for peer in self.peers.values():
            peer.send(kind="printed", code=cause.code)
        time.sleep(NOTICE if cause.died else 0)
        for peer in self.peers.values():
            peer.send(kind="end", code=cause.code)
        # A connection that is closed with unread data may lose the message.
        self.selector.unregister(self.own.connection)
        deadline = time.monotonic() + LINGER
        while self.selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                data = b""
                with contextlib.suppress(OSError):
                    data = key.data.connection.recv(1 << 16)
                if not data:
                    self.selector.unregister(key.fileobj)
        leave(cause.code)

    # Messages

    def ask_advice(self) -> str:
        """Return the caller's advice, or nothing if there is none in time."""
        answers: list[str] = []

        def ask() -> None:
            with contextlib.suppress(Exception):
                answers.append(self.advice())

        with contextlib.suppress(RuntimeError):  # The system may not allow another thread.
            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            thread.join(ADVICE_LIMIT)
        return answers[0] if answers else ""

    def failure(self, rank: int) -> str:
        """Return the message about a rank that has failed."""
        message = self.failures[rank]
        return f"{self.name(rank)}: {message}" if message else ""

    def obituary(self, rank: int, unreachable: bool) -> str:
        """Return the message about a rank that has died, without advice."""
        host, process = self.members[rank]
        event = "does not answer" if unreachable else "has died"
        return f"rank {rank} (process {process} on {host}) {event}, so training stops"

    def name(self, rank: int) -> str:
        """Return the number and the host of a rank."""
        return f"rank {rank} ({self.members[rank][0]})"

    def hubs_before(self) -> list[int]:
        """Return the hubs that act before this rank does."""
        return self.hubs[: self.hubs.index(self.rank)] if self.rank in self.hubs else self.hubs


def unshare_files() -> bool:
    """Give this thread its own table of open files; return whether the system allows it.

    The connections of a process that is killed then end when this thread ends, before its memory is
    freed and the launcher is told. MPICH's mpiexec then kills the others at once, which without
    this is often before one of them has printed the message, and with this seldom.
    """
    system = ctypes.CDLL(None)
    return hasattr(system, "unshare") and system.unshare(CLONE_FILES) == 0


def choose_hubs(hosts: Sequence[str]) -> list[int]:
    """Return rank 0 and the first rank on another host; if there is none, rank 1."""
    others = [rank for rank, host in enumerate(hosts) if host != hosts[0]]
    return [0, *(others or range(1, len(hosts)))][:2]


def listen() -> socket.socket:
    """Listen on a free port, with IPv6 too if the system has it."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
        )
    return socket.create_server(("", 0), backlog=4096)


def own_addresses() -> list[str]:
    """Return the IPv4 addresses of this machine and its name, which may not resolve elsewhere."""
    addresses: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # The interface has no address.
                request = struct.pack("256s", name.encode())
                found = fcntl.ioctl(anything.fileno(), SIOCGIFADDR, request)
                addresses.append(socket.inet_ntoa(found[20:24]))
    return [*addresses, socket.gethostname()]


def keep_alive(connection: socket.socket) -> None:
    """Let the system notice when the other machine has lost power or its network."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def greeting(token: str, sender: int, receiver: int) -> bytes:
    """Return the line with which a rank proves to another that it knows the token."""
    words = f"{sender} {receiver}"
    return f"{words} {hmac.new(token.encode(), words.encode(), 'sha256').hexdigest()}\n".encode()


def read_line(connection: socket.socket) -> bytes:
    """Read a short line and nothing that follows it."""
    with connection.makefile("rb", buffering=0) as file:
        return file.readline(200)


def say(message: str) -> None:
    """Print an error on stderr as the command does.

    It is written to the file descriptor, because another thread may hold the lock of the stream.
    """
    # File names in it may contain control characters.
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    start = f"\n{SHOW_CURSOR}" if os.isatty(2) else ""
    if message:
        with contextlib.suppress(OSError):
            os.write(2, f"{start}tinygpt: {text}\n".encode(errors="backslashreplace"))


def leave(code: int) -> NoReturn:
    """End the process, whatever its other threads do."""
    signal.alarm(EXIT_LIMIT)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
