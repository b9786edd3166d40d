"""Find the differentiation rule of a forward line.

Formulas use the notation of the docstrings in ops/, which render/mathml.py converts: y is what the
line sets; a, b and x are what it reads; ∘ is the elementwise product.
"""

import ast
from dataclasses import dataclass

from tinygpt_np.study.source.parse import Statement


@dataclass(frozen=True)
class Rule:
    """A rule with its formulas and the reason for them.

    `operation` names the operation whose file has the derivation, if the line calls one.
    """

    name: str
    formulas: tuple[str, ...] = ()
    why: str = ""
    operation: str = ""


BROADCAST = "If one side was broadcast, its gradient is summed over the broadcast axes."
SUM = Rule(
    "sum", ("y = a + b", "da = dy", "db = dy"),
    f"∂y/∂a = ∂y/∂b = 1, so each side gets the gradient unchanged. {BROADCAST}",
)  # fmt: skip
DIFFERENCE = Rule(
    "difference", ("y = a - b", "da = dy", "db = -dy"),
    f"As for a sum, with a minus sign for b. {BROADCAST}",
)  # fmt: skip
PRODUCT = Rule(
    "product", ("y = a ∘ b", "da = dy ∘ b", "db = dy ∘ a"),
    f"The derivative with respect to one factor is the other factor. {BROADCAST}",
)  # fmt: skip
SQUARE = Rule(
    "square", ("y = x ∘ x", "dx = 2 dy ∘ x"),
    "The product rule with both factors equal: the two terms add up.",
)  # fmt: skip
QUOTIENT = Rule(
    "quotient", ("y = a / b", "da = dy / b", "db = -dy ∘ a / b² = -dy ∘ y / b"),
    f"The numerator has the factor 1/b, and the derivative of 1/b is -1/b². {BROADCAST}",
)  # fmt: skip
MATRIX_PRODUCT = Rule(
    "matrix product",
    ("Y = A B", "Y_ik = Σ_j A_ij B_jk", "dA = dY Bᵀ", "dB = Aᵀ dY"),
    "A_ij contributes B_jk to each Y_ik in row i. The shapes allow no other product.",
)
TRANSPOSED_PRODUCT = Rule(
    "matrix product with a transpose",
    ("Y = A Bᵀ", "Y_ij = Σ_k A_ik B_jk", "dA = dY B", "dB = dYᵀ A"),
    "A_ik contributes B_jk to each Y_ij in row i, and B_jk contributes A_ik to column j.",
)
SELECTION = Rule(
    "selection", ("y = a where the condition holds, else b", "da = dy where it holds, else 0"),
    "An element that was not selected does not affect y. The condition has no gradient.",
)  # fmt: skip
AXIS_SUM = Rule(
    "sum over an axis", ("y = Σ_i x_i", "dx_i = dy"),
    "∂y/∂x_i = 1, so each term gets the gradient of the sum.",
)  # fmt: skip
MEAN = Rule(
    "mean", ("y = 1/n Σ_i x_i", "dx_i = dy / n"),
    "As for a sum, and each term has the weight 1/n.",
)  # fmt: skip
LOOKUP = Rule(
    "lookup", ("y_n = x_{i(n)}", "dx_v = Σ_{n : i(n) = v} dy_n"),
    "The gradients of a row that is read several times add up; a row that is not read gets zero.",
)  # fmt: skip
CONSTANT = Rule(
    "constant", ("dx = 0",),
    "No gradient flows through this line: its result is treated as a constant.",
)  # fmt: skip
MAXIMUM = Rule(
    "maximum", ("y = max x", "dx_i = dy where x_i is the largest, else 0"),
    "Only the largest element affects y.",
)  # fmt: skip
COPY = Rule("copy", ("y = x", "dx = dy"), "The values are the same, so the gradient is the same.")
REARRANGEMENT = Rule(
    "rearrangement", ("y_i = x_{p(i)}", "dx_{p(i)} = dy_i"),
    "Only the positions of the elements change, so the gradient is moved back to the old ones.",
)  # fmt: skip

CALLS = {
    "np.exp": Rule("exponential", ("y = exp(x)", "dx = dy ∘ exp(x) = dy ∘ y")),
    "np.log": Rule("logarithm", ("y = log x", "dx = dy / x")),
    "np.sqrt": Rule("square root", ("y = √x", "dx = dy / (2 √x) = dy / (2 y)")),
    "np.tanh": Rule("tanh", ("y = tanh x", "dx = dy ∘ (1 - tanh² x) = dy ∘ (1 - y²)")),
    "np.where": SELECTION,
    "np.split": REARRANGEMENT,
    "np.concatenate": REARRANGEMENT,
    "np.real": CONSTANT,
    "split_heads": REARRANGEMENT,
    "merge_heads": REARRANGEMENT,
    "error_function": Rule("error function", ("y = erf(x)", "dx = dy ∘ 2/√π exp(-x²)")),
}
METHODS = {
    "sum": AXIS_SUM, "mean": MEAN, "max": MAXIMUM, "copy": COPY, "reshape": REARRANGEMENT,
    "swapaxes": REARRANGEMENT, "transpose": REARRANGEMENT,
}  # fmt: skip


def rule_of(statement: Statement, is_constant: bool = False) -> Rule | None:
    """Return the rule of a forward line, or None if none is known.

    `is_constant` tells whether no gradient flows through the line.
    """
    node = statement.node
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return None
    rule = of_expression(node.value)
    return rule if is_constant or rule is not CONSTANT else None


def of_expression(node: ast.expr) -> Rule | None:
    """Return the rule of an expression, or None."""
    match node:
        case ast.IfExp():
            # A choice made once per call, such as for a bias that may be None: use the side that
            # is not a copy.
            sides = [of_expression(node.orelse), of_expression(node.body)]
            return next((side for side in sides if side not in (None, COPY)), sides[0])
        case ast.BinOp(left, operator, right):
            return of_operator(operator, ast.unparse(left), right)
        case ast.Call(func=ast.Attribute(value=owner, attr="forward")):
            return operation_rule(ast.unparse(owner))
        case ast.Call(func=ast.Attribute(attr="block_forward")):
            return operation_rule("block")
        case ast.Call(func=ast.Attribute(value=owner, attr=method)):
            if ast.unparse(node.func) in CALLS:
                return CALLS[ast.unparse(node.func)]
            if isinstance(owner, ast.Call):  # Two calls in one line: only if both have this rule.
                inner = of_expression(owner)
                return inner if inner in (CONSTANT, METHODS.get(method)) else None
            return METHODS.get(method)
        case ast.Call(func=ast.Name(id=name)):
            return CALLS.get(name)
        case ast.Subscript(slice=ast.Name()):
            return LOOKUP
        case ast.Name():
            return COPY
        case ast.Attribute(attr="T" | "mT"):
            return REARRANGEMENT
        case _:
            return None


def of_operator(operator: ast.operator, left: str, right: ast.expr) -> Rule | None:
    """Return the rule of a binary operator, or None."""
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


def operation_rule(owner: str) -> Rule:
    """Return the rule of a call of another operation, such as ops.softmax.forward."""
    operation = owner.rpartition(".")[2]
    why = f"{operation} has its own derivation and backward."
    return Rule(f"the backward of {operation}", (), why, operation)
