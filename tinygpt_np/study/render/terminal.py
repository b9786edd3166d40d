"""Show a study in the terminal: all lines with their verdicts, or one line in detail."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tinygpt_np.config import counted
from tinygpt_np.gradcheck.report import error, shape_text, value
from tinygpt_np.study.proof.rules import rule_of
from tinygpt_np.study.proof.sheet import Sheet, SheetRow
from tinygpt_np.study.proof.verdicts import MISTAKES, BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.render.arrays import array, norm
from tinygpt_np.study.render.mathml import blocks
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.paths import leaf
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import Step, Value

SIGNS = {
    "right": "✓", "wrong": "✗", "missing": "✗", "inherited": "✗", "warning": "!", "partial": "…",
    "unmeasured": "?", "unreached": "–", "": "",
}  # fmt: skip
COLORS = {
    "right": "green", "wrong": "bold red", "missing": "bold red", "inherited": "yellow",
    "warning": "yellow",
}  # fmt: skip
# In a narrower terminal the backward is shown below the forward instead of next to it, or the norms
# are left out.
TWO_COLUMNS, WITH_NORMS = 120, 132
# If a loop has more rounds, only the first, the last and those with a mistake are shown.
MAX_ROUNDS = 2
# The meaning of each mark in the table, by a text that the verdict contains.
LEGEND = {
    "✓": "✓ digits that agree with the numerical gradient",
    "one term": "one term: other lines add to it",
    "partial sum": "… a later line completes it",
    "✗ wrong": "✗ wrong: the mistake is here",
    "✗ missing": "✗ missing: a line should be here",
    "✗ because": "✗ because of: a consequence of an earlier mistake",
    "✗ as above": "✗ as above: see the line that sets it",
    "not measured": "? the numerical gradient is too inexact to tell",
    "warning": "! see below; the returned gradients are right",
    "not reached": "– an earlier line raised an error",
    "constant": "constant: no gradient flows",
    "checked with": "checked with: has no gradient of its own",
}
# The maximum width of a verdict, and the maximum number of names in it.
VERDICT_WIDTH, NAMES_SHOWN = 26, 3

Cells = tuple[str, RenderableType, str, str, RenderableType]


# All lines


def draw(sheet: Sheet, width: int, derivation: bool = False) -> Group:
    """Show all lines of a target, the closed form, and what is wrong."""
    parts: list[RenderableType] = [heading(sheet)]
    if derivation:
        parts += [Text(), *derived(sheet), Text()]
    parts.append(side_by_side(sheet, width) if width >= TWO_COLUMNS else interleaved(sheet))
    parts += [legend(sheet), *problems(sheet, sheet.proofs[0])]
    for proof in sheet.proofs[1:]:
        parts += [Text(f"\n{proof.function.name}, in closed form", style="bold")]
        parts += [closed_form(proof), *problems(sheet, proof), *agreement(sheet)]
    parts += [Text(), summary(sheet)]
    for variant in sheet.variants:
        parts.append(Text(f"{variant.target.title}: ").append(summary(variant)))
        parts += (problem for proof in variant.proofs for problem in problems(variant, proof))
    parts += (Text(remark, style="dim") for remark in remarks(sheet))
    return Group(*parts)


def heading(sheet: Sheet) -> Text:
    """Return the file and the first line of the docstring."""
    first = sheet.target.docstring.strip().partition("\n")[0]
    title = Text(sheet.target.file, style="bold")
    return title.append(f"  {first}", style="not bold") if first else title


def derivation_of(target: Target) -> list[tuple[bool, list[str]]]:
    """Return the docstring after its first line: formulas (True) and paragraphs, in lines."""
    return blocks(target.docstring.strip().partition("\n")[2])


def derived(sheet: Sheet) -> Iterator[RenderableType]:
    """Yield the derivation in the docstring, with formulas on lines of their own."""
    found = derivation_of(sheet.target)
    for index, (is_math, lines) in enumerate(found):
        if index:
            yield Text()
        text = "\n".join(map(plain, lines)) if is_math else paragraph(lines)
        yield Padding(Text(text), (0, 0, 0, 4 * is_math), expand=False)
    if not found:
        yield Text("the docstring of the file has no derivation", style="dim")


def paragraph(lines: list[str]) -> str:
    """Return lines as one, except those that start with a heading such as Source."""
    return re.sub(r" (?=(Source|Common mistakes?): )", "\n", " ".join(lines))


def plain(formula: str) -> str:
    """Return a formula for the terminal: subscripts of one word need no braces."""
    return re.sub(r"([_^])\{([-\w.]+)\}", r"\1\2", formula)


def side_by_side(sheet: Sheet, width: int) -> Table:
    """Show the forward on the left, read downwards, and the backward on the right, read upwards."""
    table, norms = new_table(), width >= WITH_NORMS
    add_code(table, "forward ↓", 5)
    if norms:
        table.add_column("‖value‖", justify="right", no_wrap=True)
    add_code(table, "backward ↑", 6)
    add_verdict(table, norms)
    for cells in wide_rows(sheet):
        value, gradient = cells[2], cells[6]
        table.add_row(*cells[:2], *[value] * norms, *cells[3:6], *[gradient] * norms, cells[7])
    return table


def wide_rows(sheet: Sheet) -> Iterator[tuple[RenderableType, ...]]:
    """Yield number, text and norm of a forward line, and the cells of a backward line."""
    for row in folded(sheet.rows, iteration_of_row, has_mistake):
        if isinstance(row, str):
            text = Text(row, style="dim")
            yield "", text, "", "", text, "", "", ""
            continue
        value = norm(value_of(sheet, row))
        forward: tuple[RenderableType, ...] = (str(row.line), code(row.text, row.step), value)
        if not row.backward:
            yield *forward, "", Text(why_no_backward(sheet, row), style="dim"), "", "", ""
        for line in folded(row.backward, iteration_of_line, is_mistake):
            for cells in rounds_or_cells(sheet.proofs[0], line):
                yield *forward, *cells
                forward = ("", "", "")


def interleaved(sheet: Sheet) -> Table:
    """Show each forward line with the backward lines that reverse it indented below."""
    table = new_table()
    add_code(table, "forward ↓   ← backward ↑", 1)
    add_verdict(table, norms=False)
    proof = sheet.proofs[0]
    for row in folded(sheet.rows, iteration_of_row, has_mistake):
        if isinstance(row, str):
            table.add_row("", Text(row, style="dim"))
            continue
        why = why_no_backward(sheet, row)
        table.add_row(str(row.line), code(row.text, row.step), "", Text(why, style="dim"))
        for line in folded(row.backward, iteration_of_line, is_mistake):
            for number, text, shape, _, verdict in rounds_or_cells(proof, line):
                table.add_row(number, Padding(text, (0, 0, 0, 2)), shape, verdict)
    return table


def closed_form(proof: Proof) -> Table:
    """Show the lines of the closed form."""
    table = new_table(header=False)
    add_code(table, "", None)
    add_verdict(table)
    for line in proof.lines:
        for cells in backward_cells(proof, line):
            table.add_row(*cells)
    return table


def new_table(header: bool = True) -> Table:
    """Return a table without columns."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=header)


