"""Show a study in the terminal: all lines with their verdicts, or one line in detail."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tinygpt_np.config import counted
from tinygpt_np.gradcheck.report import error, shape_text, value
from tinygpt_np.study.proof.rules import rule_of
from tinygpt_np.study.proof.sheet import Sheet, SheetRow
from tinygpt_np.study.proof.verdicts import MISTAKES, BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.trace import Step, Value

SIGNS = {
    "right": "✓", "wrong": "✗", "missing": "✗", "inherited": "✗", "warning": "!", "partial": "…",
    "unreached": "–", "": "",
}  # fmt: skip
COLORS = {
    "right": "green", "wrong": "bold red", "missing": "bold red", "inherited": "yellow",
    "warning": "yellow",
}  # fmt: skip
# In a narrower terminal the backward is shown below the forward instead of next to it.
TWO_COLUMNS = 120
# The maximum number of elements of an array that is printed in full.
PRINTED = 36
# The maximum width of a heat map, and its maximum number of rows.
HEAT_MAP_WIDTH, HEAT_MAP_ROWS = 140, 32
# Blue below zero and red above. The minus sign is for terminals and readers without colours.
SHADES = ("·", "░", "▒", "▓", "█")

Cells = tuple[str, RenderableType, str, str, str, RenderableType]


# All lines


def draw(sheet: Sheet, width: int) -> Group:
    """Show all lines of a target, the closed form, and what is wrong."""
    parts: list[RenderableType] = [heading(sheet)]
    parts.append(side_by_side(sheet) if width >= TWO_COLUMNS else interleaved(sheet))
    parts += problems(sheet.proofs[0])
    if len(sheet.proofs) > 1:
        parts += [Text(), *closed_form(sheet)]
    parts += [Text(), summary(sheet)]
    for variant in sheet.variants:
        parts.append(Text(f"{variant.target.title}: ").append(summary(variant)))
        parts += (problem for proof in variant.proofs for problem in problems(proof))
    parts += (Text(remark, style="dim") for remark in remarks(sheet))
    return Group(*parts)


def heading(sheet: Sheet) -> Text:
    """Return the file and the first line of the docstring."""
    first = sheet.target.docstring.strip().partition("\n")[0]
    title = Text(sheet.target.file, style="bold")
    return title.append(f"  {first}", style="not bold") if first else title


def side_by_side(sheet: Sheet) -> Table:
    """Show the forward on the left, read downwards, and the backward on the right, read upwards."""
    table = new_table({"forward ↓": 5, "backward ↑": 6})
    for row in sheet.rows:
        forward: tuple[str, RenderableType] = (str(row.line), code(row.text, row.step))
        for line in row.backward:
            for cells in backward_cells(sheet.proofs[0], line):
                table.add_row(*forward, *cells)
                forward = ("", "")
        if not row.backward:
            table.add_row(*forward, "", why_no_backward(sheet, row))
    return table


def interleaved(sheet: Sheet) -> Table:
    """Show each forward line with the backward lines that reverse it indented below."""
    table = new_table({"forward ↓   ← backward ↑": 1}, norms=False)
    for row in sheet.rows:
        table.add_row(str(row.line), code(row.text, row.step), "", why_no_backward(sheet, row))
        for line in row.backward:
            for number, text, shape, *_, verdict in backward_cells(sheet.proofs[0], line):
                table.add_row(number, Padding(text, (0, 0, 0, 2)), shape, verdict)
    return table


def new_table(columns: dict[str, int | None], norms: bool = True, header: bool = True) -> Table:
    """Return a table with numbered columns of code, with their ratios, the shape and a verdict."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=header)
    for title, ratio in columns.items():
        table.add_column("", justify="right", style="dim", no_wrap=True)
        table.add_column(title, overflow="fold", ratio=ratio)
    table.add_column("shape", no_wrap=True)
    for title in ("‖value‖", "‖gradient‖") if norms else ():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    return table


def why_no_backward(sheet: Sheet, row: SheetRow) -> Text:
    """Return why no backward line reverses a forward line, if none does."""
    if sheet.is_constant(row):
        return Text("constant", style="dim")
    together = sheet.fused_with(row)
    return Text(f"checked together with {', '.join(together)}" if together else "", style="dim")


