"""Tell in which form a forward and its backward are written, from what they return and take.

| forward returns | backward takes |
|---|---|
| ``out, saved`` | ``dout, saved`` |
| ``(h, c), saved`` or ``h, c, saved`` | ``(dh, dc), saved`` or ``dh, dc, saved`` |
| ``out`` or ``h, c``; an object keeps the rest | ``dout`` or ``dh, dc``; nothing for a loss |
| ``out`` | ``dout`` and the arguments of forward |
| ``loss``, a scalar | the arguments of forward |
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.measure import CheckError
from tinygpt_np.gradcheck.tree import contents, is_floating, leaves


@dataclass(frozen=True)
class Convention:
    """The way in which a backward is called.

    has_saved: whether the last value that forward returns is what it saved. takes: what backward
    takes, of "upstream" (one gradient, nested like the outputs) or "each" upstream gradient,
    "saved", and "args" (those of forward).
    """

    has_saved: bool
    takes: tuple[str, ...]

    def outputs(self, returned: Any) -> Any:
        """Return the output, or a tuple of the outputs, from what forward returned."""
        if not self.has_saved:
            return returned
        *outputs, _ = returned
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def arguments(self, upstream: Any, returned: Any, args: Sequence[Any] = ()) -> list[Any]:
        """Return the positional arguments of backward. returned: by forward, called with args."""
        values = {
            "upstream": [upstream],
            "each": [part for _, _, part in contents(upstream) or ()],
            "saved": [returned[-1]] if self.has_saved else [],
            "args": [*args],
        }
        return [value for what in self.takes for value in values[what]]


STANDARD = Convention(True, ("upstream", "saved"))


def convention(
    returned: Any,
    backward: Callable[..., Any] | None = None,
    names: Sequence[str] = (),
    *,
    are_methods: bool = False,
) -> Convention:
    """Return how a backward is called.

    Parameters
    ----------
    returned : object
        What forward returned.
    backward : callable, optional
        Without it, ``backward(dout, saved)`` is assumed, or a scalar function and its gradient.
    names : sequence of str
        The arguments of forward.
    are_methods : bool
        Whether forward and backward are methods of one object, which keeps what is saved.

    Raises
    ------
    CheckError
        If backward takes something else.
    """
    count = len(cast(tuple[Any, ...], returned)) if isinstance(returned, tuple) else 1
    taken = None if backward is None else required(backward)
    if count == 1 or taken is None:
        return STANDARD if count > 1 else without_saved(returned, backward, names, are_methods)
    if all(map(is_output, cast(tuple[Any, ...], returned))):
        if not accepts(backward, 2):
            return Convention(False, ("upstream",))
        if are_methods and len(taken) == count and all(map(names_a_gradient, taken)):
            return Convention(False, ("each",))
    parts = len(contents(STANDARD.outputs(returned)) or ())
    if 2 <= parts == len(taken) - 1:
        return Convention(True, ("each", "saved"))
    if not accepts(backward, 2):
        raise CheckError(
            f"backward must take the upstream gradient and what forward saved, "
            f"not ({', '.join(taken)})"
        )
    return STANDARD


def without_saved(
    returned: Any, backward: Callable[..., Any] | None, names: Sequence[str], are_methods: bool
) -> Convention:
    """Return how a backward is called if forward returns its outputs alone."""
    outputs = [leaf for leaf in leaves({"out": returned}).values() if is_output(leaf)]
    is_scalar, parts = sum(map(np.size, outputs)) == 1, len(contents(returned) or ())
    taken = None if backward is None else required(backward)
    upstream = [(1, ("upstream",)), (parts, ("each",)), (len(names) + 1, ("upstream", "args"))]
    of_scalar = [(len(names), ("args",)), (0, ())]
    if not is_scalar:
        forms = upstream
    elif are_methods and taken != [*names]:
        forms = upstream[:1] + of_scalar[::-1]
    else:
        forms = of_scalar + upstream
    if taken is None:  # It has no signature.
        found = ("args",) if is_scalar else None
    else:
        found = next((takes for count, takes in forms if accepts(backward, count)), None)
    if found is None:
        shapes = " and ".join(str(np.shape(each)) for each in outputs) or type(returned).__name__
        raise CheckError(
            f"a forward that returns no (out, saved) must return a scalar, not {shapes}, or its "
            f"backward must take dout, or dout and the arguments of forward, not "
            f"({', '.join(taken or ['dout', 'saved'])})"
        )
    return Convention(False, found)


def required(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of the positional parameters without a default; None if not known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def accepts(function: Callable[..., Any] | None, count: int) -> bool:
    """Return whether a function can be called with `count` positional arguments."""
    try:
        inspect.signature(cast(Any, function)).bind(*range(count))
    except TypeError:
        return False
    return True


def names_a_gradient(name: str) -> bool:
    """Return whether a parameter is probably an upstream gradient: dh, d_c, grad_out."""
    return name.startswith(("d", "grad")) and name not in ("data", "dims", "dict", "dtype")


def is_output(value: Any) -> bool:
    """Return whether a value has an upstream gradient: a float, or an array of floats."""
    return isinstance(value, float) or is_floating(value)