def add_code(table: Table, title: str, ratio: int | None) -> None:
    """Add columns of line numbers and of code."""
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column(title, overflow="fold", ratio=ratio)


def add_verdict(table: Table, norms: bool = True) -> None:
    """Add columns of shapes, norms and verdicts."""
    table.add_column("shape", no_wrap=True)
    if norms:
        table.add_column("‖gradient‖", justify="right", no_wrap=True)
    table.add_column("verdict", max_width=VERDICT_WIDTH)


def why_no_backward(sheet: Sheet, row: SheetRow) -> str:
    """Return why no backward line reverses a forward line, if none does, or ""."""
    if row.backward:
        return ""
    if sheet.is_constant(row):
        return "constant"
    names = sheet.fused_with(row)
    more = ", …" if len(names) > NAMES_SHOWN else ""
    return f"checked with {', '.join(names[:NAMES_SHOWN])}{more}" if names else ""


# Rounds of loops


Item = TypeVar("Item")


def folded(
    items: Sequence[Item], iteration: Callable[[Item], str], is_kept: Callable[[Item], bool]
) -> Iterator[Item | str]:
    """Yield items without most rounds of loops, in whose place a text is given."""
    for in_loop, each in groupby(items, lambda item: bool(iteration(item))):
        rounds = [(name, [*parts]) for name, parts in groupby(each, iteration)]
        count, hidden = len(rounds) if in_loop else 0, list[str]()
        for index, (name, parts) in enumerate(rounds):
            is_end = index in (0, count - 1)
            if count > MAX_ROUNDS and not is_end and not any(map(is_kept, parts)):
                hidden.append(name)
                continue
            if hidden:
                yield left_out(hidden)
                hidden = []
            yield from parts


