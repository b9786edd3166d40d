"""Simplify an expression of Python and write it as a formula.

The notation is that of the docstrings in ops/, which render/mathml.py converts: ∘ is the
elementwise product, · a product with a number, A B a matrix product, Σ_V a sum along the axis V,
and [x > 0] is 1 where the condition holds, else 0.
"""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce

# Precedence of the parts of a formula; a part of lower precedence than its place is bracketed.
WORDS, COMPARISON, SUM, QUOTIENT, PRODUCT, MATRIX, POWER, ATOM = range(8)
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=", ast.NotEq: "≠", ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
BOOLEAN: dict[type[ast.operator], str] = {ast.BitAnd: "and", ast.BitOr: "or"}
CONSTANTS = {"np.pi": "π", "np.inf": "∞", "np.e": "e"}
# Functions from which a number can be taken out as a factor.
LINEAR = ("sum_to", "spread", "shaped", "transpose", "einsum")
# Numbers such as 0.5 are written as fractions, others as decimal fractions.
LARGEST_DENOMINATOR = 16
FUNCTIONS = {
    "maximum": "max", "minimum": "min", "prod": "Π", "sum": "Σ", "permuted": "transpose",
}  # fmt: skip


# Simplify


@dataclass
class Factors:
    """A product: its number, with its sign, and the factors above and below the line."""

    number: Fraction | float = Fraction(1)
    above: list[ast.expr] = field(default_factory=list[ast.expr])
    below: list[ast.expr] = field(default_factory=list[ast.expr])

    def expression(self) -> ast.expr:
        """Return the product as an expression: a sign, a number, and at most one division."""
        if self.number == 0:
            return ast.Constant(0)
        over, under = abs(self.number), 1
        if isinstance(over, Fraction):
            over, under = over.numerator, over.denominator
        above, below = powers(self.above), powers(self.below)
        if over != 1 or not above:
            above = [ast.Constant(over), *above]
        if under != 1:
            below = [ast.Constant(under), *below]
        result = product(above)
        result = ast.BinOp(result, ast.Div(), product(below)) if below else result
        return ast.UnaryOp(ast.USub(), result) if self.number < 0 else result


def product(factors: list[ast.expr]) -> ast.expr:
    """Return the product of some factors."""
    return reduce(lambda a, b: ast.BinOp(a, ast.Mult(), b), factors)


def powers(factors: Iterable[ast.expr]) -> list[ast.expr]:
    """Return factors with equal ones joined to a power."""
    found: dict[str, tuple[ast.expr, int]] = {}
    for factor in factors:
        match factor:
            case ast.BinOp(base, ast.Pow(), ast.Constant(value=int() as exponent)):
                pass
            case _:
                base, exponent = factor, 1
        before = found.get(ast.dump(base), (base, 0))[1]
        found[ast.dump(base)] = base, before + exponent
    return [
        base if n == 1 else ast.BinOp(base, ast.Pow(), ast.Constant(n))
        for base, n in found.values()
    ]


