"""`tinygpt gradcheck`: runs the suite or the mutants, and shows them as they go and at the end."""

import contextlib
import json
import signal
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinygpt_np.config import counted
from tinygpt_np.gradcheck import matrix, mutants, suite
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.gradcheck.report import Report, draw, summary_table, wide

Found = list[tuple[str, Report]]


def run_suite(
    names: Sequence[str], method: Method, seed: int, as_json: bool, console: Console
) -> bool:
    """Checks what is named (all, if nothing is), shows it, and returns whether all is right."""
    for name in names:
        if name not in suite.NAMES:
            raise ValueError(f"what to check must be one of {', '.join(suite.NAMES)}, not {name}")
    found, start = Found(), time.monotonic()
    chosen = list(dict.fromkeys(names)) or suite.checkable()
    stopped = False
    try:
        with console.status("") as status:
            for number, name in enumerate(chosen, 1):
                status.update(f"checking {name}, {number} of {len(chosen)}")
                for heading, report in suite.run(name, method, seed):
                    found.append((heading, report))
                    status.update(f"checking {heading}, {number} of {len(chosen)}")
    except KeyboardInterrupt:
        stopped = True
    show(found, len(names) > 0, as_json, stopped, time.monotonic() - start, console)
    if stopped:
        raise KeyboardInterrupt
    return all(report.ok for _, report in found)


def show(
    found: Found, in_full: bool, as_json: bool, stopped: bool, seconds: float, console: Console
) -> None:
    """What was found: every tensor, or a line for each heading and every tensor that is wrong."""
    reports, console = [report for _, report in found], wide(console)
    wrong = sum(not report.ok for report in reports)
    if as_json:
        # Of what was not checked, nobody knows whether it is right.
        ok = False if wrong else None if stopped else True
        whole = {"ok": ok, "complete": not stopped, "seconds": round(seconds, 3)}
        print(json.dumps({**whole, "reports": [report.to_dict() for report in reports]}))
        return
    if not in_full:
        console.print(summary_table(by_heading(found)))
    for report in reports:
        if in_full or not report.ok:
            console.print(draw(report, console.width))
            console.print()
    results = sum(len(report.rows) for report in reports)
    verdict = f"[bold red]{wrong} wrong[/bold red]" if wrong else "[green]every one right[/green]"
    done = f"{counted(results, 'result')} in {counted(len(reports), 'check')}"
    console.print(f"{done}, {verdict}; {seconds:.1f} s")
    if stopped:
        console.print("[bold]stopped; the rest was not checked[/bold]")


def by_heading(found: Found) -> list[Report]:
    """The reports, with those of one heading put together."""
    merged: dict[str, list[Report]] = {}
    for heading, report in found:
        merged.setdefault(heading, []).append(report)
    return [
        Report(heading, tuple(row for report in reports for row in report.rows), reports[0].seed)
        for heading, reports in merged.items()
    ]


def run_mutants(
    names: Sequence[str], seed: int, as_json: bool, page: Path | None, console: Console
) -> bool:
    """Plants the bugs of what is named (all, if nothing is), and shows who noticed which.

    page: a file to be written, with the matrix in HTML. Returns whether every bug was noticed.
    """
    for name in names:
        if name not in mutants.ROOMS:
            known = ", ".join(reversed(mutants.ROOMS))
            raise ValueError(f"bugs are planted in one of {known}, not in {name}")
    if page is not None:
        claim(page)
    rooms = [room for room in mutants.ROOMS if not names or room in names]
    results, stopped, start = list[mutants.Result](), False, time.monotonic()
    total = mutants.count(rooms)
    bar = Progress(
        TextColumn("planting bugs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal or as_json,
    )  # fmt: skip
    with bar, contextlib.closing(mutants.run(rooms, seed)) as run, stopped_like_ctrl_c():
        try:
            for result in bar.track(run, total=total, description=""):
                results.append(result)
        except KeyboardInterrupt:
            stopped = True
        except Exception:
            if page is not None:
                page.unlink()
            raise
    found = matrix.merged(results, rooms, complete=not stopped)
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        console = wide(console)
        console.print(matrix.draw(found))
        for error in found.errors:
            console.print(f"[bold red]wrong:[/bold red] {escape(error)}")
        console.print(f"\n{conclusion(found, total)}; {time.monotonic() - start:.0f} s")
    if page is not None:
        page.write_text(found.page(), encoding="utf-8")
        if not as_json:
            console.print(f"written  {escape(str(page))}")
    if stopped:
        raise KeyboardInterrupt
    return not found.errors


def conclusion(found: matrix.Matrix, total: int) -> str:
    if found.errors:
        return "[bold red]wrong[/bold red]"
    if not found.complete:
        return f"[bold]stopped after {len(found.results)} of {total} mutants[/bold]"
    return "[green]every bug was noticed[/green]"


def claim(page: Path) -> None:
    """Makes the file, empty: if it cannot be made, that turns out now and not after a minute."""
    try:
        page.open("x").close()
    except FileExistsError:
        raise ValueError(f"{page} exists already; name a file to be made") from None
    except OSError as error:
        raise ValueError(f"{page} cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def stopped_like_ctrl_c() -> Generator[None]:
    """Lets SIGTERM end the workers too, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
