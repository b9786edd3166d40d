"""Show a study in the terminal: all lines with their verdicts, or one line in detail."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tinygpt_np.config import counted
from tinygpt_np.gradcheck.report import error, shape_text, value
from tinygpt_np.study.proof.rules import Rule, rule_of
from tinygpt_np.study.proof.sheet import Sheet, SheetRow
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.trace import Namespace, Step

SIGNS = {
    "right": "✓", "wrong": "✗", "inherited": "✗", "warning": "!", "partial": "…", "unreached": "–",
    "": "",
}  # fmt: skip
COLORS = {"right": "green", "wrong": "bold red", "inherited": "yellow", "warning": "yellow"}
# In a narrower terminal the backward is shown below the forward instead of next to it.
TWO_COLUMNS = 120
# The maximum number of elements of an array that is printed in full.
PRINTED = 36
# The width of a heat map if the terminal's width is unknown, and its maximum number of rows.
HEAT_MAP_WIDTH, HEAT_MAP_ROWS = 140, 32
# Blue below zero and red above. The minus sign is for terminals and readers without colours.
SHADES = ("·", "░", "▒", "▓", "█")

Cells = tuple[str, RenderableType, str, str, str, RenderableType]


# All lines


def draw(sheet: Sheet, width: int) -> Group:
    """Show all lines of a target, the closed form, and what is wrong."""
    proof, target = sheet.proofs[0], sheet.target
    parts: list[RenderableType] = [heading(sheet)]
    parts.append(side_by_side(sheet) if width >= TWO_COLUMNS else interleaved(sheet))
    parts += problems(proof)
    if len(sheet.proofs) > 1:
        parts += [Text(), *closed_form(sheet)]
    parts += [Text(), summary(sheet), *variants(sheet), *remarks(sheet)]
    if target.kind != "user":
        hint = f"tinygpt study {target.name} --line N shows one line in detail"
        parts.append(Text(hint, style="dim"))
    return Group(*parts)


def heading(sheet: Sheet) -> Text:
    """Return the file and the first line of the docstring."""
    first = sheet.target.docstring.strip().partition("\n")[0]
    title = Text(sheet.target.file, style="bold")
    return title.append(f"  {first}", style="not bold") if first else title


def side_by_side(sheet: Sheet) -> Table:
    """Show the forward on the left, read downwards, and the backward on the right, read upwards."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("forward ↓", overflow="fold", ratio=5)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("backward ↑", overflow="fold", ratio=6)
    add_figure_columns(table)
    for row in sheet.rows:
        forward: tuple[str, RenderableType] = (
            str(row.line),
            code(row.text, row.step and row.step.iteration),
        )
        for line in row.backward:
            for cells in backward_cells(sheet, line):
                table.add_row(*forward, *cells)
                forward = ("", "")
        if not row.backward:
            table.add_row(*forward, "", why_no_backward(sheet, row))
    return table


