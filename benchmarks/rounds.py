"""Lets the sides of a benchmark take turns, one at a time, in rounds of ever another order."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workers import Side, Worker, WorkerError

# A turn is of so many steps that it takes about this long, in seconds.
TURN_SECONDS = 0.6
# Two sides do the same work if the numbers they agree on differ by no more than this share.
SAME = 1e-3

Say = Callable[[str], None]


class DisagreementError(RuntimeError):
    """Two sides that should do the same work do not."""


@dataclass
class Measured:
    """ready: of each side, how its warm-up went. turns: of each side and whole round, the seconds
    of each step. memory: of each side, the most bytes it had. left_out: why a side is missing.
    stopped: whether Ctrl-C came before the last round.
    """

    ready: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    turns: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    memory: dict[str, int] = field(default_factory=dict[str, int])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    stopped: bool = False


def measure(
    sides: Sequence[Side], threads: int, rounds: int, say: Say, steps: int | None = None
) -> Measured:
    """Starts a worker for each side and runs the rounds; at Ctrl-C, keeps the whole ones.

    steps: of a turn; None for as many as fill it.
    The first side must run (WorkerError); another one that does not is left out. Raises
    DisagreementError if a side does other work than the first.
    """
    measured = Measured()
    with ExitStack() as closing:
        try:
            workers = start(sides, threads, measured, closing, say)
            began = time.monotonic()
            for number in range(rounds):
                spent = time.monotonic() - began
                left = f"about {spent / number * (rounds - number):.0f} s left" if number else "…"
                where = f"round {number + 1}/{rounds}, {left}"
                take_round(workers, number, measured, say, where, steps)
        except KeyboardInterrupt:
            measured.stopped = True
    return measured


def start(
    sides: Sequence[Side], threads: int, measured: Measured, closing: ExitStack, say: Say
) -> list[Worker]:
    """The workers that have warmed up, one after the other, and agree."""
    workers: list[Worker] = []
    for side in sides:
        say(f"warming up, {side.name}")
        try:
            worker = Worker(side, threads)
        except WorkerError as error:
            if not workers:
                raise
            measured.left_out[side.name] = str(error)
            continue
        closing.callback(worker.close)
        workers.append(worker)
        measured.ready[side.name], measured.turns[side.name] = worker.ready, []
        check_agreement(workers[0], worker)
    return workers


def check_agreement(first: Worker, other: Worker) -> None:
    """Raises DisagreementError unless their numbers are the same; a side may have none."""
    ours, theirs = first.ready["agreement"], other.ready["agreement"]
    if theirs and not (
        len(ours) == len(theirs)
        # So written that NaN does not pass.
        and all(abs(a - b) <= SAME * abs(a) for a, b in zip(ours, theirs, strict=True))
    ):
        raise DisagreementError(
            f"{other.side.name} does not do the same work as {first.side.name}: "
            f"{numbers(theirs)}, not {numbers(ours)}"
        )


def numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def steps_of_a_turn(step_seconds: float) -> int:
    return max(1, math.ceil(TURN_SECONDS / step_seconds - 0.5))


def take_round(
    workers: Sequence[Worker], number: int, measured: Measured, say: Say, where: str,
    steps: int | None,
) -> None:  # fmt: skip
    """A turn of each worker, beginning with another one in each round."""
    answers: dict[str, Any] = {}
    first = number % len(workers)
    for worker in [*workers[first:], *workers[:first]]:
        name = worker.side.name
        say(f"{where}: {name}")
        answers[name] = worker.turn(steps or steps_of_a_turn(worker.ready["step_seconds"]))
    for name, answer in answers.items():
        measured.turns[name].append(answer["seconds"])
        measured.memory[name] = answer["memory"]
