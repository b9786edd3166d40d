"""Candidates take turns, one at a time, in rounds of a different order each."""

import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.harness.process import Worker, WorkerError

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

    process: None if it takes none. about: what is known of it, for the record. required: whether
    the run fails if its process does; otherwise the reason is noted as "failed". patience: the
    seconds of samples after which it takes no more than LEAST_TURNS turns. timeout: the seconds
    that a turn may take. turns, waits: of each round the seconds of the samples, and the fraction
    of the turn for which threads waited for a CPU. timed: whether it takes turns.
    do: what the process is asked for a turn.
    """

    process: Worker | None
    about: dict[str, Any]
    required: bool = True
    patience: float = math.inf
    timeout: float | None = None
    turns: list[list[float] | None] = field(default_factory=list[list[float] | None])
    waits: list[float | None] = field(default_factory=list[float | None])
    timed: bool = False
    do: str = "turn"

    @property
    def name(self) -> str:
        """The name in progress and messages."""
        return self.about.get("rung") or self.about["name"]

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return what the process answers; nothing if it failed, which is noted."""
        assert self.process is not None
        try:
            return self.process.ask(do, **request)
        except WorkerError as error:
            if self.required:
                raise
            self.about |= {"failed": error.reason, "traceback": error.traceback}
            self.timed = False
            return {}

    def open(self, do: str = "open", **request: Any) -> None:
        """Ask the process to open it, and note what it answers."""
        self.about |= self.ask(do, **request)
        self.timed = not (self.about.get("wrong") or self.about.get("failed"))

    def turn(self) -> tuple[list[float] | None, float | None]:
        """Take a turn, unless this candidate has failed or has used up its time."""
        taken = [turn for turn in self.turns if turn is not None]
        if not self.timed or (sum(map(sum, taken)) > self.patience and len(taken) >= LEAST_TURNS):
            return None, None
        answer = self.ask(self.do, timeout=self.timeout)
        seconds, waited = answer.pop("seconds", None), answer.pop("waited", None)
        self.about |= answer
        return seconds, waited


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
        """All that have taken turns or will."""
        every = (*self.candidates, *self.controls, *self.limits)
        return [each for each in every if each.timed or each.turns]

    @contextmanager
    def until_interrupted(self) -> Generator[None]:
        """Let Ctrl-C end the block; the rounds until then are kept."""
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = True

    def close(self) -> None:
        """End the processes."""
        for each in (*self.candidates, *self.controls, *self.limits):
            if each.process is not None:
                each.process.close()

    def take_rounds(self, rounds: int, say: Say) -> None:
        """Take the rounds, each in another order, so that no one always follows the same one."""
        orders = random.Random(1)
        for _, progress in counted(range(rounds)):
            self.take_round(orders, progress, say)

    def take_round(self, orders: random.Random, progress: str, say: Say) -> None:
        """Take a round, which counts when all candidates had their turn."""
        turns: list[tuple[Candidate, tuple[list[float] | None, float | None]]] = []
        every = self.all
        for each in orders.sample(every, len(every)):
            say(f"round {progress}: {each.name}")
            turns.append((each, each.turn()))
        for each, (seconds, waited) in turns:
            each.turns.append(seconds)
            each.waits.append(waited)

    @property
    def record(self) -> dict[str, Any]:
        """All facts and turns of the comparison, without incomplete rounds."""
        rounds = min((len(each.turns) for each in self.all), default=0)
        parts = {"rows": self.candidates, "limits": self.limits, "controls": self.controls}
        return {**self.about, "rounds": rounds} | {
            part: [
                {**each.about, "turns": each.turns[:rounds], "waits": each.waits[:rounds]}
                for each in candidates
            ]
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
