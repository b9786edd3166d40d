"""The sheet in a terminal: forward beside backward, with a verdict on each gradient."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tinygpt_np.config import counted
from tinygpt_np.gradcheck.report import error, shape_text
from tinygpt_np.study.proof import Gradient, Line, Proof
from tinygpt_np.study.sheet import Row, Sheet

SIGNS = {
    "right": "✓", "wrong": "✗", "inherited": "✗", "odd": "!", "begun": "…", "unreached": "–",
    "": "",
}  # fmt: skip
COLORS = {"right": "green", "wrong": "bold red", "inherited": "yellow", "odd": "yellow"}
# Narrower, and the backward stands below the forward instead of beside it.
ROOM_FOR_BOTH = 120


def draw(sheet: Sheet, width: int) -> Group:
    """All lines of a target, the closed form, and what is wrong."""
    proof, target = sheet.proofs[0], sheet.target
    parts: list[RenderableType] = [heading(sheet)]
    if width >= ROOM_FOR_BOTH:
        parts.append(beside(sheet))
    else:
        parts.append(below(sheet))
    parts += problems(proof)
    if len(sheet.proofs) > 1:
        parts += [Text(), *closed_form(sheet)]
    parts += [Text(), summary(sheet), *other_calls(sheet), *remarks(sheet)]
    if target.kind != "own":
        parts.append(Text(f"tinygpt study {target.name} --line N opens a line", style="dim"))
    return Group(*parts)


def heading(sheet: Sheet) -> Text:
    first = sheet.target.docstring.strip().partition("\n")[0]
    title = Text(sheet.target.where, style="bold")
    return title.append(f"  {first}", style="not bold") if first else title


def beside(sheet: Sheet) -> Table:
    """Forward on the left, read downwards; backward on the right, read upwards."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("forward ↓", overflow="fold", ratio=5)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("backward ↑", overflow="fold", ratio=6)
    columns_of_figures(table)
    for row in sheet.rows:
        forward: tuple[str, RenderableType] = (
            str(row.line),
            code(row.text, row.step and row.step.round),
        )
        for line in row.backward:
            for each in backward_cells(sheet, line):
                table.add_row(*forward, *each)
                forward = ("", "")
        if not row.backward:
            table.add_row(*forward, "", remark(sheet, row))
    return table


