"""Ranks differ or not, divide the cores of their machine, and are found by their environment."""

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.thread_ranks import on_ranks

from tinygpt_np import machine
from tinygpt_np.training.ranks import group
from tinygpt_np.training.ranks.group import ALONE, Group, GroupError

FACTS = {"NumPy": "2.4.6", "data": "a" * 64, "processor": "EPYC", "vectors": "512 bits"}


def compared(changes: dict[str, str]) -> list[list[str]]:
    """Compare three ranks, of which the last has other facts."""

    def compare(ranks: Group) -> list[str]:
        return ranks.compare(FACTS | (changes if ranks.rank == 2 else {}))

    return on_ranks(3, compare)


def test_equal_ranks_have_no_notes() -> None:
    assert compared({}) == [[], [], []]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"NumPy": "2.3.0"}, "NumPy: 2.3.0, not 2.4.6"),
        ({"data": "b" * 64}, "data: bbbbbbbbbbbb…, not aaaaaaaaaaaa…"),
        ({"NumPy": "2.3.0", "vectors": "256 bits"}, "NumPy: 2.3.0, not 2.4.6"),
    ],
)
def test_a_rank_with_other_versions_or_data_is_refused(changes: dict[str, str], what: str) -> None:
    message = r"^rank 2 \(here\) differs from rank 0 \(here\), so they cannot train together: "
    with pytest.raises(GroupError, match=f"{message}{what}$"):
        compared(changes)


def test_another_processor_is_said_to_change_bits() -> None:
    note = "rank 2 (here) has vectors 256 bits, not 512 bits: the losses differ in their last bits"
    for notes in compared({"vectors": "256 bits"}):
        assert [each[: len(note)] for each in notes] == [note]


@pytest.mark.parametrize(
    ("allowed", "quota", "expected"),
    [
        ([{0, 1, 2, 3}] * 2, 99.0, [2, 2]),
        ([{0, 1}, {2, 3, 4}], 99.0, [2, 3]),
        ([{0}] * 3, 99.0, [1, 1, 1]),
        ([{0, 1, 2, 3, 4, 5}, {4, 5}], 99.0, [5, 1]),
        ([{0, 1, 2, 3}] * 2, 2.0, [1, 1]),
    ],
)
def test_ranks_of_a_machine_divide_the_cores_that_they_may_use(
    allowed: list[set[int]], quota: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)

    def cores(ranks: Group) -> int:
        ranks.share(None)
        return ranks.own_cores(allowed[ranks.rank])

    assert on_ranks(len(allowed), cores) == expected


def test_a_function_is_called_first_on_one_rank_of_each_machine() -> None:
    calls: list[int] = []

    def call(ranks: Group) -> None:
        ranks.machines = [0, 0, 2, 2]
        ranks.in_turn(lambda: calls.append(ranks.rank))

    on_ranks(4, call)
    assert sorted(calls[:2]) == [0, 2]
    assert sorted(calls[2:]) == [1, 3]


LAUNCHERS: list[tuple[dict[str, str], int | None, int]] = [
    ({}, None, 0),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2"}, 4, 2),
    ({"PMI_SIZE": "3", "PMI_RANK": "1"}, 3, 1),
    ({"PMIX_RANK": "5", "SLURM_NTASKS": "8"}, 8, 5),
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "1"}, None, 0),  # Without MPI.
]


@pytest.mark.parametrize(("environment", "size", "rank"), LAUNCHERS)
def test_launchers_are_known_by_their_environment(
    environment: dict[str, str], size: int | None, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*machine.SIZES, *machine.RANKS, "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (machine.launched(), machine.launched_rank()) == (size, rank)


def test_a_process_without_a_launcher_is_alone_and_shares_with_itself() -> None:
    assert not {*machine.SIZES, machine.RANKS[-1]} & {*os.environ}
    assert group.start() is ALONE
    value: Any = {"a": [1, 2.5]}
    assert ALONE.share(value) == [value]


def test_without_mpi4py_a_rank_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(GroupError, match=r"pip install 'tinygpt-np\[mpi\]' \(import of mpi4py"):
        group.start.__wrapped__()


@pytest.mark.parametrize(
    ("seen", "level", "message"),
    [
        (1, 3, r"started 2 processes, but .* mpi4py \(Some MPI v1\) sees 1: use the mpirun of"),
        (2, 1, "must allow calls from several threads, one at a time"),
    ],
)
def test_an_mpi_that_does_not_fit_is_refused(
    seen: int, level: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(
        COMM_WORLD=SimpleNamespace(Get_size=lambda: seen), THREAD_SERIALIZED=2,
        Query_thread=lambda: level, Get_library_version=lambda: "Some MPI v1, package",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", library)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(GroupError, match=message):
        group.start.__wrapped__()


@pytest.mark.parametrize(("chosen", "used"), [(None, "2"), ("1", "1")])
def test_open_mpi_has_a_connection_for_each_direction_unless_the_user_chooses(
    chosen: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "OMPI_MCA_btl_tcp_links"
    monkeypatch.setenv(name, chosen or "")
    if chosen is None:
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", SimpleNamespace())
    group.mpi()
    assert os.environ[name] == used


def test_what_is_installed_has_the_code_and_the_versions() -> None:
    facts = group.installed()
    assert len(facts["the code of tinygpt"]) == 64
    assert {"NumPy", "Numba", "llvmlite", "processor", "vectors"} <= {*facts}
