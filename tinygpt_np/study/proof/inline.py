"""Inline calls of short functions of a user: what they return, in terms of their arguments."""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

# A function that returns a longer expression is not inlined.
LONGEST = 400


def inlined(
    function: Callable[..., Any], node: ast.Call, names: Mapping[str, Any]
) -> ast.expr | None:
    """Return what a call returns, as an expression for the place of the call, or None.

    The function may assign local names before its return. names: the namespace of the call, in
    which the global names of the function must mean the same.
    """
    body, given = parsed_body(function), arguments(function, node)
    if body is None or given is None:
        return None
    local = dict(given)
    for statement in body:
        match statement:
            case ast.Assign([ast.Name(name)], value):
                local[name] = substituted(value, local)
            case ast.Return(value=ast.expr() as value):
                own = {
                    part.id for part in ast.walk(ast.Module(body, [])) if isinstance(part, ast.Name)
                }
                if not all(same_meaning(name, function, names) for name in own - {*local}):
                    return None
                result = substituted(value, local)
                return result if len(ast.unparse(result)) <= LONGEST else None
            case _:
                return None
    return None


def parsed_body(function: Callable[..., Any]) -> list[ast.stmt] | None:
    """Return the statements of a plain function, without its docstring."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    decorators = [ast.unparse(each) for each in tree.decorator_list]
    return (
        tree.body[bool(ast.get_docstring(tree)) :] if decorators in ([], ["staticmethod"]) else None
    )


def arguments(function: Callable[..., Any], node: ast.Call) -> dict[str, ast.expr] | None:
    """Return the arguments of a call by name, as expressions; defaults that are numbers too."""
    first = (
        [node.func.value]
        if inspect.ismethod(function) and isinstance(node.func, ast.Attribute)
        else []
    )
    keywords = {str(keyword.arg): keyword.value for keyword in node.keywords}
    signature = inspect.signature(getattr(function, "__func__", function))
    try:
        given: dict[str, Any] = dict(signature.bind(*first, *node.args, **keywords).arguments)
    except TypeError:
        return None
    for name, parameter in signature.parameters.items():
        if name not in given and isinstance(parameter.default, int | float | None):
            given[name] = ast.Constant(parameter.default)
    plain = all(
        isinstance(each, ast.expr) and not isinstance(each, ast.Starred) for each in given.values()
    )
    return given if plain and {*given} == {*signature.parameters} else None


def same_meaning(name: str, function: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    """Return whether a global name of a function means the same in another namespace."""
    inside = getattr(function, "__globals__", {}).get(name)
    return names.get(name, inside) is inside


def substituted(tree: ast.expr, names: Mapping[str, ast.expr]) -> ast.expr:
    """Return an expression with names replaced by expressions."""

    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return names.get(node.id, node)

    return Substitute().visit(copy.deepcopy(tree))
