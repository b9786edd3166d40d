"""Candidates take turns, one at a time, in rounds that start with a different one each time."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.harness.process import Process, WorkerError

OURS = "ours"
# Turns that a candidate takes however slow it is.
LEAST_TURNS = 5

Say = Callable[[str], None]
Item = TypeVar("Item")


class DisagreementError(RuntimeError):
    """Raised when candidates that should compute the same do not."""


@dataclass
class Candidate:
    """One of those that take turns.

    about: what is known of it, for the record. required: whether the run fails if its process
    exits; otherwise it is left out from then on. key: None if it takes no turns. patience: the
    seconds of samples after which it takes no more than LEAST_TURNS turns.
    """

    process: Process
    about: dict[str, Any]
    required: bool = True
    patience: float = math.inf
    key: int | None = None
    turns: list[list[float] | None] = field(default_factory=list[list[float] | None])
    lost: bool = False

    @property
    def name(self) -> str:
        """The name in progress and messages."""
        return self.about.get("rung") or self.about["name"]

    def open(self, do: str = "open", **request: Any) -> None:
        """Ask the process to open it, and note what it answers."""
        answer = self.process.ask(do, **request)
        self.key = answer.pop("key", None)
        self.about |= answer

    def turn(self) -> list[float] | None:
        """Take a turn, unless this candidate is lost or has used up its time."""
        taken = [turn for turn in self.turns if turn is not None]
        if self.lost or (sum(map(sum, taken)) > self.patience and len(taken) >= LEAST_TURNS):
            return None
        answer = self.process.ask("turn", key=self.key)
        seconds: list[float] = answer.pop("seconds")
        self.about |= answer
        return seconds


@dataclass
class Comparison:
    """Candidates of one case, the limits of the machine, and controls that repeat a candidate.

    left_out: why a library is missing. stopped: whether Ctrl-C came before the last round.
    """

    about: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    candidates: list[Candidate] = field(default_factory=list[Candidate])
    limits: list[Candidate] = field(default_factory=list[Candidate])
    controls: list[Candidate] = field(default_factory=list[Candidate])
    stopped: bool = False

    @property
    def all(self) -> list[Candidate]:
        """All that take turns."""
        every = (*self.candidates, *self.controls, *self.limits)
        return [each for each in every if each.key is not None]

    @contextmanager
    def until_interrupted(self) -> Generator[None]:
        """Let Ctrl-C end the block; the rounds until then are kept."""
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = True

    def add_limit(self, process: Process, name: str, threads: int, size: int, **more: Any) -> None:
        """Open a limit of the machine, to be measured in the same rounds."""
        limit = Candidate(process, {"name": name, **more, "threads": threads, "size": size})
        limit.open("open_limit", name=name, threads=threads, size=size)
        self.limits.append(limit)

    def take_rounds(self, rounds: int, say: Say) -> None:
        """Take the rounds. A round counts when all candidates had their turn."""
        every = self.all
        for number, progress in counted(range(rounds)):
            first = number * len(every) // rounds if rounds > len(every) else number % len(every)
            turns: list[tuple[Candidate, list[float] | None]] = []
            for each in [*every[first:], *every[:first]]:
                say(f"round {progress}: {each.name}")
                turns.append((each, self.turn_of(each)))
            for each, seconds in turns:
                each.turns.append(seconds)

    def turn_of(self, candidate: Candidate) -> list[float] | None:
        """Let a candidate take a turn; leave it out if its process exits and is not required."""
        try:
            return candidate.turn()
        except WorkerError as error:
            if candidate.required:
                raise
            candidate.lost = True
            self.left_out[candidate.about["by"]] = str(error)
            return None

    @property
    def record(self) -> dict[str, Any]:
        """All facts and turns of the comparison, without incomplete rounds."""
        rounds = min((len(each.turns) for each in self.all), default=0)
        parts = {"rows": self.candidates, "limits": self.limits, "controls": self.controls}
        return {**self.about, "rounds": rounds} | {
            part: [{**each.about, "turns": each.turns[:rounds]} for each in candidates]
            for part, candidates in parts.items()
        }


def counted(items: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Yield items with their number and the time left, such as "2/9, about 30 s left"."""
    began = time.monotonic()
    for done, item in enumerate(items):
        left = ""
        if done:
            seconds = (time.monotonic() - began) / done * (len(items) - done)
            minutes = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            left = f", about {minutes} left"
        yield item, f"{done + 1}/{len(items)}{left}"
