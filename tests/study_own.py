"""Small targets of study made of a source text, and studies that several tests look at."""

from collections.abc import Mapping
from functools import cache
from textwrap import dedent
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.gradcheck.function_check import differentiable
from tinygpt_np.study import targets
from tinygpt_np.study.proof import Line, Proof
from tinygpt_np.study.sheet import Sheet, study
from tinygpt_np.study.source import Function, find
from tinygpt_np.study.target import Target
from tinygpt_np.study.trace import Trace, Value
from tinygpt_np.study.truth import Truth

WHERE = "own.py"
rng = np.random.default_rng(11)
X, W = rng.standard_normal((4, 5)), rng.standard_normal((5, 3))
ARGS: Mapping[str, Any] = {"x": X, "w": W}
# z is read by three lines, of which one reads it by way of another.
FORWARD = """
def forward(x, w):
    z = x @ w  # (N, K)
    a = np.tanh(z)
    b = a * z
    y = b + z
    return y, (x, w, z, a)
"""
BACKWARD = """
def backward(dy, saved):
    x, w, z, a = saved
    # y = b + z
    db = dy.copy()
    dz = dy.copy()
    # b = a * z
    da = db * z
    dz += db * a
    # a = np.tanh(z)
    dz += da * (1 - a * a)
    # z = x @ w
    dx = dz @ w.T
    dw = x.T @ dz
    return dx, dw
"""


def edited(text: str, *edits: tuple[str, str]) -> str:
    """The text with some pieces, each of which stands in it once, replaced."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands in it {text.count(old)} times"
        text = text.replace(old, new)
    return text


def names_of(text: str) -> dict[str, Any]:
    module: dict[str, Any] = {"np": np}
    exec(compile(dedent(text), WHERE, "exec"), module)
    return module


def function(text: str, name: str = "forward") -> Function:
    return find(dedent(text), name, WHERE)


def target(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Target:
    """The forward of a source and its backwards; their manners count."""
    module = names_of(text)
    backwards = [name for name in module if name.startswith("backward")]
    wrt = differentiable(args, None)
    return Target(
        "own", "own", "own", WHERE, "", function(text),
        tuple(function(text, name) for name in backwards), module, dict(args), wrt, seed,
        functions=(module["forward"], *(module[name] for name in backwards)),
    )  # fmt: skip


def trace(text: str, args: Mapping[str, Any] = ARGS) -> Trace:
    return Trace(function(text), names_of(text), dict(args))


def truth(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Truth:
    return Truth(target(text, args, seed))


def sheet(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Sheet:
    return study(target(text, args, seed))


def proof(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Proof:
    return sheet(text, args, seed).proofs[0]


def edited_proof(*edits: tuple[str, str]) -> Proof:
    """The proof of the backward above with some edits."""
    return proof(FORWARD + edited(BACKWARD, *edits))


def blamed(proof: Proof) -> list[str]:
    """The lines that are wrong themselves."""
    return [line.text for line in proof.lines if line.status == "wrong"]


def told(proof: Proof) -> str:
    """All that is said of the lines of a proof, for a failure to show."""
    lines = (f"{each.line} [{each.status}] {each.text}  {each.says}" for each in proof.lines)
    return "\n".join(lines)


def line_of(proof: Proof, text: str) -> Line:
    """The one line with this text."""
    (line,) = (line for line in proof.lines if line.text == text)
    return line


def gradient_of(truth: Truth, value: Value) -> np.ndarray:
    """The measured gradient of a value, element by element."""
    gradient = truth.total(value).gradient
    assert gradient is not None
    return gradient


@cache
def studied(name: str, seed: int) -> Sheet:
    target = targets.operation if name in VARIANTS else targets.named
    return study(target(name, seed))


def operation(variant: str, seed: int = 0) -> Sheet:
    """The study of an operation, called one way; as of a model, made once."""
    return studied(variant, seed)


def model(name: str, seed: int = 0) -> Sheet:
    return studied(name, seed)


def variants_of(operation: str) -> list[str]:
    return [name for name, variant in VARIANTS.items() if variant.operation == operation]
