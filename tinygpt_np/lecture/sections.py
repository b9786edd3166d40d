"""The sections of a chapter: their prose and their code, read from its source.

A section of `main()` starts with the comment `# %% Title`. The comment lines that follow are its
prose, with a line `#` between two paragraphs; an empty line ends the prose. The rest is its code.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HEAD = re.compile(r" {4}# %% (.+)")
# A call of a function with such a name shows something. It is not a line that matters.
SHOWS = re.compile(r"print|try_it|in_the_video|show\w*")
BLOCKS = ("body", "orelse", "finalbody")


@dataclass(frozen=True)
class Section:
    """A section of main(): its title, its prose as paragraphs, its statements and its code.

    code: the source of the statements. needs: the definitions of the chapter that they use, if no
    earlier section does. matters: of both together, what a reader should see. It leaves out what
    only prints or draws.
    """

    title: str
    prose: tuple[str, ...]
    statements: tuple[ast.stmt, ...]
    code: str
    needs: str
    matters: str


@dataclass(frozen=True)
class Content:
    """The parts of a chapter's source. imports: all its import statements."""

    imports: str
    sections: tuple[Section, ...]


class Source:
    """A chapter's source, and its definitions by name: functions, classes and constants.

    used and shown are the definitions that sections have used so far, and in lines that matter.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.statements = ast.parse(text).body
        self.definitions = {name: node for node in self.statements for name in defined(node)}
        self.used: list[ast.stmt] = []
        self.shown: list[ast.stmt] = []

    def lines_of(self, node: ast.stmt) -> range:
        """Return the indices of a statement's lines, with its decorators and comments above it."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        start = min(each.lineno for each in (node, *decorators)) - 1
        while start > 0 and self.lines[start - 1].lstrip().startswith("#"):
            start -= 1
        return range(start, node.end_lineno or node.lineno)

    def definitions_in(self, nodes: Iterable[ast.AST]) -> list[ast.stmt]:
        """Return the definitions that some nodes use, and those that these use, in their order."""
        found: list[ast.stmt] = []
        names = [node.id for node in nodes if isinstance(node, ast.Name)]
        while names:
            node = self.definitions.get(names.pop())
            if node is not None and node not in found:
                found.append(node)
                names += [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
        return sorted(found, key=lambda node: node.lineno)

    def text(self, nodes: Iterable[ast.stmt]) -> str:
        """Return the source of some definitions, with empty lines around functions and classes."""
        parts: list[str] = []
        for node in nodes:
            lines = [self.lines[n] for n in self.lines_of(node)]
            parts += ["", *lines, ""] if isinstance(node, ast.FunctionDef | ast.ClassDef) else lines
        return tidy(parts)

    def section(self, start: int, stop: int, statements: Sequence[ast.stmt]) -> Section:
        """Return the section on the lines from start, its title, to stop."""
        first = start + 1
        while first < stop and self.lines[first].lstrip().startswith("#"):
            first += 1
        comments = [
            line.strip().removeprefix("#").strip() for line in self.lines[start + 1 : first]
        ]
        paragraphs = " ".join(comment or "\n" for comment in comments).split("\n")
        dropped = {n for node in showing(statements) for n in self.lines_of(node)}
        nodes = [node for each in statements for node in ast.walk(each)]
        matter = [node for node in nodes if getattr(node, "lineno", 0) - 1 not in dropped]
        needs = [node for node in self.definitions_in(nodes) if node not in self.used]
        shows = [node for node in self.definitions_in(matter) if node not in self.shown]
        self.used += needs
        self.shown += shows
        kept = tidy((self.lines[n] for n in range(first, stop) if n not in dropped), 4)
        return Section(
            title=self.lines[start].partition("%%")[2].strip(),
            prose=tuple(text.strip() for text in paragraphs if text.strip()),
            statements=tuple(statements),
            code=tidy(self.lines[first:stop], 4),
            needs=self.text(needs),
            matters="\n\n".join(part for part in (self.text(shows), kept) if part),
        )


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines. main is not one of them."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name] if name != "main" else []
        case ast.Assign(targets=targets):
            return [n.id for each in targets for n in ast.walk(each) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def read(path: Path) -> Content:
    """Return the content of a chapter."""
    source = Source(path.read_text(encoding="utf-8"))
    imports = [node for node in source.statements if isinstance(node, ast.Import | ast.ImportFrom)]
    functions = (node for node in source.statements if isinstance(node, ast.FunctionDef))
    main = next(node for node in functions if node.name == "main")
    stop = main.end_lineno or main.lineno
    starts = [n for n in range(main.lineno, stop) if HEAD.fullmatch(source.lines[n])]
    sections = [
        source.section(start, end, [node for node in main.body if start < node.lineno <= end])
        for start, end in pairwise([*starts, stop])
    ]
    return Content(source.text(imports), tuple(sections))


def showing(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements, in blocks too, that only print, draw or format text."""
    for node in statements:
        if only_shows(node):
            yield node
        else:
            for name in BLOCKS:
                block: list[ast.stmt] = getattr(node, name, [])
                if not all(map(only_shows, block)):
                    yield from showing(block)


def only_shows(node: ast.stmt) -> bool:
    """Return whether a statement, or each statement in it, prints, draws or formats text."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return SHOWS.fullmatch(name) is not None
        case ast.Assign(value=value) | ast.AugAssign(value=value):
            return any(isinstance(each, ast.JoinedStr) for each in ast.walk(value))
        case ast.For() | ast.While() | ast.If() | ast.With():
            inside = [each for name in BLOCKS for each in getattr(node, name, [])]
            return all(map(only_shows, inside))
        case _:
            return False


def tidy(lines: Iterable[str], indent: int = 0) -> str:
    """Return lines without their indentation, and with at most one empty line between two."""
    text = "\n".join(line[indent:] for line in lines).strip("\n")
    return re.sub(r"\n{3,}", "\n\n", text)
