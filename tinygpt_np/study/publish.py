"""Write the HTML pages of targets: `tinygpt study --html`."""

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.pool import IMapIterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tinygpt_np import ops
from tinygpt_np.compiled import waiting
from tinygpt_np.machine import usable_cores
from tinygpt_np.study import book
from tinygpt_np.study.bugs import bugs
from tinygpt_np.study.command import find
from tinygpt_np.study.page import page
from tinygpt_np.study.sheet import study
from tinygpt_np.study.target import Target
from tinygpt_np.study.values import Json


def write(chosen: Sequence[Target], folder: Path, described: str | None, console: Console) -> bool:
    """Writes the pages into a new folder; returns whether every gradient is right."""
    is_new = not folder.exists()
    book.claim(folder)
    try:
        made = pages(chosen, described, console)
        book.write(folder, made)
    except BaseException:
        if is_new:  # An empty folder would be all that is left of it.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    console.print(f"written  {escape(str(folder / first_page(chosen)))}", soft_wrap=True)
    return all(each["ok"] for each in made)


def first_page(chosen: Sequence[Target]) -> str:
    """Where to begin: with the index, or with the one page there is."""
    names = [target.name for target in chosen]
    return book.file_names(names)[names[0]] if len(names) == 1 else "index.html"


def pages(chosen: Sequence[Target], described: str | None, console: Console) -> list[Json]:
    """What the pages of targets show, worked out in as many processes as there are cores."""
    # A target is made of functions, which do not travel; its name does.
    tasks = [(target.name, described, target.seed) for target in chosen]
    if len(tasks) == 1:
        with console.status(f"studying {escape(chosen[0].name)}"):
            return [page_of(tasks[0])]
    bar = Progress(
        TextColumn("studying"), BarColumn(), MofNCompleteColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with bar, context.Pool(min(usable_cores(), len(tasks)), leave_ctrl_c) as pool:
        workers = waiting.Workers()
        # The models take longest and stand last, so they are begun with.
        made = pool.imap(page_of, tasks[::-1])
        found = (next_page(made, workers) for _ in tasks)
        return list(bar.track(found, total=len(tasks)))[::-1]


def next_page(made: "IMapIterator[Json]", workers: waiting.Workers) -> Json:
    """Return the next page of a pool. Raises StuckError if one of its processes is killed."""
    while True:
        with contextlib.suppress(multiprocessing.TimeoutError):
            return made.next(timeout=waiting.LOOK)
        workers.check()


def page_of(task: tuple[str, str | None, int]) -> Json:
    """What the page of one target shows, the bugs planted in an operation included."""
    name, described, seed = task
    planted = list(bugs(name, seed)) if name in ops.__all__ else []
    return page(study(find(name, described, seed)), planted)


def leave_ctrl_c() -> None:
    """In a worker: Ctrl-C is for the parent, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
