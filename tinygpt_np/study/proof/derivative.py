"""The rules of differentiation, and the chain rule that applies them to an expression.

In a rule, y is the value of an expression, dy its gradient, and the other names are its operands;
gradients are expressions too, of NumPy's functions and those of operations.py. An operand that was
broadcast gets the sum of its gradient over the broadcast axes; `gradients_of` adds that sum.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygpt_np.study.proof.expression import (
    Reader,
    UnknownError,
    arrays_in,
    call,
    constant,
    parsed,
)
from tinygpt_np.study.proof.inline import substituted


@dataclass(frozen=True)
class Pattern:
    """A rule: its name, the expression it is for, the gradients of its operands, and the reason.

    more: reasons for single operands, given if a gradient flows into them.
    """

    name: str
    expression: str
    gradients: Mapping[str, str]
    why: str = ""
    more: Mapping[str, str] = field(default_factory=dict[str, str])


FACTOR = "The gradient is multiplied by the derivative of the function."
# The first pattern that fits applies.
PATTERNS = (
    Pattern("sum", "a + b", {"a": "dy", "b": "dy"},
            "Each term of a sum has the factor 1 and gets the gradient unchanged."),
    Pattern("difference", "a - b", {"a": "dy", "b": "-dy"}, more={
            "a": "{a} has the factor 1 and gets the gradient unchanged.",
            "b": "{b} has the factor -1."}),
    Pattern("negative", "-a", {"a": "-dy"}, "The factor is -1."),
    Pattern("square", "x * x", {"x": "2 * dy * x"},
            "The product rule with both factors equal: the two terms add up."),
    Pattern("product", "a * b", {"a": "dy * b", "b": "dy * a"},
            "The derivative with respect to one factor is the other factor."),
    Pattern("sigmoid", "1 / (1 + np.exp(-x))", {"x": "dy * y * (1 - y)"},
            "With y = 1 / (1 + exp(-x)), the derivative is exp(-x) / (1 + exp(-x))² = y (1 - y)."),
    Pattern("quotient", "a / b", {"a": "dy / b", "b": "-dy * y / b"}, more={
            "a": "The numerator has the factor 1/{b}.",
            "b": "The derivative of 1/{b} is -1/{b}², and {a}/{b}² is {y}/{b}."}),
    Pattern("power", "x ** n", {"x": "dy * n * x ** (n - 1)", "n": "dy * y * np.log(x)"},
            "The derivative of xⁿ is n xⁿ⁻¹."),
    Pattern("selection", "np.where(c, a, b)",
            {"a": "np.where(c, dy, 0)", "b": "np.where(c, 0, dy)"},
            "An element that was not selected does not affect the result. The condition has no "
            "gradient."),
    Pattern("ReLU", "np.maximum(x, 0)", {"x": "np.where(x > 0, dy, 0)"},
            "Where x is negative, the result stays 0 and does not depend on x."),
    Pattern("ReLU", "np.maximum(0, x)", {"x": "np.where(x > 0, dy, 0)"},
            "Where x is negative, the result stays 0 and does not depend on x."),
    Pattern("larger of two", "np.maximum(a, b)",
            {"a": "np.where(a > b, dy, 0)", "b": "np.where(b > a, dy, 0)"},
            "Only the larger one affects the result."),
    Pattern("smaller of two", "np.minimum(a, b)",
            {"a": "np.where(a < b, dy, 0)", "b": "np.where(b < a, dy, 0)"},
            "Only the smaller one affects the result."),
    Pattern("clip", "np.clip(x, low, high)", {"x": "np.where((low < x) & (x < high), dy, 0)"},
            "A clipped element does not depend on x."),
    Pattern("absolute value", "np.abs(x)", {"x": "dy * np.sign(x)"},
            "The derivative is 1 for positive and -1 for negative x."),
    Pattern("exponential", "np.exp(x)", {"x": "dy * y"}, "The derivative of exp is exp itself."),
    Pattern("exponential", "np.expm1(x)", {"x": "dy * np.exp(x)"},
            "The derivative of exp(x) - 1 is exp(x)."),
    Pattern("logarithm", "np.log(x)", {"x": "dy / x"}, "The derivative of log x is 1/x."),
    Pattern("logarithm", "np.log1p(x)", {"x": "dy / (1 + x)"},
            "The derivative of log(1 + x) is 1/(1 + x)."),
    Pattern("log of a sum", "np.logaddexp(a, b)",
            {"a": "dy * np.exp(a - y)", "b": "dy * np.exp(b - y)"},
            "Each term gets the gradient times its share of the sum of exponentials."),
    Pattern("square root", "np.sqrt(x)", {"x": "dy / (2 * y)"},
            "The derivative of √x is 1/(2√x)."),
    Pattern("tanh", "np.tanh(x)", {"x": "dy * (1 - y ** 2)"},
            "The derivative of tanh is 1 - tanh²."),
    Pattern("error function", "op.erf(x)", {"x": "2 * dy * np.exp(-x ** 2) / np.sqrt(np.pi)"},
            "The derivative of erf(x) is 2/√π exp(-x²), by its definition as an integral."),
    Pattern("sine", "np.sin(x)", {"x": "dy * np.cos(x)"}, FACTOR),
    Pattern("cosine", "np.cos(x)", {"x": "-dy * np.sin(x)"}, FACTOR),
    Pattern("hyperbolic sine", "np.sinh(x)", {"x": "dy * np.cosh(x)"}, FACTOR),
    Pattern("hyperbolic cosine", "np.cosh(x)", {"x": "dy * np.sinh(x)"}, FACTOR),
    Pattern("arctangent", "np.arctan(x)", {"x": "dy / (1 + x ** 2)"}, FACTOR),
    Pattern("copy", "np.copy(x)", {"x": "dy"},
            "The values are the same, so the gradient is the same."),
)  # fmt: skip


@dataclass(frozen=True)
class Match:
    """A rule for an expression: its operands and constants by name, and the operands' gradients.

    is_elementwise: whether operands are broadcast to the shape of the result.
    """

    name: str
    operands: Mapping[str, ast.expr]
    gradients: Mapping[str, str]
    why: str = ""
    more: Mapping[str, str] = field(default_factory=dict[str, str])
    is_elementwise: bool = False


PARSED = [(pattern, parsed(pattern.expression)) for pattern in PATTERNS]
MOVED = "Only the positions of the elements change, so the gradient is moved back."


def matched(tree: ast.expr, reader: Reader) -> Match:
    """Return the rule for an expression; raise UnknownError if there is none."""
    match tree:
        case ast.BinOp(a, ast.MatMult(), b):
            return matrix_product(a, b, reader)
        case ast.Subscript(x, index):
            return indexed(x, index, tree, reader)
        case ast.Call(func, args) if (name := ast.unparse(func)) in CALLS:
            return CALLS[name](args, reader)
        case _:
            pass
    for pattern, expression in PARSED:
        operands: dict[str, ast.expr] = {}
        if fits(expression, tree, operands):
            return Match(pattern.name, operands, pattern.gradients, pattern.why, pattern.more, True)
    raise UnknownError(ast.unparse(tree))


def fits(pattern: Any, tree: Any, operands: dict[str, ast.expr]) -> bool:
    """Return whether an expression has the form of a pattern, and record what its names are."""
    match pattern, tree:
        case ast.Name(name), ast.expr():
            known = operands.setdefault(name, tree)
            return ast.dump(known) == ast.dump(tree)
        case ast.Constant(value=a), ast.Constant(value=b):
            return a == b
        case ast.Call(func, args), ast.Call(other, others, keywords):
            return (
                ast.unparse(func) == ast.unparse(other)
                and len(args) == len(others)
                and not keywords
                and all(fits(a, b, operands) for a, b in zip(args, others, strict=True))
            )
        case ast.BinOp(left, operator, right), ast.BinOp(a, other, b):
            same = type(operator) is type(other)
            return same and fits(left, a, operands) and fits(right, b, operands)
        case ast.UnaryOp(operator, x), ast.UnaryOp(other, a):
            return type(operator) is type(other) and fits(x, a, operands)
        case _:
            return False


# Rules that depend on shapes or on constant arguments


def matrix_product(a: ast.expr, b: ast.expr, reader: Reader) -> Match:
    """Return the rule of a @ b, by the number of axes of both."""
    shapes = reader.shape(a), reader.shape(b)
    operands = {"a": a, "b": b}
    rest = "The shapes allow no other product."
    match len(shapes[0]), len(shapes[1]):
        case 1, 1:
            gradients = {"a": "dy * b", "b": "dy * a"}
            why = "As for a product: each factor gets dy times the other one."
        case 1, 2:
            gradients = {"a": "b @ dy", "b": "np.outer(a, dy)"}
            why = f"The element in row i and column k of the matrix multiplies a_i for y_k. {rest}"
        case 2, 1:
            gradients = {"a": "np.outer(dy, b)", "b": "op.transpose(a) @ dy"}
            why = f"The element in row i and column k of the matrix multiplies b_k for y_i. {rest}"
        case m, n if m > 1 and n > 1:
            gradients = {"a": "dy @ op.transpose(b)", "b": "op.transpose(a) @ dy"}
            why = (
                "With Y = A B, A_ij contributes B_jk to each Y_ik in row i, and B_jk contributes "
                f"A_ij to each in column k. {rest}"
            )
        case _:
            raise UnknownError("@")
    result = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
    for name, shape in zip("ab", shapes, strict=True):
        if len(shape) > 1 and shape[:-2] != result:  # Broadcast over the batch axes.
            operands |= summed(name, operands[name], shape, (*result, *shape[-2:]), reader)
            gradients[name] = f"op.sum_to({gradients[name]}, shape_{name}, label_{name})"
    return Match("matrix product", operands, gradients, why)


def summed(
    name: str, operand: ast.expr, shape: tuple[int, ...], result: tuple[int, ...], reader: Reader
) -> dict[str, ast.expr]:
    """Return the constants of a sum over the axes along which an operand was broadcast."""
    new = len(result) - len(shape)
    axes = [axis for axis in range(len(result)) if axis < new or shape[axis - new] != result[axis]]
    label = reader.label_of(result, axes)
    return {f"shape_{name}": constant(shape), f"label_{name}": constant(label)}


def reduction(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of a sum, mean, maximum, variance and so on."""
    kind, x, axes, _, label = args
    n = reader.size(x, reader.value(axes))
    spread = "op.spread(dy, shape, axes)"
    mean = call("op.aggregate", constant("mean"), x, axes, constant(True), label)
    operands = {
        "x": x, "shape": constant(reader.shape(x)), "axes": axes, "n": n, "mean": mean,
    }  # fmt: skip
    name, gradient, why = {
        "sum": ("sum over an axis", spread,
                "Each summand enters with the factor 1, so each gets the gradient of the sum."),
        "mean": ("mean", f"{spread} / n", "As for a sum, and each summand has the weight 1/n."),
        "max": ("maximum", f"np.where(x == op.spread(y, shape, axes), {spread}, 0)",
                "Only the largest element affects the result."),
        "min": ("minimum", f"np.where(x == op.spread(y, shape, axes), {spread}, 0)",
                "Only the smallest element affects the result."),
        "var": ("variance", f"2 * {spread} * (x - mean) / n",
                "Each squared deviation has the weight 1/n. The mean in it adds nothing, because "
                "the deviations sum to zero."),
        "std": ("standard deviation", f"{spread} * (x - mean) / (n * op.spread(y, shape, axes))",
                "The square root of the variance: its derivative has the factor 1/(2y)."),
    }[reader.value(kind)]  # fmt: skip
    return Match(name, operands, {"x": gradient}, why)


