"""One call of a forward, and the runs of backwards with what it returned.

A call is made with deep copies of its arguments, so it can be repeated: a random generator starts
from the same state each time, and an object has the same attributes.
"""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from types import CodeType, MethodType
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.convention import convention, is_output
from tinygpt_np.gradcheck.measure import CheckError
from tinygpt_np.gradcheck.tree import (
    Args,
    Gradients,
    attribute_gradients,
    gradients_by_name,
    is_floating,
    is_object,
    leaves,
    map_leaves,
    root,
    stores_a_gradient,
)

Arguments = Sequence[Any] | Mapping[str, Any]
# The name of the object of two methods among the arguments.
SELF = "self"


class ForwardCall:
    """One call of a forward.

    args: by name; the object of two methods is called self. held: the attributes of objects among
    them, which the functions may set. wrt: the leaves of the arguments that may have a gradient;
    are_chosen: whether the caller named them. inputs: the leaves that no object holds, which no
    function may change. outputs: those of floats, by name.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        args: Arguments,
        wrt: Sequence[str] | None = None,
        backward: Callable[..., Any] | None = None,
    ) -> None:
        if isinstance(cast(Any, forward).__call__, MethodType):  # An object that can be called.
            forward = cast(Any, forward).__call__
        self.forward, self.by_keyword = forward, isinstance(args, Mapping)
        self.args = named(forward, args)
        names, owner = [*self.args], owner_of(forward)
        self.are_methods = owner is not None and owner is owner_of(backward)
        if self.are_methods:
            self.args[SELF] = owner
        used = copied(self.args)
        before = leaves(used)
        returned = self.call(forward, used)
        after = leaves(used)
        self.held = {leaf.name for leaf in root(self.args).attributes}
        state = {name for name in self.held if after.get(name) is not before[name]}
        self.are_chosen, self.wrt = wrt is not None, differentiable(self.args, wrt, state)
        self.inputs = {*before} - self.held
        self.convention = convention(returned, backward, names, are_methods=self.are_methods)
        self.outputs = self.outputs_of(returned)
        self.check_outputs(returned)
        again = self.outputs_of(self.call(forward, copied(self.args)))
        if not all(same_bits(again.get(name), out) for name, out in self.outputs.items()):
            raise CheckError(
                "forward must give the same output each time; if it draws random numbers, pass it "
                "its generator or its mask as an argument, and it is replayed"
            )

    def call(self, function: Callable[..., Any], args: Args) -> Any:
        """Call a function with the arguments by name, or by position as they were given."""
        given = self.without_object(args)
        function = self.bound(function, args)
        return function(**given) if self.by_keyword else function(*given.values())

    def bound(self, function: Callable[..., Any], args: Args) -> Callable[..., Any]:
        """Return a method of the object among the arguments, or another function as it is."""
        if self.are_methods and owner_of(function) is self.args[SELF]:
            return MethodType(cast(Any, function).__func__, args[SELF])
        return function

    def without_object(self, args: Args) -> Args:
        """Return the arguments without the object of two methods."""
        return {n: arg for n, arg in args.items() if not self.are_methods or n != SELF}

    def outputs_of(self, returned: Any) -> dict[str, np.ndarray]:
        """Return the outputs of floats by name: out, or out[0], out['h'] and so on."""
        every = leaves({"out": self.convention.outputs(returned)})
        return {name: np.asarray(out) for name, out in every.items() if is_output(out)}

    def check_outputs(self, returned: Any) -> None:
        """Raise CheckError unless forward returned arrays of floats, not empty and all finite."""
        if not self.outputs:
            every = leaves({"out": self.convention.outputs(returned)}).values()
            kinds = ", ".join(dict.fromkeys(map(kind_of, every))) or "empty"
            raise CheckError(f"the output of forward must be an array of floats, not {kinds}")
        if not all(out.size and np.isfinite(out).all() for out in self.outputs.values()):
            every = leaves(self.args)
            for name in self.wrt:  # If the reason is an argument, name it.
                check_values(name, np.asarray(every[name]))
        for name, out in self.outputs.items():
            check_values(f"the output{f' {name}' * (name != 'out')} of forward", out)

    def gradients(
        self, backward: Callable[..., Any], args: Args, upstream: Mapping[str, Any]
    ) -> Gradients:
        """Run forward and backward once and return the gradients by leaf."""
        return self.start(backward, args, upstream)[1]()

    def start(
        self, backward: Callable[..., Any], args: Args, upstream: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], Callable[[], Gradients]]:
        """Run forward; return its outputs, and a function that runs the backward once.

        args: the arguments, which the two share. upstream: the upstream gradient of each output.
        """
        is_plain = self.convention.takes == ("args",)
        returned = None if is_plain else self.call(self.forward, args)
        outputs = {} if is_plain else self.outputs_of(returned)
        douts = map_leaves(
            lambda name, _: upstream.get(name), {"out": self.convention.outputs(returned)}
        )["out"]
        # The backward starts from the same random numbers each time, too.
        held = leaves({**args, "saved": returned}).values()
        generators = [each for each in held if isinstance(each, np.random.Generator)]
        states = [copy.deepcopy(each.bit_generator.state) for each in generators]

        def run() -> Gradients:
            for each, state in zip(generators, states, strict=True):
                each.bit_generator.state = state
            if is_plain:
                found = self.call(backward, args)
            else:
                own = [*self.without_object(args).values()]
                taken = self.convention.arguments(douts, returned, own)
                found = self.bound(backward, args)(*taken)
            given = gradients_by_name(found, self.args, self.wrt, result_names(backward))
            stored = attribute_gradients(self.args, args, self.wrt)
            return given | {n: g for n, g in stored.items() if given.get(n) is None}

        return outputs, run


# Functions and their arguments


def owner_of(function: Any) -> Any:
    """Return the object of a method, if it has attributes; None for another function."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(function, MethodType) and is_object(owner) else None


