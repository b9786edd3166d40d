"""`tinygpt study`: every backward line beside its forward line, with its proof."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from tinygpt_np.cli.flags import Argument, Switch
from tinygpt_np.config import require


@dataclass(frozen=True, kw_only=True)
class Study:
    """Show each backward line next to its forward line, with its proof; exit with 1 if wrong."""

    target: Annotated[str | None, Argument("TARGET", positional=True)] = None
    """softmax, …, block, gpt, bigram, or FILE.py:forward,backward; without one, the list."""
    line: Annotated[int | None, Argument("N")] = None
    """Open the line of this number: its rule, what flows through it, the numbers of its verdict."""
    args: Annotated[str | None, Argument("'x (N, C), …'")] = None
    """For a file of your own whose docstring does not say it: the arguments of its forward."""
    all: Switch = False
    """Study every target."""
    html: Annotated[Path | None, Argument("DIR")] = None
    """Write pages into a new folder, which open from disk."""
    seed: int = 0
    """Seed of the inputs and of the upstream gradient."""

    def __post_init__(self) -> None:
        require(self, "line", self.line is None or self.line > 0, "positive")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2**32)")


def run_study(job: Study, console: Console) -> None:
    # Imported here, because other jobs can do without it.
    from tinygpt_np.study import command, targets

    if job.all and job.target is not None:
        raise ValueError(f"--all studies everything; leave out {job.target}, or leave out --all")
    if job.line is not None and (job.target is None or job.html is not None):
        raise ValueError("--line opens a line of one target in the terminal")
    if job.args is not None and job.target is None:
        raise ValueError("--args goes with FILE.py:forward,backward")
    if job.html is not None:
        names = targets.NAMES if job.target is None else (job.target,)
        chosen = [command.find(name, job.args, job.seed) for name in names]
        # They bring what only pages need.
        from tinygpt_np.study import publish

        right = publish.write(chosen, job.html, job.args, console)
    elif job.all:
        right = command.show_all(job.seed, console)
    elif job.target is None:
        command.list_targets(console)
        return
    else:
        target = command.find(job.target, job.args, job.seed)
        right = command.show(target, job.line, console)
    if not right:
        sys.exit(1)
