"""Notebooks: their cells, the cell that installs the package, and how they are written."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tinygpt_np.storage.files import create_file, refuse_existing

NAME = "tinygpt-np"
EXTRA = f"{NAME}[learn]"


class NotebookError(RuntimeError):
    """A notebook cannot be written."""


class Cell(NamedTuple):
    """A cell of a notebook. source: its Markdown or its Python."""

    kind: Literal["markdown", "code"]
    source: str


def install_cell() -> str:
    """Return the first cell of a notebook, which installs this package if it is missing."""
    return "\n".join(
        [
            "# Install tinygpt-np if it is missing, as on Colab.",
            "import importlib.util",
            "import subprocess",
            "import sys",
            "",
            'if importlib.util.find_spec("tinygpt_np") is None:',
            f"    package = {json.dumps(requirement())}",
            '    command = [sys.executable, "-m", "pip", "install", "--quiet", package]',
            "    subprocess.run(command, check=True)",
        ]
    )


def requirement() -> str:
    """Return what pip installs: the commit that this package was installed from, or its name."""
    try:
        origin = json.loads(metadata.distribution(NAME).read_text("direct_url.json") or "{}")
        version = origin["vcs_info"]
        source = f"{EXTRA} @ {version['vcs']}+{origin['url']}@{version['commit_id']}"
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        return EXTRA
    folder = origin.get("subdirectory")
    return f"{source}#subdirectory={folder}" if folder else source


def prose(text: str) -> str:
    """Return a text as Markdown that shows it as it is. Backticks are around code."""
    return "`".join(
        part if n % 2 else re.sub(r"([\\*_$<>#\[\]|~])", r"\\\1", part)
        for n, part in enumerate(text.split("`"))
    )


def blocks(text: str) -> list[tuple[Literal["prose", "code"], str]]:
    """Return the parts of a text, of which the indented lines are code."""
    parts = re.findall(r"(?m)(?:^ {4}.*\n?)+|(?:^(?! {4}).*\n?)+", text.strip("\n"))
    return [
        ("code", part.rstrip()) if part.startswith("    ") else ("prose", part.strip())
        for part in parts
    ]


def write_notebooks(notebooks: Mapping[Path, Sequence[Cell]]) -> None:
    """Write each notebook atomically. Raise FileError, and write none, if one exists already."""
    contents = {path: render(cells) for path, cells in notebooks.items()}
    for path in contents:
        refuse_existing(path)
    for path, content in contents.items():
        create_file(path, content)


def render(cells: Sequence[Cell]) -> bytes:
    """Return a notebook file. Raise NotebookError if the package nbformat is not installed."""
    try:
        import nbformat
    except ImportError:
        message = f"writing a notebook needs nbformat: pip install '{EXTRA}'"
        raise NotebookError(message) from None
    v4: Any = nbformat.v4
    make = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    # Numbered ids, so that the same cells make the same file.
    book = v4.new_notebook(
        cells=[make[kind](source, id=f"cell-{n}") for n, (kind, source) in enumerate(cells)],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    return f"{nbformat.writes(book)}\n".encode()  # pyright: ignore[reportUnknownMemberType]
