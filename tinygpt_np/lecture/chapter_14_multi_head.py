"""01:21:59 Multi-headed self-attention

Can a token look for several things at once? The weights of a head sum to 1, so what one token gets,
another loses. Four narrow heads instead of a wide one have four such sums, with the same number of
parameters. Their outputs are concatenated, and a linear layer mixes them.
"""

from functools import partial

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Gradients, Positioned, Result
from tinygpt_np.lecture.workbench import N_EMBD, N_HEAD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

TEXT = "my lord"
ATTENTION = {"c_attn": (N_EMBD, 3 * N_EMBD), "c_proj": (N_EMBD, N_EMBD)}


def attention(
    params: Tensors,
    x: np.ndarray,
    batch: int,
    block: str = "",
    n_head: int = N_HEAD,
) -> Result:
    """x (N, C) -> y (N, C), saved.

    `block` is a suffix of the parameters' names (chapter 16).
    """
    qkv, c_attn = ops.linear.forward(x, params["c_attn" + block])  # (N, 3C)
    heads, saved = ops.attention.forward(qkv, batch, n_head)  # (N, C)
    y, c_proj = ops.linear.forward(heads, params["c_proj" + block])  # (N, C)
    return y, (c_attn, saved, c_proj, block)


def attention_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradients."""
    c_attn, heads, c_proj, block = saved
    dheads, dc_proj, _ = ops.linear.backward(dy, c_proj)  # (N, C)
    dqkv = ops.attention.backward(dheads, heads)  # (N, 3C)
    dx, dc_attn, _ = ops.linear.backward(dqkv, c_attn)  # (N, C)
    return dx, {"c_attn" + block: dc_attn, "c_proj" + block: dc_proj}


def main() -> None:
    # %% The same parameters, cut differently
    # A head of D channels needs C · 3D weights, so H heads of C / H channels need as many as
    # one of C. c_proj is new, and both models have it: 3C² + C² are expected for any H.

    model = Positioned(ATTENTION, attention, attention_backward)
    wide = partial(attention, n_head=1)
    single = Positioned(ATTENTION, wide, attention_backward)
    measured = sum(model.params[name].size for name in ATTENTION)
    print(f"expected: 4 · {N_EMBD}² = {4 * N_EMBD**2:,} weights of attention, has {measured:,}")
    workbench.check_gradient(model)

    # %% Training both
    # Same parameters, same start, same batches: any difference comes from the cut. If a
    # character is best predicted from several places in the past, four heads should win,
    # because one head can only read a mixture of these places.

    workbench.train(single, f"1 head of {N_EMBD} channels")
    workbench.train(model, f"{N_HEAD} heads of {N_EMBD // N_HEAD} channels")
    workbench.in_the_video(2.28)
    print("Several weighted sums of the same past are more than one: the gain is free.")

    # %% What each head attends to
    # Row t is what character t reads. A head that spreads its weight evenly looks back t / 2
    # characters in row t, on average over the rows (T - 1) / 4. Heads that have specialised
    # differ from this and from each other.

    ids = workbench.load_data()[0].encode(TEXT)  # (T,)
    saved = model.forward(ids[None])[1]
    # saved: ids, positions, (c_attn, (q, k, v, probs, ...), c_proj, block), y
    probs = saved[2][1][3][0]  # (H, T, T)
    times = np.arange(len(TEXT))  # (T,)
    distances = np.abs(times[:, None] - times)  # (T, T)
    means = (probs * distances).sum(axis=-1).mean(axis=-1)  # (H,)
    print(f"characters back, if spread evenly: {(len(TEXT) - 1) / 4:.2f}; measured, head by head:")
    print("  " + "  ".join(f"{mean:.2f}" for mean in means))
    print("Below this, a head prefers the last characters, which say most about the next.\n")
    workbench.show_maps({f"head {h}": probs[h] for h in range(N_HEAD)}, TEXT)

    # %% Try it
    # More heads are narrower heads, and a dot product of few numbers can tell few tokens
    # apart. So one head should not be best, and neither should very many.

    workbench.try_it(
        "tinygpt train --n-layer 1 --n-head 16 --max-iters 200",
        "Compare the validation loss with those of --n-head 1 and --n-head 4.",
    )


if __name__ == "__main__":
    main()
