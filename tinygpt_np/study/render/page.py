"""Collect what a page shows of a study, in JSON types: the data of page.html.jinja."""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.mutations import KINDS
from tinygpt_np.study.proof.bugs import Bug
from tinygpt_np.study.proof.rules import rule_of
from tinygpt_np.study.proof.sheet import Sheet, SheetRow
from tinygpt_np.study.proof.truth import Expected
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.render.highlight import Keys, highlight
from tinygpt_np.study.render.mathml import blocks, inline, mathml
from tinygpt_np.study.source.paths import differentiated, leaf
from tinygpt_np.study.source.trace import Value

Json = dict[str, Any]
Verdicts = list[tuple[Proof, BackwardLine, GradientVerdict]]
NOT_RIGHT = ("wrong", "inherited", "warning")
# For larger arrays a page has the norm and the shape, but no heat map.
MAX_ELEMENTS = 2000
# Step sizes of the error curves, two per decade.
STEPS = 10.0 ** -np.arange(0, 16.5, 0.5)
FIGURES = (
    *("oracle", "checked", "skipped", "index", "analytic", "numeric", "absolute", "relative"),
    *("bound", "headroom", "messages", "cause"),
)
# The data of a value or parameter for which nothing else is known.
EMPTY: Json = {
    "name": "", "gradientName": "", "line": 0, "iteration": "", "axes": [], "uses": [],
    "constant": False, "upstream": False, "fused": [], "missing": [], "value": None,
    "gradient": None, "expected": None, "difference": None, "verdicts": [], "chart": None,
}  # fmt: skip


def page_data(sheet: Sheet, bugs: list[Bug]) -> Json:
    """Return the data of a page that asks about some bugs; a number not finite becomes None."""
    text = json.dumps(PageData(sheet).everything(bugs))
    return json.loads(text, parse_constant=lambda name: None)


