"""Collect what a page shows of a study, in JSON types: the data of page.html.jinja."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.mutations import KINDS
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.study.proof.bugs import Bug
from tinygpt_np.study.proof.rules import rule_of
from tinygpt_np.study.proof.sheet import Sheet, SheetRow
from tinygpt_np.study.proof.truth import Expected
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.render.highlight import Keys, highlight
from tinygpt_np.study.render.mathml import blocks, inline, mathml
from tinygpt_np.study.source.trace import Value

Json = dict[str, Any]
NOT_RIGHT = ("wrong", "inherited", "warning")
# For larger arrays a page has the norm and the shape, but no heat map.
MAX_ELEMENTS = 2000
# Step sizes of the error curves, two per decade.
STEPS = 10.0 ** -np.arange(0, 16.5, 0.5)


def page_data(sheet: Sheet, planted: list[Bug]) -> Json:
    """Return the data of a page; the functions below describe its parts."""
    target, proofs = sheet.target, sheet.proofs
    verdicts = sheet.all_verdicts
    summary, rest = derivation(target.docstring)
    steps = backward_lines(sheet, proofs[0])
    return {
        "name": target.name,
        "title": target.title,
        "kind": target.kind,
        "file": target.file,
        "seed": target.seed,
        "ok": sheet.ok,
        "right": sum(gradient.status == "right" for gradient in verdicts),
        "total": len(verdicts),
        "worst": finite(sheet.worst),
        "warnings": sum(gradient.status == "warning" for gradient in verdicts),
        "raises_at": raises_at(sheet),
        "variants": [
            {"title": each.target.title, "message": first_message(each)} for each in sheet.variants
        ],
        "functions": [target.forward.name, *(proof.function.name for proof in proofs)],
        "summary": summary,
        "derivation": rest,
        "rows": [forward_row(sheet, each, steps) for each in sheet.rows],
        "head": head(sheet, proofs[0]),
        "closed_form": closed_form(sheet),
        "values": {key(value): differentiable_data(sheet, value) for value in sheet.values}
        | {key(value): value_data(sheet, value) for value in constants(sheet)},
        "params": {name: param_data(sheet, name) for name in target.params},
        "bugs": [bug_data(each) for each in planted],
    }


# The header


def raises_at(sheet: Sheet) -> int | None:
    """Return the line at which a backward raises, or None."""
    raised = (proof.trace.executed[-1] for proof in sheet.proofs if proof.trace.raised)
    return next((each.step.statement.line for each in raised), None)


def first_message(sheet: Sheet) -> str:
    """Return the first error with its line, or ""."""
    lines = [proof.first_wrong for proof in sheet.proofs if proof.first_wrong]
    return f"line {lines[0].line}: {lines[0].message}" if lines else ""


def derivation(docstring: str) -> tuple[str, list[Json]]:
    """Return the first paragraph as HTML, and the rest of a docstring.

    The rest consists of {"kind": "text", "html": …} and {"kind": "math", "lines": [MathML, …]}.
    """
    found: list[Json] = []
    for block in blocks(docstring):
        if block.kind == "math":
            found.append({"kind": "math", "lines": [mathml(line, True) for line in block.lines]})
        else:
            found.append({"kind": "text", "html": inline(" ".join(block.lines))})
    if found and found[0]["kind"] == "text":
        return found[0]["html"], found[1:]
    return "", found


# The lines


def forward_row(sheet: Sheet, row: SheetRow, backward: dict[int, Json]) -> Json:
    """Return the data of a forward line and of the backward lines that reverse it.

    - line, html, shape; iteration: of a loop, such as "layer = 0", or ""
    - sets: the keys of the differentiable values that it sets; reads: the names that it reads
    - constant: whether no gradient flows through it
    - fused: the gradients with which its values are checked, if they have none of their own
    - rule: see `rule`; backward: see `backward_line`, the line that runs last first
    """
    step, is_head = row.step, row is sheet.rows[0]
    index = -1 if is_head else step.index if step else None
    values = [v for v in sheet.values if v.step == index]
    sets, reads = forward_keys(sheet, row)
    return {
        "line": row.line,
        "html": highlight(row.text, sets, reads),
        "shape": row.shape,
        "iteration": "" if step is None else step.iteration,
        "sets": [key(value) for value in values],
        "reads": [] if is_head else sorted(mentions(sheet, row)),
        "constant": step is not None and not values,
        "fused": list(dict.fromkeys(name for v in values for name in sheet.fused(v))),
        "rule": rule(sheet, row),
        "backward": [backward[id(line)] for line in row.backward],
    }


def mentions(sheet: Sheet, row: SheetRow) -> frozenset[str]:
    """Return the names that a forward line mentions."""
    forward = sheet.target.forward
    statement = row.step.statement if row.step else forward.statement(forward.returned)
    return statement.mentions


def forward_keys(sheet: Sheet, row: SheetRow) -> tuple[Keys, Keys]:
    """Return the keys of the values that a forward line sets, and of those that it reads."""
    trace, known = sheet.truth.trace, shown(sheet)

    def key_of(value: Value) -> str:
        return key(value) if value in known else ""

    index = row.step.index if row.step else -1 if row is sheet.rows[0] else len(trace.steps)
    sets = row.step.statement.sets if row.step else ()
    names = {value.name for value in trace.values() if value.step < max(index, 0)}
    reads = {name: key_of(trace.definition(name, max(index, 0))) for name in names}
    return {name: key_of(Value(name, index)) for name in sets}, reads


def rule(sheet: Sheet, row: SheetRow) -> Json | None:
    """Return the rule of a forward line, or None.

    name; formulas: MathML; why: HTML; operation: whose page has the derivation, or "".
    """
    constant = sheet.is_constant(row)
    found = rule_of(row.step.statement, constant) if row.step is not None else None
    if found is None:
        return None
    formulas = [mathml(formula, True) for formula in found.formulas]
    return {
        "name": found.name, "formulas": formulas, "why": inline(found.why),
        "operation": found.operation,
    }  # fmt: skip


def head(sheet: Sheet, proof: Proof) -> Json:
    """Return the signature of a backward: line, html, and the key of the upstream value."""
    function = proof.function
    arguments = [name for name in function.arguments if name != "self"]
    value = next((v for v in reversed(sheet.values) if f"d{v.name}" == arguments[0]), None)
    upstream = key(value) if value else ""
    keys = dict.fromkeys(function.arguments, "") | {arguments[0]: upstream}
    text = f"def {function.name}({', '.join(function.arguments)})"
    html = highlight(text, reads=keys)
    return {"line": function.node.lineno, "html": html, "upstream": upstream}


def backward_lines(sheet: Sheet, proof: Proof) -> dict[int, Json]:
    """Return the data of a backward's lines by the id() of each line, in the order they run."""
    keys = backward_keys(sheet, proof)
    return {id(line): backward_line(sheet, proof, line, *next(keys)) for line in proof.lines}


