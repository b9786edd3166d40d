"""Read the expression of a forward line for differentiation.

Methods, aliases and short functions of the user's file are replaced by NumPy's functions, and axes
by numbers: `x.sum(-1)`, `np.sum(x, axis=1)` and `sum(axis=1)` of the same x become one expression,
with the functions of operations.py, as op. Only functions without side effects are read.
"""

import ast
import builtins
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np

from tinygpt_np.study.proof import operations
from tinygpt_np.study.proof.inline import inlined, substituted
from tinygpt_np.study.source.paths import leaf, resolve
from tinygpt_np.study.source.shapes import is_shape

# Functions whose result has no gradient: constants, integers and conditions.
WITHOUT_GRADIENT = {
    *("np.real", "np.sign", "np.floor", "np.ceil", "np.round", "np.rint", "np.trunc", "np.argmax"),
    *("np.argmin", "np.argsort", "np.isfinite", "np.isnan", "np.any", "np.all", "np.zeros_like"),
    *("np.ones_like", "np.full_like", "np.empty_like", "np.shape", "np.size", "np.ndim", "op.size"),
    *("np.logical_not", "np.logical_and", "np.logical_or", "np.heaviside", "len", "range"),
}
REDUCTIONS = {"sum", "mean", "max", "min", "amax", "amin", "var", "std"}
METHODS = {
    *REDUCTIONS, "reshape", "ravel", "flatten", "squeeze", "transpose", "swapaxes", "dot", "clip",
    "copy", "astype", "any", "all", "argmax", "argmin", "round",
}  # fmt: skip
# Functions that have a shorter form.
SHORTER = {
    "add": "a + b", "subtract": "a - b", "multiply": "a * b", "divide": "a / b", "power": "a ** b",
    "matmul": "a @ b", "negative": "-a", "square": "a ** 2", "reciprocal": "1 / a",
    "absolute": "np.abs(a)",
}  # fmt: skip
RESHAPING = {"reshape", "ravel", "flatten", "squeeze", "expand_dims"}
PERMUTING = {"transpose", "swapaxes", "moveaxis"}
COPYING = {"copy", "array", "asarray", "ascontiguousarray", "astype"}
BUILTINS = {"len", "range", "int", "float", "max", "min", "abs", "bool", "tuple", "list"}
IMPURE = {"copyto", "put", "place", "putmask", "fill_diagonal", "save", "savetxt", "load", "seterr"}
# Functions of the user's file with these names are taken for what they are called.
HELPERS = ("softmax", "log_softmax")


class UnknownError(Exception):
    """Raised if an expression cannot be read or has no known derivative."""