class Algebra:
    """Rewrite expressions without changing their values; is_number: of an expression."""

    def __init__(self, is_number: Callable[[ast.expr], bool]) -> None:
        self.is_number = is_number

    def simplified(self, tree: ast.expr) -> ast.expr:
        """Return an expression with fewer signs, factors and transposes."""
        match tree:
            case ast.UnaryOp(ast.USub()) | ast.BinOp(op=ast.Mult() | ast.Div() | ast.MatMult()):
                return self.factors(tree).expression()
            case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
                return added(self.simplified(left), operator, self.simplified(right))
            case ast.BinOp(left, ast.Pow(), right):
                number = number_in(right)
                exponent = self.simplified(right) if number is None else ast.Constant(number)
                return power(self.simplified(left), exponent)
            case ast.Call(ast.Attribute(attr=name)) if name in LINEAR:
                return self.factors(tree).expression()
            case ast.Compare(left, operators, others):
                simple = [self.simplified(each) for each in (left, *others)]
                return ast.Compare(simple[0], operators, simple[1:])
            case ast.Call(func, args, keywords):
                return ast.Call(func, [*map(self.simplified, args)], keywords)
            case _:
                return tree

    def factors(self, tree: ast.expr) -> Factors:
        """Return the factors of an expression, which may be a single one."""
        match tree:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                exact = Fraction(number)
                return Factors(exact if exact.denominator <= LARGEST_DENOMINATOR else number)
            case ast.UnaryOp(ast.USub(), inner):
                found = self.factors(inner)
                return Factors(-found.number, found.above, found.below)
            case ast.BinOp(left, ast.Mult(), right):
                a, b = self.factors(left), self.factors(right)
                return Factors(a.number * b.number, a.above + b.above, a.below + b.below)
            case ast.BinOp(left, ast.Div(), right):
                a, b = self.factors(left), self.factors(right)
                if b.number == 0:
                    return Factors(above=[tree])
                if isinstance(b.number, float):  # A decimal fraction stays below the line.
                    number = [ast.Constant(b.number)]
                    return Factors(a.number, a.above + b.below, number + a.below + b.above)
                return Factors(a.number / b.number, a.above + b.below, a.below + b.above)
            case ast.BinOp(left, ast.MatMult(), right):
                a, left = self.outside(left)
                b, right = self.outside(right)
                inner = ast.BinOp(left, ast.MatMult(), right)
                return Factors(a.number * b.number, [inner, *a.above, *b.above], a.below + b.below)
            case ast.Call(
                ast.Attribute(attr="sum_to" | "spread" | "shaped") as func, [inner, *rest]
            ):
                found, inner = self.outside(inner)
                call = ast.Call(func, [inner, *rest], [])
                return Factors(found.number, [call, *found.above], found.below)
            case ast.Call(ast.Attribute(attr="einsum") as func, [indices, first, *rest]):
                found, first = self.outside(first)
                call = ast.Call(func, [indices, first, *rest], [])
                return Factors(found.number, [call, *found.above], found.below)
            case ast.Call(ast.Attribute(attr="transpose"), [inner]):
                found, inner = self.outside(inner)
                return Factors(found.number, [transposed(inner), *found.above], found.below)
            case _:
                inner = self.simplified(tree)
                is_product = isinstance(inner, ast.UnaryOp | ast.BinOp | ast.Constant)
                is_new = is_product and ast.dump(inner) != ast.dump(tree)
                return self.factors(inner) if is_new else Factors(above=[inner])

    def outside(self, tree: ast.expr) -> tuple[Factors, ast.expr]:
        """Return the factors that are single numbers, and the rest of an expression."""
        found = self.factors(tree)
        above = [each for each in found.above if self.is_number(each)]
        below = [each for each in found.below if self.is_number(each)]
        rest = Factors(
            Fraction(1),
            [each for each in found.above if not self.is_number(each)],
            [each for each in found.below if not self.is_number(each)],
        )
        return Factors(found.number, above, below), rest.expression()

    def total(self, terms: list[ast.expr]) -> ast.expr:
        """Return the sum of some terms; equal terms are joined."""
        found: dict[str, Factors] = {}
        for term in terms:
            each = self.factors(term)
            key = ast.dump(Factors(Fraction(1), each.above, each.below).expression())
            before = found.get(key, Factors(Fraction(0), each.above, each.below))
            found[key] = Factors(before.number + each.number, each.above, each.below)
        parts = [each.expression() for each in found.values() if each.number != 0]
        return reduce(lambda a, b: added(a, ast.Add(), b), parts or [ast.Constant(0)])


def added(left: ast.expr, operator: ast.operator, right: ast.expr) -> ast.expr:
    """Return a sum or a difference without double signs, and of two numbers their value."""
    number = number_in(ast.BinOp(left, operator, right))
    if number is not None:
        return ast.Constant(number)
    if isinstance(right, ast.UnaryOp) and isinstance(right.op, ast.USub):
        flipped = ast.Sub() if isinstance(operator, ast.Add) else ast.Add()
        return ast.BinOp(left, flipped, right.operand)
    return ast.BinOp(left, operator, right)


def number_in(tree: ast.expr) -> float | None:
    """Return the number that an expression consists of, or None."""
    match tree:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(ast.USub(), inner):
            number = number_in(inner)
            return None if number is None else -number
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            a, b = number_in(left), number_in(right)
            if a is None or b is None:
                return None
            return a + b if isinstance(operator, ast.Add) else a - b
        case _:
            return None


