"""Run jobs in worker processes, and notice if one of them is killed."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from tinygpt_np.machine import usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")
# Seconds between two checks.
POLL_INTERVAL = 1.0


def results(work: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[Result]:
    """Run jobs in one process per core; yield the results in the order of the jobs.

    Only the parent handles Ctrl-C. A job's exception is raised here. Raises RuntimeError if a
    process is killed, because its result would never arrive.
    """
    ignored = (signal.SIGINT, signal.SIG_IGN)
    context, processes = multiprocessing.get_context("spawn"), min(usable_cores(), len(jobs))
    with context.Pool(processes, signal.signal, ignored) as pool:
        workers = {child.pid for child in multiprocessing.active_children()}
        found, left = pool.imap(work, jobs), len(jobs)
        while left:
            try:
                result = found.next(timeout=POLL_INTERVAL)
            except multiprocessing.TimeoutError:
                if not workers <= {child.pid for child in multiprocessing.active_children()}:
                    raise RuntimeError(
                        "a worker process has been killed, perhaps because there was not enough "
                        "memory"
                    ) from None
            else:
                left -= 1
                yield result
