"""One run of a benchmark: progress while it runs, tables as they are done, its file at the end."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import cpus, machine
from benchmarks.harness import figures
from benchmarks.harness.analysis import analyse, refuse_impossible
from benchmarks.harness.rounds import Comparison
from benchmarks.harness.verdicts import judge
from benchmarks.render import report

# Seconds between lines of progress where there is no terminal to update one in.
QUIET_INTERVAL = 10.0
Parts = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]


class Session:
    """The result of a run as it grows. quiet: whether to show no table of a comparison."""

    def __init__(self, benchmark: str, options: Mapping[str, Any], quiet: bool = False) -> None:
        self.console, self.errors = Console(highlight=False), Console(stderr=True, highlight=False)
        # Drawn seldom, because the candidates need the CPU.
        self.status = self.errors.status("", refresh_per_second=2)
        self.said, self.quiet = -QUIET_INTERVAL, quiet
        facts = machine.facts()
        self.began = cpus.times()
        self.tell("; ".join(f"{name}: {words}" for name, words in cpus.in_words(facts).items()))
        if busy := cpus.busy(facts["usage"]):
            self.tell(f"{', '.join(busy)} with other processes; ratios may be off")
        self.found: dict[str, Any] = {"benchmark": benchmark, "complete": False}
        self.found |= {"options": dict(options), "machine": facts, "left_out": {}, "cases": []}

    def say(self, text: str) -> None:
        """Show progress in place on a terminal, otherwise in a line now and then."""
        if self.errors.is_terminal:
            self.status.update(escape(text))
        elif time.monotonic() - self.said >= QUIET_INTERVAL:
            self.said = time.monotonic()
            self.errors.print(escape(text))

    def tell(self, text: str) -> None:
        """Print a line for the user that is no result."""
        self.errors.print(escape(text), soft_wrap=True)

    @contextmanager
    def hidden(self) -> Generator[Console]:
        """Hide the line of progress, and give the console for a table."""
        self.status.stop()
        yield self.console
        self.status.start()

    def add(
        self, comparison: Comparison, into: str = "cases", parts: Parts = lambda record: [record]
    ) -> bool:
        """Analyse a comparison, or the parts of its record; return whether the run goes on."""
        self.found["left_out"] |= comparison.left_out
        record = comparison.record
        if record["rounds"] or not comparison.stopped:
            for part in parts(record):
                refuse_impossible(part)
                analyse(part, self.found.get("limits", []))
                self.found[into].append(judge(part, self.found["cases"]))
                if not self.quiet:
                    with self.hidden() as console:
                        report.show(part, console)
        return not comparison.stopped


@contextmanager
def session(
    benchmark: str, options: Mapping[str, Any], path: Path | None, quiet: bool = False
) -> Generator[Session]:
    """Run a benchmark, and write what it found to `path` even after an error or Ctrl-C."""
    run = Session(benchmark, options, quiet)
    found = run.found
    try:
        with run.status:
            yield run
    except KeyboardInterrupt:
        pass
    finally:
        for name, reason in found["left_out"].items():
            run.errors.print(f"[yellow]left out:[/yellow] {escape(f'{name}: {reason}')}")
        found["usage"] = cpus.usage(run.began)
        measured = any(found.get(name) for name in ("cases", "limits", "results"))
        if not found["complete"]:
            run.errors.print("stopped" if measured else "stopped; nothing was measured yet")
        if path is not None and measured:
            figures.write(path, found)
            written = str(path)
            if benchmark == "kernels":
                # Imported here because only this needs jinja2.
                from benchmarks.render import csv_file, page, sweep_plot

                page.write(found, path.with_suffix(".html"))
                written += f" and {path.with_suffix('.html').name}"
                if found["options"].get("sweep") and found["cases"]:
                    sweep_plot.write(found, path.with_suffix(".svg"))
                    written += f" and {path.with_suffix('.svg').name}"
                if (rows := found["options"]["csv"]) is not None:
                    csv_file.write(found, Path(rows))
                    written += f" and {rows}"
            run.errors.print(f"written {written}", soft_wrap=True)
