"""Operations on each element alone: loops over flat arrays, and forward and backward around them.

Give the loops `strict` functions, for a number and a Vector alike: then a value has the same bits
at any place, by vectors or alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt_np import ops
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.arrays import floats
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


def operation(forward_values: Any, backward_values: Any) -> tuple[Any, Any]:
    """Return the forward and the backward of the module that has these loops, as in ops/."""
    module = forward_values.py_func.__module__
    name = module.rpartition(".")[2]

    def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
        x = floats(x, f"{name}.forward: x")  # (...)
        y = np.empty_like(x)  # (...)
        forward_values(x.reshape(-1), y.reshape(-1))
        return y, (x,)

    def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
        (x,) = saved
        dx = np.empty_like(x)  # (...)
        dy = floats(dy, f"{name}.backward: dy")  # (...)
        backward_values(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
        return dx

    original = getattr(ops, name)
    for function, twin in ((forward, original.forward), (backward, original.backward)):
        function.__module__, function.__doc__ = module, twin.__doc__
    return forward, backward
