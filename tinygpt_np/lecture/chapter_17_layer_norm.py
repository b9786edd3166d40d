"""01:32:51 Layer norm

The residual stream grows with every branch added to it. Layer norm scales a token's row to mean 0
and variance 1 before a branch reads it, as in the lecture and GPT-2; the paper of 2017 normalises
after the branch.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Positioned, Result
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION
from tinygpt_np.lecture.chapter_15_feed_forward import MLP
from tinygpt_np.lecture.chapter_16_residual import BRANCHES, N_LAYER, deep, stack
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

BLOCK = ATTENTION | MLP | {"ln_1": (N_EMBD,), "ln_2": (N_EMBD,)}


def norm(params: Tensors, x: np.ndarray, name: str) -> Result:
    """x (N, C) -> y (N, C), saved."""
    centered = x - x.mean(axis=-1, keepdims=True)  # (N, C)
    std = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)  # (N, 1)
    xhat = centered / std  # (N, C)
    return xhat * params[name], (xhat, std, params[name], name)


def norm_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    """dy (N, C) -> dx (N, C), gradient; dx has no component that changes only mean or variance."""
    xhat, std, weight, name = saved
    dxhat = dy * weight  # (N, C)
    along_ones = dxhat.mean(axis=-1, keepdims=True)  # (N, 1)
    along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)  # (N, 1)
    return (dxhat - along_ones - xhat * along_xhat) / std, {name: (dy * xhat).sum(axis=0)}


def body(params: Tensors, x: np.ndarray, batch: int) -> Result:
    """x (N, C) -> y (N, C), saved: as in chapter 16, but each branch reads a normalised x."""
    steps: list[Saved] = []
    for i in range(N_LAYER):
        for (branch, branch_backward), ln in zip(BRANCHES, ("ln_1", "ln_2"), strict=True):
            normed, saved_norm = norm(params, x, f"{ln}.{i}")  # (N, C)
            y, saved = branch(params, normed, batch, f".{i}")  # (N, C)
            x = x + y  # (N, C)
            steps.append((saved_norm, branch_backward, saved))
    y, saved_norm = norm(params, x, "ln_f")  # (N, C)
    return y, (steps, saved_norm)


def body_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    steps, saved_norm = saved
    dx, grads = norm_backward(dy, saved_norm)  # (N, C)
    for saved_norm, branch_backward, saved_branch in reversed(steps):
        dnormed, branch_grads = branch_backward(dx, saved_branch)  # (N, C)
        dbranch, norm_grads = norm_backward(dnormed, saved_norm)  # (N, C)
        dx = dx + dbranch  # (N, C)
        grads |= branch_grads | norm_grads
    return dx, grads


def main() -> None:
    rng = np.random.default_rng(1337)
    x, dy, (weight, *_) = rng.standard_normal((3, 4, 8))  # (N, C), (N, C), (C,)
    x = 5 + 3 * x  # (N, C)
    by_hand, _ = norm_backward(dy, norm({"": weight}, x, "")[1])  # (N, C)
    by_library = ops.layer_norm.backward(dy, ops.layer_norm.forward(x, weight)[1])[0]  # (N, C)
    print(f"backward by hand against ops.layer_norm:   {np.abs(by_hand - by_library).max():.1e}")
    bare, model = deep(), Positioned(stack(BLOCK) | {"ln_f": (N_EMBD,)}, body, body_backward)
    workbench.check_gradient(model)
    large = [{n: p * (5 if p.ndim == 2 else 1) for n, p in m.params.items()} for m in (bare, model)]
    workbench.train(model, "layer norm")
    workbench.in_the_video(2.06, "with three blocks")
    print("With two blocks, that is hardly better than chapter 16. Now all weights start five")
    print("times too large:\n")
    bare.params, model.params = large
    workbench.train(bare, "residual only")
    workbench.train(model, "layer norm")
    print("\nA layer norm removes the scale of its input: that makes deep stacks trainable.")


if __name__ == "__main__":
    main()
