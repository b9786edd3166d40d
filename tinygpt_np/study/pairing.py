"""Which line of a forward each line of a backward undoes.

Three marks tell, the surest first: the backward of a layer undoes its forward, and the layers come
in reverse order; the comment above quotes the line undone; and where neither speaks, the gradients
of a name come in the reverse order of the lines that read it.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinygpt_np.study.source import Function
from tinygpt_np.study.trace import Step, Trace, Value


@dataclass(frozen=True)
class Pair:
    """The value whose gradient is set, and the step that reads it; None: all of them at once."""

    value: Value
    use: int | None


def pair(
    forward: Trace, flowing: set[Value], steps: Sequence[Step], undone: Mapping[int, Sequence[int]]
) -> dict[tuple[int, str], Pair]:
    """For a step of the backward and a name d… that it sets: what that undoes."""
    found: dict[tuple[int, str], Pair] = {}
    left: dict[str, list[int]] = {}
    for step in steps:
        for name in gradients_set(step, flowing):
            use = next((u for u in undone[step.index] if reads(forward, flowing, u, name)), None)
            if use is None:
                left.setdefault(name, []).append(step.index)
            else:
                found[step.index, name] = Pair(forward.reaching(name[1:], use), use)
    for name, indices in left.items():
        values = sorted((v for v in flowing if v.name == name[1:]), key=lambda value: value.step)
        taken = set(found.values())
        uses = [Pair(value, use) for value in values for use in forward.uses(value)]
        uses = [each for each in uses if each not in taken][::-1]
        if len(uses) == len(indices):
            found |= {(index, name): each for index, each in zip(indices, uses, strict=True)}
        elif len(values) == 1:
            found |= {(index, name): Pair(values[0], None) for index in indices}
    return found


def gradients_set(step: Step, flowing: Iterable[Value]) -> list[str]:
    """The names d<name> that a step sets, of names through which a gradient flows."""
    names = {value.name for value in flowing}
    return [n for n in step.statement.sets if n.startswith("d") and n[1:] in names]


def reads(forward: Trace, flowing: set[Value], step: int, gradient: str) -> bool:
    name = gradient[1:]
    mentioned = name in forward.steps[step].statement.reads
    return mentioned and forward.reaching(name, step) in flowing


def undone_steps(
    forward: Trace, function: Function, steps: Sequence[Step]
) -> dict[int, tuple[int, ...]]:
    """The forward steps that each backward step may undo, the surest first."""
    calls = by_calls(forward, steps)
    texts = {step.statement.text: step.index for step in forward.steps}
    found: dict[int, tuple[int, ...]] = {}
    for step in steps:
        sure = [calls[step.index]] if step.index in calls else list[int]()
        comments = function.comments_above(step.statement.line)
        # A colon after the quote begins a remark.
        quotes = (texts.get(c, texts.get(c.split(": ")[0])) for c in comments)
        nearest = [quote for quote in quotes if quote is not None][:1]
        found[step.index] = (*sure, *nearest)
    return found


def by_calls(forward: Trace, steps: Sequence[Step]) -> dict[int, int]:
    """The steps that call backwards of layers, with the steps that called their forwards."""
    ahead = [(s.index, owner) for s in forward.steps for owner in called(s, "forward")]
    back = [(s.index, owner) for s in steps for owner in called(s, "backward")]
    if [owner for _, owner in back] != [owner for _, owner in reversed(ahead)]:
        return {}
    return {b: f for (b, _), (f, _) in zip(back, reversed(ahead), strict=True)}


def called(step: Step, kind: str) -> list[str]:
    """Whose forwards (or backwards) a step calls: softmax of softmax.forward(…)."""
    functions = [
        ast.unparse(part.func)
        for part in ast.walk(step.statement.node)
        if isinstance(part, ast.Call)
    ]
    return [text.removesuffix(kind) for text in functions if text.endswith(kind)]
