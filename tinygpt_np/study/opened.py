"""One line opened in a terminal: its rule, what flows through it, its verdict in numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from tinygpt_np.gradcheck.report import error, shape_text, value
from tinygpt_np.study.heat import picture
from tinygpt_np.study.proof import Gradient, Line
from tinygpt_np.study.rules import Rule, rule_of
from tinygpt_np.study.sheet import Row, Sheet
from tinygpt_np.study.source import StudyError
from tinygpt_np.study.terminal import COLORS, code, heading, norm, verdict_of
from tinygpt_np.study.trace import Names, Step

# Arrays of so many numbers are printed whole.
WHOLE = 36
# A picture is no wider, where there is no terminal whose width is known.
WIDEST = 140


def open_line(sheet: Sheet, number: int, console: Console) -> Group:
    """What flows through one line, and what is known of it. Raises StudyError for no line.

    In a loop a line is run several times, and opened for each.
    """
    parts: list[RenderableType] = [heading(sheet)]
    for row, line in lines_at(sheet, number):
        parts += [Text(), *opened(sheet, row, line, console)]
    return Group(*parts)


def lines_at(sheet: Sheet, number: int) -> list[tuple[Row | None, Line | None]]:
    """The rows of a line number; with the backward line, if it is the number of one.

    A line of a closed form may undo no single line of the forward: it has no row.
    """
    rows, closed = sheet.rows, [line for proof in sheet.proofs[1:] for line in proof.lines]
    beside: list[tuple[Row | None, Line]] = [(row, line) for row in rows for line in row.backward]
    beside += [(None if li.undoes is None else rows[li.undoes + 1], li) for li in closed]
    found: list[tuple[Row | None, Line | None]] = []
    found += [(row, None) for row in rows if row.line == number]
    found += [(row, line) for row, line in beside if line.line == number]
    if not found:
        known = sorted({row.line for row in rows} | {line.line for _, line in beside})
        lines = ", ".join(map(str, known))
        raise StudyError(f"{sheet.target.where} has no line {number} to open; there are: {lines}")
    return found


def opened(
    sheet: Sheet, row: Row | None, line: Line | None, console: Console
) -> Iterator[RenderableType]:
    """A forward line, the backward lines beside it or one of them, and all that is known of it."""
    lines = [line] if line else list(row.backward if row else ())
    if row is not None:
        yield source(row.line, row.text, row.shape, row.step)
    for each in lines:
        yield source(each.line, each.text, each.shape, each.step)
    yield from derivation(sheet, row)
    for each in lines:
        for gradient in each.gradients:
            yield Text()
            yield from figures(gradient, each)
            yield from shown(gradient, console)
        if each.fused:
            yield Text(f"verified together with it: {', '.join(each.fused)}")
        if each.says:
            yield Text(each.says, style=COLORS.get(each.status, ""))
    if not any(each.gradients for each in lines):
        values = line.values if line else step_values(sheet, row)
        for name, held in values.items():
            yield from held_value(name, held, console)


def derivation(sheet: Sheet, row: Row | None) -> Iterator[RenderableType]:
    """The rule of a line; where there is none, the derivation of the whole."""
    rule = rule_of(row.step.statement, sheet.is_constant(row)) if row and row.step else None
    if rule is not None:
        yield Text()
        yield from in_words(rule)
    elif row is None:
        yield Text(f"\n{sheet.target.docstring.strip()}")


def source(number: int, text: str, shape: str, step: Step | None) -> Text:
    remark = step.round if step else ""
    return Text.assemble((f"{number}  ", "dim"), code(text, remark), (f"  {shape}", "dim"))


def in_words(rule: Rule) -> Iterator[RenderableType]:
    yield Text(f"rule: {rule.name}", style="bold")
    yield from (Text(f"    {formula}") for formula in rule.formulas)
    if rule.why:
        yield Text(rule.why)
    if rule.operation:
        yield Text(f"tinygpt study {rule.operation}", style="dim")


def figures(gradient: Gradient, line: Line) -> Iterator[Text]:
    row = gradient.row
    part = ", the part that comes this way" if gradient.is_part else ""
    yield Text.assemble((f"{gradient.name}{part}  ", "bold"), verdict_of(line, gradient))
    checked = f"{row.checked} {'places' if row.by_element else 'directions'}"
    errors = f"relative error {error(row.relative)}, allowed {error(row.bound)}"
    worst = f"by hand {value(row.analytic)}, measured {value(row.numeric)}"
    yield Text(f"{row.oracle}, {checked}: {errors}; at {list(row.index)} {worst}")
    if row.cause:
        yield Text(f"likely cause: {row.cause}")


def shown(gradient: Gradient, console: Console) -> Iterator[RenderableType]:
    yield from array(gradient.expected.measured.name, gradient.expected.value, console)
    if gradient.found is not None:
        yield from array(gradient.name, gradient.found, console)
    if not gradient.row.ok and gradient.expected.gradient is not None:
        yield from array(f"{gradient.name}, measured", gradient.expected.gradient, console)


def step_values(sheet: Sheet, row: Row | None) -> Names:
    """The values that a forward line sets."""
    if row is None or row.step is None:
        return {}
    names = sheet.truth.trace.before[row.step.index + 1]
    return {name: names[name] for name in row.step.statement.sets}


def held_value(name: str, held: Any, console: Console) -> Iterator[RenderableType]:
    if isinstance(held, np.ndarray):
        yield Text()
        yield from array(name, held, console)
    elif isinstance(held, int | float | np.generic):
        yield Text(f"\n{name} = {held}")


def array(name: str, numbers: Any, console: Console) -> Iterator[RenderableType]:
    """Small arrays whole, large ones as a summary and a heat map."""
    found = np.asarray(numbers)
    size = f", norm {norm(found)}" if norm(found) else ""
    yield Text(f"{name}  {shape_text(found.shape)}{size}", style="bold")
    if found.size <= WHOLE or found.dtype.kind != "f":
        text = np.array2string(found, precision=4, suppress_small=True, threshold=200)
        yield Padding(Text(text), (0, 0, 0, 4), expand=False)
    else:
        lowest, highest, mean = (value(float(f(found))) for f in (np.min, np.max, np.mean))
        yield Text(f"    from {lowest} to {highest}, mean {mean}")
        yield Padding(picture(found, min(console.width, WIDEST) - 4), (0, 0, 0, 4), expand=False)
