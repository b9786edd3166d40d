"""`tinygpt study`: show each backward line next to the forward line it reverses, with a verdict."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from tinygpt_np.cli.flags import Argument, Switch
from tinygpt_np.config import require


@dataclass(frozen=True, kw_only=True)
class Study:
    """Check each backward line and show it next to its forward line.

    Exit with 1 if one is wrong.
    """

    target: Annotated[str | None, Argument("TARGET", positional=True)] = None
    """softmax, …, block, gpt, bigram, or FILE.py:forward,backward; without it, list all targets."""
    line: Annotated[int | None, Argument("N")] = None
    """Show one line in detail: its rule, its arrays and the figures of its verdict."""
    derivation: Switch = False
    """Show the derivation from the docstring too."""
    args: Annotated[str | None, Argument("'x (N, C), …'")] = None
    """The shapes of forward's arguments, for a file whose docstring does not state them."""
    all: Switch = False
    """Study all targets."""
    html: Annotated[Path | None, Argument("DIR")] = None
    """Write HTML pages, which open from disk, into a new folder."""
    seed: int = 0
    """Seed of the inputs and of the upstream gradient."""

    def __post_init__(self) -> None:
        require(self, "line", self.line is None or self.line > 0, "positive")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2**32)")

    def execute(self, console: Console) -> None:
        """List the targets, show some or write their pages; exit with 1 if one is wrong."""
        if self.all and self.target is not None:
            raise ValueError(f"--all studies all targets; leave out {self.target} or --all")
        if self.line is not None and (self.target is None or self.html is not None):
            raise ValueError("--line needs a target and does not go with --html")
        if self.derivation and (self.target is None or self.html is not None or self.line):
            raise ValueError("--derivation needs a target and does not go with --line or --html")
        if self.args is not None and self.target is None:
            raise ValueError("--args needs FILE.py:forward,backward")
        if self.html is not None:
            right = self.write_pages(self.html, console)
        elif self.all:
            right = show_all(self.seed, console)
        elif self.target is not None:
            right = self.show(self.target, console)
        else:
            right = list_targets(console)
        if not right:
            sys.exit(1)

    # The modules are imported in the functions, because starting another command must stay fast.

    def show(self, name: str, console: Console) -> bool:
        """Show a target, or one line of it; return whether all gradients are right."""
        from tinygpt_np.gradcheck.progress import waiting
        from tinygpt_np.gradcheck.report import wide
        from tinygpt_np.study.proof.sheet import study
        from tinygpt_np.study.render.terminal import derivation_of, draw, draw_line
        from tinygpt_np.study.source.targets import find_target

        target = find_target(name, self.args, self.seed)
        with waiting(f"studying {target.name}") as announce:
            sheet = study(target, announce)
        console = wide(console)
        width, line = console.width, self.line
        if line is not None:
            console.print(draw_line(sheet, line, width))
            return sheet.ok
        console.print(draw(sheet, width, self.derivation))
        more = ", --derivation the derivation" * bool(derivation_of(target)) * (not self.derivation)
        console.print(f"--line N shows one line in detail{more}", style="dim")
        return sheet.ok

    def write_pages(self, folder: Path, console: Console) -> bool:
        """Write HTML pages; return whether all gradients are right."""
        from tinygpt_np.learn.folder import FOLDER, solved_exercises
        from tinygpt_np.study.render.site import write_site
        from tinygpt_np.study.source.targets import NAMES, find_target

        names = NAMES if self.target is None else (self.target,)
        chosen = [find_target(name, self.args, self.seed) for name in names]
        # Exercises that are solved in the folder next to the pages.
        solved = solved_exercises(folder.parent / FOLDER)
        return write_site(chosen, folder, self.args, console, solved)


def show_all(seed: int, console: Console) -> bool:
    """Show one line for each target; return whether all gradients are right."""
    from tinygpt_np.gradcheck.progress import waiting
    from tinygpt_np.gradcheck.report import error
    from tinygpt_np.study.proof.sheet import study
    from tinygpt_np.study.source import targets

    table = Table(box=None, pad_edge=False)
    table.add_column("target")
    for name in ("gradients", "worst error"):
        table.add_column(name, justify="right")
    table.add_column("")
    right, start = True, time.monotonic()
    with waiting("studying all targets") as announce:
        for done, name in enumerate(targets.NAMES):
            announce(name, done, len(targets.NAMES))
            sheet = study(targets.named_target(name, seed))
            right = right and sheet.ok
            verdict = "[green]all right[/green]" if sheet.ok else "[bold red]wrong[/bold red]"
            table.add_row(name, str(len(sheet.all_verdicts)), error(sheet.worst), verdict)
    console.print(table)
    console.print(
        f"{time.monotonic() - start:.1f} s; tinygpt study NAME shows a target line by line"
    )
    return right


def list_targets(console: Console) -> bool:
    """List all targets."""
    from tinygpt_np.study.source import targets

    table = Table(box=None, pad_edge=False, show_header=False)
    for name in targets.NAMES:
        table.add_row(f"[bold]{name}[/bold]", targets.docstring(name).partition("\n")[0])
    console.print(table)
    console.print("\ntinygpt study softmax shows one target, --all all of them; for your own file:")
    console.print("tinygpt study mylayer.py:forward,backward", markup=False)
    return True
