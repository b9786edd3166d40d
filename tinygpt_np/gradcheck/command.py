"""`tinygpt gradcheck`: run the suite or the planted bugs, with progress and a summary."""

import contextlib
import json
import signal
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tinygpt_np.config import counted
from tinygpt_np.gradcheck import detectors, matrix, mutations, suite
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.gradcheck.progress import waiting
from tinygpt_np.gradcheck.report import Report, draw, summary_table, wide

INSTALL = "pip install 'tinygpt-np[detectors]'"
# A report, and the heading under which the summary counts it.
Found = list[tuple[str, Report]]


def run_suite(
    names: Sequence[str], method: Method, seed: int, as_json: bool, console: Console
) -> bool:
    """Check what is named, or everything; show the results and return whether all is right."""
    for name in names:
        if name not in suite.NAMES:
            raise ValueError(f"NAME must be one of {', '.join(suite.NAMES)}, not {name}")
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
    """Show every report, or a summary and the reports that are wrong."""
    reports, console = [report for _, report in found], wide(console)
    wrong = sum(not report.ok for report in reports)
    if as_json:
        # After an interruption, it is unknown whether the rest is right.
        ok = False if wrong else None if stopped else True
        summary = {"ok": ok, "complete": not stopped, "seconds": round(seconds, 3)}
        print(json.dumps({**summary, "reports": [report.to_dict() for report in reports]}))
        return
    if not in_full:
        console.print(summary_table(by_heading(found)))
    for report in reports:
        if in_full or not report.ok:
            console.print(draw(report, console.width))
            console.print()
    results = sum(len(report.rows) for report in reports)
    verdict = f"[bold red]{wrong} wrong[/bold red]" if wrong else "[green]all correct[/green]"
    done = f"{counted(results, 'result')} in {counted(len(reports), 'check')}"
    console.print(f"{done}, {verdict}; {seconds:.1f} s")
    if stopped:
        console.print("[bold]stopped; the rest was not checked[/bold]")


def by_heading(found: Found) -> list[Report]:
    """Merge the reports that have the same heading."""
    merged: dict[str, Report] = {}
    for heading, report in found:
        rows = merged[heading].rows if heading in merged else ()
        merged[heading] = Report(heading, (*rows, *report.rows), report.seed)
    return list(merged.values())


def run_mutants(
    names: Sequence[str], seed: int, with_libraries: bool, as_json: bool, page: Path | None,
    console: Console,
) -> bool:  # fmt: skip
    """Plant the bugs of what is named, or all; show the matrix and return whether it is right."""
    for name in names:
        if name not in mutations.OPERATIONS:
            known = ", ".join(reversed(mutations.OPERATIONS))
            raise ValueError(f"bugs are planted in one of {known}, not in {name}")
    libraries = installed_libraries() if with_libraries else ()
    if page is not None:
        create_empty(page)
    operations, start = [n for n in mutations.OPERATIONS if not names or n in names], time.time()
    try:
        found = plant_bugs(operations, seed, libraries)
    except Exception:
        if page is not None:
            page.unlink()
        raise
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        show_matrix(found, time.time() - start, wide(console))
        if with_libraries and (missing := sorted(missing_packages())):
            left_out = f"left out, because not installed: {', '.join(missing)}; {INSTALL}"
            console.print(left_out, markup=False)
    if page is not None:
        page.write_text(found.page(), encoding="utf-8")
        if not as_json:
            console.print(f"written  {escape(str(page))}")
    if not found.complete:
        raise KeyboardInterrupt
    return not found.errors


def plant_bugs(operations: Sequence[str], seed: int, libraries: Sequence[str]) -> matrix.BugMatrix:
    """Plant the bugs and show the progress; after an interruption, return what was found."""
    results = list[detectors.MutantResult | detectors.RightResult]()
    total = len(detectors.jobs(operations, seed, libraries))
    run, complete = detectors.run(operations, seed, libraries), True
    with waiting("planting bugs") as announce, contextlib.closing(run), sigterm_interrupts():
        try:
            for result in run:
                results.append(result)
                announce(f"{result.operation}.{result.function}", len(results), total)
        except KeyboardInterrupt:
            complete = False
    return matrix.in_order(results, operations, complete)


def show_matrix(found: matrix.BugMatrix, seconds: float, console: Console) -> None:
    """Show the matrix and the conclusion."""
    console.print(matrix.draw(found))
    for error in found.errors:
        console.print(f"[bold red]wrong:[/bold red] {escape(error)}")
    conclusion = "[green]every bug was detected[/green]"
    if found.errors:
        conclusion = "[bold red]wrong[/bold red]"
    elif not found.complete:
        conclusion = f"[bold]stopped after {counted(len(found.results), 'mutant')}[/bold]"
    console.print(f"\n{conclusion}; {seconds:.0f} s")


def missing_packages() -> set[str]:
    """Return the libraries whose checks cannot be used."""
    return {check.package for check in LIBRARY_CHECKS.values() if check.version is None}


def installed_libraries() -> tuple[str, ...]:
    """Return the checks of installed libraries. Raises ValueError if there is none."""
    found = tuple(name for name, check in LIBRARY_CHECKS.items() if check.version is not None)
    if not found:
        packages = ", ".join(sorted(missing_packages()))
        raise ValueError(f"--libraries needs one of {packages}: {INSTALL}")
    return found


def create_empty(page: Path) -> None:
    """Create the file now, so that a wrong path fails at once and not after a minute."""
    try:
        page.open("x").close()
    except FileExistsError:
        raise ValueError(f"{page} exists already; name a new file") from None
    except OSError as error:
        raise ValueError(f"{page} cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def sigterm_interrupts() -> Generator[None]:
    """Handle SIGTERM like Ctrl-C, so that the worker processes end too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
