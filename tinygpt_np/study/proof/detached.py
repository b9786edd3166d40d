"""Find the parts of a gradient that are missing because something was taken for a constant.

The mean and the variance of a normalization depend on its input. A backward that takes them for
constants lacks a part of the gradient. To find out, a value of forward, or a sum or mean in one of
its lines, keeps its value while the input moves, and the gradient that results is compared.
"""

import ast
import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.measure import ORACLES
from tinygpt_np.study.proof.repairs import operands_of
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.paths import Namespace, store
from tinygpt_np.study.source.steps import Step, compiled
from tinygpt_np.study.source.trace import Value

# The number of random directions along which gradients are compared, and the relative tolerance.
DIRECTIONS, NEAR = 3, 1e-8
# A part of a line keeps its value under this name, which no source can use.
CONSTANT = "constant of step {}"
# In a longer forward, only single parts are tried.
MAX_PARTS = 40


@dataclass(frozen=True)
class Part:
    """A value that a forward line sets, or a part of the line, which is taken for a constant.

    node: the line with the part replaced by a constant. kept: the names that keep these values.
    """

    step: int
    text: str
    node: ast.stmt
    kept: Namespace


def detached_parts(truth: Truth, value: Value, found: np.ndarray) -> list[Part]:
    """Return what must be constant for a gradient to be right: one or two parts, or none."""
    if not np.any(found):  # It is zero without any part.
        return []
    rng = generator(truth.target.seed, "gradcheck")
    directions = [rng.standard_normal(np.shape(found)) for _ in range(DIRECTIONS)]
    expected = [float(np.sum(found * direction)) for direction in directions]
    near = NEAR * float(np.linalg.norm(found))
    parts = [*parts_of(truth, value)][::-1]
    most = 2 if len(parts) <= MAX_PARTS else 1
    for size in range(1, most + 1):
        for chosen in itertools.combinations(parts, size):
            pairs = zip(expected, directions, strict=True)
            if all(
                abs(derivative(truth, value, chosen, d) - e) <= near * np.linalg.norm(d)
                for e, d in pairs
            ):
                return [*chosen][::-1]
    return []


def parts_of(truth: Truth, value: Value) -> Iterator[Part]:
    """Yield the parts of forward that may be taken for constants, in the order of the lines."""
    trace = truth.trace
    for step in trace.steps[value.step + 1 :]:
        node, before = step.statement.node, trace.before[step.index]
        whole = getattr(node, "value", None)
        todo = [*operands_of(whole)] if isinstance(whole, ast.expr) else []
        for part in todo:
            todo += operands_of(part)
            match part:
                case ast.Call(func=ast.Attribute(attr="sum" | "mean" | "max" | "var" | "std")):
                    name = CONSTANT.format(step.index)
                    kept = {name: eval(compiled(part), {**before, **step.binds})}
                    new = copy.deepcopy(node, {id(part): ast.Name(name, ast.Load())})
                    yield Part(step.index, ast.unparse(part), new, kept)
                case _:
                    pass
        for name in step.statement.sets:
            if (each := Value(name, step.index)) in truth.differentiable:
                yield Part(step.index, name, node, {name: trace.data(each)})


def derivative(truth: Truth, value: Value, parts: Sequence[Part], direction: np.ndarray) -> float:
    """Return the derivative of the loss with respect to a value along a direction.

    It is NaN if the value that a part keeps does not fit where the line runs again, as in a loop.
    """
    trace, start = truth.trace, np.asarray(truth.trace.data(value))
    changed = {part.step: (part, compiled(part.node)) for part in parts}

    def loss(t: Any) -> Any:
        moved = start + t * direction
        namespace = trace.start({value.name: moved}) if value.step < 0 else trace.at(value.step + 1)
        if value.step >= 0:
            store(namespace, value.name, moved)
        for step in trace.steps[value.step + 1 :]:
            run(step, namespace, changed)
        return np.sum(truth.doutput * trace.output(trace.end.run(namespace)))

    try:
        return float(ORACLES[truth.total(value).measured.method](loss).value)
    except Exception:
        return np.nan


def run(step: Step, namespace: Namespace, changed: dict[int, tuple[Part, Any]]) -> None:
    """Run a step, with one of its parts or its result kept."""
    if step.index not in changed:
        step.run(namespace)
        return
    part, code = changed[step.index]
    for name, value in {**step.binds, **part.kept}.items():
        store(namespace, name, value)
    exec(code, namespace)
    for name, value in part.kept.items():
        store(namespace, name, value)