class PageData:
    """The data of a page; the methods below describe its parts."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet, self.target = sheet, sheet.target
        self.proofs, self.trace = sheet.proofs, sheet.truth.trace

    def everything(self, bugs: list[Bug]) -> Json:
        """Return all of it."""
        sheet, target = self.sheet, self.target
        verdicts = sheet.all_verdicts
        summary, rest = derivation(target.docstring)
        steps = dict(zip(map(id, self.proofs[0].lines), self.lines(self.proofs[0]), strict=True))
        raising = (p.trace.executed[-1].step.statement.line for p in self.proofs if p.trace.raised)
        return {
            **{key: getattr(target, key) for key in ("name", "title", "file", "seed")},
            "ok": sheet.ok,
            "solved": False,
            "wrong": any(map(first_message, (sheet, *sheet.variants))),
            "right": sum(gradient.status == "right" for gradient in verdicts),
            "total": len(verdicts),
            "worst": sheet.worst,
            "warnings": sum(gradient.status == "warning" for gradient in verdicts),
            "unmeasured": sum(gradient.row.verdict == "unmeasured" for gradient in verdicts),
            "raises_at": next(raising, None),
            "variants": [
                {"title": v.target.title, "message": first_message(v)} for v in sheet.variants
            ],
            "functions": [target.forward.name, *(proof.function.name for proof in self.proofs)],
            "summary": summary,
            "derivation": rest,
            "rows": [self.row(row, steps) for row in sheet.rows],
            "head": self.head(self.proofs[0]),
            "closed_form": self.closed_form(self.proofs[1]) if len(self.proofs) > 1 else None,
            "values": {key: self.value(value) for value, key in self.keys.items()},
            "params": {name: self.param(name) for name in target.params},
            "questions": [question(bug) for bug in bugs],
        }

    @cached_property
    def keys(self) -> dict[Value, str]:
        """The values that the page shows, and their keys: constants come last."""
        differentiable, values = self.sheet.truth.differentiable, [*self.trace.values()]
        constant = [value for value in values if value not in differentiable]
        shown = [value for value in constant if array(self.trace.data(value)) is not None]
        return {value: key(value) for value in (*self.sheet.values, *shown)}

    # The lines

    def row(self, row: SheetRow, backward: dict[int, Json]) -> Json:
        """Return the data of a forward line and of the backward lines that reverse it.

        - line, html, shape; iteration: of a loop, such as "layer = 0", or ""
        - sets: the keys of the differentiable values that it sets; reads: the names that it reads
        - constant: whether no gradient flows through it
        - fused: the gradients with which its values are checked, if they have none of their own
        - rule: see `rule`; backward: see `lines`, the line that runs last first
        """
        step, index = row.step, max(row.index, 0)
        statement = step.statement if step else self.target.forward.returned
        names = {value.name for value in self.trace.values() if value.step < index}
        reads = {name: self.keys.get(self.trace.definition(name, index), "") for name in names}
        sets = {n: self.keys.get(Value(n, index), "") for n in (statement.sets if step else ())}
        return {
            "line": row.line,
            "html": highlight(row.text, sets, reads),
            "shape": row.shape,
            "iteration": step.iteration if step else "",
            "sets": [key(value) for value in self.sheet.set_by(row)],
            "reads": [] if row.index < 0 else sorted(statement.mentions),
            "constant": self.sheet.is_constant(row),
            "fused": self.sheet.fused_with(row),
            "rule": self.rule(row),
            "backward": [backward[id(line)] for line in row.backward],
        }

    def rule(self, row: SheetRow) -> Json | None:
        """Return the rule of a forward line, or None.

        - name; why; operation
        - formulas: {"of", "html"}, in MathML; of: the gradient that it gives, such as "dx", or ""
        """
        found = rule_of(self.sheet.truth, row.step) if row.step is not None else None
        if found is None or row.step is None:
            return None
        # The longest name first, because dx_1 is not the element 1 of dx.
        read = {leaf(name) for name in row.step.statement.mentions}
        names = [f"d{name}" for name in sorted(read, key=len, reverse=True)]
        formulas = [
            {"of": next(filter(formula.startswith, names), ""), "html": mathml(formula, True)}
            for formula in found.formulas
        ]
        return {**asdict(found), "formulas": formulas, "why": inline(found.why)}

    def head(self, proof: Proof) -> Json:
        """Return the signature of a backward: line, html, and the key of the upstream value."""
        function = proof.function
        values = reversed(self.sheet.values)
        upstream = next((key(v) for v in values if f"d{leaf(v.name)}" == function.upstream), "")
        keys = dict.fromkeys(function.arguments, "") | {function.upstream: upstream}
        html = highlight(function.signature, {}, keys)
        return {"line": function.node.lineno, "html": html, "upstream": upstream}

    def lines(self, proof: Proof) -> list[Json]:
        """Return the data of a backward's lines, in the order they run.

        - id: "backward:53", or "backward:53:4" for one iteration of a loop
        - function, line, html, text, shape; iteration: of a loop, such as "layer = 0", or ""
        - status, message, cause: the verdict on the line; gradients: see `verdict`
        - reads: the names that it reads; fused: names that are checked together with it
        - lacks: of a missing line, the key of the value whose gradient lacks a part, or ""
        """
        function, found = proof.function, list[Json]()
        # A name that forward assigned twice stands for its last value.
        last = {value.name: key(value) for value in self.trace.values() if value in self.keys}
        last |= {f"d{leaf(value.name)}": key(value) for value in self.sheet.values}
        known: Keys = {name: last.get(name, "") for name in function.arguments}
        for line in proof.lines:
            statement = line.step.statement if line.step else function.returned
            reads = () if line.status == "missing" else sorted(statement.mentions)
            bindings = dict.fromkeys(line.step.bindings, "") if line.step else {}
            sets = {name: last.get(name, "") for name in (statement.sets if line.step else ())}
            sets |= {g.name: key(g.pair.value) for g in line.gradients if g.pair and g.name in sets}
            lacking = self.lacking(line)
            sets |= {f"d{leaf(value.name)}": key(value) for value in lacking}
            html = highlight(line.text, sets, {**known, **bindings})
            known = {**known, **sets}
            found.append({
                "id": line_id(proof, line), "function": function.name, "line": line.line,
                "html": html, "text": line.text, "shape": line.shape, "status": line.status,
                "message": line.message, "cause": line.cause, "reads": reads,
                "iteration": line.step.iteration if line.step else "",
                "gradients": [self.verdict(proof, line, g) for g in proof.reported(line)],
                "fused": line.fused, "lacks": "".join(map(key, lacking)),
            })  # fmt: skip
        return found

    def lacking(self, line: BackwardLine) -> list[Value]:
        """Return the value whose gradient lacks the part of a missing line, as a list, or []."""
        if line.status != "missing" or line.reverses is None:
            return []
        names, trace = differentiated(line.text.partition(" += ")[0]), self.trace
        found = [value for value in self.sheet.values if leaf(value.name) in names]
        reading = [value for value in found if line.reverses in trace.uses(value)]
        return (reading or found[::-1])[:1]

    def closed_form(self, proof: Proof) -> Json:
        """Return the closed form."""
        return {
            "function": proof.function.name,
            "head": self.head(proof),
            "lines": self.lines(proof),
            "agreement": self.sheet.agreement,
        }

    # The values

    def value(self, value: Value) -> Json:
        """Return the data of a value.

        - name; gradientName; line and iteration where it is set
        - axes: see there; value: see `array`
        - constant: whether no gradient flows through it; if one does:
        - uses: the rows that read it; upstream: whether its gradient is the upstream gradient
        - fused: the gradients with which it is checked, if it has none of its own
        - missing: {"row", "message"} of each part that its gradient lacks
        - gradient, expected, difference: see `array`
        - verdicts: see `verdict`, with the id of the line; chart: see `error_curves`
        """
        sheet, trace, step = self.sheet, self.trace, value.step
        data = EMPTY | {
            "name": value.name,
            "gradientName": f"d{leaf(value.name)}",
            "line": trace.steps[step].statement.line if step >= 0 else sheet.rows[0].line,
            "iteration": trace.steps[step].iteration if step >= 0 else "",
            "axes": self.axes(value),
            "constant": value not in sheet.truth.differentiable,
            "value": array(trace.data(value)),
        }
        if data["constant"]:
            return data
        expected, found = sheet.truth.total(value), sheet.gradient(value)
        curves = error_curves(expected, self.target.seed)
        verdicts = [
            (proof, line, gradient)
            for proof, line, gradient in sheet.verdicts(value)
            if gradient in proof.reported(line) and gradient.status != "partial"
        ]
        # The return repeats the verdicts on wrong gradients.
        own = {id(proof) for proof, line, _ in verdicts if not line.is_return}
        verdicts = [each for each in verdicts if not each[1].is_return or id(each[0]) not in own]
        if found is None and not own and verdicts:  # It is returned without a name of its own.
            found = verdicts[0][2].found
        return data | {
            "uses": [use + 1 for use in trace.uses(value)],
            "upstream": found is sheet.truth.doutput,
            "fused": sheet.fused(value),
            "missing": [
                {"row": line.reverses + 1, "message": line.message}
                for proof in self.proofs
                for line in proof.lines
                if line.reverses is not None and value in self.lacking(line)
            ],
            **self.gradients(found, expected, verdicts),
            "chart": curves and {name: rounded(each, 3) for name, each in curves.items()},
        }

    def axes(self, value: Value) -> list[str]:
        """Return the names of the axes of a value, such as B, T and C, if the source states them.

        The axes that ... stands for have the name "".
        """
        if value.step < 0:
            docstring = ast.get_docstring(self.target.forward.node) or ""
            names, stated = [value.name], re.findall(rf"\b{value.name} (\([^()]*\))", docstring)
        else:
            statement = self.trace.steps[value.step].statement
            names, stated = [*statement.sets], re.findall(r"\([^()]*\)", statement.shape)
        if not stated:
            return []
        index = names.index(value.name) if len(stated) == len(names) else 0
        found, ndim = stated[index].strip("()").split(","), np.ndim(self.trace.data(value))
        axes = [axis.strip() for axis in found if axis.strip()]
        if "..." in axes:
            at = axes.index("...")
            axes[at : at + 1] = [""] * (ndim - len(axes) + 1)
        named = [axis if re.search("[A-Z]", axis) else "" for axis in axes]
        return named if len(axes) == ndim else []

    def param(self, name: str) -> Json:
        """Return the data of a parameter of a model; its line is 0."""
        verdicts = [
            (proof, line, gradient)
            for proof in self.proofs
            for line in proof.lines
            for gradient in line.gradients
            if gradient.name == name
        ][:1]
        found = verdicts[0][2].found if verdicts else None
        data = EMPTY | {"name": name, "value": array(self.target.params[name])}
        return data | self.gradients(found, self.sheet.truth.param(name), verdicts)

    def gradients(self, found: Any, expected: Expected, verdicts: Verdicts) -> Json:
        """Return a gradient, what it should be, their difference, and the verdicts."""
        differing = difference(found, expected.gradient)
        if differing and expected.compare(found).ok:
            differing |= {"numbers": None, "is_rounding": True}
        return {
            "gradient": array(found),
            "expected": array(expected.gradient),
            "difference": differing,
            "verdicts": [
                {**self.verdict(*each), "id": line_id(each[0], each[1])} for each in verdicts
            ],
        }

    def verdict(self, proof: Proof, line: BackwardLine, gradient: GradientVerdict) -> Json:
        """Return the data of a verdict on a line.

        - name; value: the key of the value whose gradient it is, or "" for a parameter
        - status, or "unmeasured"; digits; the figures of the comparison
        - term: whether it is one of several terms; through: the forward line it comes from, or ""
        - row: whose rule gives the gradient, or None if the line does not follow a single rule
        """
        pair, steps, row = gradient.pair, self.trace.steps, gradient.row
        followed = self.sheet.followed(proof, line, gradient)
        # The return statement uses values too, and is no step.
        use = pair.use if pair else None
        through = "" if use is None or use == len(steps) else steps[use].statement.text
        return {
            "name": gradient.name,
            "value": key(pair.value) if pair else "",
            "status": "unmeasured" if row.verdict == "unmeasured" else gradient.status,
            "digits": gradient.digits,
            "term": gradient.is_term,
            "through": through,
            "row": followed and followed.index + 1,
            "zero": row.is_zero,
            **{name: getattr(row, name) for name in FIGURES},
        }


def first_message(sheet: Sheet) -> str:
    """Return the first error with its line, or ""."""
    lines = [proof.first_wrong for proof in sheet.proofs if proof.first_wrong]
    return f"line {lines[0].line}: {lines[0].message}" if lines else ""


def derivation(docstring: str) -> tuple[str, list[Json]]:
    """Return the first paragraph of a docstring as HTML, and the rest as HTML and MathML."""
    found: list[Json] = []
    for is_math, lines in blocks(docstring):
        if is_math:
            found.append({"kind": "math", "lines": [mathml(line, True) for line in lines]})
        else:
            found.append({"kind": "text", "html": inline(" ".join(lines))})
    if found and found[0]["kind"] == "text":
        return found[0]["html"], found[1:]
    return "", found


def key(value: Value) -> str:
    """Return the key of a value on the page: its name and the step that sets it."""
    return value.name if value.step < 0 else f"{value.name}@{value.step}"


def line_id(proof: Proof, line: BackwardLine) -> str:
    """Return the id of a backward line on its page."""
    iteration = f":{line.step.index}" if line.step is not None and line.step.bindings else ""
    missing = f":missing:{line.reverses}" if line.status == "missing" else ""
    return f"{proof.function.name}:{line.line}{iteration}{missing}"


def array(value: Any) -> Json | None:
    """Return the data of an array of real numbers or booleans; None for anything else.

    - shape; norm; numbers: a flat list, or None for large arrays
    - is_mask: whether the numbers stand for True and False
    - is_rounding: whether it is a difference that is explained by rounding; it has no numbers then
    """
    if not isinstance(value, np.ndarray | np.generic | float):
        return None
    given = np.asarray(value)
    if given.dtype.kind not in "biuf":
        return None
    numbers = given.astype(float)
    return {
        "shape": numbers.shape,
        "norm": float(np.linalg.norm(numbers)),
        "is_mask": given.dtype == bool,
        "is_rounding": False,
        "numbers": rounded(numbers.reshape(-1), 4) if numbers.size <= MAX_ELEMENTS else None,
    }


def rounded(numbers: Iterable[float], digits: int) -> list[float]:
    """Return numbers with this many digits."""
    return [float(f"{x:.{digits}g}") for x in numbers]


def difference(found: Any, expected: np.ndarray | None) -> Json | None:
    """Return the difference of two arrays, computed before they are rounded for the page."""
    if expected is None or np.shape(found) != expected.shape:
        return None
    with np.errstate(invalid="ignore"):
        return array(np.subtract(found, expected))


def error_curves(expected: Expected, seed: int = 0) -> dict[str, list[float]] | None:
    """Return relative errors by step size; None if the gradient is zero or not complete."""
    gradient = expected.gradient
    if gradient is None or not gradient.any():
        return None
    rng = generator(seed, "gradcheck")
    direction = np.asarray(rng.standard_normal(gradient.shape))
    direction /= np.linalg.norm(direction)
    derivative = float(np.sum(gradient * direction))
    start, name, check = expected.value, expected.measured.name, expected.check

    def curve(t: complex) -> Any:
        return check.terms({name: start + t * direction}).sum()

    with np.errstate(all="ignore"):
        central = [complex(curve(h) - curve(-h)).real / (2 * h) for h in STEPS]
        is_complex = expected.measured.method == "complex"
        steps = [complex(curve(1j * h)).imag / h for h in STEPS if is_complex]
    size = abs(derivative)
    return {
        "steps": STEPS.tolist(),
        "central": [abs(each - derivative) / size for each in central],
        "complex": [abs(each - derivative) / size for each in steps],
    }


def question(bug: Bug) -> Json:
    """Return the data of a planted bug, whose line a reader has to find.

    - function; symptoms: {"name", "ok", "problem", "index", "analytic", "numeric"} of each gradient
      that the broken function returns
    - id: of the wrong line; html: of the line with the bug; before, after: the line in text
    - what: the kind of mistake; message, cause: the verdict on the line
    - lines: {"status", "message"} of the other lines that are not right, by id
    """
    mutation, proof, first = bug.mutation, bug.proof, bug.first_wrong
    assert first is not None
    return {
        "function": mutation.function,
        "symptoms": [
            {
                "name": gradient.name, "ok": row.ok, "problem": next(iter(row.messages), ""),
                "index": row.index, "analytic": row.analytic, "numeric": row.numeric,
            }
            for gradient in proof.lines[-1].gradients
            for row in [gradient.row]
        ],
        "id": line_id(proof, first),
        "html": highlight(mutation.after, {}, {}),
        "before": mutation.before,
        "after": mutation.after,
        "what": KINDS[mutation.kind],
        "message": first.message,
        "cause": first.cause,
        "lines": {
            line_id(proof, line): {"status": line.status, "message": line.message}
            for line in proof.lines
            if line.status in NOT_RIGHT and line is not first
        },
    }  # fmt: skip