class Reader:
    """Reads the expressions of one line in the namespace in which it runs.

    stated: the shape that a comment or docstring states for a name, or "". is_differentiable: of a
    name. arguments: the letters of the axes of forward's arguments, by shape. own: the names in the
    line. names: the namespace with the functions of operations.py.
    """

    def __init__(
        self,
        names: Mapping[str, Any],
        is_differentiable: Callable[[str], bool],
        stated: Callable[[str], str],
        arguments: Mapping[tuple[int, ...], list[str]],
        own: Iterable[str] = (),
    ) -> None:
        if names.get("np", np) is not np or "op" in names:
            raise UnknownError("np and op have another meaning here")
        self.names: dict[str, Any] = {**names, "np": np, "op": operations}
        self.original, self.stated = names, stated
        self.is_differentiable, self.arguments = is_differentiable, arguments
        self.own = {*own}
        self.paths: dict[str, str] = {}  # The path of each name, as in paths.py.
        self.seen: dict[str, tuple[int, ...]] = {}  # The shapes of what the line reads or sets.
        self.values: dict[str, Any] = {}

    def value(self, tree: ast.expr) -> Any:
        """Return the value of an expression."""
        key = ast.dump(tree)
        if key not in self.values:
            self.values[key] = evaluated(tree, self.names)
        return self.values[key]

    def shape(self, tree: ast.expr) -> tuple[int, ...]:
        """Return the shape of an expression."""
        return np.shape(self.value(tree))

    def operands(self, tree: ast.expr) -> set[str]:
        """Return the names through which a gradient flows into an expression."""
        match tree:
            case ast.Name(name):
                return {name} if self.is_differentiable(name) else set()
            case ast.Compare() | ast.Attribute() | ast.Constant():
                return set()
            case ast.Call(func, args) if ast.unparse(func) not in WITHOUT_GRADIENT:
                parts = args
            case ast.Subscript(value):
                parts = [value]
            case ast.Call():
                return set()
            case _:
                parts = [part for part in ast.iter_child_nodes(tree) if isinstance(part, ast.expr)]
        return {name for part in parts for name in self.operands(part)}

    # Reading

    def read(self, node: ast.expr) -> ast.expr:
        """Return an expression in terms of NumPy's functions and those of operations.py."""
        match node:
            case ast.Name(name):
                if name not in self.names:
                    raise UnknownError(name)
                return self.named(name, self.names[name])
            case ast.Constant():
                return node
            case ast.Attribute() | ast.Subscript():
                return self.part(node)
            case ast.BinOp(left, operator, right):
                return ast.BinOp(self.read(left), operator, self.read(right))
            case ast.UnaryOp(ast.UAdd(), operand):
                return self.read(operand)
            case ast.UnaryOp(operator, operand):
                return ast.UnaryOp(operator, self.read(operand))
            case ast.Compare(left, operators, others):
                return ast.Compare(self.read(left), operators, [*map(self.read, others)])
            case ast.IfExp(test, body, orelse):
                return self.read(body if self.value(self.read(test)) else orelse)
            case ast.Tuple(parts) | ast.List(parts):
                return ast.Tuple([*map(self.read, parts)], ast.Load())
            case ast.Call():
                return self.call(node)
            case _:
                raise UnknownError(ast.unparse(node))

    def part(self, node: ast.Attribute | ast.Subscript) -> ast.expr:
        """Read an attribute or an index: of an array, or of an object that has arrays."""
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".shape"):
            return self.length(node)
        base = self.read(node.value)
        value = self.value(base)
        if isinstance(value, np.ndarray):
            is_index = isinstance(node, ast.Subscript)
            return self.indexed(base, node) if is_index else self.attribute(base, node)
        whole = evaluated(node, self.original)
        if not isinstance(whole, np.ndarray):
            return node
        return self.named(resolve(node, self.original) or ast.unparse(node), whole)

    def named(self, path: str, value: Any) -> ast.expr:
        """Return the value at a path as a name, which is the last in the path if that is free."""
        name = leaf(path)
        if self.paths.get(name, path) != path or (name != path and name in self.own):
            name = path
        self.paths[name], self.names[name] = path, value
        if isinstance(value, np.ndarray):
            self.seen[name] = np.shape(cast(Any, value))
        return ast.Name(name)

    def length(self, node: ast.Subscript) -> ast.expr:
        """Read x.shape[i], the length of an axis."""
        assert isinstance(node.value, ast.Attribute)
        array, axis = self.read(node.value.value), evaluated(node.slice, self.original)
        if not isinstance(axis, int):
            raise UnknownError(ast.unparse(node))
        return self.size(array, (axis,))

    def attribute(self, base: ast.expr, node: ast.Attribute) -> ast.expr:
        """Read an attribute of an array."""
        match node.attr:
            case "T" | "mT":
                ndim = len(self.shape(base))
                order = tuple(range(ndim))[::-1]
                return self.permuted(base, order if node.attr == "T" else last_two(ndim))
            case "size":
                return self.size(base, tuple(range(len(self.shape(base)))))
            case "shape" | "ndim" | "dtype":
                return node
            case _:
                raise UnknownError(ast.unparse(node))

    def indexed(self, base: ast.expr, node: ast.Subscript) -> ast.expr:
        """Read an index of an array; one that only adds axes is a change of shape."""
        index = evaluated(ast.Subscript(parsed("op.index"), node.slice), self.names)
        if all(part is None or part is ... or is_whole(part) for part in parts_of(index)):
            return self.shaped(base, self.value(base)[index].shape)
        return ast.Subscript(base, node.slice, ast.Load())

    def call(self, node: ast.Call) -> ast.expr:
        """Read a call."""
        if any(keyword.arg is None for keyword in node.keywords):
            raise UnknownError(ast.unparse(node))
        name, args = self.function(node)
        keywords = {str(keyword.arg): keyword.value for keyword in node.keywords}
        short = name.removeprefix("np.")
        if not name:
            return self.inlined(node)
        if name in BUILTINS:
            return self.builtin(name, args, node)
        if name == "np.einsum":
            return self.einsum(args)
        if name == "np.where" and len(args) != 3:
            raise UnknownError(name)
        if short in REDUCTIONS:
            return self.reduction(short, args, keywords)
        if short in RESHAPING | PERMUTING:
            return self.rearranged(short, args, keywords)
        if short in ("concatenate", "hstack", "vstack", "stack"):
            return self.joined(short, args, keywords)
        read = [self.read(arg) for arg in args]
        if short in SHORTER:
            return substituted(parsed(SHORTER[short]), dict(zip("ab", read, strict=False)))
        if short == "dot" and all(len(self.shape(each)) <= 2 for each in read):
            return ast.BinOp(read[0], ast.MatMult(), read[1])
        if short in COPYING:
            return self.copied(read[0], node)
        if short == "pad":
            return self.padded(read, keywords)
        if short == "clip":
            read += [self.read(keywords.pop(k)) for k in ("a_min", "min") if k in keywords]
            read += [self.read(keywords.pop(k)) for k in ("a_max", "max") if k in keywords]
        rest = [ast.keyword(key, self.read(value)) for key, value in keywords.items()]
        return ast.Call(parsed(name), read, rest)

    def function(self, node: ast.Call) -> tuple[str, list[ast.expr]]:
        """Return the name of a function and its arguments; "" for a function of the user's."""
        func = node.func
        if isinstance(func, ast.Attribute):
            owner = self.owner(func.value)
            if isinstance(owner, np.ndarray | np.generic) and func.attr in METHODS:
                return f"np.{func.attr}", [func.value, *node.args]
            if owner is np and func.attr not in IMPURE and callable(getattr(np, func.attr, None)):
                return f"np.{func.attr}", node.args
            return "", node.args
        found = self.owner(func)
        name = getattr(found, "__name__", "")
        if getattr(builtins, name, None) is found and name in BUILTINS:
            return name, node.args
        if getattr(np, name, None) is found:
            return f"np.{name}", node.args
        module = getattr(found, "__module__", "")
        if name == "error_function" and module.startswith("tinygpt_np.ops"):
            return "op.erf", node.args
        if name == "erf" and module.startswith("scipy"):
            return "op.erf", node.args
        if name in ("split_heads", "merge_heads") and module.startswith("tinygpt_np.ops"):
            return f"op.{name}", node.args
        return "", node.args

    def owner(self, node: ast.expr) -> Any:
        """Return the value of a function or of the object of a method."""
        if isinstance(node, ast.Name | ast.Attribute) and is_path(node):
            return evaluated(node, self.original)
        return self.value(self.read(node))

    def builtin(self, name: str, args: list[ast.expr], node: ast.Call) -> ast.expr:
        """Read a call of a function of Python, which has no gradient."""
        read = [self.read(arg) for arg in args]
        if name == "len" and isinstance(self.value(read[0]), np.ndarray):
            return self.size(read[0], (0,))
        if name == "abs":
            return ast.Call(parsed("np.abs"), read, [])
        if any(self.operands(each) for each in read):
            raise UnknownError(name)
        return ast.Call(ast.Name(name), read, node.keywords)

    def inlined(self, node: ast.Call) -> ast.expr:
        """Read a call of a function of the user: a well-known or a short one."""
        function = self.owner(node.func)
        name = getattr(function, "__name__", "")
        if not inspect.isroutine(function):
            raise UnknownError(name)
        if name in HELPERS and len(node.args) == 1 and not node.keywords:
            if self.original.get(name, function) is not function:
                raise UnknownError(name)
            self.names[name] = function
            return ast.Call(ast.Name(name), [self.read(node.args[0])], [])
        return self.read(self.returned(node))

    def returned(self, node: ast.Call) -> ast.expr:
        """Return what a short function of the user returns, as an expression that is not read."""
        found = inlined(self.owner(node.func), node, self.original)
        if found is None:
            raise UnknownError(ast.unparse(node))
        return found

    # Functions

    def reduction(self, kind: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> ast.expr:
        """Read a sum, mean, …, as aggregate(kind, x, axes, keeps, label)."""
        kind = kind.removeprefix("a") if kind in ("amax", "amin") else kind
        x, *rest = args
        keywords = {**dict(zip(("axis",), rest, strict=False)), **keywords}
        if len(rest) > 1 or not {*keywords} <= {"axis", "keepdims"}:
            raise UnknownError(kind)
        given = {name: self.value(self.read(value)) for name, value in keywords.items()}
        array = self.read(x)
        ndim, axis = len(self.shape(array)), given.get("axis")
        if ndim == 0:
            raise UnknownError(kind)
        axes = tuple(int(each) % ndim for each in (range(ndim) if axis is None else parts_of(axis)))
        options = (axes, bool(given.get("keepdims")), self.label(array, axes))
        return call("op.aggregate", constant(kind), array, *map(constant, options))

    def rearranged(
        self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]
    ) -> ast.expr:
        """Read a change of shape, or of the order of the axes."""
        array = self.read(args[0])
        function = getattr(np, {"flatten": "ravel"}.get(name, name))
        given = [self.value(self.read(arg)) for arg in args[1:]]
        if name in ("reshape", "transpose") and len(given) > 1:
            given = [tuple(given)]
        named = {key: self.value(self.read(value)) for key, value in keywords.items()}
        if name in RESHAPING:
            if "order" in named:
                raise UnknownError(name)
            return self.shaped(array, function(self.value(array), *given, **named).shape)
        # The axes are told apart by their lengths.
        ndim = len(self.shape(array))
        moved = function(np.zeros(range(2, 2 + ndim)), *given, **named)
        return self.permuted(array, tuple(length - 2 for length in moved.shape))

    def permuted(self, array: ast.expr, order: tuple[int, ...]) -> ast.expr:
        """Return an array with its axes in another order."""
        if order == tuple(range(len(order))):
            return array
        if order == last_two(len(order)):
            return call("op.transpose", array)
        return call("op.permuted", array, constant(order))

    def shaped(self, array: ast.expr, shape: tuple[int, ...]) -> ast.expr:
        """Return an array in another shape, named if it has other axes than of length 1."""
        old = [length for length in self.shape(array) if length != 1]
        label = "" if old == [length for length in shape if length != 1] else str(shape)
        return call("op.shaped", array, constant(shape), constant(label))

    def joined(self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> ast.expr:
        """Read a concatenation or a stack of arrays, as np.concatenate or np.stack with an axis."""
        arrays = self.read(args[0])
        if not isinstance(arrays, ast.Tuple) or len(args) > 2 or not {*keywords} <= {"axis"}:
            raise UnknownError(name)
        axis = [*args[1:], *keywords.values()]
        number = int(self.value(self.read(axis[0]))) if axis else 0
        ndim = len(self.shape(arrays.elts[0]))
        if name == "hstack" and ndim > 1:
            number = 1
        elif name == "vstack" and ndim < 2:
            raise UnknownError(name)
        is_stack = name == "stack"
        function = "np.stack" if is_stack else "np.concatenate"
        return call(function, arrays, constant(number % (ndim + is_stack)))

    def padded(self, args: list[ast.expr], keywords: dict[str, ast.expr]) -> ast.expr:
        """Read a padding with zeros, as np.pad(x, ((before, after), …))."""
        x, widths, *rest = args
        modes = [self.value(each) for each in (*rest, *map(self.read, keywords.values()))]
        if {*modes} - {"constant", 0}:
            raise UnknownError("pad")
        pairs = np.broadcast_to(np.asarray(self.value(widths), int), (len(self.shape(x)), 2))
        return call("np.pad", x, constant(tuple((int(a), int(b)) for a, b in pairs)))

    def einsum(self, args: list[ast.expr]) -> ast.expr:
        """Read an einsum that names the indices of its result after an arrow."""
        indices, *arrays = args
        text = self.value(indices)
        if not isinstance(text, str) or "->" not in text:
            raise UnknownError("einsum")
        return call("np.einsum", constant(text.replace(" ", "")), *map(self.read, arrays))

    def copied(self, array: ast.expr, node: ast.Call) -> ast.expr:
        """Read a copy; of floats as floats, because other copies have no gradient."""
        kinds = [np.asarray(v).dtype.kind for v in (self.value(array), self.value(node))]
        if kinds[0] == kinds[1] and not isinstance(array, ast.Tuple):
            return call("np.copy", array)
        if self.operands(array):
            raise UnknownError(ast.unparse(node))
        return node

    # Axes

    def size(self, array: ast.expr, axes: Iterable[int]) -> ast.expr:
        """Return the product of the lengths of some axes of an array, named by their letters."""
        shape, letters = self.shape(array), self.letters(array)
        axes = [axis % len(shape) for axis in axes]
        number = int(np.prod([shape[axis] for axis in axes]))
        named = [letters[axis] for axis in axes]
        if not all(named):
            return constant(number)
        label = "·".join(named)
        label = f"({label})" if len(named) > 1 else label
        return call("op.size", constant(number), constant(label))

    def label(self, array: ast.expr, axes: Iterable[int]) -> str:
        """Return the letters of some axes of an array, or their numbers; "" for all axes."""
        return self.label_of(self.shape(array), axes, self.letters(array))

    def label_of(
        self, shape: tuple[int, ...], axes: Iterable[int], letters: list[str] | None = None
    ) -> str:
        """Return the letters of some axes of an array of this shape, or their numbers."""
        letters, axes = letters or self.letters_of(shape), [*axes]
        if all(letters[axis] for axis in axes):
            return ",".join(letters[axis] for axis in axes)
        if len(axes) == len(letters):
            return ""
        return f"{'axis' if len(axes) == 1 else 'axes'} {','.join(map(str, axes))}"

    def letters(self, array: ast.expr) -> list[str]:
        """Return the letters of the axes of an array, "" for those without."""
        shape = self.shape(array)
        if isinstance(array, ast.Name) and (found := self.stated_letters(array.id, shape)):
            return found
        return self.letters_of(shape)

    def letters_of(self, shape: tuple[int, ...]) -> list[str]:
        """Return the letters of the axes of an array of this shape, "" for those without."""
        for name, other in self.seen.items():
            if other == shape and (found := self.stated_letters(name, shape)):
                return found
        if len(shape) > 1 and (found := self.arguments.get(shape)):
            return found
        known: dict[int, set[str]] = {}
        for name, other in self.seen.items():
            for length, letter in zip(other, self.stated_letters(name, other), strict=False):
                known.setdefault(length, set()).add(letter)
        one = {length: next(iter(found)) for length, found in known.items() if len(found) == 1}
        return [one.get(length, "") for length in shape]

    def stated_letters(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """Return the letters that the source states for a name of this shape, or []."""
        return letters_in(self.stated(name), len(shape))


def letters_in(stated: str, ndim: int) -> list[str]:
    """Return the letters of the axes in a shape such as (N, 3C); [] if it has another number."""
    if not stated or not is_shape(stated):
        return []
    parts = [part.strip() for part in stated.strip("()").split(",") if part.strip()]
    if parts[:1] == ["..."]:
        parts = [""] * (ndim - len(parts) + 1) + parts[1:]
    parts = [part if any(c.isalpha() for c in part) else "" for part in parts]
    return parts if len(parts) == ndim else []


def evaluated(tree: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression in a namespace; raise UnknownError if it has none."""
    try:
        code = compile(ast.fix_missing_locations(ast.Expression(loaded(tree))), "<rule>", "eval")
        with np.errstate(all="ignore"):
            return eval(code, dict(names))
    except Exception as error:
        raise UnknownError(f"{type(error).__name__}: {error}") from None


def loaded(tree: ast.expr) -> ast.expr:
    """Return an expression whose names are read."""
    for part in ast.walk(tree):
        if isinstance(part, ast.Name | ast.Attribute | ast.Subscript | ast.Tuple | ast.List):
            part.ctx = ast.Load()
    return tree


def parts_of(index: Any) -> tuple[Any, ...]:
    """Return the parts of an index, or of some axes."""
    return cast(tuple[Any, ...], index) if isinstance(index, tuple) else (index,)


def arrays_in(index: Any) -> list[Any]:
    """Return the arrays among the parts of an index."""
    parts: tuple[Any, ...] = parts_of(index)
    return [
        np.asarray(cast(Any, part)) for part in parts if isinstance(part, np.ndarray | list | range)
    ]


def is_whole(index: Any) -> bool:
    """Return whether an index is the slice of a whole axis."""
    return isinstance(index, slice) and index == slice(None)


def is_path(node: ast.expr) -> bool:
    """Return whether a node is a name or an attribute of one."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and is_path(node.value))


def last_two(ndim: int) -> tuple[int, ...]:
    """Return the order of axes with the last two exchanged."""
    order = [*range(ndim)]
    return tuple(order[:-2] + order[-2:][::-1])


def parsed(text: str) -> ast.expr:
    """Return an expression."""
    return ast.parse(text, mode="eval").body


def constant(value: Any) -> ast.expr:
    """Return a constant."""
    return ast.Constant(value)


def call(name: str, *args: ast.expr) -> ast.Call:
    """Return a call of a function."""
    return ast.Call(parsed(name), [*args], [])
