"""SwiGLU: one half of the channels, through SiLU, gates the other half.

    gate, up = the halves of x,  y = silu(gate) · up      x: (..., 2F)   y: (..., F)

A linear layer of 2F outputs before it computes both halves.

Derivation. y is a product, so each factor's gradient is dy times the other factor; that of the
gate goes through silu, and the gradients of the halves are joined as the halves were:

    ∂L/∂up = ∂L/∂y · silu(gate)     ∂L/∂gate = ∂L/∂y · up · silu'(gate)

Common mistake: the halves exchanged, silu(up) · gate; a model trains with it, but pretrained
weights give nonsense.
Source: Shazeer, "GLU Variants Improve Transformer" (2020), eq. 5; Llama's feed-forward layers.
"""

from typing import Any

import numpy as np

from tinygpt_np.ops import silu


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., 2F) -> y (..., F), saved."""
    gate, up = np.split(x, 2, axis=-1)  # (..., F)
    activated, saved_gate = silu.forward(gate)  # (..., F)
    y = activated * up  # (..., F)
    return y, (activated, up, saved_gate)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (..., F) -> dx (..., 2F)."""
    activated, up, saved_gate = saved
    # y = activated * up
    dactivated = dy * up  # (..., F)
    dup = dy * activated  # (..., F)
    # activated, saved_gate = silu.forward(gate)
    dgate = silu.backward(dactivated, saved_gate)  # (..., F)
    # gate, up = np.split(x, 2, axis=-1)
    dx = np.concatenate([dgate, dup], axis=-1)  # (..., 2F)
    return dx
