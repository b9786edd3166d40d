"""`tinygpt study`: shows targets in the terminal, writes their pages, or serves them."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from tinygpt_np import ops
from tinygpt_np.gradcheck.report import error, wide
from tinygpt_np.study import book, targets
from tinygpt_np.study.bugs import bugs
from tinygpt_np.study.opened import open_line
from tinygpt_np.study.own import own
from tinygpt_np.study.page import Json, page
from tinygpt_np.study.serve import Server
from tinygpt_np.study.sheet import study
from tinygpt_np.study.target import Target
from tinygpt_np.study.terminal import draw


def find(name: str, described: str | None, seed: int) -> Target:
    """The target of a name, or of FILE.py:forward,backward."""
    is_own = ":" in name or name.endswith(".py")
    if described is not None and not is_own:
        raise ValueError(f"--args describes functions of your own; {name} has its own arguments")
    return own(name, described, seed) if is_own else targets.named(name, seed)


def show(target: Target, line: int | None, console: Console) -> bool:
    """Shows a target, or one line of it; returns whether every gradient is right."""
    with console.status(f"studying {escape(target.name)}"):
        sheet = study(target)
    console = wide(console)
    console.print(draw(sheet, console.width) if line is None else open_line(sheet, line, console))
    return sheet.ok


def show_all(seed: int, console: Console) -> bool:
    """A line for each target; returns whether every gradient of them all is right."""
    table = Table(box=None, pad_edge=False)
    table.add_column("target")
    for name in ("verdicts", "worst error"):
        table.add_column(name, justify="right")
    table.add_column("")
    right, start = True, time.monotonic()
    with console.status("") as status:
        for name in targets.NAMES:
            status.update(f"studying {name}")
            sheet = study(targets.named(name, seed))
            right = right and sheet.ok
            verdict = "[green]every one right[/green]" if sheet.ok else "[bold red]wrong[/bold red]"
            table.add_row(name, str(len(sheet.judged)), error(sheet.worst), verdict)
    console.print(table)
    console.print(f"{time.monotonic() - start:.1f} s; tinygpt study NAME shows one, line for line")
    return right


def list_targets(console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in targets.NAMES:
        table.add_row(f"[bold]{name}[/bold]", targets.summary(name))
    console.print(table)
    console.print("\ntinygpt study softmax shows one, --all all of them; of your own file:")
    console.print("tinygpt study mylayer.py:forward,backward", markup=False)


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


def serve(chosen: Sequence[Target], port: int, described: str | None, console: Console) -> None:
    """Serves the pages until Ctrl-C."""
    by_name = {target.name: target for target in chosen}
    with Server(port, lambda name: study(by_name[name])) as server:
        server.files = book.files(pages(chosen, described, console))
        console.print(f"open     {server.address}/{first_page(chosen)}", soft_wrap=True)
        console.print("on this machine only, until Ctrl-C", style="dim")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    console.print("stopped")


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
    with bar, context.Pool(min(os.cpu_count() or 1, len(tasks)), leave_ctrl_c) as pool:
        # The models take longest and stand last, so they are begun with.
        made = pool.imap(page_of, tasks[::-1])
        return list(bar.track(made, total=len(tasks)))[::-1]


def page_of(task: tuple[str, str | None, int]) -> Json:
    """What the page of one target shows, the bugs planted in an operation included."""
    name, described, seed = task
    planted = list(bugs(name, seed)) if name in ops.__all__ else []
    return page(study(find(name, described, seed)), planted)


def leave_ctrl_c() -> None:
    """In a worker: Ctrl-C is for the parent, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