def backward_keys(sheet: Sheet, proof: Proof) -> Iterator[tuple[Keys, Keys]]:
    """Yield, for each line, the keys of the values that it sets and of those that it reads."""
    values = [v for v in sheet.truth.trace.values() if v in shown(sheet)]
    # A name that forward assigned twice stands for its last value.
    last = {value.name: key(value) for value in values}
    last |= {f"d{value.name}": key(value) for value in sheet.values}
    known = {name: last.get(name, "") for name in proof.function.arguments}
    for line in proof.lines:
        names = line.step.statement.sets if line.step else ()
        bindings = dict.fromkeys(line.step.bindings, "") if line.step else {}
        sets = {name: last.get(name, "") for name in names}
        sets |= {g.name: key(g.pair.value) for g in line.gradients if g.pair and g.name in sets}
        yield sets, known | bindings
        known |= sets


def backward_line(sheet: Sheet, proof: Proof, line: BackwardLine, sets: Keys, reads: Keys) -> Json:
    """Return the data of a backward line.

    - id: "backward:53", or "backward:53:4" for one iteration of a loop
    - function, line, html, text, shape
    - status, message, cause: the verdict on the line; gradients: see `verdict`
    - reads: the names that it reads; fused: names that are checked together with it
    """
    function = proof.function
    statement = line.step.statement if line.step else function.statement(function.returned)
    return {
        "id": line_id(proof, line),
        "function": function.name,
        "line": line.line,
        "html": highlight(line.text, sets, reads),
        "text": line.text,
        "shape": line.shape,
        "status": line.status,
        "message": line.message,
        "cause": line.cause,
        "reads": sorted(statement.mentions),
        "gradients": [verdict(sheet, gradient) for gradient in proof.reported(line)],
        "fused": list(line.fused),
    }


def line_id(proof: Proof, line: BackwardLine) -> str:
    """Return the id of a backward line on its page."""
    iteration = f":{line.step.index}" if line.step is not None and line.step.bindings else ""
    return f"{proof.function.name}:{line.line}{iteration}"


