"""The processes that train one model together: the ranks that an MPI launcher started.

mpi4py is imported only in such a process. Values are exchanged as JSON, never as pickles.
"""

import functools
import hashlib
import importlib
import json
import os
import socket
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np import machine
from tinygpt_np.training.ranks.monitor import Monitor

# A difference in these only changes bits.
ONLY_BITS = ("processor", "vectors")


class GroupError(RuntimeError):
    """The ranks cannot train together; the message says why."""


class Group:
    """The ranks of a training; without MPI it has one.

    world: the communicator of mpi4py, or None. `machines` has a number for the machine of each
    rank, `divided` its cores if several ranks divide those of a machine.
    """

    def __init__(self, world: Any = None) -> None:
        self.world = world
        self.rank: int = world.Get_rank() if world else 0
        self.size: int = world.Get_size() if world else 1
        self.host = socket.gethostname()
        self.hosts: list[str] = self.share(self.host)
        self.machines = list(range(self.size))
        if world:
            # Ranks that can share memory are on one machine.
            local = world.Split_type(mpi().COMM_TYPE_SHARED)
            first = np.array([self.rank])
            local.Allreduce(mpi().IN_PLACE, first, mpi().MIN)
            local.Free()
            self.machines = self.share(int(first[0]))
        # Returns how to resume, for the message about the death of a rank.
        self.advice: Callable[[], str] = str
        self.monitor: Monitor | None = None
        self.divided = self.own_cores(machine.cores()) if world else 0

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an exception the monitor ends all ranks; see Monitor.failed.
        if self.monitor is not None and (kind is None or issubclass(kind, SystemExit)):
            self.monitor.close()

    def watch(self) -> None:
        """Begin to notice the death of another rank, which would leave this one waiting."""
        self.monitor = Monitor(self.rank, self.share, lambda: self.advice())

    @property
    def cores(self) -> int:
        """The number of cores for the threads of this rank."""
        return self.divided or machine.usable_cores()

    @property
    def local(self) -> list[int]:
        """The ranks on this rank's machine."""
        here = self.machines[self.rank]
        return [rank for rank, machine in enumerate(self.machines) if machine == here]

    def share(self, value: Any) -> list[Any]:
        """Return the values that all ranks give, in their order, as JSON has them."""
        if self.size == 1:
            return [value]
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        self.world.Allgather(np.array([len(data)]), sizes)
        found = np.zeros(sizes.sum(), np.uint8)
        self.world.Allgatherv(data, [found, sizes])
        parts = np.split(found, sizes.cumsum()[:-1])
        return [json.loads(part.tobytes()) for part in parts]

    def finished(self, requests: list[Any]) -> bool:
        """Return whether all messages have been sent or received."""
        return not requests or mpi().Request.Testall(requests)

    def reduce(self, array: np.ndarray, owner: int) -> Any:
        """Start MPI's sum of an array over all ranks, in place on its owner."""
        if owner == self.rank:
            return self.world.Ireduce(mpi().IN_PLACE, array, mpi().SUM, owner)
        return self.world.Ireduce(array, None, mpi().SUM, owner)

    def own_cores(self, mine: set[int]) -> int:
        """Return the cores for this rank, of those it may use; others may use them too."""
        allowed = [set(cores) for cores in self.share(sorted(mine))]
        shares = [1 / sum(core in allowed[rank] for rank in self.local) for core in mine]
        most = machine.cpu_quota() / len(self.local)
        return max(int(min(sum(shares) + 1e-9, most)), 1)

    def in_turn(self, function: Callable[[], object]) -> None:
        """Call a function on one rank of each machine, then on the others: it fills a cache.

        All ranks return at the same time.
        """
        is_first = self.rank == self.local[0]
        if is_first:
            function()
        self.share(None)
        if not is_first:
            function()
        self.share(None)

    def name(self, rank: int) -> str:
        """Return a rank with its machine, for a message."""
        return f"rank {rank} ({self.hosts[rank]})"

    def compare(self, facts: dict[str, Any]) -> list[str]:
        """Return notes about ranks on other processors. Raise GroupError if other facts differ."""
        first, *others = self.share(facts)
        notes: list[str] = []
        for rank, other in enumerate(others, start=1):
            differ = [name for name in first if first[name] != other.get(name)]
            if refused := [name for name in differ if name not in ONLY_BITS]:
                what = "; ".join(f"{n}: {shown(other[n])}, not {shown(first[n])}" for n in refused)
                raise GroupError(
                    f"{self.name(rank)} differs from {self.name(0)}, so they cannot train "
                    f"together: {what}"
                )
            if differ:
                what = " and ".join(f"{name} {other[name]}, not {first[name]}" for name in differ)
                notes.append(
                    f"{self.name(rank)} has {what}: the losses differ in their last bits from "
                    "those of equal machines"
                )
        return notes


ALONE = Group()


def mpi() -> Any:
    """Return the module MPI of mpi4py; importing it starts MPI."""
    # Over a single TCP connection, Open MPI mostly sends large messages in one direction at a time.
    os.environ.setdefault("OMPI_MCA_btl_tcp_links", "2")
    return importlib.import_module("mpi4py.MPI")  # Its types are there only if mpi4py is.


@functools.cache
def start() -> Group:
    """Return all ranks that a launcher of MPI started, or ALONE. Raise GroupError if it cannot."""
    size = machine.launched()
    if size is None:
        return ALONE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # On each rank, about another launcher; see below.
            library = mpi()
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # The paths that were tried follow.
        raise GroupError(
            f"this process was started by MPI, which needs mpi4py and an MPI library: pip install "
            f"'tinygpt-np[mpi]' ({reason})"
        ) from None
    world = library.COMM_WORLD
    if world.Get_size() != size:
        name = library.Get_library_version().split(",")[0].strip()
        raise GroupError(
            f"the launcher started {size} processes, but the MPI library of mpi4py ({name}) sees "
            f"{world.Get_size()}: use the mpirun of the same MPI as mpi4py"
        )
    if library.Query_thread() < library.THREAD_SERIALIZED:
        raise GroupError("the MPI library must allow calls from several threads, one at a time")
    if size == 1:
        return ALONE
    group = Group(world)
    group.watch()
    return group


@functools.cache
def installed() -> dict[str, str]:
    """Return what must be equal on all ranks: code, versions; and the processor."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    here = dict(machine.facts())
    names = ("NumPy", "Numba", "llvmlite")
    versions = {name: version(name.lower()) for name in names}
    return {
        "the code of tinygpt": digest.hexdigest(),
        **versions,
        **{name: here[name] for name in ONLY_BITS},
    }


def shown(value: Any) -> str:
    """Return a value for a message; of a SHA-256, its beginning."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