def code(text: str, step: Step | None) -> Text:
    """Return a line of Python with syntax highlighting, and the iteration of its loop."""
    lit = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    lit.rstrip()
    lit.no_wrap, lit.overflow = False, "fold"
    return lit.append(f"   # {step.iteration}", style="dim") if step and step.iteration else lit


def backward_cells(proof: Proof, line: BackwardLine) -> Iterator[Cells]:
    """Yield number, text, shape, norms and verdict for each gradient that a line sets."""
    number, text = "" if line.status == "missing" else str(line.line), code(line.text, line.step)
    gradients = proof.reported(line)
    if not gradients:
        yield number, text, line.shape, "", "", verdict_of(line, None)
    for gradient in gradients:
        name = "" if gradient.name in line.text and len(gradients) == 1 else gradient.name
        # In letters if stated by the line, in numbers if wrong.
        shape = shape_text(np.shape(gradient.expected.value))
        if gradient.status == "wrong" and shape_text(np.shape(gradient.found)) != shape:
            shape = shape_text(np.shape(gradient.found))
        elif number and line.shape:
            shape = line.shape
        yield (
            number, text if number else Text(f"  {name}", style="dim"), shape,
            norm(gradient.expected.value), norm(gradient.found), verdict_of(line, gradient),
        )  # fmt: skip
        number = ""


def norm(array: Any) -> str:
    """Return the norm of an array as text, or "" if it is not an array of floats."""
    found = np.asarray(array) if array is not None else np.asarray("")
    return f"{float(np.linalg.norm(found)):.4g}" if found.dtype.kind == "f" else ""


def verdict_of(line: BackwardLine, gradient: GradientVerdict | None) -> Text:
    """Return the verdict on a gradient, or on a line that sets none."""
    status, digits = line.status, "right"
    if gradient and (gradient.status == "right" or status not in ("wrong", "inherited")):
        status = gradient.status
    if line.is_return and status == "inherited":  # Reported on the line that set it.
        return Text("✗ as above", style="yellow")
    if gradient:
        term = ", one term" if gradient.is_term else ""
        digits = "zero" if gradient.row.is_zero else f"{counted(gradient.digits, 'digit')}{term}"
    words = {
        "right": digits, "wrong": "wrong", "missing": "missing", "inherited": line.message,
        "warning": "warning", "partial": "partial sum", "unreached": "not reached", "": "",
    }  # fmt: skip
    return Text(f"{SIGNS[status]} {words[status]}".strip(), style=COLORS.get(status, "dim"))


def problems(proof: Proof) -> Iterator[Text]:
    """Yield what is wrong and where, the likely cause, and what is wrong as a consequence."""
    for line in proof.lines:
        if line.status in MISTAKES:
            place = f"{'after ' * (line.status == 'missing')}line {line.line}"
            yield Text(f"\n{proof.function.file}, {place}: {line.text}", style="bold red")
            yield Text(f"  {line.message}", style="red")
            if line.cause:
                yield Text(f"  likely cause: {line.cause}")
            if line.fused:
                yield Text(f"  checked together with it: {', '.join(line.fused)}")
        elif line.status == "warning":
            harmless = "; the returned gradients are right" if proof.ok else ""
            yield Text(f"\nline {line.line}: {line.message}{harmless}", style="yellow")

    def wrong_names(status: str) -> dict[str, None]:
        lines = [line for line in proof.lines if line.status == status]
        wrong = (g.name for line in lines for g in line.gradients if g.status == "wrong")
        return dict.fromkeys(wrong)

    others = [name for name in wrong_names("inherited") if name not in wrong_names("wrong")]
    if others:
        yield Text(f"wrong as a consequence: {', '.join(others)}", style="yellow")


