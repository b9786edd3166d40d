"""Small targets of study made from a source text, and cached studies of the package's targets."""

from collections.abc import Mapping
from functools import cache
from textwrap import dedent
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.calls import differentiable
from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof.bugs import Bug, bugs
from tinygpt_np.study.proof.sheet import Sheet, study
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, Proof
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import Function, find_function
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import Trace, Value

FILE = "own.py"
rng = np.random.default_rng(11)
X, W = rng.standard_normal((4, 5)), rng.standard_normal((5, 3))
ARGS: Mapping[str, Any] = {"x": X, "w": W}
# Three lines read z; line b reads it through a, too.
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
# The same without the quoted forward lines.
UNQUOTED = "\n".join(line for line in BACKWARD.splitlines() if "#" not in line)


def edited(text: str, *edits: tuple[str, str]) -> str:
    """Replace pieces of a text, each of which must occur exactly once."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


def module_of(text: str) -> dict[str, Any]:
    module: dict[str, Any] = {"np": np}
    exec(compile(dedent(text), FILE, "exec"), module)
    return module


def function(text: str, name: str = "forward") -> Function:
    return find_function(dedent(text), name, FILE)


def target(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Target:
    """Return the forward of a source with all its backwards; their behaviour is checked too."""
    module = module_of(text)
    backwards = [name for name in module if name.startswith("backward")]
    wrt = differentiable(args, None)
    return Target(
        "own", "own", "user", FILE, "", function(text),
        tuple(function(text, name) for name in backwards), module, dict(args), wrt, seed,
        functions=(module["forward"], *(module[name] for name in backwards)),
    )  # fmt: skip


def trace(text: str, args: Mapping[str, Any] = ARGS) -> Trace:
    return Trace(function(text), module_of(text), dict(args))


def truth(text: str, args: Mapping[str, Any] = ARGS, seed: int = 0) -> Truth:
    return Truth(target(text, args, seed))


def sheet(text: str, args: Mapping[str, Any] = ARGS) -> Sheet:
    return study(target(text, args))


def proof(text: str, args: Mapping[str, Any] = ARGS) -> Proof:
    return sheet(text, args).proofs[0]


def edited_proof(*edits: tuple[str, str]) -> Proof:
    return proof(FORWARD + edited(BACKWARD, *edits))


def wrong_lines(proof: Proof) -> list[str]:
    return [line.text for line in proof.lines if line.status == "wrong"]


def report(proof: Proof) -> str:
    """Return all verdicts of a proof as text, for the message of a failing test."""
    lines = (f"{each.line} [{each.status}] {each.text}  {each.message}" for each in proof.lines)
    return "\n".join(lines)


def line_with(proof: Proof, text: str) -> BackwardLine:
    (line,) = (line for line in proof.lines if line.text == text)
    return line


def gradient_of(truth: Truth, value: Value) -> np.ndarray:
    gradient = truth.total(value).gradient
    assert gradient is not None
    return gradient


def target_named(name: str, seed: int = 0) -> Target:
    return (targets.operation if name in VARIANTS else targets.named_target)(name, seed)


@cache
def truth_of(name: str) -> Truth:
    """Return the expected gradients of a variant of an operation, or of a model."""
    return Truth(target_named(name))


@cache
def studied(name: str, seed: int) -> Sheet:
    return study(target_named(name, seed))


@cache
def studied_target(name: str) -> Sheet:
    """Study a target of the package with all its variants, once."""
    return study(targets.named_target(name))


@cache
def planted_bugs(operation: str) -> list[Bug]:
    return list(bugs(operation))
