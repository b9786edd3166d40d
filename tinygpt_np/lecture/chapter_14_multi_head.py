"""01:21:59 Multi-headed self-attention

Four narrow heads instead of a wide one: a token can look for four things at once, with the same
number of parameters. The heads' outputs are concatenated, and a linear layer mixes them.
"""

from functools import partial

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Positioned, Result
from tinygpt_np.lecture.workbench import N_EMBD, N_HEAD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

TEXT = "good lord"
ATTENTION = {"c_attn": (N_EMBD, 3 * N_EMBD), "c_proj": (N_EMBD, N_EMBD)}


def attention(
    params: Tensors, x: np.ndarray, batch: int, block: str = "", n_head: int = N_HEAD
) -> Result:
    """x (N, C) -> y (N, C), saved; `block` is a suffix of the parameters' names (chapter 16)."""
    qkv, c_attn = ops.linear.forward(x, params["c_attn" + block])  # (N, 3C)
    heads, saved = ops.attention.forward(qkv, batch, n_head)  # (N, C)
    y, c_proj = ops.linear.forward(heads, params["c_proj" + block])  # (N, C)
    return y, (c_attn, saved, c_proj, block)


def attention_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    """dy (N, C) -> dx (N, C), gradients."""
    c_attn, heads, c_proj, block = saved
    dheads, dc_proj, _ = ops.linear.backward(dy, c_proj)  # (N, C)
    dqkv = ops.attention.backward(dheads, heads)  # (N, 3C)
    dx, dc_attn, _ = ops.linear.backward(dqkv, c_attn)  # (N, C)
    return dx, {"c_attn" + block: dc_attn, "c_proj" + block: dc_proj}


def main() -> None:
    model = Positioned(ATTENTION, attention, attention_backward)
    workbench.check_gradient(model)
    single = Positioned(ATTENTION, partial(attention, n_head=1), attention_backward)
    workbench.train(single, f"1 head of {N_EMBD} channels")
    workbench.train(model, f"{N_HEAD} heads of {N_EMBD // N_HEAD} channels")
    workbench.in_the_video(2.28)
    saved = model.forward(workbench.load_data()[0].encode(TEXT)[None])[1]
    # The forward has saved: ids, positions, (c_attn, (q, k, v, probs, ...), c_proj, block), y.
    maps = {f"head {h}": probs for h, probs in enumerate(saved[2][1][3][0])}  # (T, T)
    print("\nwhat each head attends to:\n\n" + workbench.heat_maps(maps, TEXT))


if __name__ == "__main__":
    main()
