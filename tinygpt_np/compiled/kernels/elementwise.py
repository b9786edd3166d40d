"""Operations on each element alone: loops over flat arrays, and forward and backward around them.

Give the loops `strict` functions of Vectors: a value has the same bits at any place, also in the
last vector, of which only some lanes are used.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt_np import ops
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    load_lanes,
    prefetch_ahead,
    prefetch_target_ahead,
    store_lanes,
)


@strict
def clear(x: Any) -> None:
    """Write zeros to x, which is flat."""
    x[:] = np.float32(0)


@strict
def copy(x: Any, y: Any) -> None:
    """y = x, both flat."""
    y[:] = x


def forward_loop(value: Any) -> Any:
    """Return a kernel that writes y = value(x)."""

    def forward_values(x: Any, y: Any) -> None:
        source, target, size = x.ctypes.data, y.ctypes.data, x.size
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            prefetch_ahead(source + place)
            prefetch_target_ahead(target + place)
            store_lanes(target + place, value(load_lanes(source + place, count)), count)

    return kernel_of(value, forward_values)


def backward_loop(gradient: Any) -> Any:
    """Return a kernel that writes dx = gradient(dy, x); dx may be dy."""

    def backward_values(dy: Any, x: Any, dx: Any) -> None:
        source, upstream, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
        size = x.size
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            prefetch_ahead(source + place)
            prefetch_ahead(upstream + place)
            prefetch_target_ahead(target + place)
            found = gradient(load_lanes(upstream + place, count), load_lanes(source + place, count))
            store_lanes(target + place, found, count)

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
