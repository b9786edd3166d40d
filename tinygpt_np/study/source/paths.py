"""Name values by path: a local name, an attribute or an item, such as `x`, `self.a`, `cache['x']`.

A path is resolved against the namespace of a run: it follows attributes of objects and items of
dicts, lists and tuples, and ends at an array. An object that has several names goes by the first
one, so `layer.W` in a loop over `net.layers` is `net.layers[0].W`. The local x of a method that is
stepped into is called `x in forward`.
"""

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.tree import contents, with_leaves

Namespace = dict[str, Any]
# Between a local name of a method and the name of the method.
SCOPE = " in "
# Attributes of arrays that carry no gradient.
CONSTANT_ATTRIBUTES = ("shape", "dtype", "ndim", "size")
# Containers with names such as these hold gradients, under the names of the values.
GRADIENT_CONTAINER = re.compile(r"d|_?d?grad(ient)?s?|d(params|parameters|weights)")
GRADIENT_NAMES = tuple(
    re.compile(form)
    for form in (r"d_?L_d_?(.+)", r"dLd(.+)", r"grad_(.+)", r"(.+)_grad", r"d_(.+)", r"d(.+)")
)


@functools.cache
def parsed(path: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Return the local name that a path starts with, and its links: (".", "a") and ("[", key)."""
    root = path[: re.search(r"[.\[]|$", path).start()]  # pyright: ignore[reportOptionalMemberAccess]
    node, links = ast.parse(f"_{path[len(root) :]}", mode="eval").body, list[tuple[str, Any]]()
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            links.insert(0, (".", node.attr))
        else:
            links.insert(0, ("[", ast.literal_eval(node.slice)))
        node = node.value
    return root, tuple(links)


def expression(path: str) -> ast.expr:
    """Return a path as a tree, for running it."""
    root, links = parsed(path)
    node: ast.expr = ast.Name(root, ast.Load())
    for kind, key in links:
        if kind == ".":
            node = ast.Attribute(node, key, ast.Load())
        else:
            node = ast.Subscript(node, ast.Constant(key), ast.Load())
    return node


def read(namespace: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, or None."""
    root, links = parsed(path)
    value = namespace.get(root)
    for kind, key in links:
        value = follow(value, kind, key)
    return value


def follow(value: Any, kind: str, key: Any) -> Any:
    """Return an attribute or an item of a value, or None."""
    if kind == ".":
        return getattr(value, key, None)
    try:
        return value[key]
    except (TypeError, LookupError):
        return None


def store(namespace: Namespace, path: str, value: Any) -> None:
    """Store a value at a path, in the container that is there; a tuple is rebuilt."""
    root, links = parsed(path)
    if not links:
        namespace[root] = value
        return
    owner = namespace[root]
    for kind, key in links[:-1]:
        owner = follow(owner, kind, key)
    kind, key = links[-1]
    if isinstance(owner, tuple):
        namespace[root] = with_leaves({root: namespace[root]}, {path: value})[root]
    elif kind == ".":
        setattr(owner, key, value)
    else:
        owner[key] = value


def overlap(path: str, other: str) -> bool:
    """Return whether one path is the other, or leads to a part of it."""
    return path == other or is_part(path, other) or is_part(other, path)


def is_part(path: str, whole: str) -> bool:
    """Return whether a path leads to a part of another one."""
    return path.startswith(whole) and path[len(whole) : len(whole) + 1] in (".", "[")


# Names of gradients


def leaf(path: str) -> str:
    """Return the last name in a path: a for self.a, W1 for params['W1'], hs[0] for hs[0]."""
    root, links = parsed(path)
    name = root.partition(SCOPE)[0]
    for kind, key in links:
        name = key if kind == "." or isinstance(key, str) else f"{name}[{key!r}]"
    return name


def differentiated(path: str) -> tuple[str, ...]:
    """Return the names of the values whose gradient a path may be, the likeliest first.

    These are x for dx, d_x, grad_x, x_grad, dL_dx, self.dx, grads['dx'] and grads['x'].
    """
    name, (root, links) = leaf(path), parsed(path)
    forms = (form.fullmatch(name) for form in GRADIENT_NAMES)
    found = [match.group(1) for match in forms if match is not None]
    owner = links[-2][1] if len(links) > 1 else root.partition(SCOPE)[0]
    if links and GRADIENT_CONTAINER.fullmatch(str(owner)):
        found.append(name)
    return tuple(dict.fromkeys(found))


# Finding the path of an expression


def resolve(node: ast.expr, namespace: Mapping[str, Any]) -> str | None:
    """Return the path of an expression, or None if it is none."""
    found = located(node, namespace)
    if found is None:
        return None
    root, links = parsed(found[0])
    return canonical(root, namespace) + found[0][len(root) :] if links else root


def located(node: ast.expr, namespace: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the path of an expression, as written, and its value."""
    match node:
        case ast.Name(id=name):
            return name, namespace.get(name)
        case ast.Attribute(value=inner, attr=name, ctx=context):
            found = located(inner, namespace)
            if found is None or not has_fields(found[1]):
                return None
            if not isinstance(context, ast.Store) and is_method(found[1], name):
                return None
            return f"{found[0]}.{name}", getattr(found[1], name, None)
        case ast.Subscript(value=inner, slice=index):
            found = located(inner, namespace)
            if found is None or not isinstance(found[1], dict | list | tuple):
                return None
            owner, (is_constant, key) = cast(Any, found[1]), constant(index, namespace)
            if not is_constant or (isinstance(owner, list | tuple) and not isinstance(key, int)):
                return None
            if isinstance(owner, list | tuple) and key < 0:
                key += len(cast(list[Any], owner))
            return f"{found[0]}[{key!r}]", follow(owner, "[", key)
        case _:
            return None


def has_fields(value: Any) -> bool:
    """Return whether a value is an object whose attributes are values."""
    return not isinstance(value, dict | list) and contents(value) is not None


def is_method(owner: Any, name: str) -> bool:
    """Return whether an attribute is computed from the whole object."""
    return inspect.isfunction(found := inspect.getattr_static(owner, name, None)) or isinstance(
        found, property | functools.cached_property
    )


def constant(node: ast.expr, namespace: Mapping[str, Any]) -> tuple[bool, Any]:
    """Return whether a subscript is a constant in this run, and its value."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | int), node.value
    simple = ast.Name | ast.Constant | ast.BinOp | ast.UnaryOp | ast.JoinedStr | ast.FormattedValue
    others = ast.operator | ast.unaryop | ast.expr_context | ast.Tuple
    if not all(isinstance(part, simple | others) for part in ast.walk(node)):
        return False, None
    try:
        code = compile(ast.fix_missing_locations(ast.Expression(node)), "<study>", "eval")
        key: Any = eval(code, dict(namespace))
    except Exception:
        return False, None
    key = int(cast(Any, key)) if isinstance(key, np.integer) else key
    parts = cast(tuple[Any, ...], key) if isinstance(key, tuple) else (key,)
    return all(isinstance(part, str | int) for part in parts), cast(Any, key)


def canonical(name: str, namespace: Mapping[str, Any]) -> str:
    """Return the first path to the object that a name stands for."""
    return path_to(namespace.get(name), namespace) or name


def path_to(value: Any, namespace: Mapping[str, Any]) -> str | None:
    """Return the first path to an object, dict, list or tuple; None if there is none."""
    return next((path for path, each in containers(namespace) if each is value), None)


def containers(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all objects, dicts, lists and tuples with their paths."""
    seen = set[int]()

    def below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        parts = contents(value)
        if parts is not None and id(value) not in seen:
            seen.add(id(value))
            yield path, value
            for _, how, part in parts:
                yield from below(path + how, part)

    # Names that the source does not have come last.
    for name in sorted(namespace, key=lambda name: SCOPE in name):
        if not name.startswith("__"):
            yield from below(name, namespace[name])
