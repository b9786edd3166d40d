"""01:26:48 Residual connections

Blocks are stacked, and the deeper the stack, the less gradient arrives at its start. So a branch is
added to its input instead of replacing it: x = x + branch(x). A sum passes its gradient on to both
sides unchanged, so the gradient of the loss reaches the embeddings directly.
"""

from functools import partial

import numpy as np

from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Positioned, Result
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION, attention, attention_backward
from tinygpt_np.lecture.chapter_15_feed_forward import MLP, feed_forward, feed_forward_backward
from tinygpt_np.lecture.workbench import Shapes
from tinygpt_np.model.language_model import Saved
from tinygpt_np.model.optimizer import global_norm
from tinygpt_np.storage.parameters import Tensors

N_LAYER, BRANCHES = 2, ((attention, attention_backward), (feed_forward, feed_forward_backward))


def stack(block: Shapes, n_layer: int = N_LAYER) -> Shapes:
    """Return the shapes of n_layer blocks, named c_fc.0, c_fc.1, …, from those of one block."""
    return {f"{name}.{i}": shape for i in range(n_layer) for name, shape in block.items()}


def body(params: Tensors, x: np.ndarray, batch: int, n_layer: int, residual: bool) -> Result:
    """x (N, C) -> y (N, C), saved: n_layer blocks of two branches, attention and feed-forward."""
    steps: list[Saved] = []
    for i in range(n_layer):
        for branch, branch_backward in BRANCHES:
            y, saved = branch(params, x, batch, f".{i}")  # (N, C)
            x = x + y if residual else y  # (N, C)
            steps.append((branch_backward, saved))
    return x, (steps, residual)


def body_backward(dx: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    (steps, residual), grads = saved, Tensors()
    for branch_backward, saved_branch in reversed(steps):
        # x = x + y: dy is dx, and dx also continues past the branch
        dbranch, branch_grads = branch_backward(dx, saved_branch)  # (N, C)
        dx = dx + dbranch if residual else dbranch  # (N, C)
        grads |= branch_grads
    return dx, grads


def deep(n_layer: int = N_LAYER, residual: bool = True) -> Positioned:
    """Return a model of n_layer blocks."""
    blocks = partial(body, n_layer=n_layer, residual=residual)
    return Positioned(stack(ATTENTION | MLP, n_layer), blocks, body_backward)


def main() -> None:
    tokens, targets = np.random.default_rng(1337).integers(63, size=(2, 8, 16))  # (B, T)
    print("norm of the gradient that reaches the token embeddings, untrained:")
    print("  blocks           1         2         4         8")
    for residual in (False, True):
        all_grads = [deep(n, residual).loss_and_grads(tokens, targets)[1] for n in (1, 2, 4, 8)]
        norms = " ".join(f"{global_norm({'': grads['wte']}):9.1e}" for grads in all_grads)
        print(f"  {'with   ' if residual else 'without'}   {norms}")
    print()
    workbench.check_gradient(deep())
    workbench.train(deep(residual=False), f"{N_LAYER} blocks")
    workbench.train(deep(), "the same, residual")
    workbench.in_the_video(2.08, "with three blocks")
    print("\nWithout residual connections, two blocks do worse than the single one of chapter 15;")
    print("with them, two blocks do better.")


if __name__ == "__main__":
    main()