def check_callable(name: str, function: Any) -> None:
    """Raise CheckError unless it can be called."""
    if not callable(function):
        raise CheckError(f"{name} must be a function, not {type(function).__name__}")


def named(forward: Callable[..., Any], args: Arguments) -> dict[str, Any]:
    """Return the arguments by name: arg0, arg1, … if forward has no signature."""
    if not isinstance(args, tuple | list | Mapping):
        kind = type(args).__name__
        raise CheckError(f"args must be a tuple or a dict of arguments, not {kind}: write (x,)")
    try:
        signature = inspect.signature(forward)
    except ValueError:
        signature = None
    if signature is not None:
        try:
            signature.bind(**args) if isinstance(args, Mapping) else signature.bind(*args)
        except TypeError as error:
            names = ", ".join(signature.parameters)
            raise CheckError(f"forward({names}) does not take these arguments: {error}") from None
    if isinstance(args, Mapping):
        return dict(args)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values() if signature else ()
    names = [each.name for each in parameters if each.kind in kinds][: len(args)]
    names += [f"arg{i}" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=True))


def result_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names in the last return statement of a function, if it returns only names."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return () if code is None else names_returned(code)


@lru_cache(maxsize=256)
def names_returned(code: CodeType) -> tuple[str, ...]:
    """Return the same for the code of a function, which is parsed once."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return ()
    returns = [each.value for each in ast.walk(tree) if isinstance(each, ast.Return)]
    last = returns[-1] if returns else None
    parts = last.elts if isinstance(last, ast.Tuple | ast.List) else [last]
    names = tuple(part.id for part in parts if isinstance(part, ast.Name))
    return names if len(names) == len(parts) else ()


def differentiable(
    args: Args, wrt: Sequence[str] | None, state: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the leaves that may have a gradient: those in `wrt`, by default all arrays of floats.

    wrt: names of leaves, or of arguments that contain them. state: attributes that forward sets, so
    that they are no arguments.
    """
    nodes = root(args)
    found = [leaf for leaf in nodes.leaves if is_floating(leaf.value) and leaf.name not in state]
    floats = [leaf.name for leaf in found if not stores_a_gradient(leaf, nodes)]
    chosen = [wrt] if isinstance(wrt, str) else wrt
    if chosen is not None and not isinstance(chosen, list | tuple):
        raise CheckError(f"wrt must be a list of names, not {type(wrt).__name__}")
    if chosen is None:
        names = floats
    else:
        below = {node.name: [leaf.name for leaf in node.leaves] for node in nodes.descendants}
        unknown = next((name for name in chosen if name not in below), None)
        if unknown is not None:
            raise CheckError(f"wrt must name arguments ({', '.join(below)}), not {unknown!r}")
        names = [name for each in chosen for name in below[each]]
        if not names:
            raise CheckError(f"wrt must name some of the arguments ({', '.join(args)}), not none")
    if not names:
        kinds = ", ".join(f"{name}: {kind_of(arg)}" for name, arg in args.items())
        raise CheckError(f"one of the arguments must be an array of floats, not only {kinds}")
    if len(set(names)) < len(names):
        raise CheckError(f"wrt must name each argument once, not {', '.join(names)}")
    values = leaves(args)
    for name in names:
        if not is_floating(values[name]) or values[name].dtype not in (np.float32, np.float64):
            kind = kind_of(values[name])
            raise CheckError(f"{name} must be an array of float32 or float64, not {kind}")
    return tuple(names)


def check_values(name: str, array: np.ndarray) -> None:
    """Raise CheckError if an array is empty or not finite."""
    if not array.size:
        raise CheckError(f"{name} must not be empty, but its shape is {array.shape}")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CheckError(f"{name} must be finite, but at {place} it is {array[place]}")


def kind_of(arg: Any) -> str:
    """Return the dtype of an array, or the name of a type."""
    return str(getattr(arg, "dtype", type(arg).__name__))


def copied(args: Args) -> dict[str, Any]:
    """Return deep copies."""
    return {name: copy.deepcopy(arg) for name, arg in args.items()}


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two gradients are equal, NaNs included."""
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) if a is not None else b is a


def describe(error: BaseException) -> str:
    """Return the type and the message of an error, on one line."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # That of a user's class.
        message = ""
    return type(error).__name__ + (f": {message}" if message else "")