def closed_form(sheet: Sheet) -> Json | None:
    """Return the closed form: its head, its lines as they run, and its agreement with the steps.

    `together` lists the names of forward that have no gradient of their own in the closed form.
    """
    if len(sheet.proofs) < 2:
        return None
    proof = sheet.proofs[1]
    own = {g.name[1:] for g in proof.gradients if g.pair}
    own |= {name[1:] for name in proof.function.arguments if name.startswith("d")}
    return {
        "function": proof.function.name,
        "head": head(sheet, proof),
        "lines": list(backward_lines(sheet, proof).values()),
        "agreement": sheet.agreement,
        "together": [v.name for v in sheet.values if v.name not in own],
    }


# The values


def key(value: Value) -> str:
    """Return the key of a value on the page: its name and the step that sets it."""
    return value.name if value.step < 0 else f"{value.name}@{value.step}"


def constants(sheet: Sheet) -> list[Value]:
    """Return the arrays and numbers through which no gradient flows."""
    trace, differentiable = sheet.truth.trace, sheet.truth.differentiable
    return [
        v for v in trace.values() if v not in differentiable and array(trace.data(v)) is not None
    ]


def shown(sheet: Sheet) -> set[Value]:
    """Return the values that the page shows."""
    return {*sheet.values, *constants(sheet)}


def differentiable_data(sheet: Sheet, value: Value) -> Json:
    """Return the data of a value with its gradient; see `value_data` for the other keys.

    - uses: the rows that read it; upstream: whether its gradient is the upstream gradient
    - fused: the gradients with which it is checked, if it has none of its own
    - gradient, expected, difference: see `array`
    - verdicts: see `verdict`, with the id of the line; chart: see `error_curves`
    """
    trace, expected = sheet.truth.trace, sheet.truth.total(value)
    found = sheet.gradient(value)
    curves = error_curves(expected, sheet.target.seed)
    return value_data(sheet, value) | {
        "constant": False,
        "uses": [step + 1 for step in trace.uses(value)],
        "upstream": found is sheet.truth.doutput,
        "fused": list(sheet.fused(value)),
        "gradient": array(found),
        "expected": array(expected.gradient),
        "difference": difference(found, expected.gradient),
        "verdicts": [
            {**verdict(sheet, gradient), "id": line_id(proof, line)}
            for proof, line, gradient in sheet.verdicts(value)
            if gradient in proof.reported(line) and gradient.status != "partial"
        ],
        "chart": None if curves is None else rounded(asdict(curves)),
    }


def value_data(sheet: Sheet, value: Value) -> Json:
    """Return the data of a value: name, line and iteration where it is set, and its array."""
    trace, first_line = sheet.truth.trace, sheet.target.forward.node.lineno
    return {
        **empty_data(value.name),
        "line": first_line if value.step < 0 else trace.steps[value.step].statement.line,
        "iteration": "" if value.step < 0 else trace.steps[value.step].iteration,
        "constant": True,
        "value": array(trace.data(value)),
    }


def param_data(sheet: Sheet, name: str) -> Json:
    """Return the data of a parameter of a model; its line is 0."""
    found = [
        (proof, line, gradient)
        for proof in sheet.proofs
        for line in proof.lines
        for gradient in line.gradients
        if gradient.name == name
    ][:1]
    expected, gradient = sheet.truth.param(name), found[0][2].found if found else None
    return {
        **empty_data(name),
        "value": array(sheet.target.params[name]),
        "gradient": array(gradient),
        "expected": array(expected.gradient),
        "difference": difference(gradient, expected.gradient),
        "verdicts": [{**verdict(sheet, g), "id": line_id(p, line)} for p, line, g in found],
    }


def empty_data(name: str) -> Json:
    """Return the keys of a value or parameter with their defaults."""
    return {
        "name": name, "line": 0, "iteration": "", "uses": [], "constant": False, "upstream": False,
        "fused": [], "value": None, "gradient": None, "expected": None, "difference": None,
        "verdicts": [], "chart": None,
    }  # fmt: skip


def array(value: Any) -> Json | None:
    """Return the shape, the norm and the flat list of numbers, which is None for large arrays."""
    if not isinstance(value, np.ndarray | np.generic | float):
        return None
    numbers = np.asarray(value, float)
    flat = [finite(float(f"{x:.4g}")) for x in numbers.reshape(-1)]
    return {
        "shape": list(numbers.shape),
        "norm": finite(float(np.linalg.norm(numbers))),
        "numbers": flat if numbers.size <= MAX_ELEMENTS else None,
    }


