"""01:24:25 Feed-forward layers of a transformer block

Attention gathers; then each token processes alone what it has gathered, with two linear layers and
a nonlinearity between them. Without it, the two layers would be one. (The lecture uses ReLU, GPT-2
uses GELU.)
"""

from functools import partial

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Positioned, Result
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION, attention, attention_backward
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

MLP = {"c_fc": (N_EMBD, 4 * N_EMBD), "c_out": (4 * N_EMBD, N_EMBD)}


def feed_forward(
    params: Tensors, x: np.ndarray, batch: int, block: str = "", nonlinear: bool = True
) -> Result:
    """x (N, C) -> y (N, C), saved. Tokens do not interact; `batch` is not used."""
    hidden, c_fc = ops.linear.forward(x, params["c_fc" + block])  # (N, 4C)
    active, gelu = ops.gelu.forward(hidden) if nonlinear else (hidden, None)  # (N, 4C)
    y, c_out = ops.linear.forward(active, params["c_out" + block])  # (N, C)
    return y, (c_fc, gelu, c_out, block)


def feed_forward_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    """dy (N, C) -> dx (N, C), gradients."""
    c_fc, gelu, c_out, block = saved
    dactive, dc_out, _ = ops.linear.backward(dy, c_out)  # (N, 4C)
    dhidden = ops.gelu.backward(dactive, gelu) if gelu else dactive  # (N, 4C)
    dx, dc_fc, _ = ops.linear.backward(dhidden, c_fc)  # (N, C)
    return dx, {"c_fc" + block: dc_fc, "c_out" + block: dc_out}


def body(params: Tensors, x: np.ndarray, batch: int, nonlinear: bool = True) -> Result:
    """x (N, C) -> y (N, C), saved: attention, then the feed-forward layers."""
    attended, saved = attention(params, x, batch)  # (N, C)
    y, mlp = feed_forward(params, attended, batch, nonlinear=nonlinear)  # (N, C)
    return y, (saved, mlp)


def body_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    """dy (N, C) -> dx (N, C), gradients."""
    attention, mlp = saved
    dattended, mlp_grads = feed_forward_backward(dy, mlp)  # (N, C)
    dx, attention_grads = attention_backward(dattended, attention)  # (N, C)
    return dx, mlp_grads | attention_grads


def main() -> None:
    model = Positioned(ATTENTION | MLP, body, body_backward)
    workbench.check_gradient(model)
    linear = Positioned(ATTENTION | MLP, partial(body, nonlinear=False), body_backward)
    workbench.train(linear, "without GELU")
    workbench.train(model, "with GELU")
    workbench.in_the_video(2.24, "with ReLU")
    print("\nThe same parameters and training: only the nonlinearity makes the difference.")


if __name__ == "__main__":
    main()
