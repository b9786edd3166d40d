"""01:24:25 Feed-forward layers of a transformer block

Attention has gathered something for each token; what processes it? Two linear layers, for each
token alone, with a nonlinearity between them. Why are two linear layers not enough? (The lecture
uses ReLU, GPT-2 uses GELU.)
"""

from functools import partial

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Gradients, Positioned, Result
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION, attention, attention_backward
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

MLP = {"c_fc": (N_EMBD, 4 * N_EMBD), "c_out": (4 * N_EMBD, N_EMBD)}


def feed_forward(
    params: Tensors,
    x: np.ndarray,
    batch: int,
    block: str = "",
    nonlinear: bool = True,
) -> Result:
    """x (N, C) -> y (N, C), saved.

    Tokens do not interact; `batch` is not used.
    """
    hidden, c_fc = ops.linear.forward(x, params["c_fc" + block])  # (N, 4C)
    active, gelu = hidden, None  # (N, 4C)
    if nonlinear:
        active, gelu = ops.gelu.forward(hidden)  # (N, 4C)
    y, c_out = ops.linear.forward(active, params["c_out" + block])  # (N, C)
    return y, (c_fc, gelu, c_out, block)


def feed_forward_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradients."""
    c_fc, gelu, c_out, block = saved
    dactive, dc_out, _ = ops.linear.backward(dy, c_out)  # (N, 4C)
    dhidden = ops.gelu.backward(dactive, gelu) if gelu else dactive  # (N, 4C)
    dx, dc_fc, _ = ops.linear.backward(dhidden, c_fc)  # (N, C)
    return dx, {"c_fc" + block: dc_fc, "c_out" + block: dc_out}


def body(
    params: Tensors,
    x: np.ndarray,
    batch: int,
    nonlinear: bool = True,
) -> Result:
    """x (N, C) -> y (N, C), saved: attention, then feed-forward."""
    attended, saved = attention(params, x, batch)  # (N, C)
    y, mlp = feed_forward(params, attended, batch, "", nonlinear)  # (N, C)
    return y, (saved, mlp)


def body_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradients."""
    saved_attention, mlp = saved
    dattended, grads = feed_forward_backward(dy, mlp)  # (N, C)
    dx, more = attention_backward(dattended, saved_attention)  # (N, C)
    return dx, grads | more


def main() -> None:
    # %% Two linear layers are one
    # Without a nonlinearity, y = (x @ c_fc) @ c_out = x @ (c_fc @ c_out): one matrix (C, C)
    # does the same. So expect the difference from this one matrix to be 0, to rounding, and
    # far from 0 with GELU between the two.

    model = Positioned(ATTENTION | MLP, body, body_backward)
    without_gelu = partial(body, nonlinear=False)
    linear = Positioned(ATTENTION | MLP, without_gelu, body_backward)
    params = {name: p.astype(np.float64) for name, p in model.params.items()}
    x = np.random.default_rng(1337).standard_normal((5, N_EMBD))  # (N, C)
    one = x @ (params["c_fc"] @ params["c_out"])  # (N, C)
    two, _ = feed_forward(params, x, 1, nonlinear=False)  # (N, C)
    bent, _ = feed_forward(params, x, 1)  # (N, C)
    print("largest difference from one matrix")
    print(f"  without GELU  expected 0, measured {np.abs(two - one).max():.1e}")
    print(f"  with GELU     {np.abs(bent - one).max():.1e}")
    workbench.check_gradient(model)

    # %% Training
    # The layers have twice as many weights as attention. Without GELU these add nothing that
    # c_proj and the head could not do, so expect the loss of attention alone. With GELU, the
    # same weights represent functions that no matrix can, so expect a lower loss.

    alone = Positioned(ATTENTION, attention, attention_backward)
    workbench.train(alone, "attention alone")
    workbench.train(linear, "without GELU")
    workbench.train(model, "with GELU")
    workbench.in_the_video(2.24, "with ReLU")
    print("\nThe same parameters and training: only the nonlinearity makes the difference.")

    # %% Try it
    # Any bend between the two layers will do. The preset of tinygpt train uses the square of
    # ReLU, which is cheap and has no kink.

    workbench.try_it(
        "tinygpt train --activation gelu --max-iters 200",
        "Compare the validation loss with those of relu and relu_squared. Is the choice as "
        "important as having any?",
    )


if __name__ == "__main__":
    main()
