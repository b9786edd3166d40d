"""Determine which line of the forward each line of a backward reverses.

Three rules apply, the most reliable first: the backward of a layer reverses its forward, if the
layers come in reverse order; the comment above a line quotes the forward line it reverses; and
otherwise the gradients of a name come in the reverse order of the lines that read it.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step, Trace, Value


@dataclass(frozen=True)
class Pair:
    """The value whose gradient is set, and the step that reads it, or None for all of them."""

    value: Value
    use: int | None


def pair(
    forward: Trace,
    differentiable: set[Value],
    steps: Sequence[Step],
    reversed_by: Mapping[int, Sequence[int]],
) -> dict[tuple[int, str], Pair]:
    """Return what is reversed by each backward step, for each name d<name> that the step sets.

    `reversed_by` holds the forward steps that each backward step may reverse, most reliable first.
    """
    found: dict[tuple[int, str], Pair] = {}
    unpaired: dict[str, list[int]] = {}
    for step in steps:
        for name in gradients_set(step, differentiable):
            uses = (u for u in reversed_by[step.index] if reads(forward, differentiable, u, name))
            use = next(uses, None)
            if use is None:
                unpaired.setdefault(name, []).append(step.index)
            else:
                found[step.index, name] = Pair(forward.definition(name[1:], use), use)
    for name, indices in unpaired.items():
        values = (value for value in differentiable if value.name == name[1:])
        values = sorted(values, key=lambda value: value.step)
        taken = set(found.values())
        uses = [Pair(value, use) for value in values for use in forward.uses(value)]
        uses = [each for each in uses if each not in taken][::-1]
        if len(uses) == len(indices):
            found |= {(index, name): each for index, each in zip(indices, uses, strict=True)}
        elif len(values) == 1:
            found |= {(index, name): Pair(values[0], None) for index in indices}
    return found


def gradients_set(step: Step, differentiable: Iterable[Value]) -> list[str]:
    """Return the names d<name> that a step sets, for differentiable names."""
    names = {value.name for value in differentiable}
    return [n for n in step.statement.sets if n.startswith("d") and n[1:] in names]


def reads(forward: Trace, differentiable: set[Value], step: int, gradient: str) -> bool:
    """Return whether a forward step reads the value whose gradient is given."""
    name = gradient[1:]
    is_read = name in forward.steps[step].statement.reads
    return is_read and forward.definition(name, step) in differentiable


def reversed_steps(
    forward: Trace, function: Function, steps: Sequence[Step]
) -> dict[int, tuple[int, ...]]:
    """Return the forward steps that each backward step may reverse, most reliable first."""
    calls = by_calls(forward, steps)
    texts = {step.statement.text: step.index for step in forward.steps}
    found: dict[int, tuple[int, ...]] = {}
    for step in steps:
        called = [calls[step.index]] if step.index in calls else list[int]()
        comments = function.comments_above(step.statement.line)
        # The quote may be followed by a colon and a remark.
        quotes = (texts.get(c, texts.get(c.split(": ")[0])) for c in comments)
        nearest = [quote for quote in quotes if quote is not None][:1]
        found[step.index] = (*called, *nearest)
    return found


def by_calls(forward: Trace, steps: Sequence[Step]) -> dict[int, int]:
    """Return the backward steps that call a layer's backward, with the steps of its forward."""
    forwards = [(s.index, owner) for s in forward.steps for owner in called(s, "forward")]
    backwards = [(s.index, owner) for s in steps for owner in called(s, "backward")]
    if [owner for _, owner in backwards] != [owner for _, owner in reversed(forwards)]:
        return {}
    return {b: f for (b, _), (f, _) in zip(backwards, reversed(forwards), strict=True)}


def called(step: Step, kind: str) -> list[str]:
    """Return the owners of the forwards (or backwards) called: "softmax." in softmax.forward(…)."""
    functions = [
        ast.unparse(part.func)
        for part in ast.walk(step.statement.node)
        if isinstance(part, ast.Call)
    ]
    return [text.removesuffix(kind) for text in functions if text.endswith(kind)]
