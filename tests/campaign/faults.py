"""A fault: what is damaged in a valid input, the commands that read it, and what they must do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Damage:
    """A description of the damage, arguments to add to the command, and names to expect.

    The names are used if the fault has none.
    """

    what: str
    arguments: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The exit code of a command, None for a crash or a hang; its output; the files it changed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    made: Mapping[str, str] = field(default_factory=dict[str, str])
    changed: Sequence[str] = ()


# Damage the input in a folder.
Action = Callable[[Random, Path], Damage]
# Return why the outcome of an accepted command is wrong, or "".
Check = Callable[[Outcome], str]


@dataclass(frozen=True)
class Fault:
    """A fault that must be refused, with one of its names in the message, or accepted.

    If both are allowed, the input is ambiguous. An accepted input has the outcome of the undamaged
    one, unless a check says otherwise. A fault of weight 2 is drawn twice as often.
    """

    damage: Action
    commands: Sequence[Sequence[str]]
    names: tuple[str, ...]
    refused: bool
    accepted: bool
    check: Check | None = None
    weight: int = 1
    may_change: tuple[str, ...] = ()


def refused(
    damage: Action, commands: Sequence[Sequence[str]], *names: str, weight: int = 1
) -> Fault:
    return Fault(damage, commands, names, refused=True, accepted=False, weight=weight)


def harmless(
    damage: Action, commands: Sequence[Sequence[str]], check: Check | None = None, weight: int = 1
) -> Fault:
    return Fault(damage, commands, (), refused=False, accepted=True, check=check, weight=weight)


def either(
    damage: Action,
    commands: Sequence[Sequence[str]],
    *names: str,
    check: Check | None = None,
    may_change: tuple[str, ...] = (),
) -> Fault:
    return Fault(damage, commands, names, True, True, check, may_change=may_change)


def prints(*wanted: str) -> Check:
    """Return a check that the output contains these strings."""

    def check(outcome: Outcome) -> str:
        missing = [text for text in wanted if text not in outcome.stdout]
        return f"it should print {', '.join(missing)}" if missing else ""

    return check