def interleaved(sheet: Sheet) -> Table:
    """Show each forward line with the backward lines that reverse it indented below."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("forward ↓   ← backward ↑", overflow="fold", ratio=1)
    add_figure_columns(table, norms=False)
    for row in sheet.rows:
        text = code(row.text, row.step and row.step.iteration)
        table.add_row(str(row.line), text, "", why_no_backward(sheet, row))
        for line in row.backward:
            for number, text, shape, *_, verdict in backward_cells(sheet, line):
                table.add_row(number, Padding(text, (0, 0, 0, 2)), shape, verdict)
    return table


def why_no_backward(sheet: Sheet, row: SheetRow) -> Text:
    """Return why no backward line reverses a forward line, if none does."""
    if sheet.is_constant(row):
        return Text("constant", style="dim")
    values = [v for v in sheet.values if row.step is not None and v.step == row.step.index]
    together = dict.fromkeys(name for each in values for name in sheet.fused(each))
    return Text(f"checked together with {', '.join(together)}" if together else "", style="dim")


def add_figure_columns(table: Table, norms: bool = True) -> None:
    """Add the columns for the shape, the norms and the verdict."""
    table.add_column("shape", no_wrap=True)
    if norms:
        table.add_column("‖value‖", justify="right", no_wrap=True)
        table.add_column("‖gradient‖", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)


def code(text: str, comment: str | None = "") -> Text:
    """Return a line of Python with syntax highlighting."""
    lit = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    lit.rstrip()
    lit.no_wrap, lit.overflow = False, "fold"
    return lit.append(f"   # {comment}", style="dim") if comment else lit


def backward_cells(sheet: Sheet, line: BackwardLine) -> Iterator[Cells]:
    """Yield number, text, shape, norms and verdict for each gradient that a line sets."""
    number, text = str(line.line), code(line.text, line.step and line.step.iteration)
    proof = next(p for p in sheet.proofs if any(line is each for each in p.lines))
    gradients = proof.reported(line)
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


def shape_of(line: BackwardLine | None, gradient: GradientVerdict) -> str:
    """Return the shape of a gradient: in letters if stated by the line, in numbers if wrong."""
    wanted, found = np.shape(gradient.expected.value), np.shape(gradient.found)
    if gradient.status == "wrong" and found != wanted:
        return shape_text(found)
    return line.shape if line and line.shape else shape_text(wanted)


def norm(array: Any) -> str:
    """Return the norm of an array as text, or "" if it is not an array of floats."""
    found = np.asarray(array) if array is not None else np.asarray("")
    return f"{float(np.linalg.norm(found)):.4g}" if found.dtype.kind == "f" else ""


def verdict_of(line: BackwardLine, gradient: GradientVerdict | None) -> Text:
    """Return the verdict on a gradient, or on a line that sets none."""
    status = line.status
    if gradient is not None and line.status not in ("wrong", "inherited"):
        status = gradient.status
    if gradient is not None and gradient.status == "right":
        status = "right"
    if line.step is None and status == "inherited":  # Reported on the line that set it.
        return Text("✗ as above", style="yellow")
    words = {
        "right": digits(gradient), "wrong": "wrong", "inherited": line.message,
        "warning": "warning", "partial": "partial sum", "unreached": "not reached", "": "",
    }  # fmt: skip
    return Text(f"{SIGNS[status]} {words[status]}".strip(), style=COLORS.get(status, "dim"))


def digits(gradient: GradientVerdict | None) -> str:
    """Return the precision of a right gradient in words."""
    if gradient is None:
        return "right"
    if gradient.row.is_zero:
        return "zero"
    term = ", one term" if gradient.is_term else ""
    return f"{counted(gradient.digits, 'digit')}{term}"


def problems(proof: Proof) -> Iterator[Text]:
    """Yield what is wrong and where, the likely cause, and what is wrong as a consequence."""
    for line in proof.lines:
        if line.status == "wrong":
            yield Text(f"\n{proof.function.file}, line {line.line}: {line.text}", style="bold red")
            yield Text(f"  {line.message}", style="red")
            if line.cause:
                yield Text(f"  likely cause: {line.cause}")
            if line.fused:
                yield Text(f"  checked together with it: {', '.join(line.fused)}")
        elif line.status == "warning":
            harmless = "; the returned gradients are right" if proof.ok else ""
            yield Text(f"\nline {line.line}: {line.message}{harmless}", style="yellow")
    wrong = {n for line in proof.lines if line.status == "wrong" for n in wrong_names(line)}
    later = [n for line in proof.lines if line.status == "inherited" for n in wrong_names(line)]
    others = [name for name in dict.fromkeys(later) if name not in wrong]
    if others:
        yield Text(f"wrong as a consequence: {', '.join(others)}", style="yellow")


def wrong_names(line: BackwardLine) -> list[str]:
    """Return the names of the wrong gradients of a line."""
    return [gradient.name for gradient in line.gradients if gradient.status == "wrong"]


def closed_form(sheet: Sheet) -> Iterator[RenderableType]:
    """Show the lines of the closed form and how well it agrees with the steps."""
    proof = sheet.proofs[1]
    yield Text(f"{proof.function.name}, in closed form", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    add_figure_columns(table)
    for line in proof.lines:
        for cells in backward_cells(sheet, line):
            table.add_row(*cells)
    yield table
    yield from problems(proof)
    agreement = sheet.agreement
    if agreement is not None:
        first = sheet.proofs[0].function.name
        yield Text(f"agrees with {first} to {error(agreement)} of the gradient's norm")


def summary(sheet: Sheet) -> Text:
    """Return the number of gradients checked, of errors, and the worst relative error."""
    statuses = [line.status for proof in sheet.proofs for line in proof.lines]
    warnings = sum(gradient.status == "warning" for gradient in sheet.all_verdicts)
    text = Text(f"{counted(len(sheet.all_verdicts), 'gradient')} checked, ")
    if "wrong" in statuses:
        wrong, later = statuses.count("wrong"), statuses.count("inherited")
        text.append(f"{counted(wrong, 'line')} wrong", style="bold red")
        text.append(f", {later} more as a consequence" if later else "")
    elif warnings:
        style = "yellow"
        text.append(f"{counted(warnings, 'warning')}, the returned gradients are right", style)
    else:
        text.append("all right", style="green")
    return text.append(f"; worst relative error {error(sheet.worst)}; seed={sheet.target.seed}")


def variants(sheet: Sheet) -> Iterator[Text]:
    """Yield the results of the other ways to call an operation, such as without a bias."""
    for variant in sheet.variants:
        yield Text(f"{variant.target.title}: ").append(summary(variant))
        for proof in variant.proofs:
            yield from problems(proof)


def remarks(sheet: Sheet) -> Iterator[Text]:
    """Yield how a user could get a more precise or more detailed result."""
    if any(gradient.row.oracle == "Richardson" for gradient in sheet.all_verdicts):
        yield Text(
            "measured by finite differences, because forward does not accept complex numbers; "
            "common reasons are np.abs, and np.zeros(…) without dtype=x.dtype",
            style="dim",
        )
    lines = [line for proof in sheet.proofs for line in proof.lines if line.step is not None]
    if not any(line.gradients for line in lines):
        yield Text(
            "no line sets d<name> for a name in forward, so only the returned gradients are "
            "checked",
            style="dim",
        )


# One line in detail


def draw_line(sheet: Sheet, number: int, console: Console) -> Group:
    """Show one line in detail: its rule, its arrays, and the figures of each verdict.

    A line in a loop is shown for each iteration. Raises StudyError if there is no such line.
    """
    parts: list[RenderableType] = [heading(sheet)]
    for row, line in lines_with_number(sheet, number):
        parts += [Text(), *details(sheet, row, line, console)]
    return Group(*parts)


def lines_with_number(
    sheet: Sheet, number: int
) -> list[tuple[SheetRow | None, BackwardLine | None]]:
    """Return the forward and backward lines that have a line number.

    The forward line is None if a line of the closed form reverses no single line; the backward line
    is None if the number is that of a forward line.
    """
    rows, closed = sheet.rows, [line for proof in sheet.proofs[1:] for line in proof.lines]
    pairs: list[tuple[SheetRow | None, BackwardLine]]
    pairs = [(row, line) for row in rows for line in row.backward]
    pairs += [(None if li.reverses is None else rows[li.reverses + 1], li) for li in closed]
    found: list[tuple[SheetRow | None, BackwardLine | None]] = []
    found += [(row, None) for row in rows if row.line == number]
    found += [(row, line) for row, line in pairs if line.line == number]
    if not found:
        known = sorted({row.line for row in rows} | {line.line for _, line in pairs})
        lines = ", ".join(map(str, known))
        raise StudyError(f"{sheet.target.file}: --line must be one of {lines}, not {number}")
    return found


def details(
    sheet: Sheet, row: SheetRow | None, line: BackwardLine | None, console: Console
) -> Iterator[RenderableType]:
    """Show a forward line with one or all of the backward lines that reverse it."""
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
            yield from arrays(gradient, console)
        if each.fused:
            yield Text(f"checked together with it: {', '.join(each.fused)}")
        if each.message:
            yield Text(each.message, style=COLORS.get(each.status, ""))
    if not any(each.gradients for each in lines):
        values = line.values if line else values_set(sheet, row)
        for name, data in values.items():
            yield from value_set(name, data, console)


def derivation(sheet: Sheet, row: SheetRow | None) -> Iterator[RenderableType]:
    """Show the rule of a line; without a forward line, the derivation of the operation."""
    rule = rule_of(row.step.statement, sheet.is_constant(row)) if row and row.step else None
    if rule is not None:
        yield Text()
        yield from rule_text(rule)
    elif row is None:
        yield Text(f"\n{sheet.target.docstring.strip()}")


def source(number: int, text: str, shape: str, step: Step | None) -> Text:
    """Return a line with its number and shape."""
    iteration = step.iteration if step else ""
    return Text.assemble((f"{number}  ", "dim"), code(text, iteration), (f"  {shape}", "dim"))


def rule_text(rule: Rule) -> Iterator[RenderableType]:
    """Show a rule: its name, formulas and reason."""
    yield Text(f"rule: {rule.name}", style="bold")
    yield from (Text(f"    {formula}") for formula in rule.formulas)
    if rule.why:
        yield Text(rule.why)
    if rule.operation:
        yield Text(f"tinygpt study {rule.operation}", style="dim")


def figures(gradient: GradientVerdict, line: BackwardLine) -> Iterator[Text]:
    """Show the figures of a verdict."""
    row = gradient.row
    term = ", the term from this line" if gradient.is_term else ""
    yield Text.assemble((f"{gradient.name}{term}  ", "bold"), verdict_of(line, gradient))
    checked = f"{row.checked} {'elements' if row.by_element else 'directions'}"
    errors = f"relative error {error(row.relative)}, tolerance {error(row.bound)}"
    worst = f"analytic {value(row.analytic)}, numeric {value(row.numeric)}"
    yield Text(f"{row.oracle}, {checked}: {errors}; worst at {list(row.index)}: {worst}")
    if row.cause:
        yield Text(f"likely cause: {row.cause}")


def arrays(gradient: GradientVerdict, console: Console) -> Iterator[RenderableType]:
    """Show a tensor and its gradient; if the gradient is wrong, the measured one too."""
    yield from array(gradient.expected.measured.name, gradient.expected.value, console)
    if gradient.found is not None:
        yield from array(gradient.name, gradient.found, console)
    if not gradient.row.ok and gradient.expected.gradient is not None:
        yield from array(f"{gradient.name}, numeric", gradient.expected.gradient, console)


def values_set(sheet: Sheet, row: SheetRow | None) -> Namespace:
    """Return the values that a forward line sets."""
    if row is None or row.step is None:
        return {}
    names = sheet.truth.trace.before[row.step.index + 1]
    return {name: names[name] for name in row.step.statement.sets}


def value_set(name: str, data: Any, console: Console) -> Iterator[RenderableType]:
    """Show an array or a number."""
    if isinstance(data, np.ndarray):
        yield Text()
        yield from array(name, data, console)
    elif isinstance(data, int | float | np.generic):
        yield Text(f"\n{name} = {data}")


def array(name: str, numbers: Any, console: Console) -> Iterator[RenderableType]:
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
        width = min(console.width, HEAT_MAP_WIDTH) - 4
        yield Padding(heat_map(found, width), (0, 0, 0, 4), expand=False)


# Heat maps


def heat_map(array: np.ndarray, width: int) -> Text:
    """Draw an array as rows of cells; all axes but the last are flattened into rows.

    The larger the number, the denser the cell. Rows and columns that do not fit are left out.
    """
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
