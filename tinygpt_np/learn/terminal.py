"""Show the map of the course and the verdicts in a terminal of 80 columns."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tinygpt_np.learn.checks import Hint
from tinygpt_np.learn.course import LEVELS, Exercise, course
from tinygpt_np.learn.folder import Progress, Record, next_exercise
from tinygpt_np.learn.hints import STEPS
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.lines import JudgedLine, LineStatus, Mistake

# Marks and styles of lines by status.
STATUS: dict[LineStatus, tuple[str, str]] = {
    "open": ("· open", "dim"),
    "right": ("✓ right", "green"),
    "wrong": ("✗ wrong", "bold red"),
    "shape": ("✗ wrong shape", "bold red"),
    "luck": ("✗ right by luck", "bold red"),
    "missing": ("✗ missing", "bold red"),
    "untested": ("· not tested", "dim"),
}
# Columns of a line of exercises, and lines of a learner's own output that are shown.
WIDTH, PRINTED = 76, 12


def draw_map(progress: Progress) -> RenderableType:
    """Return the levels with their exercises: what is done, begun and next."""
    coming, parts = next_exercise(progress), list[RenderableType]()
    for level, title in LEVELS.items():
        exercises = [each for each in course() if each.level == level]
        done = sum(bool(progress.get(each.name, Record()).done) for each in exercises)
        parts.append(Text(f"{level}  {title}  {done}/{len(exercises)}", style="bold"))
        cells = (cell(e, progress.get(e.name, Record()), e == coming) for e in exercises)
        parts += [Padding(line, (0, 0, 0, 3), expand=False) for line in filled(cells)]
    parts.append(Text())
    if coming is None:
        parts.append(Text("The course is finished.", style="green"))
    else:
        parts.append(Text(f"next  tinygpt learn start {coming.name}"))
    return Group(*parts)


def filled(cells: Iterable[Text]) -> Iterator[Text]:
    """Yield lines of at most WIDTH columns with as many cells as fit."""
    line = Text()
    for each in cells:
        if line and len(line) + 2 + len(each) > WIDTH:
            yield line
            line = Text()
        line = Text.assemble(line, "  ", each) if line else each
    yield line


def cell(exercise: Exercise, record: Record, is_next: bool) -> Text:
    """Return the name of an exercise with its mark."""
    name = exercise.name
    if record.done and record.right < record.asked:
        return Text(f"✓ {name}, now {record.right}/{record.asked}", style="yellow")
    if record.done:
        shown = f" ({record.solutions} shown)" if record.solutions else ""
        return Text(f"✓ {name}{shown}", style="green")
    if record.asked:
        return Text(f"▸ {name} {record.right}/{record.asked}", style="yellow")
    return Text(f"{'▸' if is_next else '·'} {name}", style="bold" if is_next else "dim")


def draw(verdict: Verdict, next_step: str) -> RenderableType:
    """Return a verdict: the lines, the first mistake, and what to do next."""
    exercise, parts = verdict.exercise, list[RenderableType]()
    title = f"{exercise.name}, level {exercise.level}: {verdict.right} of {verdict.asked} lines"
    parts.append(Text(title, style="bold"))
    if verdict.lines:
        parts.append(table_of(verdict.lines))
    if verdict.problem:
        where = f"line {verdict.line}: " if verdict.line else ""
        parts += [Text(), Text(f"{where}{verdict.problem}", style="bold red")]
    elif verdict.mistake is not None:
        parts += [Text(), *mistake_lines(verdict.mistake, exercise.kind == "closed")]
    if verdict.note:
        parts += [Text(), Text(verdict.note)]
    if verdict.printed:
        shown = Text(shortened(verdict.printed))
        parts += [
            Text("\nyour code printed", style="dim"),
            Padding(shown, (0, 0, 0, 3), expand=False),
        ]
    parts += [Text(), Text(next_step)]
    return Group(*parts)


def shortened(printed: str) -> str:
    """Return the first lines of what a learner's code printed."""
    lines = printed.splitlines()
    more = [f"… {len(lines) - PRINTED} more lines"] * (len(lines) > PRINTED)
    return "\n".join([*lines[:PRINTED], *more])


