"""AdamW, compiled: the update of model/optimizer.py in one pass over memory."""

import functools
from typing import Any, cast

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types
from numba.core import cgutils

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.vectors import (
    AHEAD,
    INT,
    LANES,
    Emitter,
    intrinsic,
    load_lanes,
    multiply_add,
    prefetch_ahead,
    prefetch_target_ahead,
    sqrt,
    store_lanes,
)
from tinygpt_np.config import ADAM_EPSILON

# It has no types to offer.
helpers: Any = cast(Any, cgutils)
EPSILON = np.float32(ADAM_EPSILON)


@strict
def update(param: Any, grad: Any, first: Any, second: Any, recipe: Any) -> None:
    """Update param, first and second in place, all flat, by the gradient grad · scale.

    recipe (7,) float64: scale, learning_rate, weight_decay (0 for vectors), beta1, beta2, and the
    corrections 1 - beta1ᵗ, 1 - beta2ᵗ at step t ≥ 1.
    """
    scale, learning_rate, weight_decay = recipe[0], recipe[1], recipe[2]
    beta1, beta2, correction1, correction2 = recipe[3], recipe[4], recipe[5], recipe[6]
    clipping, fresh1, fresh2 = np.float32(scale), np.float32(1 - beta1), np.float32(1 - beta2)
    shrink = np.float32(1 - learning_rate * weight_decay)
    rate = np.float32(learning_rate / correction1)
    # A product instead of a quotient: divisions and roots take longest.
    inverse = np.float32(1 / correction2)
    size, params, grads = param.size, param.ctypes.data, grad.ctypes.data
    firsts, seconds = first.ctypes.data, second.ctypes.data
    for i in range(0, size, LANES):
        place, count = 4 * i, size - i
        prefetch_ahead(grads + place)
        for target in (params, firsts, seconds):
            prefetch_target_ahead(target + place)
        g = load_lanes(grads + place, count) * clipping
        mean = load_lanes(firsts + place, count)
        mean = multiply_add(fresh1, g - mean, mean)
        square = load_lanes(seconds + place, count)
        square = multiply_add(fresh2, g * g - square, square)
        store_lanes(firsts + place, mean, count)
        store_lanes(seconds + place, square, count)
        move = rate * mean / (sqrt(square * inverse) + EPSILON)
        shrunk = load_lanes(params + place, count) * shrink
        store_lanes(params + place, shrunk - move, count)


@intrinsic(types.float64, types.int64, types.int64)
def sum_of_squares_at(emit: Emitter, address: Any, vectors: Any) -> Any:
    """Return the float64 sum of squares of so many vectors of float32, from an address on."""
    builder, lanes = emit.builder, range(LANES)
    numbers: Any = ir.VectorType(ir.DoubleType(), LANES)
    sums = helpers.alloca_once_value(builder, ir.Constant(numbers, [0.0] * LANES))
    with helpers.for_range(builder, vectors) as loop:
        place = emit.at(builder.add(address, builder.mul(loop.index, INT(4 * LANES))))
        # The processor's own prefetching waits for the first lines of each page.
        emit.prefetch(builder.gep(place, [INT(AHEAD)]))
        number = builder.fpext(emit.load(place), numbers)
        square = builder.fmul(number, number)  # Exact, so FMA would not change the sum.
        builder.store(builder.fadd(builder.load(sums), square), sums)
    last = builder.load(sums)
    found = [builder.extract_element(last, ir.IntType(32)(lane)) for lane in lanes]
    return functools.reduce(builder.fadd, found)


@strict
def sum_of_squares(grad: Any) -> Any:
    """Return the float64 sum of squares of grad, flat, with equal bits on equal machines."""
    vectors = grad.size // LANES
    total = sum_of_squares_at(grad.ctypes.data, vectors)
    for i in range(vectors * LANES, grad.size):
        g = np.float64(grad[i])
        total += g * g
    return total


@strict
def write_sum_of_squares(grad: Any, sums: Any, place: Any) -> None:
    """sums[place] = sum_of_squares(grad), in float64."""
    sums[place] = sum_of_squares(grad)
