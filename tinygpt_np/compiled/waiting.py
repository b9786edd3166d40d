"""Threads that wait for each other, and are released when one of them fails or none comes.

A thread that waits for another goes on when the other comes, raises Stopped when the other has
failed (the caller sees the error of the other), and raises StuckError when neither happens for ten
minutes. The time is counted in intervals, so that a process that was suspended with Ctrl-Z for an
hour has used up one interval and not all of them.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

# How often to look whether a worker process has ended, in seconds.
LOOK = 1.0
# How long a thread waits for another, in seconds, and how often.
INTERVAL, INTERVALS = 60.0, 10


class Stopped(Exception):  # noqa: N818 - not an error of its own: another thread had one.
    """Raised in a thread that waits for another one that has failed."""


class StuckError(RuntimeError):
    """Raised in a thread that has waited too long for another."""


def wait_until(condition: threading.Condition, ready: Callable[[], bool], event: str) -> None:
    """Return when ready() is true; the condition's lock is held.

    Raises StuckError with the name of the event after INTERVALS waits of INTERVAL seconds.
    """
    for _ in range(INTERVALS):
        if condition.wait_for(ready, INTERVAL):
            return
    raise StuckError(stuck(event))


def stuck(event: str) -> str:
    """Return the message for a wait that has lasted too long."""
    return (
        f"waited {INTERVAL * INTERVALS / 60:.3g} minutes for {event}, which did not happen; "
        "this is a bug in tinygpt"
    )


class Turns:
    """Lets micro-batches add to a gradient one after another, in the order of their numbers."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.next: dict[str, int] = {}
        self.stopped = False

    def restart(self) -> None:
        """Begin a step, in which each gradient is first given to micro-batch 0."""
        self.next.clear()
        self.stopped = False

    def wait(self, name: str, number: int) -> None:
        """Return when all micro-batches with a lower number have added to this gradient.

        Raises Stopped after stop(), and StuckError if the turn never comes.
        """
        if self.next.get(name, 0) == number:
            return
        with self.condition:
            wait_until(
                self.condition,
                lambda: self.stopped or self.next.get(name, 0) == number,
                f"the turn of micro-batch {number} to add to the gradient of {name}",
            )
        if self.stopped:
            raise Stopped

    def done(self, name: str, number: int) -> None:
        """Give the gradient to the next micro-batch."""
        with self.condition:
            self.next[name] = number + 1
            self.condition.notify_all()

    def stop(self) -> None:
        """Release all that wait, now and later, until the next restart."""
        with self.condition:
            self.stopped = True
            self.condition.notify_all()


class Barrier:
    """Lets threads go on when all of them have come, as often as they like."""

    def __init__(self, threads: int) -> None:
        self.condition = threading.Condition()
        self.threads, self.came, self.stopped = threads, 0, False

    def meet(self) -> None:
        """Return when as many threads as there are have called this as often as this one.

        Raises Stopped after stop(), and StuckError if one of them never comes.
        """
        with self.condition:
            target = (self.came // self.threads + 1) * self.threads
            self.came += 1
            self.condition.notify_all()
            wait_until(
                self.condition,
                lambda: self.stopped or self.came >= target,
                f"all of {self.threads} threads",
            )
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        """Release all that wait, now and later."""
        with self.condition:
            self.stopped = True
            self.condition.notify_all()


class Pool(ThreadPoolExecutor):
    """A thread pool that starts new threads in a forked process.

    A fork copies the pool without its threads, and a task given to the copy would never be done.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.threads, self.process = threads, os.getpid()

    def renew(self) -> bool:
        """Forget the threads of the parent process. Return whether there were any to forget."""
        forked = self.process != os.getpid()
        if forked:
            self.__init__(self.threads)
        return forked

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread of this process call a function."""
        self.renew()
        return super().submit(fn, *args, **kwargs)


def run_together(
    pool: ThreadPoolExecutor, jobs: Sequence[Callable[[], object]], stop: Callable[[], None]
) -> None:
    """Run the first job on this thread and the others on a pool; return when all have ended.

    The jobs may wait for each other. If one raises, or this thread is interrupted, stop() is called
    to release the others, and the error is raised when all have ended.
    """

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException:
            stop()
            raise

    others: list[Future[None]] = []
    errors: list[BaseException] = []
    try:
        # The first job is this thread's own: one less to wake.
        for job in jobs[1:]:
            others.append(pool.submit(guarded, job))  # noqa: PERF401 - those before it have begun.
        jobs[0]()
        wait(others)
    except BaseException as error:
        errors.append(error)
        stop()
        wait(others)
    errors += filter(None, (other.exception() for other in others))
    if errors:
        # Stopped only says that another thread has failed.
        raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])


class Workers:
    """The processes of a pool that was just made by multiprocessing."""

    def __init__(self) -> None:
        self.pids: set[int | None] = {child.pid for child in multiprocessing.active_children()}

    def check(self) -> None:
        """Raise StuckError if one has ended: the pool never returns what it was working on."""
        if not self.pids <= {child.pid for child in multiprocessing.active_children()}:
            raise StuckError(
                "a worker process has been killed, perhaps because there was not enough memory"
            )
