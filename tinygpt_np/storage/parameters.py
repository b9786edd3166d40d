"""The names and shapes of a GPT's parameters, which are those of GPT-2's checkpoints.

A model's parameters are one flat dict. Linear layers are (in, out), as in GPT-2.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from tinygpt_np.config import GPTConfig

# Arrays by name: parameters, their gradients, dropout masks.
Tensors = dict[str, np.ndarray]
Shape = tuple[int, ...]

# Numbers in a block of rows, which is updated or sent at once, and whose squares are summed.
BLOCK = 1 << 18


def blocks(shape: Shape) -> list[slice]:
    """Return the rows of each block of a tensor; the norm of a gradient is summed over them."""
    rows = max(BLOCK // math.prod(shape[1:]), 1)
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def param_count(config: GPTConfig) -> int:
    """Return the number of parameters, in constant time."""
    one, two = (
        sum(math.prod(shape) for shape in param_shapes(replace(config, n_layer=n)).values())
        for n in (1, 2)
    )
    return one + (config.n_layer - 1) * (two - one)


def param_shapes(config: GPTConfig) -> dict[str, Shape]:
    """Return the name and shape of every parameter, in the order of the forward pass."""
    return dict(each_param(config))


def each_param(config: GPTConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of every parameter, of which a file may claim any number."""
    C = config.n_embd
    yield "wte.weight", (config.vocab_size, C)
    if config.positions == "learned":
        yield "wpe.weight", (config.block_size, C)
    block: dict[str, Shape] = {
        "ln_1": (C,), "attn.c_attn": (C, config.qkv_width), "attn.c_proj": (C, C),
        "ln_2": (C,), "mlp.c_fc": (C, config.hidden_width), "mlp.c_proj": (config.inner_width, C),
    }  # fmt: skip
    layers = ((f"h.{i}.{name}", block[name]) for i in range(config.n_layer) for name in block)
    for name, shape in chain(layers, [("ln_f", (C,))]):
        yield f"{name}.weight", shape
        # RMSNorm has no bias.
        if config.bias and not (len(shape) == 1 and config.norm == "rms_norm"):
            yield f"{name}.bias", shape[-1:]
    if not config.tied_head:
        yield config.head_name, (config.vocab_size, C)


def mask_shapes(config: GPTConfig, batch: int, time: int) -> dict[str, Shape]:
    """Return the name and shape of every dropout mask for tokens (B, T), in the forward's order."""
    rows = (batch * time, config.n_embd)
    shapes: dict[str, Shape] = {"drop": rows}
    for layer in range(config.n_layer):
        shapes[f"h.{layer}.attn"] = (batch, config.n_head, time, time)
        shapes[f"h.{layer}.attn.c_proj"] = rows
        shapes[f"h.{layer}.mlp.c_proj"] = rows
    return shapes