def left_out(rounds: list[str]) -> str:
    """Return a text for rounds that are not shown."""
    if len(rounds) == 1:
        return f"… {rounds[0]}"
    return f"… {rounds[0]} to {rounds[-1].rpartition(' = ')[2]}"


def iteration_of_row(row: SheetRow) -> str:
    """Return the iteration of a forward line, or ""."""
    return row.step.iteration if row.step else ""


def iteration_of_line(line: BackwardLine) -> str:
    """Return the iteration of a backward line, or ""."""
    return line.step.iteration if line.step else ""


def is_mistake(line: BackwardLine) -> bool:
    """Return whether a line is wrong, missing or doubtful."""
    return line.status in (*MISTAKES, "warning", "unmeasured")


def has_mistake(row: SheetRow) -> bool:
    """Return whether one of the backward lines next to a forward line is a mistake."""
    return any(map(is_mistake, row.backward))


def rounds_or_cells(proof: Proof, line: BackwardLine | str) -> Iterator[Cells]:
    """Yield the cells of a backward line, or of a text for rounds that are left out."""
    if isinstance(line, str):
        yield "", Text(line, style="dim"), "", "", ""
    else:
        yield from backward_cells(proof, line)


def code(text: str, step: Step | None) -> Text:
    """Return a line of Python with syntax highlighting, and the iteration of its loop."""
    lit = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    lit.rstrip()
    lit.no_wrap, lit.overflow = False, "fold"
    return lit.append(f"   # {step.iteration}", style="dim") if step and step.iteration else lit


def backward_cells(proof: Proof, line: BackwardLine) -> Iterator[Cells]:
    """Yield number, text, shape, norm and verdict: one row per gradient that a line sets.

    The first row is that of the line and has the figures of the only name that it assigns or
    returns; other gradients, such as those it stores for parameters, follow with their names.
    """
    number, text = str(line.line), code(line.text, line.step)
    if line.status == "missing":
        number, text = "", Text(line.text, style=COLORS["missing"])
    gradients = proof.reported(line)
    own = [each for each in gradients if each.name in only_name(line)]
    if own:
        yield number, text, *figures_of(line, own[0], line.shape)
    elif gradients:
        yield number, text, "", "", ""
    else:
        yield number, text, line.shape, "", verdict_of(line, None)
    for gradient in gradients:
        if gradient not in own:
            yield "", Text(f"  {gradient.name}", style="dim"), *figures_of(line, gradient, "")


def only_name(line: BackwardLine) -> tuple[str, ...]:
    """Return the name that a line assigns, changes or returns, as a path and as its last part."""
    if line.step is None:
        return (line.text.removeprefix("return "),)
    names = line.step.statement.assigned or line.step.statement.changes
    return (names[0], leaf(names[0])) if len(names) == 1 else ()


def figures_of(
    line: BackwardLine, gradient: GradientVerdict, stated: str
) -> tuple[str, str, RenderableType]:
    """Return shape, norm and verdict of a gradient; the shape in letters if stated and right."""
    shape, found = (
        shape_text(np.shape(gradient.expected.value)),
        shape_text(np.shape(gradient.found)),
    )
    is_other = gradient.status == "wrong" and found != shape
    shown = found if is_other else stated or shape
    return shown, norm(gradient.found), verdict_of(line, gradient)


def value_of(sheet: Sheet, row: SheetRow) -> Any:
    """Return the value that a forward line sets, if it is a single one with a gradient."""
    values = sheet.set_by(row) if row.step else []
    return sheet.truth.trace.data(values[0]) if len(values) == 1 else None


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
        "warning": "warning", "partial": "partial sum", "unmeasured": "not measured",
        "unreached": "not reached", "": "",
    }  # fmt: skip
    return Text(f"{SIGNS[status]} {words[status]}".strip(), style=COLORS.get(status, "dim"))


