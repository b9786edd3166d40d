"""The derivation of one line: the rule by which a gradient goes back through what the line does.

Formulas are in the notation of the docstrings of ops/ (see notation.py): y is what the line sets,
a, b, x what it reads, ∘ the product element by element.
"""

import ast
from dataclasses import dataclass

from tinygpt_np.study.source import Statement


@dataclass(frozen=True)
class Rule:
    """name: of the rule. formulas: what it says. why: where it comes from. operation: whose own
    derivation it is, or ""."""

    name: str
    formulas: tuple[str, ...] = ()
    why: str = ""
    operation: str = ""


BROADCAST = "Where one side was repeated to fit the other, its gradient is summed over the repeats."
SUM = Rule(
    "sum", ("y = a + b", "da = dy", "db = dy"),
    f"Each side moves y one to one, so each gets the whole gradient. {BROADCAST}",
)  # fmt: skip
DIFFERENCE = Rule(
    "difference", ("y = a - b", "da = dy", "db = -dy"),
    f"As for a sum, with b counted against. {BROADCAST}",
)  # fmt: skip
PRODUCT = Rule(
    "product", ("y = a ∘ b", "da = dy ∘ b", "db = dy ∘ a"),
    f"How much y moves with one factor is the other factor. {BROADCAST}",
)  # fmt: skip
SQUARE = Rule(
    "square", ("y = x ∘ x", "dx = 2 dy ∘ x"),
    "The product rule with both factors the same: x hears of both.",
)  # fmt: skip
QUOTIENT = Rule(
    "quotient", ("y = a / b", "da = dy / b", "db = -dy ∘ a / b² = -dy ∘ y / b"),
    f"1/b is the other factor of a, and its own slope is -1/b². {BROADCAST}",
)  # fmt: skip
MATRIX_PRODUCT = Rule(
    "matrix product",
    ("Y = A B", "Y_ik = Σ_j A_ij B_jk", "dA = dY Bᵀ", "dB = Aᵀ dY"),
    "A_ij enters the whole row i of Y, each time with B_jk; the shapes leave no other choice.",
)
TRANSPOSED_PRODUCT = Rule(
    "matrix product with a transpose",
    ("Y = A Bᵀ", "Y_ij = Σ_k A_ik B_jk", "dA = dY B", "dB = dYᵀ A"),
    "A_ik enters the whole row i of Y, each time with B_jk, and B_jk the whole column j with A_ik.",
)
CHOICE = Rule(
    "choice", ("y = a where the condition holds, else b", "da = dy where it holds, else 0"),
    "What was not chosen does not move y. The condition itself has no gradient.",
)  # fmt: skip
TOTAL = Rule(
    "total", ("y = Σ_i x_i", "dx_i = dy"),
    "Every term moves the total one to one, so each gets the gradient of the total.",
)  # fmt: skip
MEAN = Rule(
    "mean", ("y = 1/n Σ_i x_i", "dx_i = dy / n"),
    "As for a total, and each term counts 1/n.",
)  # fmt: skip
LOOKUP = Rule(
    "lookup", ("y_n = x_{i(n)}", "dx_v = Σ_{n : i(n) = v} dy_n"),
    "A row that is read several times hears of all of them; one that is not read gets zero.",
)  # fmt: skip
CONSTANT = Rule(
    "constant", ("dx = 0",),
    "Nothing differentiable flows through here: what it sets is treated as a constant.",
)  # fmt: skip
LARGEST = Rule(
    "largest", ("y = max x", "dx_i = dy where x_i is the largest, else 0"),
    "Only the largest moves y.",
)  # fmt: skip
SAME = Rule("copy", ("y = x", "dx = dy"), "The same numbers, so the same gradient.")
PLACES = Rule(
    "other places", ("y_i = x_{p(i)}", "dx_{p(i)} = dy_i"),
    "The numbers stay and only their places change: the gradient is put back the same way.",
)  # fmt: skip

CALLS = {
    "np.exp": Rule("exponential", ("y = exp(x)", "dx = dy ∘ exp(x) = dy ∘ y")),
    "np.log": Rule("logarithm", ("y = log x", "dx = dy / x")),
    "np.sqrt": Rule("square root", ("y = √x", "dx = dy / (2 √x) = dy / (2 y)")),
    "np.tanh": Rule("tanh", ("y = tanh x", "dx = dy ∘ (1 - tanh² x) = dy ∘ (1 - y²)")),
    "np.where": CHOICE,
    "np.split": PLACES,
    "np.concatenate": PLACES,
    "np.real": CONSTANT,
    "split_heads": PLACES,
    "merge_heads": PLACES,
    "error_function": Rule("error function", ("y = erf(x)", "dx = dy ∘ 2/√π exp(-x²)")),
}
METHODS = {
    "sum": TOTAL, "mean": MEAN, "max": LARGEST, "copy": SAME, "reshape": PLACES,
    "swapaxes": PLACES, "transpose": PLACES,
}  # fmt: skip


def rule_of(statement: Statement, is_constant: bool = False) -> Rule | None:
    """The rule for what a line of a forward does, or None where none is known.

    is_constant: whether no gradient flows through it.
    """
    node = statement.node
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return None
    rule = of_expression(node.value)
    return rule if is_constant or rule is not CONSTANT else None


def of_expression(node: ast.expr) -> Rule | None:
    match node:
        case ast.IfExp():
            # A choice made once for all, as of a bias that may be None: the side that is no copy
            # tells.
            sides = [of_expression(node.orelse), of_expression(node.body)]
            return next((side for side in sides if side not in (None, SAME)), sides[0])
        case ast.BinOp(left, operator, right):
            return of_operator(operator, ast.unparse(left), right)
        case ast.Call(func=ast.Attribute(value=owner, attr="forward")):
            return own_rule(ast.unparse(owner))
        case ast.Call(func=ast.Attribute(attr="block_forward")):
            return own_rule("block")
        case ast.Call(func=ast.Attribute(value=owner, attr=method)):
            if ast.unparse(node.func) in CALLS:
                return CALLS[ast.unparse(node.func)]
            if isinstance(owner, ast.Call):  # Two things in one line: a rule if both have it.
                inner = of_expression(owner)
                return inner if inner in (CONSTANT, METHODS.get(method)) else None
            return METHODS.get(method)
        case ast.Call(func=ast.Name(id=name)):
            return CALLS.get(name)
        case ast.Subscript(slice=ast.Name()):
            return LOOKUP
        case ast.Name():
            return SAME
        case ast.Attribute(attr="T" | "mT"):
            return PLACES
        case _:
            return None


def of_operator(operator: ast.operator, left: str, right: ast.expr) -> Rule | None:
    match operator, right:
        case ast.Add(), _:
            return SUM
        case ast.Sub(), _:
            return DIFFERENCE
        case ast.Mult(), _:
            return SQUARE if left == ast.unparse(right) else PRODUCT
        case ast.Div(), _:
            return QUOTIENT
        case ast.MatMult(), ast.Attribute(attr="T" | "mT"):
            return TRANSPOSED_PRODUCT
        case ast.MatMult(), _:
            return MATRIX_PRODUCT
        case _:
            return None


def own_rule(owner: str) -> Rule:
    """The backward of a layer of its own, such as softmax of ops.softmax."""
    operation = owner.rpartition(".")[2]
    why = f"{operation} has a derivation and a backward of its own."
    return Rule(f"the backward of {operation}", (), why, operation)
