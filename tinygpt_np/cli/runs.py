"""`tinygpt runs`: list runs, or compare the settings of some."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinygpt_np.cli.flags import Argument
from tinygpt_np.training import runs
from tinygpt_np.training.runs import Summary

COLUMNS = ("run", "parameters", "data", "steps", "last loss", "best loss", "age")
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
NO_WRAP = ("steps", "age")
UNLIMITED = 10_000  # columns


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs in runs/, or compare the settings of some."""

    compare: Annotated[tuple[str, ...], Argument("RUN", positional=True)] = ()
    """Show only these runs, and the settings in which they differ."""

    def execute(self, console: Console) -> None:
        """Print a table of runs, and below it a note for each that cannot be read."""
        if self.compare:
            found = [runs.summary(runs.find_run(name)) for name in self.compare]
            problems: list[str] = []
        else:
            found, problems = runs.summaries()
            if not found and not problems:
                raise ValueError(f"there is no run in {runs.RUNS}/; tinygpt train makes one")
        show(COLUMNS, [row_of(each) for each in found], console)
        if len(self.compare) > 1:
            console.print()
            if differences := runs.differences([each.config for each in found]):
                rows = [[name, *map(str, values)] for name, values in differences.items()]
                show(("setting", *(each.name for each in found)), rows, console)
            else:
                console.print("their settings are the same")
        for problem in problems:
            console.print(Text(f"note  {problem}"), soft_wrap=True)


def row_of(found: Summary) -> list[str]:
    """Return the row of a run."""
    config = found.config
    return [
        found.name,
        "" if found.params is None else f"{found.params:,}",
        Path(config.data).name,
        f"{found.steps:,} of {config.max_iters:,}",
        *("" if loss is None else f"{loss:.4f}" for loss in (found.val_loss, found.best_loss)),
        duration(found.age),
    ]


def duration(seconds: float) -> str:
    """Return a duration in the largest unit, such as 3 h."""
    for unit, size in UNITS:
        count = int(seconds // size)
        if count > 0:
            return f"{count} {unit}"
    return "now"


def show(columns: tuple[str, ...], rows: list[list[Any]], console: Console) -> None:
    """Print a table, with every column but the first right-aligned.

    If the output is not a terminal, the table is as wide as its content.
    """
    if not console.is_terminal:
        console.width = UNLIMITED
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number == 0 else "right", overflow="fold",
            no_wrap=column in NO_WRAP,
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
