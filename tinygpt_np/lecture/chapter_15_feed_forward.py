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
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION, gather, gather_backward
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

MLP = {"c_fc": (N_EMBD, 4 * N_EMBD), "c_out": (4 * N_EMBD, N_EMBD)}


def think(params: Tensors, x: np.ndarray, batch: int, block: str = "", bend: bool = True) -> Result:
    """x (N, C) -> y (N, C), saved. Every token for itself, whatever batch it is in."""
    hidden, c_fc = ops.linear.forward(x, params["c_fc" + block])  # (N, 4C)
    active, gelu = ops.gelu.forward(hidden) if bend else (hidden, None)  # (N, 4C)
    y, c_out = ops.linear.forward(active, params["c_out" + block])  # (N, C)
    return y, (c_fc, gelu, c_out, block)


def think_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    """dy (N, C) -> dx (N, C), gradients."""
    c_fc, gelu, c_out, block = saved
    dactive, dc_out, _ = ops.linear.backward(dy, c_out)  # (N, 4C)
    dhidden = ops.gelu.backward(dactive, gelu) if gelu else dactive  # (N, 4C)
    dx, dc_fc, _ = ops.linear.backward(dhidden, c_fc)  # (N, C)
    return dx, {"c_fc" + block: dc_fc, "c_out" + block: dc_out}


def body(params: Tensors, x: np.ndarray, batch: int, bend: bool = True) -> Result:
    found, attention = gather(params, x, batch)  # (N, C)
    y, mlp = think(params, found, batch, bend=bend)  # (N, C)
    return y, (attention, mlp)


def body_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    attention, mlp = saved
    dfound, mlp_grads = think_backward(dy, mlp)  # (N, C)
    dx, attention_grads = gather_backward(dfound, attention)  # (N, C)
    return dx, mlp_grads | attention_grads


def main() -> None:
    model = Positioned(ATTENTION | MLP, body, body_backward)
    workbench.check_gradient(model)
    straight = Positioned(ATTENTION | MLP, partial(body, bend=False), body_backward)
    workbench.train(straight, "without GELU")
    workbench.train(model, "with GELU")
    workbench.in_the_video(2.24, "with ReLU")
    print("\nThe same parameters, trained alike: the nonlinearity alone makes the difference.")


if __name__ == "__main__":
    main()
