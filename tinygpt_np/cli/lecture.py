"""`tinygpt lecture`: the chapters, listed or run."""

from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from rich.table import Table

from tinygpt_np import lecture
from tinygpt_np.cli.flags import Argument, Switch


@dataclass(frozen=True, kw_only=True)
class Lecture:
    """Run a chapter of the lecture; without one, list them."""

    chapter: Annotated[str | None, Argument("CHAPTER", positional=True)] = None
    """Its number or its name, such as 4 or bigram."""
    all: Switch = False
    """Run all chapters in order."""


def run_lecture(job: Lecture, console: Console) -> None:
    if job.all and job.chapter is not None:
        raise ValueError(f"--all runs every chapter; leave out {job.chapter}, or leave out --all")
    if job.all:
        for chapter in lecture.chapters():
            console.rule(f"[bold]{chapter.number}  {chapter.title}[/bold]  {chapter.timestamp}")
            lecture.run(chapter)
    elif job.chapter is not None:
        lecture.run(lecture.find(job.chapter))
    else:
        table = Table("", box=None, pad_edge=False)
        table.add_column("name", no_wrap=True)
        table.add_column("starts at", no_wrap=True)
        table.add_column("chapter")
        for chapter in lecture.chapters():
            table.add_row(str(chapter.number), chapter.name, chapter.timestamp, chapter.title)
        console.print(table)
        console.print("\ntinygpt lecture bigram runs one, tinygpt lecture --all runs them all.")
