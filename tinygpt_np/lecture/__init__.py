"""The chapters of the lecture, one short runnable file each.

A file is called chapter_<number>_<name>.py. The first line of its docstring is the time at which
the chapter starts in "Let's build GPT: from scratch, in code, spelled out" (or `afterwards`, if it
is not in the video) and its title; the rest is its introduction. `main()` prints what the lecture
shows in this chapter, with the numbers of the video next to its own.
"""

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Chapter:
    """A chapter of the lecture, without its code.

    timestamp: the time at which it starts in the video. about: its introduction, one string per
    paragraph. path: its source.
    """

    number: int
    name: str
    timestamp: str
    title: str
    about: tuple[str, ...]
    path: Path
    module: str


def chapters() -> list[Chapter]:
    """Return all chapters, without importing them."""
    found: list[Chapter] = []
    for path in sorted(Path(__file__).parent.glob("chapter_*.py")):
        _, number, name = path.stem.split("_", 2)
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first, *rest = docstring.split("\n\n")
        timestamp, title = first.split(" ", 1)
        about = tuple(" ".join(paragraph.split()) for paragraph in rest)
        name, module = name.replace("_", "-"), f"{__name__}.{path.stem}"
        found.append(Chapter(int(number), name, timestamp, title, about, path, module))
    return found


def find(name: str) -> Chapter:
    """Return the chapter with this name or number. Raise ValueError, which lists all names."""
    for chapter in chapters():
        if name in (chapter.name, str(chapter.number)):
            return chapter
    known = ", ".join(f"{chapter.number} {chapter.name}" for chapter in chapters())
    raise ValueError(f"there is no chapter {name}; there are: {known}")


def run(chapter: Chapter) -> None:
    """Run a chapter, which prints its results."""
    importlib.import_module(chapter.module).main()
