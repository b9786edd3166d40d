"""01:26:48 Residual connections

Why do two blocks train worse than one? The deeper the stack, the less gradient arrives at its
start. So a branch is added to its input instead of replacing it: x = x + branch(x). A sum passes
its gradient on to both sides unchanged, so the gradient of the loss reaches the embeddings
directly.
"""

from functools import partial

import numpy as np

from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Gradients, Positioned, Result
from tinygpt_np.lecture.chapter_14_multi_head import ATTENTION, attention, attention_backward
from tinygpt_np.lecture.chapter_15_feed_forward import MLP, feed_forward, feed_forward_backward
from tinygpt_np.lecture.workbench import Shapes
from tinygpt_np.model.language_model import Saved
from tinygpt_np.model.optimizer import global_norm
from tinygpt_np.storage.parameters import Tensors

N_LAYER = 2
BRANCHES = (
    (attention, attention_backward),
    (feed_forward, feed_forward_backward),
)


def stack(block: Shapes, n_layer: int = N_LAYER) -> Shapes:
    """Return the shapes of n_layer blocks, named c_fc.0, c_fc.1, …"""
    layers, parts = range(n_layer), block.items()
    return {f"{name}.{i}": shape for i in layers for name, shape in parts}


def body(
    params: Tensors,
    x: np.ndarray,
    batch: int,
    n_layer: int,
    residual: bool,
) -> Result:
    """x (N, C) -> y (N, C), saved: n_layer blocks of two branches."""
    steps: list[Saved] = []
    for i in range(n_layer):
        for branch, branch_backward in BRANCHES:
            y, saved = branch(params, x, batch, f".{i}")  # (N, C)
            x = x + y if residual else y  # (N, C)
            steps.append((branch_backward, saved))
    return x, (steps, residual)


def body_backward(dx: np.ndarray, saved: Saved) -> Gradients:
    """dy (N, C) -> dx (N, C), gradients."""
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


def embedding_gradient(n_layer: int, residual: bool) -> float:
    """Return the norm of the gradient of the token embeddings, untrained."""
    rng, model = np.random.default_rng(1337), deep(n_layer, residual)
    tokens, targets = rng.integers(63, size=(2, 8, 16))  # (B, T)
    _, grads = model.loss_and_grads(tokens, targets)
    return global_norm({"wte": grads["wte"]})


def main() -> None:
    # %% The gradient at the bottom of a stack
    # Without residual connections, a gradient is multiplied by the matrices of every block
    # on its way down. If one more block multiplies its norm by r, n blocks multiply it by
    # r to the n: the first two numbers predict the others. With residual connections, the
    # gradient at the top arrives as it is, plus what the branches add, so expect no decay.

    depths = (1, 2, 4, 8)
    without = [embedding_gradient(n, residual=False) for n in depths]
    residual = [embedding_gradient(n, residual=True) for n in depths]
    ratio = without[1] / without[0]
    expected = [without[0] * ratio ** (n - 1) for n in depths]
    print("norm of the gradient that reaches the token embeddings, untrained:")
    print("  blocks           1         2         4         8")
    for name, norms in (
        ("without", without),
        ("expected", expected),
        ("with", residual),
    ):
        print(f"  {name:<8}  " + " ".join(f"{norm:9.1e}" for norm in norms))
    print(f"Each block without a residual connection leaves a share of {ratio:.2f}: an")
    print("exponential in the depth.")

    # %% The backward of a sum
    # x + branch(x) uses x twice, so its gradient is a sum of two: dx of the sum itself, and
    # what the branch's backward makes of it. Forgetting the first is the usual mistake.

    workbench.check_gradient(deep())

    # %% Training
    # Expect the two blocks without residual connections to be slower than the single one of
    # chapter 15, because their first layers hardly get a gradient, and the same blocks with
    # them to be better, because they have two rounds of looking back.

    workbench.train(deep(residual=False), f"{N_LAYER} blocks")
    workbench.train(deep(), "the same, residual")
    workbench.in_the_video(2.08, "with three blocks")
    print("\nWithout residual connections, two blocks do worse than the single one of")
    print("chapter 15; with them, two blocks do better.")

    # %% Try it
    # Eight blocks with residual connections have about the gradient of one. Do they learn more
    # than two, in as many steps?

    workbench.try_it(
        "tinygpt train --n-layer 8 --n-embd 64 --max-iters 200",
        "Compare the validation loss with that of --n-layer 2. Without residual connections, eight "
        "blocks would get no gradient to learn from.",
    )


if __name__ == "__main__":
    main()