def difference(found: Any, expected: np.ndarray | None) -> Json | None:
    """Return the difference of two arrays, computed before they are rounded for the page."""
    if expected is None or np.shape(found) != expected.shape:
        return None
    with np.errstate(invalid="ignore"):
        return array(np.subtract(found, expected))


def verdict(sheet: Sheet, gradient: GradientVerdict) -> Json:
    """Return the data of a verdict.

    - name; value: the key of the value whose gradient it is, or "" for a parameter
    - status; digits; the figures of the comparison: see `figures`
    - term: whether it is one of several terms; through: the forward line the term comes from, or ""
    """
    pair = gradient.pair
    steps = sheet.truth.trace.steps
    return {
        "name": gradient.name,
        "value": "" if pair is None else key(pair.value),
        "status": gradient.status,
        "digits": gradient.digits,
        "term": gradient.is_term,
        "through": steps[pair.use].statement.text if pair and pair.use is not None else "",
        **figures(gradient.row),
    }


def figures(row: Row) -> Json:
    """Return the figures of a comparison; a number that is not finite becomes None."""
    found = {
        "zero": row.is_zero, "oracle": row.oracle, "checked": row.checked, "skipped": row.skipped,
        "index": list(row.index), "analytic": row.analytic, "numeric": row.numeric,
        "absolute": row.absolute, "relative": row.relative, "bound": row.bound,
        "headroom": row.headroom, "problems": list(row.problems), "cause": row.cause,
    }  # fmt: skip
    return {name: finite(each) if isinstance(each, float) else each for name, each in found.items()}


def finite(value: float) -> float | None:
    """Return a number, or None if it is not finite, because JSON cannot represent it."""
    return value if math.isfinite(value) else None


def rounded(lists: dict[str, list[float]]) -> Json:
    """Return lists of numbers with three digits."""
    return {name: [finite(float(f"{x:.3g}")) for x in each] for name, each in lists.items()}


# The error curves


@dataclass(frozen=True)
class ErrorCurves:
    """The relative errors of the central difference and the complex step for each step size.

    The derivative is taken along one random direction. `complex` is empty if forward does not
    accept complex numbers.
    """

    steps: list[float]
    central: list[float]
    complex: list[float]


def error_curves(expected: Expected, seed: int = 0) -> ErrorCurves | None:
    """Return the error curves of one gradient, or None if the gradient is zero or not complete."""
    gradient = expected.gradient
    if gradient is None or not gradient.any():
        return None
    rng = generator(seed, "gradcheck")
    direction = np.asarray(rng.standard_normal(gradient.shape))
    direction /= np.linalg.norm(direction)
    derivative, curve = float(np.sum(gradient * direction)), expected.curve(direction)
    if derivative == 0:
        return None
    with np.errstate(all="ignore"):
        central = [complex(curve(h) - curve(-h)).real / (2 * h) for h in STEPS]
        is_complex = expected.measured.method == "complex"
        steps = [complex(curve(1j * h)).imag / h for h in STEPS if is_complex]
    return ErrorCurves(
        STEPS.tolist(), relative_errors(central, derivative), relative_errors(steps, derivative)
    )


def relative_errors(found: list[float], derivative: float) -> list[float]:
    """Return the errors of some estimates, relative to the derivative."""
    return [abs(each - derivative) / abs(derivative) for each in found]


# The planted bugs


def bug_data(bug: Bug) -> Json:
    """Return the data of a planted bug.

    - kind, and the kind in words; function; before and after: the changed line
    - id: of the changed line, or "" if the whole function is replaced
    - reason: why it changes nothing, or ""
    - affected: {"status", "message"} of each line that is not right, by id
    - stopped: whether it raises, so that later lines do not run
    - message, cause, first_wrong: of the first wrong line, and its id
    """
    mutation, proof, first = bug.mutation, bug.proof, bug.first_wrong
    replaces_function = mutation.line == 0
    affected = {
        line_id(proof, line): {"status": line.status, "message": line.message}
        for line in proof.lines
        if line.status in NOT_RIGHT
    }
    return {
        "kind": mutation.kind,
        "what": KINDS[mutation.kind],
        "function": mutation.function,
        "id": "" if replaces_function else f"{mutation.function}:{mutation.line}",
        "before": mutation.before,
        "after": mutation.after,
        "reason": bug.reason,
        "affected": {} if replaces_function else affected,
        "stopped": bool(proof.trace.error) or any(each.error for each in proof.trace.executed),
        "message": first.message if first else "",
        "cause": first.cause if first else "",
        "first_wrong": "" if replaces_function or first is None else line_id(proof, first),
    }
