"""01:32:51 Layer norm

How large are the numbers that a branch reads? The residual stream grows with every branch added to
it, so that depends on the depth and on the weights. Layer norm scales a token's row to mean 0 and
variance 1 before a branch reads it, as in the lecture and GPT-2; the paper of 2017 normalises after
the branch.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Gradients, Positioned, Result
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
    variance = (centered * centered).mean(axis=-1, keepdims=True)  # (N, 1)
    std = np.sqrt(variance + 1e-5)  # (N, 1)
    xhat = centered / std  # (N, C)
    return xhat * params[name], (xhat, std, params[name], name)


def norm_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradient.

    dx has no component that changes only the mean or only the variance.
    """
    xhat, std, weight, name = saved
    dxhat = dy * weight  # (N, C)
    along_ones = dxhat.mean(axis=-1, keepdims=True)  # (N, 1)
    along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)  # (N, 1)
    dx = (dxhat - along_ones - xhat * along_xhat) / std  # (N, C)
    return dx, {name: (dy * xhat).sum(axis=0)}


def body(params: Tensors, x: np.ndarray, batch: int) -> Result:
    """x (N, C) -> y (N, C), saved: each branch reads a normalised x."""
    steps: list[Saved] = []
    for i in range(N_LAYER):
        for ln, branches in zip(("ln_1", "ln_2"), BRANCHES, strict=True):
            branch, branch_backward = branches
            normed, saved_norm = norm(params, x, f"{ln}.{i}")  # (N, C)
            y, saved = branch(params, normed, batch, f".{i}")  # (N, C)
            x = x + y  # (N, C)
            steps.append((saved_norm, branch_backward, saved))
    y, saved_norm = norm(params, x, "ln_f")  # (N, C)
    return y, (steps, saved_norm)


def body_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradients."""
    steps, saved_norm = saved
    dx, grads = norm_backward(dy, saved_norm)  # (N, C)
    for saved_norm, branch_backward, saved_branch in reversed(steps):
        dnormed, branch_grads = branch_backward(dx, saved_branch)  # (N, C)
        dbranch, norm_grads = norm_backward(dnormed, saved_norm)  # (N, C)
        dx = dx + dbranch  # (N, C)
        grads |= branch_grads | norm_grads
    return dx, grads


def enlarged(params: Tensors) -> Tensors:
    """Return parameters with matrices five times as large."""
    return {n: p * (5 if p.ndim == 2 else 1) for n, p in params.items()}


def random_loss(variance: float, vocab_size: int) -> float:
    """Return the mean loss of random logits with this variance."""
    rng = np.random.default_rng(1337)
    logits = rng.standard_normal((10_000, vocab_size))  # (N, V)
    logits *= variance**0.5
    targets = np.zeros(len(logits), int)  # (N,)
    return float(ops.cross_entropy.forward(logits, targets)[0])


def main() -> None:
    # %% Mean 0, variance 1, and two directions without gradient
    # A row that is shifted by 5 and scaled by 3 gives the same output as before. So moving
    # it along the ones, or away from its mean, does not change the loss, and the gradient
    # has no component in these two directions: expect two sums of 0.

    rng = np.random.default_rng(1337)
    x, dy, (weight, *_) = rng.standard_normal((3, 4, 8))  # (N, C), (N, C), (C,)
    x = 5 + 3 * x  # (N, C)
    _, saved = norm({"": weight}, x, "")  # (N, C)
    by_hand, _ = norm_backward(dy, saved)  # (N, C)
    along_ones = by_hand.sum(axis=-1)  # (N,)
    along_xhat = (by_hand * saved[0]).sum(axis=-1)  # (N,)
    _, saved = ops.layer_norm.forward(x, weight)  # (N, C)
    by_library = ops.layer_norm.backward(dy, saved)[0]  # (N, C)
    error = np.abs(by_hand - by_library).max()  # ()
    print(f"dx along the ones: expected 0, measured    {np.abs(along_ones).max():.1e}")
    print(f"dx along xhat:     expected 0, measured    {np.abs(along_xhat).max():.1e}")
    print(f"backward by hand against ops.layer_norm:   {error:.1e}")
    shapes = stack(BLOCK) | {"ln_f": (N_EMBD,)}
    model = Positioned(shapes, body, body_backward)
    workbench.check_gradient(model)
    print("The second sum is not 0 to rounding: 1e-5, added to the variance against a")
    print("division by 0, makes the output depend a little on the scale.")

    # %% Training
    # The head reads rows of variance 1 now, so the logits have the variance of C products
    # with the head's weights, 1 / 3C each: 1/3. Chapter 4 knows what such logits cost:
    # ln V + 1/6. After training, expect about the loss of chapter 16: two blocks are
    # trainable without layer norm.

    V = model.vocab_size
    print(f"expected: before ln {V} + 1/6 = {np.log(V) + 1 / 6:.3f}")
    workbench.train(model, "layer norm")
    workbench.in_the_video(2.06, "with three blocks")
    print("The small difference from what was expected before is chance: this is one")
    print("draw of the weights. After, it is hardly better than chapter 16.")

    # %% Weights that start five times too large
    # Logits of the normalised model are five times as large, whatever the blocks do: their
    # variance is 25/3. Without layer norm, each of four branches multiplies by up to three
    # matrices, each five times too large. Expect an untrained loss that is out of range.

    expected = random_loss(25 / 3, V)
    print(f"expected with layer norm: before {expected:.1f}\n")
    bare = deep()
    model = Positioned(shapes, body, body_backward)
    for each in (bare, model):
        each.params = enlarged(each.params)
    workbench.train(bare, "residual only")
    workbench.train(model, "layer norm")
    print("\nA layer norm removes the scale of its input: that makes deep stacks trainable.")

    # %% Try it
    # RMS norm only divides by the root mean square, and does not subtract the mean. It has
    # one of the two directions of layer norm. Is that one enough?

    workbench.try_it(
        "tinygpt train --norm layer_norm --max-iters 200",
        "Compare the validation loss with that of --norm rms_norm, the preset's.",
    )


if __name__ == "__main__":
    main()
