"""Find the steps of a backward that compute one gradient, and the forward step each one reverses.

A gradient is computed by a chain of steps: one that assigns a name, and those that add to it or
change it in place. A backward step reverses a forward step if both call the same layer, and all
layers come in reverse order, or if the comment above it quotes the forward line.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt_np.study.proof.backward_trace import BackwardTrace
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step, Trace, Value


@dataclass(frozen=True)
class Pair:
    """The value whose gradient is set, and the step that reads it, or None for several of them."""

    value: Value
    use: int | None


@dataclass(frozen=True)
class Setting:
    """A step that sets an array; index -1 stands for an argument of the backward.

    array: its value afterwards. term: what the step adds, if it is a sum such as `x += …`. fresh:
    whether what the name had before is lost. is_blank: whether it makes an array of zeros.
    """

    index: int
    name: str
    array: Any
    term: Any = None
    fresh: bool = True
    is_blank: bool = False


# The settings that compute one array, in the order in which they run.
Chain = tuple[Setting, ...]


def chains(trace: BackwardTrace) -> list[Chain]:
    """Return the chains of a backward in the order in which they are completed.

    An assignment starts a new chain if the old array was read. Otherwise it overwrites a part.
    """
    arguments = (n for n in trace.function.arguments if is_array(trace.before[0].get(n)))
    current = {name: [Setting(-1, name, trace.before[0][name])] for name in arguments}
    found, read = [*current.values()], set[str]()
    for index, each in enumerate(trace.executed):
        statement = each.step.statement
        read |= statement.mentions - {*statement.changes} - {*each.added}
        for name in statement.sets:
            is_last = not any(name in later.values for later in trace.executed[index + 1 :])
            # None is a gradient only if it is returned, and a placeholder before.
            if not is_array(each.values.get(name)) and not (name in each.values and is_last):
                continue
            fresh = name not in each.added and name not in statement.changes
            if name not in current or (fresh and name in read):
                current[name] = []
                found.append(current[name])
            read -= {name} if fresh else set()
            term, is_blank = each.added.get(name), "zeros" in statement.text
            current[name].append(Setting(index, name, each.values[name], term, fresh, is_blank))
    return sorted((tuple(chain) for chain in found), key=lambda chain: chain[-1].index)


def is_array(value: Any) -> bool:
    """Return whether a value may be a gradient."""
    is_known = isinstance(value, np.ndarray | np.generic | float)
    return is_known and np.asarray(value).dtype.kind in "biufc"


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
