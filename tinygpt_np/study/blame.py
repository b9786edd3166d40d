"""Who is to blame: tells the lines that are wrong themselves from those that got something wrong.

The first wrong line is to blame. A later one is, too, unless it would be right given what came in:
the gradients of what the forward line sets, wrong as they are, and that line alone run again.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.proof import Line, fits
from tinygpt_np.study.target import Target, by_name
from tinygpt_np.study.trace import Value
from tinygpt_np.study.truth import Expected, Truth
from tinygpt_np.study.undo import Undone


def blame(truth: Truth, undone: Undone, lines: list[Line]) -> list[Line]:
    """The lines, with those that are wrong only because of earlier ones marked as such."""
    lines = [*lines]

    def has_wrong_behind(index: int) -> bool:
        return any(lines[i].status == "wrong" for i in undone.ancestors(index))

    for index, line in enumerate(lines):
        if line.status == "wrong":
            odd = [i for i in undone.ancestors(index) if lines[i].status == "odd"]
            for i in odd:
                if not has_wrong_behind(i) and spoils(truth, undone, i):
                    lines[i] = replace(lines[i], status="wrong")
    suspect(undone, lines)
    for index, line in enumerate(lines):
        culprits = [i for i in causes(undone, lines, index) if lines[i].status == "wrong"]
        if line.status == "wrong" and culprits and is_innocent(truth, undone, lines, index):
            names = dict.fromkeys(name for i in culprits for name in undone.sets(i))
            lines[index] = replace(line, status="inherited", says=f"because of {', '.join(names)}")
    return lines


def spoils(truth: Truth, undone: Undone, index: int) -> bool:
    """Whether it is what an odd line sets that makes the results wrong.

    Values that are not as in forward are put right, and the rest run again: are the results right
    then? Of other oddities, as of a shape, or of names that forward has not, who knows what would
    be right.
    """
    there = {v.name: truth.trace.held(v) for v in truth.trace.values()}
    moment = undone.moments[index]
    put_right = {n: there[n] for n, v in moment.values.items() if n in there and v is not there[n]}
    if not put_right or not {*moment.values} <= {*there}:
        return True
    returned = undone.again(index + 1, put_right)
    found = None if returned is None else results(truth.target, returned)
    if found is None:
        return False
    return all(expected_of(truth, name).judge(each).ok for name, each in found.items())


def results(target: Target, returned: Any) -> dict[str, Any] | None:
    try:
        return by_name(target, returned)
    except ValueError:
        return None


def expected_of(truth: Truth, name: str) -> Expected:
    """What should be returned for an argument, or a parameter."""
    is_param = name in truth.target.params
    return truth.param(name) if is_param else truth.total(Value(name, -1))


def suspect(undone: Undone, lines: list[Line]) -> None:
    """Marks the line that several wrong ones go back to, where it has no truth of its own.

    As a dz that no name of the forward stands for: everything made of it is wrong, and it is not.
    """
    every = [i for i, line in enumerate(lines) if line.status == "wrong" and line.step]
    wrong = [i for i in every if not {*every} & {*undone.ancestors(i)}]
    fused = [
        {i for i in undone.ancestors(w) if {*undone.sets(i)} & {*lines[w].fused}} for w in wrong
    ]
    shared = set[int].intersection(*fused) if len(wrong) > 1 else set[int]()
    if shared:
        at = max(shared)
        names = ", ".join(dict.fromkeys(n for w in wrong for n in undone.sets(w)))
        says = f"most likely here: all that is made of it is wrong ({names})"
        lines[at] = replace(lines[at], status="wrong", says=says)


def causes(undone: Undone, lines: list[Line], index: int) -> list[int]:
    """The earlier lines on which a line depends; the return depends on all that went wrong."""
    if lines[index].step is None:
        return [i for i, line in enumerate(lines[:index]) if line.status in ("wrong", "odd")]
    return undone.ancestors(index)


def is_innocent(truth: Truth, undone: Undone, lines: list[Line], index: int) -> bool:
    """Whether a line with a wrong line behind it is right in itself, as far as one can tell."""
    line = lines[index]
    gradient = next((g for g in line.gradients if g.pair is not None), None)
    if line.step is None or line.undoes is None or gradient is None or gradient.pair is None:
        return True
    incoming = gradients_that_came_in(truth, undone, lines, index)
    moment = undone.moments[index]
    # What the rest of a sum is like does not matter to what is added to it.
    known = {*incoming, *moment.added} if incoming else set[str]()
    wrong = [i for i in undone.sources(index) if lines[i].status in ("wrong", "inherited", "odd")]
    if incoming is None or any(not set(undone.sets(i)) & known for i in wrong):
        # A wrong value came in, not only a wrong gradient; what is right then, who can say.
        return True
    found = moment.added.get(gradient.name, moment.values.get(gradient.name))
    if found is None or not fits(np.shape(found), np.shape(gradient.expected.value)):
        return False
    given = {name.removeprefix("d"): array for name, array in incoming.items()}
    return truth.is_right_here(gradient.pair.value, line.undoes, given, found)


def gradients_that_came_in(
    truth: Truth, undone: Undone, lines: list[Line], index: int
) -> Tensors | None:
    """What the names d… of all that the forward line sets held before a line; None if they are not
    all there."""
    found: Tensors = {}
    undoes = lines[index].undoes
    assert undoes is not None
    for name in truth.trace.steps[undoes].statement.sets:
        value = Value(name, undoes)
        if value in truth.flowing:
            gradient: Any = undone.names[index].get(f"d{name}")
            fitting = np.shape(gradient) == np.shape(truth.trace.held(value))
            if gradient is None or not fitting or not np.isfinite(gradient).all():
                return None
            if not is_gradient_of(value, truth, undone, lines[:index]):
                return None
            found[f"d{name}"] = gradient
    return found or None


def is_gradient_of(value: Value, truth: Truth, undone: Undone, before: list[Line]) -> bool:
    """Whether the name d… is, after some lines, meant for this value, not for another of its
    name."""
    name = f"d{value.name}"
    setting = [line for i, line in enumerate(before) if name in undone.sets(i)]
    if not setting:  # It is an argument.
        return value == truth.trace.reaching(value.name, len(truth.trace.steps))
    pairs = [g.pair for g in setting[-1].gradients if g.name == name and g.pair is not None]
    return any(pair.value == value for pair in pairs)
