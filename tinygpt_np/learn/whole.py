"""Call a learner's backward in many ways, and compare it with the backward of the source.

The source's backward is proven by study and by the gradient checks. The calls are all ways to call
an operation (without a bias, …), several seeds, longer axes, axes of length 1, axes of equal
length, equal values, and other numbers of axes where the contract allows them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.cases import SIZES, as_tuple
from tinygpt_np.gradcheck.tree import is_floating
from tinygpt_np.learn.attempt import Attempt, copied, described
from tinygpt_np.learn.skeleton import returned
from tinygpt_np.learn.sources import MODELS, source_of, targets_of
from tinygpt_np.model.gpt import GPT, Gradients
from tinygpt_np.study.source.targets import Target

SEEDS = (0, 1, 2)
# The sizes of one call, all the same, and of another one, all larger than those of the first call.
EQUAL = dict.fromkeys(SIZES, 4)
LARGER = {letter: size + 1 for letter, size in SIZES.items()}
# Relative to the norm of a gradient, or to the largest norm if it is zero up to rounding.
TOLERANCE, ROUNDING = 1e-9, 1e-12


@dataclass(frozen=True)
class Failure:
    """A call for which a backward is wrong. call: its arguments in words."""

    target: Target
    call: str
    message: str


class BrokenRuleError(ValueError):
    """Raised if a backward returns what it must not return, or changes its inputs."""


def first_failure(attempt: Attempt) -> tuple[Failure | None, int]:
    """Return the first call for which a backward is wrong, and the number of calls made."""
    count = 0
    for target in calls(attempt):
        count += 1
        if message := difference(attempt, target):
            return Failure(target, in_words(target), message), count
    return None, count


def calls(attempt: Attempt) -> Iterator[Target]:
    """Yield the calls to make."""
    exercise = attempt.exercise
    for seed in SEEDS:
        yield from targets_of(exercise, seed)
    if exercise.subject in MODELS:
        return
    for sizes in (EQUAL, LARGER, *({letter: 1} for letter in SIZES)):
        yield from targets_of(exercise, sizes=sizes)
    for target in targets_of(exercise):
        yield with_ties(target)
        yield from with_other_axes(target, attempt)


def with_ties(target: Target) -> Target:
    """Return a call whose floats are multiples of one half other than zero, so that many agree."""

    def tied(value: Any) -> Any:
        halves = np.round(2 * np.asarray(value)) / 2
        return np.where(halves == 0, 0.5, halves) if is_floating(value) else value

    names = {name: tied(arg) for name, arg in target.args.items() if name in target.wrt}
    return replace(target, args=target.args | names)


def with_other_axes(target: Target, attempt: Attempt) -> Iterator[Target]:
    """Yield calls with more and fewer axes, if the contract of forward says `...`."""
    source = source_of(attempt.exercise)
    contract = source.module.forward.__doc__ or ""
    match = re.match(r"(\w+) \(\.\.\.((?:, \w+)*)\)", contract)
    if match is None:
        return
    name, kept = match.group(1), match.group(2).count(",")
    x = target.args[name]
    last = x.shape[x.ndim - kept :]
    same = {n: a for n, a in target.args.items() if np.shape(a) == x.shape and n != name}
    for shape in ((-1, *last), (1, -1, 1, *last)):
        moved = {n: a.reshape(shape) for n, a in {name: x, **same}.items()}
        yield replace(target, args=target.args | moved)
    if last:
        first = {n: a.reshape(-1, *last)[0] for n, a in {name: x, **same}.items()}
        yield replace(target, args=target.args | first)


def difference(attempt: Attempt, target: Target) -> str:
    """Return how a learner's gradients differ from the right ones in a call, or ""."""
    forward, backward = attempt.functions[0], attempt.completed
    with np.errstate(all="ignore"):
        right = gradients(target)
        try:
            found = gradients(target, forward if attempt.is_own_forward else None, backward)
        except BrokenRuleError as error:
            return str(error)
        except Exception as error:
            return described(error)
    if target.kind == "model":
        names, found = list(right), {name: found.get(name) for name in right}
    else:
        names = returned(source_of(attempt.exercise).backward)
    pairs = list(zip(names, right.values(), strict=True))
    given = [pair for pair in pairs if pair[1] is not None]
    if len(found) == len(given):  # The None of an argument that is absent may be left out.
        pairs = given
    if len(found) != len(pairs):
        return f"returns {len(found)} gradients, not {len(pairs)}"
    scale = max(float(np.linalg.norm(expected)) for _, expected in given)
    for (name, expected), own in zip(pairs, found.values(), strict=True):
        if problem := compared(own, expected, scale):
            return f"{name} {problem}"
    return ""