def problems(sheet: Sheet, proof: Proof) -> Iterator[Text]:
    """Yield what is wrong and where, the likely cause, and what is wrong as a consequence."""
    for line in proof.lines:
        if line.status in MISTAKES:
            place = f"{'after ' * (line.status == 'missing')}line {line.line}"
            yield Text(f"\n{proof.function.file}, {place}: {line.text}", style="bold red")
            yield Text(f"  {line.message}", style="red")
            if line.cause:
                yield Text(f"  likely cause: {line.cause}")
            yield from (Text(f"  {text}") for text in expected(sheet, proof, line))
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


def expected(sheet: Sheet, proof: Proof, line: BackwardLine) -> Iterator[str]:
    """Yield what a wrong or missing line should add, if the rule of its forward line says so."""
    wrong = [each for each in line.gradients if each.status == "wrong"]
    steps = [sheet.followed(proof, line, gradient) for gradient in wrong]
    if line.status == "missing" and line.reverses is not None:
        steps = [sheet.truth.trace.steps[line.reverses]]
    for step in {step.index: step for step in steps if step is not None}.values():
        rule = rule_of(sheet.truth, step)
        formulas = rule.formulas if rule else ()
        sides = [re.split(r" = |\[|_\{", formula)[0] for formula in formulas]
        # A rule that is written in steps begins with the first of them.
        if sides and sides[0] in map(leaf, step.statement.sets):
            for side, formula in zip(sides, formulas, strict=True):
                if side == line.text.partition(" ")[0]:
                    yield f"by the rule of line {step.statement.line}: {plain(formula)}"


def agreement(sheet: Sheet) -> Iterator[Text]:
    """Yield how well the closed form agrees with the steps."""
    if (found := sheet.agreement) is not None:
        steps = sheet.proofs[0].function.name
        yield Text(f"agrees with {steps} to {error(found)} of the gradient's norm")


def legend(sheet: Sheet) -> Text:
    """Explain the marks that occur in the tables."""
    marks = {why_no_backward(sheet, row) for row in sheet.rows}
    for proof in sheet.proofs:
        cells = (cells for line in proof.lines for cells in backward_cells(proof, line))
        marks |= {str(verdict) for *_, verdict in cells}
    found = (text for mark, text in LEGEND.items() if any(mark in each for each in marks))
    return Text(" · ".join(found), style="dim")


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
    elif unmeasured := sum(each.status == "unmeasured" for each in sheet.all_verdicts):
        text.append(f"{unmeasured} could not be measured, the others are right", style="yellow")
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


# One line in detail


def draw_line(sheet: Sheet, number: int, width: int) -> Group:
    """Show the rule, arrays and figures of one line, for each iteration if it is in a loop."""
    rows = sheet.rows
    parts: list[RenderableType] = [heading(sheet)]
    for row in rows:
        if row.line == number:
            names = row.step.statement.sets if row.step else ()
            values = {name: sheet.truth.trace.data(Value(name, row.index)) for name in names}
            parts += [Text(), *details(sheet, row, row.backward, values, width)]
        for line in row.backward:
            if line.line == number:
                parts += [Text(), *details(sheet, row, (line,), line.values, width)]
    # A line of the closed form reverses no single line.
    closed = [line for proof in sheet.proofs[1:] for line in proof.lines]
    for line in closed:
        if line.line == number:
            parts += [Text(), *details(sheet, None, (line,), line.values, width)]
    if len(parts) == 1:
        backward = {line.line for row in rows for line in row.backward}
        known = sorted({row.line for row in rows} | backward | {line.line for line in closed})
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
    yield from reasons(sheet, row)
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


def reasons(sheet: Sheet, row: SheetRow | None) -> Iterator[RenderableType]:
    """Show the rule of a forward line, or for the closed form its derivation."""
    if row is None:
        yield Text()
        yield from derived(sheet)
        return
    rule = rule_of(sheet.truth, row.step) if row.step else None
    if rule is None:
        return
    yield Text(f"\nrule of line {row.line}: {rule.name}", style="bold")
    yield from (Text(f"    {plain(formula)}") for formula in rule.formulas)
    yield Text(rule.why)
    if rule.operation:
        yield Text(f"tinygpt study {rule.operation}", style="dim")


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
