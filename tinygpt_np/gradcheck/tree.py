"""Nested arguments, outputs and gradients: arrays in lists, tuples, dicts and objects.

A leaf is a value that contains no others. Its name is the Python expression that reads it:
``x``, ``params['W1']``, ``layers[0]['b']``, ``self.W``. Leaves are read and replaced by name, and
the gradients that a backward returns are matched with the names, whatever their form.
"""

import copy
import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.measure import CheckError

Args = Mapping[str, Any]
Gradients = dict[str, Any]
# Names that people give the gradient of W, and attributes with the gradients of several parameters.
GRADIENT_NAMES = ("d{}", "d_{}", "grad_{}", "{}_grad")
COLLECTIONS = ("grads", "gradients", "grad")
# These have a __dict__, but are no objects that hold arrays as attributes.
NOT_NESTED = (
    np.ndarray, np.ufunc, type, types.ModuleType, types.FunctionType, types.MethodType,
    functools.partial,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Node:
    """A value among nested arguments. parts: the values that it contains; None for a leaf."""

    name: str
    key: Any
    value: Any
    parts: tuple["Node", ...] | None

    @cached_property
    def descendants(self) -> tuple["Node", ...]:
        """The parts, their parts, and so on."""
        parts = self.parts or ()
        return tuple(node for part in parts for node in (part, *part.descendants))

    @cached_property
    def leaves(self) -> tuple["Node", ...]:
        """The leaves in order; a leaf is its own."""
        every = (self, *self.descendants)
        return tuple(node for node in every if node.parts is None)

    @cached_property
    def attributes(self) -> tuple["Node", ...]:
        """The leaves that objects hold as attributes, directly or in their parts."""
        if is_object(self.value):
            return self.leaves
        return tuple(leaf for part in self.parts or () for leaf in part.attributes)


def root(args: Args) -> Node:
    """Return the arguments of a call as a tree; the names of its parts are those of arguments."""
    return Node("", "", args, tuple(node(each, name, name, ()) for name, each in args.items()))


def node(value: Any, name: str, key: Any, above: tuple[int, ...]) -> Node:
    """Return the tree of one argument. above: the ids of the objects that contain it."""
    contained = contents(value)
    if contained is None or id(value) in above:  # An object may contain itself.
        return Node(name, key, value, None)
    above = (*above, id(value))
    parts = (node(each, name + how, key, above) for key, how, each in contained)
    return Node(name, key, value, tuple(parts))


def contents(value: Any) -> list[tuple[Any, str, Any]] | None:
    """Return (key, how the key is written, value) for the parts of a container, else None."""
    if isinstance(value, Mapping):
        return [(key, f"[{key!r}]", each) for key, each in cast(Args, value).items()]
    if isinstance(value, list | tuple):
        parts, fields = list(cast(list[Any], value)), getattr(cast(Any, value), "_fields", None)
        names = [(i, f"[{i}]") for i in range(len(parts))]
        names = names if fields is None else [(field, f".{field}") for field in fields]
        return [(*name, part) for name, part in zip(names, parts, strict=True)]
    if is_object(value):
        attributes: dict[str, Any] = vars(cast(object, value))
        return [(key, f".{key}", each) for key, each in attributes.items()]
    return None


def is_object(value: Any) -> bool:
    """Return whether a value holds others as attributes; arrays of other libraries do not."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, NOT_NESTED)
        and not hasattr(value, "dtype")
    )


def is_floating(value: Any) -> bool:
    """Return whether a value is an array or a NumPy number of floats."""
    return isinstance(value, np.ndarray | np.generic) and np.issubdtype(
        cast(Any, value).dtype, np.floating
    )


def leaves(args: Args) -> dict[str, Any]:
    """Return the leaves of nested arguments by name, in order."""
    return {leaf.name: leaf.value for leaf in root(args).leaves}


def map_leaves(change: Callable[[str, Any], Any], args: Args) -> dict[str, Any]:
    """Return the arguments with every leaf replaced by change(name, leaf)."""
    return {str(part.key): rebuilt(part, change) for part in root(args).parts or ()}


def with_leaves(args: Args, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with some leaves replaced; nothing is changed in place."""
    return map_leaves(lambda name, leaf: values.get(name, leaf), args)


def rebuilt(node: Node, change: Callable[[str, Any], Any]) -> Any:
    """Return the value of a node with its leaves changed."""
    if node.parts is None:
        return change(node.name, node.value)
    parts = {part.key: rebuilt(part, change) for part in node.parts}
    value: Any = node.value
    if all(parts[part.key] is part.value for part in node.parts):
        return value
    if isinstance(value, tuple):
        return getattr(cast(Any, value), "_make", tuple)(parts.values())
    changed: Any = copy.copy(value)
    into = cast(Any, changed if isinstance(value, Mapping | list) else vars(changed))
    for key, part in parts.items():
        into[key] = part
    return changed


# Gradients


def gradients_by_name(
    returned: Any, args: Args, names: Sequence[str], result_names: Sequence[str] = ()
) -> Gradients:
    """Return the gradients that a backward returned, by the name of the leaf of the arguments.

    Parameters
    ----------
    returned : object
        The gradients, in one of these forms, which may be nested in each other: one array; a tuple
        or list by position, for all arguments, for those with a gradient or for all leaves; a dict
        with keys such as W1, dW1, grad_W1, W1_grad or a full name; an object with such attributes.
        None stands for "no gradient".
    args : dict
        The arguments of forward.
    names : sequence of str
        The leaves that have a gradient, in order.
    result_names : sequence of str, optional
        The names in the return statement, as ("dx", "dw"). They decide which leaves have a gradient
        if there are fewer gradients than leaves; without names the shapes decide.

    Returns
    -------
    dict
        The gradient, or None, of each of the leaves for which something was returned.

    Raises
    ------
    CheckError
        If a key is unknown or ambiguous, or the number of gradients does not fit.
    """
    found = Match(tuple(names), tuple(result_names)).assign(root(args), returned)
    return {name: found[name] for name in names if name in found}


def with_gradient(args: Args, names: Sequence[str], found: Args) -> tuple[str, ...]:
    """Return the leaves that should have a gradient, which are all if none has one.

    An argument without a gradient is a constant, and so is a leaf for which None was returned. But
    if a dict, list or tuple has gradients, none of its leaves is forgotten.

    Parameters
    ----------
    args : dict
        The arguments of forward.
    names : sequence of str
        The leaves that may have a gradient.
    found : dict
        The gradients by leaf.
    """
    given = {name for name in names if found.get(name) is not None}
    for part in root(args).parts or ():
        below = {leaf.name for leaf in part.leaves} - {leaf.name for leaf in part.attributes}
        if below & given:
            given |= {name for name in names if name in below and name not in found}
    return tuple(name for name in names if name in given) or tuple(names)


@dataclass(frozen=True)
class Match:
    """Matches gradients with the leaves called `names`; see gradients_by_name."""

    names: tuple[str, ...]
    result_names: tuple[str, ...] = ()

    def has_gradient(self, node: Node) -> bool:
        """Return whether a leaf below a node has a gradient."""
        return any(leaf.name in self.names for leaf in node.leaves)

    def assign(self, node: Node, found: Any) -> Gradients:
        """Return the gradients below a node from what was returned for it."""
        if found is None:
            return {leaf.name: None for leaf in node.leaves}
        if node.parts is None and node.value is None:
            raise CheckError(f"{node.name} is None, so its gradient must be None")
        if node.parts is None:
            return {node.name: found}
        if isinstance(found, tuple | list):
            return self.by_position(node, list(cast(list[Any], found)))
        if (named := contents(found)) is not None:
            return merged(self.assign(self.find(node, key), each) for key, _, each in named)
        return self.by_position(node, [found])

    def by_position(self, node: Node, found: list[Any]) -> Gradients:
        """Return the gradients below a node from a sequence."""
        every = node.parts or ()
        parts = [part for part in every if self.has_gradient(part)]
        # The gradients of an object are usually stored on it.
        plain = [part for part in parts if not is_object(part.value)]
        flat = [leaf for leaf in node.leaves if leaf.name in self.names]
        # An optional argument that is not given has no gradient either.
        given = [each for each in found if each is not None]
        for nodes, values in (
            (parts, found), (flat, found), (plain, found), (every, found),
            (parts, given), (flat, given), (plain, given),
        ):  # fmt: skip
            if len(nodes) == len(values) and all(map(self.fits, nodes, values)):
                return merged(map(self.assign, nodes, values))
        chosen = self.chosen(node, given) if len(given) < len(flat) else []
        if chosen:
            return {leaf.name: each for leaf, each in zip(chosen, given, strict=True)}
        if len(flat) == len(found):  # A list of numbers is refused as the gradient of its leaf.
            return dict(zip((leaf.name for leaf in flat), found, strict=True))
        names = [leaf.name for leaf in flat]
        constants = ", or None is returned for the others" if len(given) < len(flat) else ""
        raise CheckError(
            f"backward must return a gradient for each of {', '.join(names)} "
            f"({len(names)} in all), not {len(given)}; wrt says which arguments have one{constants}"
        )

    def fits(self, node: Node, found: Any) -> bool:
        """Return whether something may be the gradients of a node: nested like it, or None."""
        is_leaf = node.parts is None or sum(leaf.name in self.names for leaf in node.leaves) == 1
        is_array = contents(found) is None
        return found is None or (is_leaf and is_array) or (node.parts is not None and not is_array)

    def chosen(self, node: Node, found: list[Any]) -> list[Node]:
        """Return the leaves to which too few gradients belong; none if that is not certain."""
        if len(self.result_names) == len(found):
            named = [
                each for name in self.result_names for each in matches(node.descendants, name)[:1]
            ]
            if len({each.name for each in named if each.name in self.names}) == len(found):
                return named
        flat = [leaf for leaf in node.leaves if leaf.name in self.names]
        first = in_order(flat, found)
        last = in_order(flat[::-1], found[::-1])[::-1]
        return first if first == last else []

    def find(self, node: Node, key: Any) -> Node:
        """Return the part below a node that a key means."""
        every = matches(node.descendants, key)
        found = [each for each in every if self.has_gradient(each)] or every
        # A part of the node itself comes before the parts of its parts.
        found = [each for each in found if each in (node.parts or ())] or found
        if len(found) == 1:
            return found[0]
        names = [each.name for each in found] or list(self.names)
        which = "which may be" if found else "which is none of"
        joined = (" or " if found else ", ").join(names)
        raise CheckError(f"backward returned a gradient of {key}, {which} {joined}")

    def stored(self, node: Node, after: Any) -> Iterator[Gradients]:
        """Yield the gradients that objects hold; `after` is the value of the node at the end."""
        now = {key: value for key, _, value in contents(after) or ()}
        for part in node.parts or ():
            yield from self.stored(part, now.get(part.key))
        for key, value in now.items() if is_object(after) else ():
            is_collection = key in COLLECTIONS and isinstance(value, Mapping)
            named: Mapping[Any, Any] = cast(Any, value) if is_collection else {key: value}
            for name, gradient in named.items():
                every = [each for each in node.descendants if self.has_gradient(each)]
                found = matches(every, name, exact=is_collection)
                if len(found) == 1:
                    yield self.assign(found[0], gradient)


def attribute_gradients(args: Args, after: Args, names: Sequence[str]) -> Gradients:
    """Return the gradients that objects among the arguments hold, as self.dW or self.grads['W'].

    args: the arguments before the call. after: the same after backward. names: the leaves that have
    a gradient.
    """
    found = merged(Match(tuple(names)).stored(root(args), dict(after)))
    return {name: found[name] for name in names if name in found}


def stores_a_gradient(leaf: Node, args: Node) -> bool:
    """Return whether a leaf of the arguments is where an object keeps the gradient of another."""
    holder = leaf.name.removesuffix(f".{leaf.key}")
    if holder == leaf.name:
        return any(f".{name}[" in leaf.name for name in COLLECTIONS)
    others = (n for n in args.descendants if n.name in (f"{holder}.{n.key}", n.key))
    return any(is_gradient_name(leaf.key, other.key) for other in others)


def matches(nodes: Sequence[Node], key: Any, *, exact: bool = True) -> list[Node]:
    """Return the nodes that a key may mean: those of its name, else those whose gradient it is."""
    named = [node for node in nodes if node.key == key or node.name == key] if exact else []
    return named or [node for node in nodes if is_gradient_name(key, node.key)]


def is_gradient_name(name: Any, of: Any) -> bool:
    """Return whether a name, such as dW, is one for the gradient of another."""
    return isinstance(of, str) and name in [form.format(of) for form in GRADIENT_NAMES]


def in_order(nodes: Sequence[Node], found: Sequence[Any]) -> list[Node]:
    """Return the first leaves that have the shapes of the gradients; none if one is missing."""
    rest, chosen = iter(nodes), list[Node]()
    for gradient in found:
        same = (each for each in rest if np.shape(each.value) == np.shape(gradient))
        chosen += itertools.islice(same, 1)
    return chosen if len(chosen) == len(found) else []


def merged(parts: Iterable[Gradients]) -> Gradients:
    """Return all gradients; raise CheckError if one is given twice."""
    found: Gradients = {}
    for part in parts:
        for name in part:
            if name in found:
                raise CheckError(f"backward returned two gradients of {name}")
        found |= part
    return found
