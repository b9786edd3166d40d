"""ReLU, compiled. The derivation is in ops/relu.py."""

from typing import Any

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementwise import backward_loop, forward_loop, operation
from tinygpt_np.compiled.simd.vectors import where_positive


@strict
def value(x: Any) -> Any:
    """Return ReLU of a Vector."""
    return where_positive(x, x)


@strict
def gradient(dy: Any, x: Any) -> Any:
    """Return dx: dy, or 0 where x <= 0."""
    return where_positive(x, dy)


# forward_values(x, y) and backward_values(dy, x, dx), all flat. dx may be dy.
forward_values, backward_values = forward_loop(value), backward_loop(gradient)
forward, backward = operation(forward_values, backward_values)
