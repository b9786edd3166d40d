"""`tinygpt gradcheck`: runs the suite or the mutants, and shows them as they go and at the end."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinygpt_np.gradcheck import matrix, mutants, suite
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.gradcheck.report import draw, summary_table, wide
from tinygpt_np.gradcheck.verdict import Report

Found = list[tuple[str, Report]]


def run_suite(
    names: Sequence[str], method: Method, seed: int, as_json: bool, console: Console
) -> bool:
    """Checks what is named (all, if nothing is), shows it, and returns whether all is right."""
    for name in names:
        if name not in suite.NAMES:
            raise ValueError(f"what to check must be one of {', '.join(suite.NAMES)}, not {name}")
    found, start = Found(), time.monotonic()
    chosen = list(dict.fromkeys(names)) or list(suite.NAMES)
    try:
        with console.status("") as status:
            for number, name in enumerate(chosen, 1):
                status.update(f"checking {name}, {number} of {len(chosen)}")
                for heading, report in suite.run(name, method, seed):
                    found.append((heading, report))
                    status.update(f"checking {heading}, {number} of {len(chosen)}")
    except KeyboardInterrupt:
        console.print("[bold]stopped; this is what was checked:[/bold]")
        show(found, len(names) > 0, as_json, time.monotonic() - start, console)
        raise
    show(found, len(names) > 0, as_json, time.monotonic() - start, console)
    return all(report.ok for _, report in found)


def show(found: Found, in_full: bool, as_json: bool, seconds: float, console: Console) -> None:
    """What was found: every tensor, or a line for each heading and every tensor that is wrong."""
    reports, console = [report for _, report in found], wide(console)
    if as_json:
        whole = {"ok": all(report.ok for report in reports), "seconds": round(seconds, 3)}
        print(json.dumps({**whole, "reports": [report.to_dict() for report in reports]}))
        return
    if not in_full:
        console.print(summary_table(by_heading(found)))
    for report in reports:
        if in_full or not report.ok:
            console.print(draw(report, console.width))
            console.print()
    tensors, wrong = sum(len(r.rows) for r in reports), sum(not r.ok for r in reports)
    verdict = f"[bold red]{wrong} wrong[/bold red]" if wrong else "[green]every one right[/green]"
    console.print(f"{tensors} gradients in {len(reports)} checks, {verdict}; {seconds:.1f} s")


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
    if page is not None and page.exists():
        raise ValueError(f"{page} exists already; name a file to be made")
    if page is not None and not page.parent.is_dir():
        raise ValueError(f"{page} cannot be made, because there is no folder {page.parent}")
    rooms = [room for room in mutants.ROOMS if not names or room in names]
    results, stopped, start = list[mutants.Result](), False, time.monotonic()
    bar = Progress(
        TextColumn("planting bugs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal or as_json,
    )  # fmt: skip
    with bar, contextlib.closing(mutants.run(rooms, seed)) as run:
        try:
            for result in bar.track(run, total=mutants.count(rooms), description=""):
                results.append(result)
        except KeyboardInterrupt:
            stopped = True
    found = matrix.merged(results, rooms, complete=not stopped)
    if page is not None:
        page.write_text(found.page(), encoding="utf-8")
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        show_matrix(found, time.monotonic() - start, page, console)
    if stopped:
        raise KeyboardInterrupt
    return not found.errors


def show_matrix(found: matrix.Matrix, seconds: float, page: Path | None, console: Console) -> None:
    console = wide(console)
    if not found.complete:
        console.print("[bold]stopped; this is what was tried:[/bold]")
    console.print(matrix.draw(found))
    for error in found.errors:
        console.print(f"[bold red]wrong:[/bold red] {escape(error)}")
    verdict = (
        "[green]every bug was noticed[/green]" if not found.errors else "[bold red]wrong[/bold red]"
    )
    console.print(f"\n{verdict}; {seconds:.0f} s")
    if page is not None:
        console.print(f"written  {page}")