def draw_hint(exercise: Exercise, hint: Hint) -> RenderableType:
    """Return a hint below the line that it is for."""
    title = Text(f"{exercise.name}, line {hint.line.number}", style="bold")
    title.append(f", hint {hint.number} of {STEPS}", style="not bold")
    text = hint.text if hint.number == STEPS else flowing(hint.text)
    return Group(title, Text(hint.line.text, style="dim"), Text(), Text(text))


def flowing(text: str) -> str:
    """Join the lines of each paragraph, so that they wrap at any width; not indented ones."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def in_one_line(verdict: Verdict) -> Text:
    """Return the verdict on one of several exercises."""
    text = f"{verdict.exercise.name:20} {verdict.right:2} of {verdict.asked:2} lines  "
    if verdict.ok:
        return Text.assemble(text, ("✓ solved", "green"))
    found = verdict.mistake.line if verdict.mistake else verdict.to_do
    number = verdict.line or (found.number if found else 0)
    status = STATUS[found.status] if found else ("✗ cannot be run", "bold red")
    return Text.assemble(text, status, f", line {number}" if number else "")


def table_of(lines: tuple[JudgedLine, ...]) -> Table:
    """Return the lines with their statuses."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="dim")
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    for line in lines:
        mark, style = STATUS[line.status]
        table.add_row(str(line.number), Text(line.text), Text(mark, style=style))
    return table


def mistake_lines(mistake: Mistake, is_closed: bool) -> Iterator[RenderableType]:
    """Yield what is wrong with the first wrong line."""
    line = mistake.line
    if line.status == "missing":
        yield Text(f"after line {line.number}: {mistake.message}", style="bold red")
    else:
        yield Text.assemble((f"line {line.number}", "bold red"), f"  {line.text}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in facts_of(mistake, is_closed):
        facts.add_row(name, Text(text))
    yield Padding(facts, (0, 0, 0, 3), expand=False)


def facts_of(mistake: Mistake, is_closed: bool) -> Iterator[tuple[str, str]]:
    """Yield the facts about a mistake with their names; a line of a closed form reverses none."""
    line = mistake.line
    if line.reverses and not is_closed:
        yield "reverses", line.reverses
    if line.status == "luck":
        yield "right by luck", f"right in the first call, wrong for {mistake.call}"
    if line.status != "missing" and mistake.message:
        yield "problem", mistake.message
    if has_values(mistake):
        found, expected = np.asarray(mistake.found), np.asarray(mistake.expected)
        place = f" at {[*mistake.index]}, where they differ most" if mistake.index else ""
        yield "yours", f"{value(found, mistake.index)}{place}"
        yield "measured", value(expected, mistake.index)
    if line.status == "shape":
        yield "wanted shape", str(mistake.shape)
    if mistake.kind:
        yield "likely cause", mistake.kind


def has_values(mistake: Mistake) -> bool:
    """Return whether a mistake has a gradient to compare with the right one."""
    found, expected = mistake.found, mistake.expected
    if found is None or expected is None:
        return False
    return np.shape(found) == np.shape(expected) and len(mistake.index) == np.ndim(found)


def value(array: Any, index: tuple[int, ...]) -> str:
    """Return an element of a gradient as text."""
    return f"{float(array[index]):.6g}"


def what_next(verdict: Verdict, following: str) -> str:
    """Return the next thing to do."""
    name = verdict.exercise.name
    if verdict.ok:
        whole = f" The whole function is right in {verdict.calls} calls." if verdict.calls else ""
        after = f"\nnext  tinygpt learn start {following}" if following else ""
        return f"✓ solved.{whole}{after}"
    if verdict.problem:
        return "next  repair the file, then tinygpt learn check"
    if verdict.mistake is not None:
        return f"next  {remedy(verdict.mistake)}; tinygpt learn hint helps"
    if verdict.note:
        return "next  edit the file; tinygpt learn hint helps"
    if verdict.open_lines:
        return f"next  write line {verdict.open_lines[0].number}; tinygpt learn hint helps"
    return f"next  tinygpt learn hint {name}"


def remedy(mistake: Mistake) -> str:
    """Return what to do about a mistake."""
    number = mistake.line.number
    if mistake.line.status == "missing":
        return f"add a line after line {number}"
    return f"repair line {number}"
