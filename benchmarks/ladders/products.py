"""The matmuls of a training step by the kernel that training uses, and by NumPy's BLAS.

np.dot only writes where ours adds. A BLAS adds at hardly any cost, but NumPy does not offer that,
and the second pass that it would need is not timed.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases.products import HEAD, LAYERS, factors
from benchmarks.ladders import Call, Rung, Runner, contiguous
from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.matmuls import NOTHING, Matmuls
from tinygpt_np.compiled.simd.memory import Arena


def ours(call: Call, layer: str, which: str) -> Callable[[], Any]:
    """Return a step that packs the weights and multiplies as often as training does with them."""
    scratch, arrays, uses = matmul.make_scratch(Arena()), call.arrays, call.sizes["uses"]
    products = Matmuls({} if which == "dW" else {layer: arrays["weight"]}, HEAD, uses)
    if which == "dW":
        left, right = factors(layer, which, arrays)
        start = NOTHING if layer == HEAD else arrays["dweight"]
        return functools.partial(
            products.gradient, left.T, right, start, arrays["dweight"], scratch
        )
    panels, _ = products.operands[0 if which == "y" else 1][layer]
    packings = [each for each in products.packings if each[-1] is panels]
    if which == "y":
        multiply = functools.partial(
            products.forward, arrays["x"], layer, NOTHING, arrays["y"], scratch
        )
    else:
        multiply = functools.partial(products.backward, arrays["dy"], layer, arrays["dx"], scratch)

    def step() -> None:
        for packing in packings:
            matmul.pack_columns(*packing)
        for _ in range(uses):
            multiply()

    return step


def numpy(call: Call, layer: str, which: str) -> Callable[[], Any]:
    """Return a step of as many np.dot. That of a gradient returns what is to be added."""
    operands = factors(layer, which, call.arrays)
    if which == "dW":
        return functools.partial(np.dot, *operands, out=np.empty_like(call.arrays["dweight"]))

    def step() -> None:
        for _ in range(call.sizes["uses"]):
            np.dot(*operands, out=call.arrays[which])

    return step


def add_gradient(call: Call, product: np.ndarray) -> None:
    """Add to the gradient that training adds to, or write the head's."""
    if "dweight" in call.inputs:
        call.inputs["dweight"][...] += product
    else:
        call.outputs["dweight"][...] = product


def runners(prepare: Callable[..., Callable[[], Any]], *compiled: Any) -> dict[str, Runner]:
    """Return the runner of each direction."""
    return {
        f"{layer} {which}": Runner(
            functools.partial(prepare, layer=layer, which=which),
            compiled,
            add_gradient if which == "dW" and not compiled else None,
        )
        for layer in LAYERS
        for which in ("y", "dx", "dW")
    }


RUNGS = [
    Rung("ours", "The kernel of training, its weights packed once per step.",
         contiguous(runners(ours, matmul.matmul)), trained=True),
    Rung("NumPy", "np.dot, a BLAS.", runners(numpy), reference=True),
]  # fmt: skip
