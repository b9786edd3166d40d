"""Loops over flat arrays for functions of one element, given for a number and a Vector alike.

Give them `strict` functions: then a value has the same bits at any place, by vectors or alone.
"""

from collections.abc import Callable
from typing import Any

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.vectors import LANES, load_vector, store_vector

VECTOR = 4 * LANES


def forward_loop(value: Any) -> Any:
    """Return a kernel that writes y = value(x)."""

    def forward_values(x: Any, y: Any) -> None:
        source, target, aligned = x.ctypes.data, y.ctypes.data, x.size // LANES * LANES
        for place in range(0, 4 * aligned, VECTOR):
            store_vector(target + place, value(load_vector(source + place)))
        for i in range(aligned, x.size):
            y[i] = value(x[i])

    return kernel_of(value, forward_values)


def backward_loop(gradient: Any) -> Any:
    """Return a kernel that writes dx = gradient(dy, x); dx may be dy."""

    def backward_values(dy: Any, x: Any, dx: Any) -> None:
        source, upstream, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
        aligned = x.size // LANES * LANES
        for place in range(0, 4 * aligned, VECTOR):
            found = gradient(load_vector(upstream + place), load_vector(source + place))
            store_vector(target + place, found)
        for i in range(aligned, x.size):
            dx[i] = gradient(dy[i], x[i])

    return kernel_of(gradient, backward_values)


def kernel_of(function: Any, loop: Callable[..., None]) -> Any:
    """Compile a loop over a function, as a kernel of the function's module."""
    loop.__module__ = function.py_func.__module__
    return strict(loop)
