"""The matmuls of a training step by the kernel that training uses, and by NumPy's BLAS.

np.dot only writes where ours adds. A BLAS adds at hardly any cost, but NumPy does not offer that,
and the second pass that it would need is not timed.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases.products import HEAD, LAYERS, weight_of
from benchmarks.ladders import Call, Rung, Runner
from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.matmuls import NOTHING, TOKENS, NumbaMatmuls
from tinygpt_np.compiled.simd.memory import Arena


def ours(call: Call, layer: str, which: str) -> Callable[[], Any]:
    """Return a step that packs the weights and multiplies as often as training does with them."""
    scratch, arrays = matmul.make_scratch(Arena()), call.arrays
    if which == "dW":
        unused = NumbaMatmuls({TOKENS: np.zeros((1, 1), np.float32)}, 1)
        x, dy, dweight = arrays["x"], arrays["dy"], arrays["dweight"]
        if layer == HEAD:
            return functools.partial(unused.gradient, dy, x, NOTHING, dweight, scratch)
        return functools.partial(unused.gradient, x, dy, dweight, dweight, scratch)
    params = {TOKENS if layer == HEAD else layer: arrays["weight"]}
    products = NumbaMatmuls({TOKENS: np.zeros((1, 1), np.float32)} | params, call.sizes["uses"])
    panels, _ = products.operands[0 if which == "y" else 1][layer]
    packing = [
        functools.partial(matmul.pack_columns, *each)
        for each in products.packings
        if each[-1] is panels
    ]
    if which == "y":
        multiply = functools.partial(
            products.forward, arrays["x"], layer, NOTHING, arrays["y"], scratch
        )
    else:
        multiply = functools.partial(products.backward, arrays["dy"], layer, arrays["dx"], scratch)

    def step() -> None:
        for pack in packing:
            pack()
        for _ in range(call.sizes["uses"]):
            multiply()

    return step


def numpy(call: Call, layer: str, which: str) -> Callable[[], Any]:
    """Return a step of as many np.dot."""
    arrays = call.arrays
    if which == "dW":
        left, right = (arrays[name] for name in (("dy", "x") if layer == HEAD else ("x", "dy")))
        out = np.empty_like(arrays["dweight"])
        return functools.partial(np.dot, left.T, right, out=out)
    weight = weight_of(layer, call.inputs)
    if which == "y":
        multiply = functools.partial(np.dot, arrays["x"], weight, out=arrays["y"])
    else:
        multiply = functools.partial(np.dot, arrays["dy"], weight.T, out=arrays["dx"])

    def step() -> None:
        for _ in range(call.sizes["uses"]):
            multiply()

    return step


def add_gradient(call: Call, product: np.ndarray) -> None:
    """Add to the gradient that training adds to, or write the head's."""
    if "dweight" in call.inputs:
        call.inputs["dweight"][...] += product
    else:
        call.outputs["dweight"][...] = product


def runners(prepare: Callable[..., Callable[[], Any]], compiled: bool) -> dict[str, Runner]:
    """Return the runner of each direction."""
    found: dict[str, Runner] = {}
    for layer in LAYERS:
        for which in ("y", "dx", "dW"):
            collect = add_gradient if which == "dW" and not compiled else None
            found[f"{layer} {which}"] = Runner(
                functools.partial(prepare, layer=layer, which=which),
                (matmul.matmul,) if compiled else (),
                collect,
            )
    return found


RUNGS = [
    Rung("ours", "The kernel of training, its weights packed once per step.", runners(ours, True)),
    Rung("NumPy", "np.dot, a BLAS.", runners(numpy, False), reference=True),
]  # fmt: skip
