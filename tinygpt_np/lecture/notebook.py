"""Chapters as notebooks: their text, code and pictures."""

from collections.abc import Sequence
from pathlib import Path

from tinygpt_np.learn.cells import Cell, install_cell, prose, write_notebooks
from tinygpt_np.lecture import Chapter, sections

# As in run().
ONE_THREAD = """\
# Matrices are small here, and threads of BLAS would wait for each other at every product.
from threadpoolctl import threadpool_limits

one_thread = threadpool_limits(1, user_api="blas")"""


def write(chapters: Sequence[Chapter], folder: Path) -> list[Path]:
    """Write chapters as notebooks into a folder and return their paths.

    Raise FileError, and write none, if one of the files exists.
    """
    notebooks = {
        folder / f"{chapter.number:02}_{chapter.name.replace('-', '_')}.ipynb": cells(chapter)
        for chapter in chapters
    }
    write_notebooks(notebooks)
    return [*notebooks]


def cells(chapter: Chapter) -> list[Cell]:
    """Return the cells: install, introduction, imports; then text and code of each section."""
    content = sections.read(chapter.path)
    title, video = f"# {chapter.number}  {chapter.title}", f"In the video: {chapter.time}."
    found = [
        Cell("code", install_cell()),
        Cell("markdown", markdown(title, (video, *chapter.about))),
        Cell("code", f"{content.imports}\n\n{ONE_THREAD}"),
    ]
    for section in content.sections:
        found.append(Cell("markdown", markdown(f"## {section.title}", section.prose)))
        found += [Cell("code", code) for code in (section.needs, section.code) if code]
    return found


def markdown(title: str, paragraphs: Sequence[str]) -> str:
    """Return paragraphs as Markdown that shows them as they are. Backticks are around code."""
    return "\n\n".join([title, *map(prose, paragraphs)])