def power(base: ast.expr, exponent: ast.expr) -> ast.expr:
    """Return a power; x¹ is x, and the square of a root is what is under the root."""
    match base, exponent:
        case _, ast.Constant(value=1):
            return base
        case ast.Call(ast.Attribute(attr="sqrt"), [inner]), ast.Constant(value=2):
            return inner
        case _:
            return ast.BinOp(base, ast.Pow(), exponent)


def transposed(tree: ast.expr) -> ast.expr:
    """Return the transpose of an expression; that of a transpose or of a product is resolved."""
    match tree:
        case ast.Call(ast.Attribute(attr="transpose"), [inner]):
            return inner
        case ast.BinOp(left, ast.MatMult(), right):
            return ast.BinOp(transposed(right), ast.MatMult(), transposed(left))
        case _:
            return ast.Call(ast.Attribute(ast.Name("op"), "transpose"), [tree], [])


# Write


class Writer(Algebra):
    """Write expressions as formulas."""

    def formula(self, tree: ast.expr) -> str:
        """Return an expression as a formula."""
        return self.shown(tree)[0]

    def at(self, tree: ast.expr, least: int) -> str:
        """Return an expression in a place where it must bind at least this tightly."""
        text, level = self.shown(tree)
        if level >= least:
            return text
        return f"[{text}]" if level == COMPARISON else f"({text})"

    def shown(self, tree: ast.expr) -> tuple[str, int]:
        """Return an expression as a formula, and how tightly it binds."""
        match tree:
            case ast.Name(name):
                return name, ATOM
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return number_text(number), ATOM if number >= 0 else SUM
            case ast.UnaryOp(ast.USub(), inner):
                return f"-{self.at(inner, QUOTIENT)}", SUM
            case ast.UnaryOp(ast.Not() | ast.Invert(), inner):
                return f"not {self.at(inner, POWER)}", COMPARISON
            case ast.BinOp(left, ast.Add(), right):
                return f"{self.at(left, SUM)} + {self.at(right, QUOTIENT)}", SUM
            case ast.BinOp(left, ast.Sub(), right):
                return f"{self.at(left, SUM)} - {self.at(right, QUOTIENT)}", SUM
            case ast.BinOp(left, ast.Mult(), right):
                return self.product(left, right), PRODUCT
            case ast.BinOp(left, ast.Div(), right):
                return f"{self.at(left, PRODUCT)} / {self.at(right, POWER)}", QUOTIENT
            case ast.BinOp(left, ast.MatMult(), right):
                return f"{self.at(left, MATRIX)} {self.at(right, POWER)}", MATRIX
            case ast.BinOp(left, ast.Pow(), right):
                return self.power(left, right), POWER
            case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as operator, right):
                word = BOOLEAN[type(operator)]
                return f"{self.formula(left)} {word} {self.formula(right)}", COMPARISON
            case ast.Compare(left, operators, others):
                rest = (
                    f" {COMPARISONS[type(op)]} {self.at(other, SUM)}"
                    for op, other in zip(operators, others, strict=True)
                )
                return self.at(left, SUM) + "".join(rest), COMPARISON
            case ast.Call():
                return self.call(tree)
            case ast.Subscript(value, index):
                return f"{self.at(value, ATOM)}[{index_text(index)}]", ATOM
            case ast.Tuple(parts) | ast.List(parts):
                return f"({', '.join(map(self.formula, parts))})", ATOM
            case _:
                text = ast.unparse(tree)
                level = SUM if isinstance(tree, ast.BinOp | ast.IfExp | ast.BoolOp) else ATOM
                return CONSTANTS.get(text, text), level

    def product(self, left: ast.expr, right: ast.expr) -> str:
        """Return a product, with the sign that tells what is multiplied."""
        first, level = self.shown(left)
        first = first if level == PRODUCT else self.at(left, POWER)
        if isinstance(left, ast.Constant):
            return f"{first} {self.at(right, MATRIX)}"
        sign = "·" if self.is_number(left) or self.is_number(right) else "∘"
        return f"{first} {sign} {self.at(right, POWER)}"

    def power(self, base: ast.expr, exponent: ast.expr) -> str:
        """Return a power, with its exponent as superscript."""
        text = self.formula(exponent)
        raised = text.translate(SUPERSCRIPTS) if text.isdigit() else f"^{{{text}}}"
        return f"{self.at(base, ATOM)}{raised}"

    def call(self, tree: ast.Call) -> tuple[str, int]:
        """Return a call as a formula; see derivative.py for the functions that are not NumPy's."""
        args = tree.args
        name = ast.unparse(tree.func).removeprefix("np.").removeprefix("op.")
        label = args[-1].value if args and isinstance(args[-1], ast.Constant) else None
        match name, args:
            case "where", [condition, a, b]:
                text = f"{self.at(a, SUM)} where {self.at(condition, COMPARISON)}"
                return f"{text}, else {self.at(b, SUM)}", WORDS
            case "sqrt", [x]:
                return f"√{self.at(x, ATOM)}", POWER
            case "abs", [x]:
                return f"|{self.formula(x)}|", ATOM
            case "transpose", [x]:
                return f"{self.at(x, ATOM)}ᵀ", POWER
            case "sum_to", [x, *_]:
                return self.sum("Σ", str(label), x)
            case "aggregate", [ast.Constant(value="sum"), x, *_]:
                return self.sum("Σ", str(label), x)
            case "aggregate", [ast.Constant(value=str(kind)), x, *_]:
                kind = FUNCTIONS.get(kind, kind)
                return f"{kind}{below(str(label))}({self.formula(x)})", ATOM
            case "size", [number, _]:
                return str(label) or self.formula(number), ATOM
            case "shaped", [x, _, _] if label:
                return f"reshape({self.formula(x)}, {label})", ATOM
            case "spread" | "shaped", [x, *_]:
                return self.shown(x)
            case "concatenate" | "stack", [ast.Tuple(parts), _]:
                return f"{name}({', '.join(map(self.formula, parts))})", ATOM
            case "einsum", [ast.Constant(value=str(indices)), *factors]:
                return self.index_sum(indices, factors)
            case _:
                parts = [*map(self.formula, args)]
                parts += (f"{k.arg}={self.formula(k.value)}" for k in tree.keywords)
                return f"{FUNCTIONS.get(name, name)}({', '.join(parts)})", ATOM

    def sum(self, sign: str, label: str, tree: ast.expr) -> tuple[str, int]:
        """Return a sum along the axes that a label names."""
        return f"{sign}{below(label)} {self.at(tree, PRODUCT)}", QUOTIENT

    def index_sum(self, indices: str, factors: list[ast.expr]) -> tuple[str, int]:
        """Return an einsum in index notation, without the indices of its result."""
        takes, _, gives = indices.partition("->")
        summed = "".join(dict.fromkeys(i for i in takes if i.isalpha() and i not in gives))
        names = zip(factors, takes.split(","), strict=True)
        parts = " ".join(f"{self.at(factor, ATOM)}{below(each)}" for factor, each in names)
        return (f"Σ{below(summed)} {parts}" if summed else parts), QUOTIENT

    def indices(self, tree: ast.expr) -> str:
        """Return the indices of the result of an einsum, with factors that are numbers, or ""."""
        match tree:
            case ast.Call(ast.Attribute(attr="einsum"), [ast.Constant(value=str(indices)), *_]):
                return indices.partition("->")[2]
            case ast.UnaryOp(ast.USub(), inner):
                return self.indices(inner)
            case ast.BinOp(left, ast.Mult() | ast.Div(), right):
                if self.is_number(right):
                    return self.indices(left)
                return self.indices(right) if self.is_number(left) else ""
            case _:
                return ""


def below(label: str) -> str:
    """Return a subscript; a single letter needs no braces."""
    return (f"_{label}" if len(label) == 1 else f"_{{{label}}}") if label else ""


def index_text(index: ast.expr) -> str:
    """Return the text between the brackets of an index."""
    return ", ".join(map(ast.unparse, index.elts if isinstance(index, ast.Tuple) else [index]))


def number_text(number: float) -> str:
    """Return a number as short as it can be written."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
