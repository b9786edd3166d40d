"""A case of the campaign: a malformed input, the command that reads it, and what must happen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command.

    made: the files that were not there before, and their SHA-256. changed: those that were there
    before and are different or missing now. seconds: how long it took.
    """

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    made: Mapping[str, str] = field(default_factory=dict[str, str])
    changed: Sequence[str] = ()


# Return why an outcome is wrong; "" if it is right.
Check = Callable[[Outcome], str]


@dataclass(frozen=True)
class Refused:
    """The command exits with 1 or 2, and its message contains one of these names.

    leaves: the places in which it may leave files all the same.
    """

    names: tuple[str, ...]
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """The command succeeds.

    check: compares the outcome with what is expected; None for the outcome on the undamaged input
    of the same command, or of the one in like.
    """

    check: Check | None = None
    like: tuple[str, ...] = ()


@dataclass(frozen=True)
class Either:
    """The command may refuse or accept the input.

    reason: why neither can be demanded. names: as of Refused. check: as of Accepted, but None for
    nothing that can be compared.
    """

    reason: str
    names: tuple[str, ...] = ("",)
    check: Check | None = None


Expected = Refused | Accepted | Either


@dataclass(frozen=True)
class Process:
    """How a command is started in a process of its own.

    environment: variables to set; None removes one. stdout: a file to write to. closed: descriptors
    that are closed from the start. memory: the limit of its address space in bytes. signals: sent
    one after the other, as soon as the file `until` is there; it may then exit with 130.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    stdin: bytes = b""
    stdout: str | None = None
    closed: tuple[int, ...] = ()
    memory: int | None = None
    signals: tuple[int, ...] = ()
    until: str = ""


@dataclass(frozen=True)
class Case:
    """what: the fault, in words. writes: what an accepted command may change."""

    what: str
    command: list[str]
    expected: Expected
    writes: tuple[str, ...] = ()
    process: Process | None = None


# Damage the valid input in a folder, and return the case.
Kind = Callable[[Random, Path], Case]


def refused(what: str, command: Sequence[str], *names: str) -> Case:
    return Case(what, list(command), Refused(names))


def harmless(
    what: str, command: Sequence[str], check: Check | None = None, like: Sequence[str] = ()
) -> Case:
    return Case(what, list(command), Accepted(check, tuple(like)))


def either(
    what: str, command: Sequence[str], reason: str, *names: str, check: Check | None = None
) -> Case:
    return Case(what, list(command), Either(reason, names or ("",), check))


def contains(*wanted: str) -> Check:
    """Return a check that the output has these texts in it."""

    def check(outcome: Outcome) -> str:
        lacks = [text for text in wanted if text not in outcome.stdout]
        return f"it should print {', '.join(lacks)}" if lacks else ""

    return check