def below(sheet: Sheet) -> Table:
    """Each forward line, and indented below it the backward lines that undo it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("forward ↓   ← backward ↑", overflow="fold", ratio=1)
    columns_of_figures(table, norms=False)
    for row in sheet.rows:
        table.add_row(
            str(row.line), code(row.text, row.step and row.step.round), "", remark(sheet, row)
        )
        for line in row.backward:
            for number, text, shape, *_, verdict in backward_cells(sheet, line):
                table.add_row(number, Padding(text, (0, 0, 0, 2)), shape, verdict)
    return table


def remark(sheet: Sheet, row: Row) -> Text:
    """Why nothing stands beside a forward line, if nothing does."""
    if sheet.is_constant(row):
        return Text("constant", style="dim")
    values = [v for v in sheet.values if row.step is not None and v.step == row.step.index]
    together = dict.fromkeys(name for value in values for name in sheet.fused(value))
    return Text(f"verified together with {', '.join(together)}" if together else "", style="dim")


def columns_of_figures(table: Table, norms: bool = True) -> None:
    table.add_column("shape", no_wrap=True)
    if norms:
        table.add_column("‖value‖", justify="right", no_wrap=True)
        table.add_column("‖gradient‖", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)


def code(text: str, remark: str | None = "") -> Text:
    """A line in colours."""
    lit = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    lit.rstrip()
    lit.no_wrap, lit.overflow = False, "fold"
    return lit.append(f"   # {remark}", style="dim") if remark else lit


Cells = tuple[str, RenderableType, str, str, str, RenderableType]


def backward_cells(sheet: Sheet, line: Line) -> Iterator[Cells]:
    """Line number, line, shape, norms and verdict; a row for each gradient that a line sets."""
    number, text = str(line.line), code(line.text, line.step and line.step.round)
    gradients = next(p.told(line) for p in sheet.proofs if any(line is each for each in p.lines))
    if not gradients:
        yield number, text, line.shape, "", "", verdict_of(line, None)
    for gradient in gradients:
        name = "" if gradient.name in line.text and len(gradients) == 1 else gradient.name
        shape = shape_of(line if gradient is gradients[0] else None, gradient)
        yield (
            number, text if number else Text(f"  {name}", style="dim"), shape,
            norm(gradient.expected.value), norm(gradient.found), verdict_of(line, gradient),
        )  # fmt: skip
        number = ""


def shape_of(line: Line | None, gradient: Gradient) -> str:
    """The shape of a gradient: in letters, if the line states it; as it is, if that is wrong."""
    wanted, found = np.shape(gradient.expected.value), np.shape(gradient.found)
    if gradient.status == "wrong" and found != wanted:
        return shape_text(found)
    return line.shape if line and line.shape else shape_text(wanted)


def norm(array: Any) -> str:
    found = np.asarray(array) if array is not None else np.asarray("")
    return f"{float(np.linalg.norm(found)):.4g}" if found.dtype.kind == "f" else ""


def verdict_of(line: Line, gradient: Gradient | None) -> Text:
    """The verdict on a gradient; of a line that sets none, on the line."""
    status = (
        line.status
        if gradient is None or line.status in ("wrong", "inherited")
        else gradient.status
    )
    if gradient is not None and gradient.status == "right":
        status = "right"
    if line.step is None and status == "inherited":  # It stands on the line that set it.
        return Text("✗ as above", style="yellow")
    words = {
        "right": digits(gradient), "wrong": "wrong", "inherited": line.says,
        "odd": "odd", "begun": "begun", "unreached": "not reached", "": "",
    }  # fmt: skip
    return Text(f"{SIGNS[status]} {words[status]}".strip(), style=COLORS.get(status, "dim"))


def digits(gradient: Gradient | None) -> str:
    if gradient is None:
        return "right"
    if gradient.row.is_zero:
        return "zero"
    part = ", a part" if gradient.is_part else ""
    return f"{counted(gradient.digits, 'digit')}{part}"


def problems(proof: Proof) -> Iterator[Text]:
    """What is wrong, where, why, and what else is wrong because of it."""
    for line in proof.lines:
        if line.status == "wrong":
            yield Text(f"\n{proof.function.where}, line {line.line}: {line.text}", style="bold red")
            yield Text(f"  {line.says}", style="red")
            if line.cause:
                yield Text(f"  likely cause: {line.cause}")
            if line.fused:
                yield Text(f"  verified together with it: {', '.join(line.fused)}")
        elif line.status == "odd":
            suffers = "; no result suffers" if proof.ok else ""
            yield Text(f"\nline {line.line}: {line.says}{suffers}", style="yellow")
    blamed = {n for line in proof.lines if line.status == "wrong" for n in wrong_names(line)}
    later = [n for line in proof.lines if line.status == "inherited" for n in wrong_names(line)]
    others = [name for name in dict.fromkeys(later) if name not in blamed]
    if others:
        yield Text(f"therefore wrong too: {', '.join(others)}", style="yellow")


def wrong_names(line: Line) -> list[str]:
    return [gradient.name for gradient in line.gradients if gradient.status == "wrong"]


def closed_form(sheet: Sheet) -> Iterator[RenderableType]:
    """The short formula below the long way, and how near they come to each other."""
    proof = sheet.proofs[1]
    yield Text(f"{proof.function.name}, in closed form", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    columns_of_figures(table)
    for line in proof.lines:
        for each in backward_cells(sheet, line):
            table.add_row(*each)
    yield table
    yield from problems(proof)
    agreement = sheet.agreement
    if agreement is not None:
        yield Text(f"the two agree to {error(agreement)} of the gradient's norm")


def summary(sheet: Sheet) -> Text:
    lines = [line.status for proof in sheet.proofs for line in proof.lines]
    odd = sum(gradient.status == "odd" for gradient in sheet.judged)
    count = len(sheet.judged)
    text = Text(f"{count} {'verdict' if count == 1 else 'verdicts'}, ")
    if "wrong" in lines:
        wrong, later = lines.count("wrong"), lines.count("inherited")
        text.append(f"{wrong} {'line' if wrong == 1 else 'lines'} wrong", style="bold red")
        text.append(f", {later} more because of that" if later else "")
    elif odd:
        text.append(f"{odd} odd, though no result suffers", style="yellow")
    else:
        text.append("every one right", style="green")
    return text.append(f"; worst relative error {error(sheet.worst)}; seed={sheet.target.seed}")


def other_calls(sheet: Sheet) -> Iterator[Text]:
    """How the other ways to call an operation came out, such as without a bias."""
    for other in sheet.others:
        yield Text(f"{other.target.title}: ").append(summary(other))
        for proof in other.proofs:
            yield from problems(proof)


def remarks(sheet: Sheet) -> Iterator[Text]:
    """What would make more of it, where functions are the user's own."""
    if any(gradient.row.oracle == "Richardson" for gradient in sheet.judged):
        yield Text(
            "measured by differences, for forward does not take complex numbers; np.abs does that, "
            "and an np.zeros(…) without dtype=x.dtype",
            style="dim",
        )
    lines = [line for proof in sheet.proofs for line in proof.lines if line.step is not None]
    if not any(line.gradients for line in lines):
        yield Text(
            "no line sets a d<name> of a name of forward, so only what is returned is judged",
            style="dim",
        )
