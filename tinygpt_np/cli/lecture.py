"""`tinygpt lecture`: list or run the chapters of the lecture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinygpt_np import lecture
from tinygpt_np.cli.flags import Argument, Switch
from tinygpt_np.cli.output import print_facts
from tinygpt_np.lecture import Chapter


@dataclass(frozen=True, kw_only=True)
class Lecture:
    """Run a lecture chapter, or list the chapters."""

    chapter: Annotated[str | None, Argument("CHAPTER", positional=True)] = None
    """Its number or its name, such as 4 or bigram."""
    all: Switch = False
    """Run all chapters in order."""
    notebook: Annotated[Path | None, Argument("DIR")] = None
    """Write the chapter, or without one all chapters, as notebooks into this folder."""

    def execute(self, console: Console) -> None:
        """List the chapters, or run or write one or all of them."""
        if self.all and self.chapter is not None:
            problem = f"--all runs every chapter; leave out {self.chapter}, or leave out --all"
            raise ValueError(problem)
        if self.notebook is not None:
            some = lecture.chapters() if self.chapter is None else [lecture.find(self.chapter)]
            write(some, self.notebook, console)
        elif self.all:
            for chapter in lecture.chapters():
                run(chapter, console)
        elif self.chapter is not None:
            run(lecture.find(self.chapter), console)
        else:
            table = Table("", box=None, pad_edge=False)
            table.add_column("name", no_wrap=True)
            table.add_column("starts at", no_wrap=True)
            table.add_column("chapter")
            for each in lecture.chapters():
                table.add_row(str(each.number), each.name, each.timestamp, each.title)
            console.print(table)
            console.print(
                "\ntinygpt lecture bigram runs one chapter, tinygpt lecture --all all of them;"
                "\ntinygpt lecture --notebook DIR writes them as notebooks.",
            )


def run(chapter: Chapter, console: Console) -> None:
    """Print the introduction of a chapter and the path of its source, and run it."""
    console.rule(f"[bold]{chapter.number}  {chapter.title}[/bold]")
    print_facts(console, [("video", chapter.time), ("source", str(chapter.path))])
    console.print()
    for paragraph in chapter.about:
        lecture.print_prose(paragraph, console)
    lecture.run(chapter, console)


def write(chapters: list[Chapter], folder: Path, console: Console) -> None:
    """Write chapters as notebooks and print their paths."""
    # Imported here, because listing the chapters must stay fast.
    from tinygpt_np.lecture import notebook

    for path in notebook.write(chapters, folder):
        console.print(Text(f"written  {path}"), soft_wrap=True)