def reshaped(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of a change of shape."""
    x, _, label = args
    shape = reader.shape(x)
    letters = reader.letters(x)
    back = f"({', '.join(letters)})" if all(letters) else str(shape)
    operands = {
        "x": x,
        "shape": constant(shape),
        "label": constant(back if reader.value(label) else ""),
    }
    return Match("rearrangement", operands, {"x": "op.shaped(dy, shape, label)"}, MOVED)


def permuted(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of another order of the axes."""
    x, order = args
    back = tuple(np.argsort(reader.value(order)).tolist())
    return Match(
        "rearrangement", {"x": x, "back": constant(back)}, {"x": "op.permuted(dy, back)"}, MOVED
    )


def transposed(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of a transpose."""
    return Match("transpose", {"x": args[0]}, {"x": "op.transpose(dy)"}, MOVED)


def heads_split(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of split_heads."""
    return Match("rearrangement", {"x": args[0]}, {"x": "op.merge_heads(dy)"}, MOVED)


def heads_merged(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of merge_heads."""
    (x,) = args
    operands = {"x": x, "b": reader.size(x, (0,)), "h": reader.size(x, (1,))}
    return Match("rearrangement", operands, {"x": "op.split_heads(dy, b, h)"}, MOVED)


def concatenated(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of arrays that are joined along an axis."""
    arrays, axis = args
    assert isinstance(arrays, ast.Tuple)
    number, start, gradients = int(reader.value(axis)), 0, dict[str, str]()
    for index, each in enumerate(arrays.elts):
        end: int = start + reader.shape(each)[number]
        gradients[f"x{index}"] = f"dy[{':, ' * number}{start or ''}:{end}]"
        start = end
    operands = {f"x{index}": each for index, each in enumerate(arrays.elts)}
    return Match("concatenation", operands, gradients, "Each part gets its part of the gradient.")


def stacked(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of arrays that are joined along a new axis."""
    arrays, axis = args
    assert isinstance(arrays, ast.Tuple)
    before = ":, " * reader.value(axis)
    places = [f"dy[{before}{i}]" for i in range(len(arrays.elts))]
    operands = {f"x{index}": each for index, each in enumerate(arrays.elts)}
    gradients = {f"x{index}": place for index, place in enumerate(places)}
    return Match("stack", operands, gradients, "Each part gets its part of the gradient.")


def padded(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of an array with constants around it."""
    x, widths = args
    ends = zip(reader.value(widths), reader.shape(x), strict=True)
    index = ", ".join(f"{before}:{before + length}" for (before, _), length in ends)
    why = "The elements of x are in the middle of the result; what is around them is constant."
    return Match("padding", {"x": x}, {"x": f"dy[{index}]"}, why)


def einsum(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of an einsum: the gradient takes the place of the operand."""
    indices, *arrays = args
    takes, _, gives = str(indices.value if isinstance(indices, ast.Constant) else "").partition(
        "->"
    )
    terms, operands, gradients = takes.split(","), dict[str, ast.expr](), dict[str, str]()
    for number, (array, term) in enumerate(zip(arrays, terms, strict=True)):
        others = [f"x{i}" for i in range(len(arrays)) if i != number]
        inputs = ",".join([gives, *(t for i, t in enumerate(terms) if i != number)])
        kept = "".join(letter for letter in term if letter in inputs)
        missing = tuple(axis for axis, letter in enumerate(term) if letter not in inputs)
        name = f"x{number}"
        operands |= {
            name: array, f"i{number}": constant(f"{inputs}->{kept}"),
            f"shape{number}": constant(reader.shape(array)), f"axes{number}": constant(missing),
        }  # fmt: skip
        text = f"np.einsum(i{number}, {', '.join(['dy', *others])})"
        gradients[name] = f"op.spread({text}, shape{number}, axes{number})" if missing else text
    why = (
        "Each operand gets the sum over all terms in which it occurs: the gradient of the result "
        "takes its place."
    )
    return Match("sum over indices", operands, gradients, why)


def indexed(x: ast.expr, index: ast.expr, tree: ast.expr, reader: Reader) -> Match:
    """Return the rule of an index."""
    place = ast.Subscript(parsed("op.index"), index)
    arrays = arrays_in(reader.value(place))
    operands = {"x": x, "shape": constant(reader.shape(x)), "place": place}
    gradients = {"x": "op.scattered(dy, shape, place)"}
    if any(each.dtype == bool for each in arrays):
        return Match("mask", operands, gradients, "Elements that are not selected get zero.")
    if arrays:
        why = (
            "The gradients of an element that is read several times add up; one that is not read "
            "gets zero."
        )
        return Match("lookup", operands, gradients, why)
    return Match("slice", operands, gradients, "The other elements get zero.")


def normalised(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of the softmax along the last axis."""
    x, ndim = args[0], len(reader.shape(args[0]))
    axes = (ndim - 1,)
    operands = {"x": x, "axes": constant(axes), "label": constant(reader.label(x, axes))}
    gradient = "y * (dy - op.aggregate('sum', dy * y, axes, True, label))"
    why = "From ∂y_j/∂x_i = y_j (δ_ij - y_i): the deviation of dy from its y-weighted mean."
    return Match("softmax", operands, {"x": gradient}, why)


def log_normalised(args: list[ast.expr], reader: Reader) -> Match:
    """Return the rule of the logarithm of the softmax along the last axis."""
    x, ndim = args[0], len(reader.shape(args[0]))
    axes = (ndim - 1,)
    operands = {"x": x, "axes": constant(axes), "label": constant(reader.label(x, axes))}
    gradient = "dy - np.exp(y) * op.aggregate('sum', dy, axes, True, label)"
    return Match("log-softmax", operands, {"x": gradient}, "From ∂y_j/∂x_i = δ_ij - exp(y_i).")


CALLS: dict[str, Callable[[list[ast.expr], Reader], Match]] = {
    "op.aggregate": reduction, "op.shaped": reshaped, "op.permuted": permuted,
    "op.transpose": transposed, "op.split_heads": heads_split, "op.merge_heads": heads_merged,
    "np.concatenate": concatenated, "np.stack": stacked, "np.pad": padded, "np.einsum": einsum,
    "softmax": normalised, "log_softmax": log_normalised,
}  # fmt: skip


# The chain rule


@dataclass(frozen=True)
class Term:
    """A term of the gradient of a name."""

    name: str
    value: ast.expr


def gradients_of(
    tree: ast.expr, gradient: ast.expr, value: ast.expr, reader: Reader
) -> Iterator[Match | Term]:
    """Yield the rules of an expression, outermost first, and the terms of the gradients of names.

    gradient: that of the expression. value: the expression, or a name for it.
    """
    if isinstance(tree, ast.Name):
        yield Term(tree.id, gradient)
        return
    rule = matched(tree, reader)
    yield replace(rule, operands={**rule.operands, "y": value})
    for name, text in rule.gradients.items():
        operand = rule.operands[name]
        if not reader.operands(operand):
            continue
        term = substituted(parsed(text), {**rule.operands, "dy": gradient, "y": value})
        shapes = reader.shape(operand), reader.shape(tree)
        if rule.is_elementwise and shapes[0] != shapes[1]:
            sums = summed(name, operand, *shapes, reader)
            term = call("op.sum_to", term, *sums.values())
        yield from gradients_of(operand, term, operand, reader)
