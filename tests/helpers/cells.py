"""Run the cells of an exercise's notebook as a kernel does, without one."""

import linecache
from collections.abc import Callable
from typing import Any

from helpers.learners import solved

from tinygpt_np.learn.course import find
from tinygpt_np.learn.functions import MARK
from tinygpt_np.learn.notebook import cells_of


def code_cells(name: str) -> list[str]:
    """Return the code cells: install, setup, backward, check."""
    return [cell.source for cell in cells_of(find(name)) if cell.kind == "code"]


def written(name: str, *changes: tuple[str, str]) -> str:
    """Return the cell of backward with the lines of the source, and then with changes."""
    text = solved(name)
    cell = f"{MARK.format(name)}\n{text[text.index('def backward') :]}"
    for before, after in changes:
        assert before in cell
        cell = cell.replace(before, after, 1)
    return cell


def run_cell(source: str, names: dict[str, Any]) -> None:
    """Run a cell, whose lines are found in linecache as those of a kernel are."""
    file = f"<cell {abs(hash(source))}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    exec(compile(source, file, "exec"), names)


def defined(name: str, cell: str | None = None) -> Callable[..., Any]:
    """Return the backward of a cell, by default that of the exercise, after the setup has run."""
    names: dict[str, Any] = {}
    _, setup, backward, _ = code_cells(name)
    run_cell(setup, names)
    run_cell(backward if cell is None else cell, names)
    return names["backward"]