def gradients(target: Target, forward: Any = None, backward: Any = None) -> dict[Any, Any]:
    """Return the gradients of a call, of the source or of given functions.

    Those of a model are by name, others in the order in which they are returned. Raise
    BrokenRuleError if a gradient shares memory with an input, or an input changes.
    """
    args = {name: copied(arg) for name, arg in target.args.items()}
    if target.kind == "model":
        return model_gradients(target, args, backward)
    out, saved = (forward or target.functions[0])(**args)
    rng = generator(target.seed, "gradcheck")
    upstream = rng.standard_normal(np.shape(out)) if np.ndim(out) else rng.standard_normal()
    inputs: list[Any] = [upstream, *saved, *args.values()]
    before = [bits(each) for each in inputs]
    result = (backward or target.functions[-1])(upstream, saved)
    parts = as_tuple(result)
    if isinstance(result, list) or (isinstance(result, tuple) and len(parts) == 1):
        kind = "list" if isinstance(result, list) else "tuple with one gradient"
        raise BrokenRuleError(f"returns a {kind}; return one gradient itself, and several as a, b")
    if before != [bits(each) for each in inputs]:
        raise BrokenRuleError("backward changes its input: the upstream gradient, or saved")
    arrays: list[Any] = [each for each in inputs if isinstance(each, np.ndarray)]
    for number, part in enumerate(parts, 1):
        if np.ndim(part) and any(np.shares_memory(each, part) for each in arrays):
            raise BrokenRuleError(
                f"gradient {number} shares memory with an input of backward; return a copy"
            )
    return dict(enumerate(parts))


def bits(value: Any) -> bytes:
    """Return the bits of an array, to see whether it changes."""
    return value.tobytes() if isinstance(value, np.ndarray | np.generic) else b""


def model_gradients(target: Target, args: dict[str, Any], backward: Any) -> dict[str, Any]:
    """Return the gradients of a block or a GPT, by name of the argument or parameter."""
    model: Any = args.pop("self")
    is_block = "x" in args
    forward = model.block_forward if is_block else model.forward
    out, saved = forward(**args)
    doutput = generator(target.seed, "gradcheck").standard_normal(np.shape(out))
    method = backward or getattr(GPT, "block_backward" if is_block else "backward")
    params, grads = model.params, Gradients()
    if is_block:
        found = {"x": method(model, doutput, args["h"], saved, grads), **grads}
    else:
        found = dict(method(model, doutput, saved))
    if model.params is not params:
        raise BrokenRuleError("backward changes the parameters of the model")
    return found


def compared(found: Any, expected: Any, scale: float) -> str:
    """Return what is wrong with a gradient, or "". scale: the largest norm of a gradient."""
    if expected is None or found is None:
        return "" if found is expected else f"is {'None' if found is None else 'not None'}"
    if type(found) is not np.ndarray and not isinstance(found, np.generic | int | float):
        return f"must be an array, not {type(found).__name__}"
    found = np.asarray(found)
    if found.shape != np.shape(expected):
        return f"has the shape {found.shape}, not {np.shape(expected)}"
    if found.dtype.kind not in "fiub":
        return f"has the dtype {found.dtype}"
    error, size = float(np.linalg.norm(found - expected)), float(np.linalg.norm(expected))
    if error <= TOLERANCE * size + ROUNDING * max(scale, 1.0):
        return ""
    if not np.isfinite(found).all():
        return "is not finite"
    return f"is off by {error / size:.2g} of its norm" if size else "is not zero"


def in_words(target: Target) -> str:
    """Return the arguments of a call that distinguish it."""
    parts = list[str]()
    for name, arg in target.args.items():
        if isinstance(arg, np.ndarray):
            parts.append(f"{name} {np.shape(cast(Any, arg))}")
        elif arg is None or isinstance(arg, int | float):
            parts.append(f"{name} {arg}")
    return f"{target.title}, {', '.join(parts)}" if target.kind == "model" else ", ".join(parts)