def closed_form(sheet: Sheet) -> Iterator[RenderableType]:
    """Show the lines of the closed form and how well it agrees with the steps."""
    steps, proof = sheet.proofs
    yield Text(f"{proof.function.name}, in closed form", style="bold")
    table = new_table({"": None}, header=False)
    for line in proof.lines:
        for cells in backward_cells(proof, line):
            table.add_row(*cells)
    yield table
    yield from problems(proof)
    if (agreement := sheet.agreement) is not None:
        yield Text(
            f"agrees with {steps.function.name} to {error(agreement)} of the gradient's norm"
        )


def summary(sheet: Sheet) -> Text:
    """Return the number of gradients checked, of errors, and the worst relative error."""
    statuses = [line.status for proof in sheet.proofs for line in proof.lines]
    warnings = sum(gradient.status == "warning" for gradient in sheet.all_verdicts)
    text = Text(f"{counted(len(sheet.all_verdicts), 'gradient')} checked, ")
    mistakes = [status for status in MISTAKES if status in statuses]
    if mistakes:
        counts = (f"{counted(statuses.count(each), 'line')} {each}" for each in mistakes)
        later = statuses.count("inherited")
        text.append(", ".join(counts), style="bold red")
        text.append(f", {later} more as a consequence" if later else "")
    elif warnings:
        style = "yellow"
        text.append(f"{counted(warnings, 'warning')}, the returned gradients are right", style)
    else:
        text.append("all right", style="green")
    return text.append(f"; worst relative error {error(sheet.worst)}; seed={sheet.target.seed}")


def remarks(sheet: Sheet) -> Iterator[str]:
    """Yield how a user could get a more precise or more detailed result."""
    if any(gradient.row.oracle == "Richardson" for gradient in sheet.all_verdicts):
        yield (
            "measured by finite differences, because forward does not accept complex numbers; "
            "common reasons are np.abs, and np.zeros(…) without dtype=x.dtype"
        )
    lines = [line for proof in sheet.proofs for line in proof.lines if line.step is not None]
    if not any(line.gradients for line in lines):
        yield (
            "no line sets d<name> for a name in forward, so only the returned gradients are checked"
        )
    if sheet.target.kind != "user":
        yield f"tinygpt study {sheet.target.name} --line N shows one line in detail"


# One line in detail


def draw_line(sheet: Sheet, number: int, width: int) -> Group:
    """Show the rule, arrays and figures of one line, for each iteration if it is in a loop."""
    rows, closed = sheet.rows, [line for proof in sheet.proofs[1:] for line in proof.lines]
    pairs: list[tuple[SheetRow | None, BackwardLine]]
    pairs = [(row, line) for row in rows for line in row.backward]
    # A line of the closed form may reverse no single line.
    pairs += [(None if li.reverses is None else rows[li.reverses + 1], li) for li in closed]
    parts: list[RenderableType] = [heading(sheet)]
    for row in rows:
        if row.line == number:
            sets = row.step.statement.sets if row.step else ()
            values = {name: sheet.truth.trace.data(Value(name, row.index)) for name in sets}
            parts += [Text(), *details(sheet, row, row.backward, values, width)]
    for row, line in pairs:
        if line.line == number:
            parts += [Text(), *details(sheet, row, (line,), line.values, width)]
    if len(parts) == 1:
        known = sorted({row.line for row in rows} | {line.line for _, line in pairs})
        numbers = ", ".join(map(str, known))
        raise StudyError(f"{sheet.target.file}: --line must be one of {numbers}, not {number}")
    return Group(*parts)


def details(
    sheet: Sheet, row: SheetRow | None, lines: Sequence[BackwardLine], values: Mapping[str, Any],
    width: int,
) -> Iterator[RenderableType]:  # fmt: skip
    """Show a forward line with backward lines that reverse it, or with the values it sets."""
    for each in (*([row] if row else []), *lines):
        text = code(each.text, each.step)
        yield Text.assemble((f"{each.line}  ", "dim"), text, (f"  {each.shape}", "dim"))
    rule = rule_of(sheet.truth, row.step) if row and row.step else None
    if rule is not None:
        yield Text()
        yield Text(f"rule: {rule.name}", style="bold")
        yield from (Text(f"    {formula}") for formula in rule.formulas)
        if rule.why:
            yield Text(rule.why)
        if rule.operation:
            yield Text(f"tinygpt study {rule.operation}", style="dim")
    elif row is None:
        yield Text(f"\n{sheet.target.docstring.strip()}")
    for each in lines:
        for gradient in each.gradients:
            yield Text()
            yield from figures(gradient, each, width)
        if each.fused:
            yield Text(f"checked together with it: {', '.join(each.fused)}")
        if each.message:
            yield Text(each.message, style=COLORS.get(each.status, ""))
    if not any(each.gradients for each in lines):
        for name, data in values.items():
            if isinstance(data, np.ndarray):
                yield Text()
                yield from array(name, data, width)
            elif isinstance(data, int | float | np.generic):
                yield Text(f"\n{name} = {data}")


