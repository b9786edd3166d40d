"""The notebook of an exercise: the question, the forward, the backward to write, and its check."""

import ast
from pathlib import Path

from tinygpt_np.learn.cells import (
    Cell,
    NotebookError,
    blocks,
    install_cell,
    prose,
    write_notebooks,
)
from tinygpt_np.learn.course import Exercise, following
from tinygpt_np.learn.folder import FOLDER
from tinygpt_np.learn.functions import MARK
from tinygpt_np.learn.skeleton import skeleton

IMPORT = "import tinygpt_np as tg"
CHECK = "tg.learn.check(backward)"
HOW = f"Run every cell once. Then change `backward`, run its cell, and run `{CHECK}` again."
HINT = (
    "If you do not get further, `tg.learn.hint(backward)` in a new cell shows a hint, and the next "
    "one when it runs again."
)


def write(exercise: Exercise, folder: Path = FOLDER) -> Path:
    """Write the notebook of an exercise and return its path. Raise FileError if it exists.

    Raise NotebookError if the exercise has none.
    """
    path = folder / exercise.notebook
    write_notebooks({path: cells_of(exercise)})
    return path


def cells_of(exercise: Exercise) -> list[Cell]:
    """Return the cells of an exercise, made from the text of its file."""
    if exercise.kind == "training":
        raise NotebookError(
            f"{exercise.name} has no notebook; tinygpt learn start {exercise.name} writes its file"
        )
    text = skeleton(exercise)
    lines, nodes = text.splitlines(), ast.parse(text).body
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    question, backward = nodes[0].end_lineno or 0, functions["backward"].lineno - 1
    setup = "\n".join(lines[question:backward])
    return [
        Cell("code", install_cell()),
        Cell("markdown", markdown(ast.get_docstring(ast.parse(text)) or "", exercise)),
        Cell("code", with_import(setup).strip()),
        Cell("code", "\n".join([MARK.format(exercise.name), *lines[backward:]]).strip()),
        Cell("code", CHECK),
        Cell("markdown", what_next(exercise)),
    ]


def with_import(setup: str) -> str:
    """Return the code of a cell with the import of this package in its place among the others."""
    imports = [n for n in ast.parse(setup).body if isinstance(n, ast.Import | ast.ImportFrom)]
    lines = setup.splitlines()
    for node in imports:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinygpt_np"):
            return "\n".join([*lines[: node.lineno - 1], IMPORT, *lines[node.lineno - 1 :]])
    end = imports[-1].end_lineno or 0 if imports else 0
    return "\n".join([*lines[:end], "", IMPORT, *lines[end:]])


def markdown(docstring: str, exercise: Exercise) -> str:
    """Return the question as Markdown: its indented lines as code, and how to check an answer."""
    title = f"# {prose(exercise.name)}, level {exercise.level}"
    paragraphs = (p for p in docstring.split("\n\n") if not p.lstrip().startswith("tinygpt learn"))
    parts = [part for paragraph in paragraphs for part in parts_of(paragraph)]
    return "\n\n".join([title, *parts, HOW])


def parts_of(paragraph: str) -> list[str]:
    """Return the parts of a paragraph as Markdown."""
    return [
        f"```text\n{part}\n```" if kind == "code" else prose(part)
        for kind, part in blocks(paragraph)
    ]


def what_next(exercise: Exercise) -> str:
    """Return the last cell: what to do if the check says that a line is wrong, or none is."""
    coming = following(exercise)
    found = ["## What to do next", HINT]
    if coming is not None:
        found.append(
            f"If it is solved, the next exercise is `{coming.name}`. The command "
            f"`tinygpt learn notebook {coming.name}` writes its notebook, and `tinygpt learn` "
            f"shows all exercises. Run them in a terminal, in the folder that contains "
            f"`{FOLDER}`."
        )
    return "\n\n".join(found)
