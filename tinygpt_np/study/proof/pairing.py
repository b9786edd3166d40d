"""Determine which line of the forward each line of a backward reverses.

Three rules apply, the most reliable first: the backward of a layer reverses its forward, if the
layers come in reverse order; the comment above a line quotes the forward line it reverses; and
otherwise the gradients of a name come in the reverse order of the lines that read it.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step, Trace, Value


@dataclass(frozen=True)
class Pair:
    """The value whose gradient is set, and the step that reads it, or None for all of them."""

    value: Value
    use: int | None


def pair(
    forward: Trace, differentiable: set[Value], steps: Sequence[Step],
    reversed_by: Mapping[int, Sequence[int]],
) -> dict[tuple[int, str], Pair]:  # fmt: skip
    """Return what each backward step reverses, for each name d<name> that the step sets."""
    values = sorted(differentiable, key=lambda value: value.step)
    read = {(f"d{v.name}", use): Pair(v, use) for v in values for use in forward.uses(v)}
    found: dict[tuple[int, str], Pair] = {}
    unpaired: dict[str, list[int]] = {f"d{value.name}": [] for value in values}
    for step in steps:
        for name in (name for name in step.statement.sets if name in unpaired):
            uses = (read[name, use] for use in reversed_by[step.index] if (name, use) in read)
            if (each := next(uses, None)) is not None:
                found[step.index, name] = each
            else:
                unpaired[name].append(step.index)
    for name, indices in unpaired.items():
        free = [p for (n, _), p in read.items() if n == name and p not in found.values()][::-1]
        named = [value for value in values if f"d{value.name}" == name]
        if len(free) == len(indices):
            found |= {(index, name): each for index, each in zip(indices, free, strict=True)}
        elif len(named) == 1:
            found |= {(index, name): Pair(named[0], None) for index in indices}
    return found


def reversed_steps(
    forward: Trace, function: Function, steps: Sequence[Step]
) -> dict[int, tuple[int, ...]]:
    """Return the forward steps that each backward step may reverse, most reliable first."""
    forwards = [(s.index, owner) for s in forward.steps for owner in called(s, "forward")][::-1]
    backwards = [(s.index, owner) for s in steps for owner in called(s, "backward")]
    calls: dict[int, int] = {}
    if [owner for _, owner in backwards] == [owner for _, owner in forwards]:
        calls = {b: f for (b, _), (f, _) in zip(backwards, forwards, strict=True)}
    texts = {step.statement.text: step.index for step in forward.steps}
    found: dict[int, tuple[int, ...]] = {}
    for step in steps:
        comments = function.comments_above(step.statement.line)
        # The quote may be followed by a colon and a remark.
        quotes = (texts.get(c, texts.get(c.split(": ")[0])) for c in comments)
        nearest = [quote for quote in quotes if quote is not None][:1]
        found[step.index] = (*([calls[step.index]] if step.index in calls else []), *nearest)
    return found


def called(step: Step, kind: str) -> list[str]:
    """Return the owners of the forwards (or backwards) called: "softmax." in softmax.forward(…)."""
    calls = (part for part in ast.walk(step.statement.node) if isinstance(part, ast.Call))
    functions = (ast.unparse(call.func) for call in calls)
    return [text.removesuffix(kind) for text in functions if text.endswith(kind)]