def figures(gradient: GradientVerdict, line: BackwardLine, width: int) -> Iterator[RenderableType]:
    """Show the figures of a verdict, the tensor, its gradient and, if wrong, the measured one."""
    row, expected = gradient.row, gradient.expected
    term = ", the term from this line" if gradient.is_term else ""
    yield Text.assemble((f"{gradient.name}{term}  ", "bold"), verdict_of(line, gradient))
    checked = f"{row.checked} {'elements' if row.by_element else 'directions'}"
    errors = f"relative error {error(row.relative)}, tolerance {error(row.bound)}"
    worst = f"analytic {value(row.analytic)}, numeric {value(row.numeric)}"
    yield Text(f"{row.oracle}, {checked}: {errors}; worst at {list(row.index)}: {worst}")
    if row.cause:
        yield Text(f"likely cause: {row.cause}")
    yield from array(expected.measured.name, expected.value, width)
    if gradient.found is not None:
        yield from array(gradient.name, gradient.found, width)
    if not gradient.row.ok and expected.gradient is not None:
        yield from array(f"{gradient.name}, numeric", expected.gradient, width)


def array(name: str, numbers: Any, width: int) -> Iterator[RenderableType]:
    """Show a small array in full, and a large one as a summary and a heat map."""
    found = np.asarray(numbers)
    size = f", norm {norm(found)}" if norm(found) else ""
    yield Text(f"{name}  {shape_text(found.shape)}{size}", style="bold")
    if found.size <= PRINTED or found.dtype.kind != "f":
        text = np.array2string(found, precision=4, suppress_small=True, threshold=200)
        yield Padding(Text(text), (0, 0, 0, 4), expand=False)
    else:
        lowest, highest, mean = (value(float(f(found))) for f in (np.min, np.max, np.mean))
        yield Text(f"    from {lowest} to {highest}, mean {mean}")
        drawn = heat_map(found, min(width, HEAT_MAP_WIDTH) - 4)
        yield Padding(drawn, (0, 0, 0, 4), expand=False)


# Heat maps


def heat_map(array: np.ndarray, width: int) -> Text:
    """Draw an array as cells, denser for larger numbers; what does not fit is left out."""
    rows = array.reshape(-1, array.shape[-1])  # (..., last)
    columns = max(width // 2 - 1, 1)
    largest = float(np.abs(rows[np.isfinite(rows)]).max(initial=0.0)) or 1.0
    text = Text()
    for row in rows[:HEAT_MAP_ROWS, :columns]:
        for number in row:
            text.append(*cell(float(number), largest))
        text.append(" …\n" if rows.shape[1] > columns else "\n")
    if len(rows) > HEAT_MAP_ROWS:
        text.append(f"… {counted(len(rows) - HEAT_MAP_ROWS, 'more row')}\n")
    return text.append(f"minus and blue below 0, red above; █ at ±{largest:.3g}", style="dim")


def cell(number: float, largest: float) -> tuple[str, Style]:
    """Return the sign and shade of a number, and its colour."""
    if not np.isfinite(number):
        return "??", Style(color="magenta", reverse=True)
    fraction = min(abs(number) / largest, 1.0)
    shade = SHADES[min(int(fraction * len(SHADES)), len(SHADES) - 1)]
    sign = "-" if number < 0 and shade != SHADES[0] else " "
    return sign + shade, Style(color="red" if number > 0 else "blue")
