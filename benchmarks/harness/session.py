"""One run of a benchmark: progress while it runs, tables as they are done, its file at the end."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import machine
from benchmarks.harness import figures, report
from benchmarks.harness.analysis import analyse
from benchmarks.harness.rounds import Comparison

# Seconds between lines of progress where there is no terminal to update one in.
QUIET_INTERVAL = 10.0
# With a load average this high, ratios say little.
BUSY = 0.5


class Progress:
    """Progress in place on a terminal, otherwise a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, -QUIET_INTERVAL
        # Drawn seldom, because the candidates need the CPU.
        self.status = console.status("", refresh_per_second=2)

    def say(self, text: str) -> None:
        """Show what is going on."""
        if self.console.is_terminal:
            self.status.update(escape(text))
        elif time.monotonic() - self.last >= QUIET_INTERVAL:
            self.last = time.monotonic()
            self.console.print(escape(text))

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Hide the line of progress while a table is printed."""
        self.status.stop()
        try:
            yield
        finally:
            self.status.start()


class Session:
    """The result of a run as it grows. "cases" are the comparisons, "limits" the machine's."""

    def __init__(self, benchmark: str, options: Mapping[str, Any]) -> None:
        self.console, self.errors = Console(highlight=False), Console(stderr=True, highlight=False)
        self.progress = Progress(self.errors)
        facts = machine.facts()
        if (load := facts["load"]) is not None and load > BUSY:
            self.errors.print(f"other processes are running (load {load}); ratios may be off")
        self.found: dict[str, Any] = {"benchmark": benchmark, "complete": False}
        self.found |= {"options": dict(options), "machine": facts, "left_out": {}, "cases": []}

    def add(self, comparison: Comparison, into: str = "cases", quiet: bool = False) -> bool:
        """Analyse a comparison, show it, and return whether the run goes on."""
        self.found["left_out"] |= comparison.left_out
        record = comparison.record
        if record["rounds"] or not comparison.stopped:
            self.add_record(record, into, quiet)
        return not comparison.stopped

    def add_record(self, record: dict[str, Any], into: str = "cases", quiet: bool = False) -> None:
        """Analyse the record of a comparison and show it."""
        self.found[into].append(analyse(record, self.found["machine"]["caches"]))
        if not quiet:
            with self.progress.hidden():
                report.show(record, self.console)


@contextmanager
def session(
    benchmark: str, options: Mapping[str, Any], path: Path | None, with_page: bool = False
) -> Generator[Session]:
    """Run a benchmark, and write what it found to `path` even after an error or Ctrl-C.

    with_page: whether to write an HTML page next to it.
    """
    run = Session(benchmark, options)
    try:
        with run.progress.status:
            yield run
    except KeyboardInterrupt:
        pass
    finally:
        found = run.found
        found["load_after"] = machine.load()
        for reason in found["left_out"].values():
            run.errors.print(f"[yellow]left out:[/yellow] {escape(reason)}")
        measured = any(found.get(name) for name in ("cases", "limits", "results"))
        if not found["complete"]:
            run.errors.print("stopped" if measured else "stopped; nothing was measured yet")
        if path is not None and measured:
            figures.write(path, found)
            written = str(path)
            if with_page:
                # Imported here because only this needs jinja2.
                from benchmarks.harness import page

                page.write(found, path.with_suffix(".html"))
                written += f" and {path.with_suffix('.html').name}"
            run.errors.print(f"written {written}", soft_wrap=True)
