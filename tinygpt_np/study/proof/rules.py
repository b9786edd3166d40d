"""Find the differentiation rule of a forward line.

Formulas use the notation of the docstrings in ops/, which render/mathml.py converts: y is what the
line sets; a, b and x are what it reads; ∘ is the elementwise product.
"""

import ast
from dataclasses import dataclass

from tinygpt_np.study.source.parse import Statement


@dataclass(frozen=True)
class Rule:
    """A rule, its formulas, the reason for them, and the operation that the line calls, or ""."""

    name: str
    formulas: tuple[str, ...] = ()
    why: str = ""
    operation: str = ""


BROADCAST = "If one side was broadcast, its gradient is summed over the broadcast axes."
RULES = {rule.name: rule for rule in (
    Rule("sum", ("y = a + b", "da = dy", "db = dy"),
         f"∂y/∂a = ∂y/∂b = 1, so each side gets the gradient unchanged. {BROADCAST}"),
    Rule("difference", ("y = a - b", "da = dy", "db = -dy"),
         f"As for a sum, with a minus sign for b. {BROADCAST}"),
    Rule("product", ("y = a ∘ b", "da = dy ∘ b", "db = dy ∘ a"),
         f"The derivative with respect to one factor is the other factor. {BROADCAST}"),
    Rule("square", ("y = x ∘ x", "dx = 2 dy ∘ x"),
         "The product rule with both factors equal: the two terms add up."),
    Rule("quotient", ("y = a / b", "da = dy / b", "db = -dy ∘ a / b² = -dy ∘ y / b"),
         f"The numerator has the factor 1/b, and the derivative of 1/b is -1/b². {BROADCAST}"),
    Rule("matrix product", ("Y = A B", "Y_ik = Σ_j A_ij B_jk", "dA = dY Bᵀ", "dB = Aᵀ dY"),
         "A_ij contributes B_jk to each Y_ik in row i. The shapes allow no other product."),
    Rule("matrix product with a transpose",
         ("Y = A Bᵀ", "Y_ij = Σ_k A_ik B_jk", "dA = dY B", "dB = dYᵀ A"),
         "A_ik contributes B_jk to each Y_ij in row i, and B_jk contributes A_ik to column j."),
    Rule("selection", ("y = a where the condition holds, else b", "da = dy where it holds, else 0"),
         "An element that was not selected does not affect y. The condition has no gradient."),
    Rule("sum over an axis", ("y = Σ_i x_i", "dx_i = dy"),
         "∂y/∂x_i = 1, so each term gets the gradient of the sum."),
    Rule("mean", ("y = 1/n Σ_i x_i", "dx_i = dy / n"),
         "As for a sum, and each term has the weight 1/n."),
    Rule("lookup", ("y_n = x_{i(n)}", "dx_v = Σ_{n : i(n) = v} dy_n"),
         "The gradients of a row that is read several times add up; a row that is not read gets "
         "zero."),
    Rule("constant", ("dx = 0",),
         "No gradient flows through this line: its result is treated as a constant."),
    Rule("maximum", ("y = max x", "dx_i = dy where x_i is the largest, else 0"),
         "Only the largest element affects y."),
    Rule("copy", ("y = x", "dx = dy"), "The values are the same, so the gradient is the same."),
    Rule("rearrangement", ("y_i = x_{p(i)}", "dx_{p(i)} = dy_i"),
         "Only the positions of the elements change, so the gradient is moved back to the old "
         "ones."),
    Rule("exponential", ("y = exp(x)", "dx = dy ∘ exp(x) = dy ∘ y")),
    Rule("logarithm", ("y = log x", "dx = dy / x")),
    Rule("square root", ("y = √x", "dx = dy / (2 √x) = dy / (2 y)")),
    Rule("tanh", ("y = tanh x", "dx = dy ∘ (1 - tanh² x) = dy ∘ (1 - y²)")),
    Rule("error function", ("y = erf(x)", "dx = dy ∘ 2/√π exp(-x²)")),
)}  # fmt: skip
LAYER = "the backward of "
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "sum", ast.Sub: "difference", ast.Mult: "product", ast.Div: "quotient",
    ast.MatMult: "matrix product",
}  # fmt: skip
# The rule of a function, or of any method of a name.
CALLS = {
    "np.exp": "exponential", "np.log": "logarithm", "np.sqrt": "square root", "np.tanh": "tanh",
    "error_function": "error function", "np.where": "selection", "np.real": "constant",
    "np.split": "rearrangement", "np.concatenate": "rearrangement",
    "split_heads": "rearrangement", "merge_heads": "rearrangement",
    ".sum": "sum over an axis", ".mean": "mean", ".max": "maximum", ".copy": "copy",
    ".reshape": "rearrangement", ".swapaxes": "rearrangement", ".transpose": "rearrangement",
}  # fmt: skip


def rule_of(statement: Statement, is_constant: bool = False) -> Rule | None:
    """Return the rule of a line, or None; `is_constant`: whether no gradient flows through it."""
    node = statement.node
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return None
    name = of_expression(node.value)
    if name.startswith(LAYER):
        operation = name.removeprefix(LAYER)
        return Rule(name, (), f"{operation} has its own derivation and backward.", operation)
    return RULES.get(name) if is_constant or name != "constant" else None


def of_expression(node: ast.expr) -> str:
    """Return the name of the rule of an expression, or ""."""
    match node:
        case ast.IfExp():
            # A choice made once per call, such as for a bias that may be None: use the side that
            # is not a copy.
            sides = [of_expression(node.orelse), of_expression(node.body)]
            return next((side for side in sides if side not in ("", "copy")), sides[0])
        case ast.BinOp(left, ast.Mult(), right) if ast.unparse(left) == ast.unparse(right):
            return "square"
        case ast.BinOp(_, ast.MatMult(), ast.Attribute(attr="T" | "mT")):
            return "matrix product with a transpose"
        case ast.BinOp(op=operator):
            return OPERATORS.get(type(operator), "")
        case ast.Call(func=ast.Attribute(value=owner, attr="forward")):
            return LAYER + ast.unparse(owner).rpartition(".")[2]
        case ast.Call(func=ast.Attribute(attr="block_forward")):
            return f"{LAYER}block"
        case ast.Call(func=func) if (name := ast.unparse(func)) in CALLS:
            return CALLS[name]
        case ast.Call(func=ast.Attribute(value=owner, attr=method)):
            rule = CALLS.get(f".{method}", "")
            if isinstance(owner, ast.Call):  # Two calls in one line: only if both have this rule.
                inner = of_expression(owner)
                return inner if inner in ("constant", rule) else ""
            return rule
        case ast.Subscript(slice=ast.Name()):
            return "lookup"
        case ast.Name():
            return "copy"
        case ast.Attribute(attr="T" | "mT"):
            return "rearrangement"
        case _:
            return ""
