"""Judges a backward line that a learner typed in the place of one that stands in the file."""

import ast
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tinygpt_np.study.proof import Line, Proof, is_number, judged
from tinygpt_np.study.sheet import Sheet
from tinygpt_np.study.trace import Names
from tinygpt_np.study.typed import Typed, evaluate
from tinygpt_np.study.typed_values import Refused
from tinygpt_np.words import counted

OPERATIONS = "tinygpt_np.ops"


@dataclass(frozen=True)
class Answer:
    """status; says: in words; cause: a guess at the mistake; digits: how many are right."""

    status: Literal["right", "wrong", "refused"]
    says: str
    cause: str = ""
    digits: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def can_be_asked(proof: Proof, line: Line) -> bool:
    """Whether a learner can be asked for a line: it sets one gradient, and could be typed."""
    gradients = line.gradients
    if line.step is None or line.status != "right" or len(gradients) != 1:
        return False
    if gradients[0].pair is None or line.step.bindings:
        return False
    try:
        names = known(proof, line)
        return evaluate(line.text, names, calls(proof, line)).name == gradients[0].name
    except Refused:
        return False


def answer(sheet: Sheet, line_id: str, text: str) -> Answer:
    """The answer to a line typed for "backward:53". Raises KeyError if that is none to be asked."""
    proof, line = asked(sheet, line_id)
    names = known(proof, line)
    try:
        typed = evaluate(text, names, calls(proof, line))
    except Refused as error:
        return Answer("refused", str(error))
    return reply(proof, line, typed)


def asked(sheet: Sheet, line_id: str) -> tuple[Proof, Line]:
    for proof in sheet.proofs:
        for line in proof.lines:
            if f"{proof.function.name}:{line.line}" == line_id and can_be_asked(proof, line):
                return proof, line
    raise KeyError(line_id)


def known(proof: Proof, line: Line) -> Names:
    """What is known before a line: numbers, arrays and what was saved, and nothing else."""
    assert line.step is not None
    kinds = (np.ndarray, np.generic, int, float, tuple, type(None))
    names = proof.undone.names[line.step.index]
    return {
        name: value for name, value in names.items()
        if isinstance(value, kinds) and name.isidentifier() and not name.startswith("__")
    }  # fmt: skip


def calls(proof: Proof, line: Line) -> dict[str, Callable[..., Any]]:
    """The functions that a backward calls, by their text: softmax.backward, merge_heads, …"""
    assert line.step is not None
    names = proof.undone.names[line.step.index]
    found: dict[str, Callable[..., Any]] = {}
    for part in ast.walk(proof.function.node):
        if isinstance(part, ast.Call):
            text = ast.unparse(part.func)
            owner, *attributes = text.split(".")
            held = names.get(owner)
            # Not the methods of arrays, nor NumPy: those are not for a typed line to choose.
            if isinstance(held, np.ndarray | np.generic) or held is np:
                continue
            for attribute in attributes:
                held = getattr(held, attribute, None)
            # Those here are pure and known; what others do to memory and to names, who can say.
            if callable(held) and getattr(held, "__module__", "").startswith(OPERATIONS):
                found[text] = held
    return found


def reply(proof: Proof, line: Line, typed: Typed) -> Answer:
    """Holds what was typed against what the gradient, or this part of it, should be."""
    (gradient,) = line.gradients
    assert gradient.pair is not None
    assert line.step is not None
    if not is_number(typed.value):
        return Answer("refused", f"a gradient is an array, not a {type(typed.value).__name__}")
    if typed.name not in ("", gradient.name):
        return Answer("wrong", f"this line is to set {gradient.name}, not {typed.name}")
    earlier = proof.undone.names[line.step.index].get(gradient.name) is not None
    adds = typed.adds or (not typed.name and gradient.expected is not gradient.whole)
    expected = gradient.expected if adds or not earlier else gradient.whole
    shape, wanted = np.shape(typed.value), np.shape(expected.value)
    verdict = judged(gradient.name, gradient.pair, typed.value, expected, is_added=adds)
    if verdict.status == "wrong":
        says = verdict.row.problems[0]
        if not adds and earlier and judged("", None, typed.value, gradient.expected).row.ok:
            says = f"right as a part, but {gradient.name} holds another already: add to it, +="
        return Answer("wrong", says, verdict.row.cause)
    if shape != wanted and not adds:
        says = f"the right numbers, but the shape must be {wanted}, not {shape}"
        return Answer("wrong", says)
    return Answer("right", f"right to {counted(verdict.digits, 'digit')}", digits=verdict.digits)
