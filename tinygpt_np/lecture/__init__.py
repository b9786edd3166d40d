"""The chapters of the lecture, one short runnable file each.

A file is called chapter_<number>_<name>.py. The first line of its docstring is the time at which
the chapter starts in "Let's build GPT: from scratch, in code, spelled out" (or `afterwards`, if it
is not in the video) and its title; the rest is its introduction. `main()` prints what the lecture
shows in this chapter, with the numbers of the video next to its own. It consists of sections, which
`sections` reads: each has a title, prose and code. `notebook` makes notebooks of chapters.
"""

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.lecture import sections

# The width of prose, and what is put in front of each line of code.
COLUMNS, BAR = 80, "│ "


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

    @property
    def time(self) -> str:
        """Its place in the video, in words."""
        return self.timestamp if self.timestamp[0].isdigit() else "not in it"


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


def run(chapter: Chapter, console: Console | None = None) -> None:
    """Run the sections of a chapter, each after its title, its prose and the lines that matter."""
    console = console or Console(highlight=False)
    names = dict(vars(importlib.import_module(chapter.module)))
    content = sections.read(chapter.path)
    # Matrices are small here, and threads of BLAS would wait for each other at every product.
    with threadpool_limits(1, user_api="blas"):
        for number, section in enumerate(content.sections, start=1):
            console.print(Text(f"{chapter.number}.{number}  {section.title}\n", "bold"))
            for paragraph in section.prose:
                print_prose(paragraph, console)
            print_code(section.matters, console)
            body = ast.Module(list(section.statements), type_ignores=[])
            exec(compile(body, str(chapter.path), "exec"), names)
            console.print()


def print_prose(paragraph: str, console: Console) -> None:
    """Print a paragraph in lines that are not too long to read, and an empty line."""
    console.print(Text(f"{paragraph}\n"), width=min(console.width, COLUMNS))


def print_code(code: str, console: Console) -> None:
    """Print lines of Python with a bar in front of them, and an empty line."""
    if code:
        syntax = Syntax("", "python", theme="ansi_dark", background_color="default")
        lit = syntax.highlight(code)
        lit.rstrip()
        lit.no_wrap, lit.overflow = False, "fold"
        for line in lit.wrap(console, max(console.width - len(BAR), 1)):
            console.print(Text.assemble((BAR, "dim"), line), no_wrap=True)
        console.print()
