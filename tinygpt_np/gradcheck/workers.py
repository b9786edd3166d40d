"""Worker processes of a multiprocessing pool, which never reports that one of them was killed."""

import multiprocessing

# Seconds between two checks.
POLL_INTERVAL = 1.0


class WorkerProcesses:
    """The processes of a pool that has just been made."""

    def __init__(self) -> None:
        self.pids: set[int | None] = {child.pid for child in multiprocessing.active_children()}

    def check(self) -> None:
        """Raise RuntimeError if a process has ended, because its result would never arrive."""
        if not self.pids <= {child.pid for child in multiprocessing.active_children()}:
            raise RuntimeError(
                "a worker process has been killed, perhaps because there was not enough memory"
            )
