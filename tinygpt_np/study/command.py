"""`tinygpt study` in the terminal: a list, a target, one line of it, or a line for each."""

import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinygpt_np.gradcheck.report import error, wide
from tinygpt_np.study import targets
from tinygpt_np.study.opened import open_line
from tinygpt_np.study.own import own
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
