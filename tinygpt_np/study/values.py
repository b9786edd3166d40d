"""What a page shows of one value: its numbers, its gradient, and each verdict on it."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.report import Row as Figures
from tinygpt_np.study.chart import chart
from tinygpt_np.study.proof import Gradient, Line, Proof
from tinygpt_np.study.sheet import Sheet
from tinygpt_np.study.trace import Value

Json = dict[str, Any]
# Of a larger array a page has its norm and shape, and no heat map.
SHOWN = 2000


def key(value: Value) -> str:
    """What a value is called on the page: its name, and the step that sets it."""
    return value.name if value.step < 0 else f"{value.name}@{value.step}"


def constants(sheet: Sheet) -> list[Value]:
    """The values that can be shown but through which no gradient flows."""
    trace, flowing = sheet.truth.trace, sheet.truth.flowing
    return [v for v in trace.values() if v not in flowing and array(trace.held(v)) is not None]


def shown(sheet: Sheet) -> set[Value]:
    return {*sheet.values, *constants(sheet)}


def line_id(proof: Proof, line: Line) -> str:
    round_ = f":{line.step.index}" if line.step is not None and line.step.bindings else ""
    return f"{proof.function.name}:{line.line}{round_}"


def of_value(sheet: Sheet, value: Value) -> Json:
    """name; line, round: where it is set; uses: the rows that read it; constant: whether no
    gradient flows through it; given: whether its gradient is the upstream one; fused: with what it
    is verified, if it has no gradient of its own; value, gradient, expected, difference: arrays
    (see array), None where there is none; verdicts: each with the id of its line; chart: see
    chart.py.
    """
    trace, expected = sheet.truth.trace, sheet.truth.total(value)
    found = sheet.found(value)
    drawn = chart(expected, sheet.target.seed)
    return of_constant(sheet, value) | {
        "constant": False,
        "uses": [step + 1 for step in trace.uses(value)],
        "given": found is sheet.truth.doutput,
        "fused": list(sheet.fused(value)),
        "gradient": array(found),
        "expected": array(expected.gradient),
        "difference": difference(found, expected.gradient),
        "verdicts": [
            {**verdict(sheet, gradient), "id": line_id(proof, line)}
            for proof, line, gradient in sheet.gradients(value)
            if gradient in proof.told(line) and gradient.status != "begun"
        ],
        "chart": None if drawn is None else rounded(asdict(drawn)),
    }


def of_constant(sheet: Sheet, value: Value) -> Json:
    """The same of a value through which no gradient flows."""
    trace, head = sheet.truth.trace, sheet.target.forward.node.lineno
    return {
        **empty(value.name),
        "line": head if value.step < 0 else trace.steps[value.step].statement.line,
        "round": "" if value.step < 0 else trace.steps[value.step].round,
        "constant": True,
        "value": array(trace.held(value)),
    }


def of_param(sheet: Sheet, name: str) -> Json:
    """The same of a parameter of a model; line 0."""
    found = [
        (proof, line, gradient)
        for proof in sheet.proofs
        for line in proof.lines
        for gradient in line.gradients
        if gradient.name == name
    ][:1]
    expected, gradient = sheet.truth.param(name), found[0][2].found if found else None
    return {
        **empty(name),
        "value": array(sheet.target.params[name]),
        "gradient": array(gradient),
        "expected": array(expected.gradient),
        "difference": difference(gradient, expected.gradient),
        "verdicts": [{**verdict(sheet, g), "id": line_id(p, line)} for p, line, g in found],
    }


def empty(name: str) -> Json:
    return {
        "name": name, "line": 0, "round": "", "uses": [], "constant": False, "given": False,
        "fused": [], "value": None, "gradient": None, "expected": None, "difference": None,
        "verdicts": [], "chart": None,
    }  # fmt: skip


def array(value: Any) -> Json | None:
    """shape, norm, and the numbers in one flat list, None where it is long."""
    if not isinstance(value, np.ndarray | np.generic | float):
        return None
    numbers = np.asarray(value, float)
    flat = [number(float(f"{x:.4g}")) for x in numbers.reshape(-1)]
    return {
        "shape": list(numbers.shape),
        "norm": number(float(np.linalg.norm(numbers))),
        "numbers": flat if numbers.size <= SHOWN else None,
    }


def difference(found: Any, expected: np.ndarray | None) -> Json | None:
    """How far two arrays lie apart, taken before they are rounded for the page."""
    if expected is None or np.shape(found) != expected.shape:
        return None
    with np.errstate(invalid="ignore"):
        return array(np.subtract(found, expected))


def verdict(sheet: Sheet, gradient: Gradient) -> Json:
    """name; value: the key of what it is the gradient of, or "" for a parameter; status; digits;
    part: whether it is one part of several; way: the forward line by way of which it comes, or "";
    relative, bound, …: the figures.
    """
    pair = gradient.pair
    steps = sheet.truth.trace.steps
    return {
        "name": gradient.name,
        "value": "" if pair is None else key(pair.value),
        "status": gradient.status,
        "digits": gradient.digits,
        "part": gradient.is_part,
        "way": steps[pair.use].statement.text if pair and pair.use is not None else "",
        **figures(gradient.row),
    }


def figures(row: Figures) -> Json:
    """The numbers behind a verdict; what is not finite is None."""
    found = {
        "zero": row.is_zero, "oracle": row.oracle, "checked": row.checked, "skipped": row.skipped,
        "index": list(row.index), "analytic": row.analytic, "numeric": row.numeric,
        "absolute": row.absolute, "relative": row.relative, "bound": row.bound,
        "headroom": row.headroom, "problems": list(row.problems), "cause": row.cause,
    }  # fmt: skip
    return {name: number(each) if isinstance(each, float) else each for name, each in found.items()}


def number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rounded(lists: dict[str, list[float]]) -> Json:
    return {name: [number(float(f"{x:.3g}")) for x in each] for name, each in lists.items()}
