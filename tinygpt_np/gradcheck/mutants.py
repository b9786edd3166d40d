"""Plants every bug of mutations.py in turn, and asks every judge of jury.py whether it notices."""

import multiprocessing
import queue
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinygpt_np.compiled import waiting
from tinygpt_np.gradcheck.equivalents import EQUIVALENT
from tinygpt_np.gradcheck.jury import Jury
from tinygpt_np.gradcheck.mutations import Mutation
from tinygpt_np.gradcheck.sites import Site, sites
from tinygpt_np.machine import usable_cores


@dataclass(frozen=True)
class Result:
    """What each judge said of a mutant.

    room, function, kind, line, before, after: the mutant. noticed: by judge. raised: what it raised
    instead of a gradient at generic values, or "". problem: what the complex step has to say.
    reason: why it is listed as changing nothing, or "".
    """

    room: str
    function: str
    kind: str
    line: int
    before: str
    after: str
    noticed: dict[str, bool]
    raised: str
    problem: str
    reason: str

    @property
    def killed(self) -> bool:
        """Whether the check as it is done here, by the complex step at generic values, noticed."""
        return self.noticed["complex"]

    @property
    def error(self) -> str:
        """What is wrong with our proof: a bug that nobody saw, or one that is listed as none."""
        if self.killed and self.reason:
            return "listed as changing nothing, but it changes a gradient"
        if not self.killed and not self.reason:
            return "survived, and is not listed as changing nothing"
        return ""


# The judges of a room measure much, so they sit but once.
jury = cache(Jury)


def try_out(site: Site, mutation: Mutation, seed: int) -> Result:
    """Plants a mutant and asks everybody."""
    mutant, court = site.compiled(mutation), jury(site.room, seed)
    reason = EQUIVALENT.get((site.room, site.function, mutation.before, mutation.after), "")
    noticed, raised = dict[str, bool](), ""
    # A mutant may divide by zero; it is the judges who say so.
    with site.planted(mutant), np.errstate(all="ignore"):
        for name, judge in court.judges(mutant).items():
            try:
                noticed[name] = judge()
            except Exception as error:  # A crash is noticed by whoever makes it happen.
                noticed[name] = True
                if name == "complex":
                    raised = f"{type(error).__name__}: {error}"
        problem = f"raises {raised}" if raised else court.problem(mutant)
        if reason and not raised:
            noticed["complex"] |= court.notices_elsewhere(mutant)
    return Result(
        site.room, site.function, mutation.kind, mutation.line, mutation.before, mutation.after,
        noticed, raised, problem, reason,
    )  # fmt: skip


def work(task: tuple[str, int]) -> None:
    """What a worker does: tries out the mutants of one room, and then the right backward."""
    room, seed = task
    for site in (site for site in sites() if site.room == room):
        for mutation in site.mutations():
            RESULTS[0].put(try_out(site, mutation, seed))
        right = getattr(site.owner, site.function)
        with site.planted(right):
            judges = jury(site.room, seed).judges(right)
            accusers = [name for name, judge in judges.items() if judge()]
        if accusers:
            wanted = f"{site.room}.{site.function} is right"
            raise RuntimeError(f"{wanted}, but {', '.join(accusers)} would say that it is wrong")


# The queue of a worker's results, once it has begun.
RESULTS: list[Any] = []


def begin(results: Any) -> None:
    # Ctrl-C is for the parent, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    RESULTS.append(results)


def run(rooms: Sequence[str], seed: int) -> Generator[Result]:
    """Tries out every mutant, in as many processes as there are cores; yields results as they come.

    Raises RuntimeError when a judge accuses the right backward, or a process is killed.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    with context.Pool(min(usable_cores(), len(rooms)), begin, (results,)) as pool:
        workers = waiting.Workers()
        done = pool.map_async(work, [(room, seed) for room in rooms], chunksize=1)
        left = count(rooms)
        while left:
            try:
                yield results.get(timeout=waiting.LOOK)
                left -= 1
            except queue.Empty:
                if done.ready():
                    done.get()
                workers.check()
        done.get()


def count(rooms: Sequence[str]) -> int:
    return sum(len(site.mutations()) for site in sites() if site.room in rooms)


# Whatever bugs are planted in; the model takes longest, so it comes first.
ROOMS = tuple(dict.fromkeys(site.room for site in reversed(sites())))
