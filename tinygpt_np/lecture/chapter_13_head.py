"""01:02:00 Version 4: one head of self-attention, and why it is scaled

Which of the earlier tokens matter to this one? So far, the weights of the past were fixed; now they
depend on the tokens. Each token emits a query (what it looks for) and a key (what it contains). The
score is their dot product. If query and key match, it is high, and much of that token's value is
taken.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Gradients, Positioned, Result
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

TEXT = "my lord, my king"


def attend(qkv: np.ndarray, batch: int) -> Result:
    """qkv (N, 3D) of `batch` sequences -> y (N, D), saved.

    The last of saved are the weights.
    """
    rows = qkv.reshape(batch, -1, qkv.shape[1])  # (B, T, 3D)
    q, k, v = np.split(rows, 3, axis=-1)  # (B, T, D)
    scores = q @ k.mT * q.shape[-1] ** -0.5  # (B, T, T)
    past = np.tri(q.shape[1], dtype=bool)  # (T, T)
    masked = np.where(past, scores, -1e30)  # (B, T, T)
    probs, _ = ops.softmax.forward(masked)  # (B, T, T)
    y = probs @ v  # (B, T, D)
    return y.reshape(len(qkv), -1), (q, k, v, probs)


def attend_backward(dy_rows: np.ndarray, saved: Saved) -> np.ndarray:
    """dy (N, D) -> dqkv (N, 3D): the lines of the forward in reverse."""
    q, k, v, probs = saved
    dy = dy_rows.reshape(v.shape)  # (B, T, D)
    # y = probs @ v
    dprobs = dy @ v.mT  # (B, T, T)
    dv = probs.mT @ dy  # (B, T, D)
    # probs = softmax(masked); where masked, probs and so dscores are 0
    mean = (dprobs * probs).sum(axis=-1, keepdims=True)  # (B, T, 1)
    dscores = probs * (dprobs - mean)  # (B, T, T)
    # scores = q @ k.mT * D ** -0.5
    dq = dscores @ k * q.shape[-1] ** -0.5  # (B, T, D)
    dk = dscores.mT @ q * q.shape[-1] ** -0.5  # (B, T, D)
    dqkv = np.concatenate([dq, dk, dv], axis=-1)  # (B, T, 3D)
    return dqkv.reshape(len(dy_rows), -1)


def body(params: Tensors, x: np.ndarray, batch: int) -> Result:
    """x (N, C) -> y (N, C), saved: one head as wide as the embeddings."""
    y, attention = attend(x @ params["c_attn"], batch)  # (N, C)
    return y, (x, params["c_attn"], attention)


def body_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    x, c_attn, attention = saved
    dqkv = attend_backward(dy, attention)  # (N, 3C)
    return dqkv @ c_attn.T, {"c_attn": x.T @ dqkv}  # (N, C), (C, 3C)


def main() -> None:
    # %% Why the scores are divided by √D
    # A score is a sum of D products. If the numbers in q and k are independent with mean 0
    # and variance 1, so are the products, and the variances of a sum add up: D is expected,
    # and 1 after a division by √D. A softmax of large scores gives one token nearly all weight.

    rng = np.random.default_rng(1337)
    print("     variance of q · k      of q · k / √D      largest of 8 weights")
    print(" D   expected  measured   expected  measured    unscaled   scaled")
    for D in (4, 16, 64):
        q, k = rng.standard_normal((2, 10_000, 8, D))  # (N, 8, D)
        products = (q * k).sum(axis=-1)  # (N, 8)
        sharp, _ = ops.softmax.forward(products)  # (N, 8)
        soft, _ = ops.softmax.forward(products / D**0.5)  # (N, 8)
        print(f"{D:2} {D:10} {products.var():9.2f} {1:10} {products.var() / D:9.2f}", end=" ")
        print(f"{sharp.max(axis=-1).mean():11.2f} {soft.max(axis=-1).mean():8.2f}")
    print("in the video, with D = 16 and other random numbers: 17.47 and 1.09")
    print("Unscaled, a wide head would start with nearly all weight on one token, by")
    print("chance. There the gradient of the softmax, p (1 - p), is almost 0: the head")
    print("would hardly learn to look elsewhere.")

    # %% A head, forward and backward
    # Each backward line is a rule of earlier chapters: two matrix products (chapter 11) and
    # a softmax (chapter 10). The mask needs no line, because dscores has the factor probs,
    # which is 0 there. Expect rounding errors only.

    qkv = rng.standard_normal((15, 21))  # (N, 3D)
    dy = rng.standard_normal((15, 7))  # (N, D)
    by_hand = attend_backward(dy, attend(qkv, 3)[1])  # (N, 3D)
    _, saved = ops.attention.forward(qkv, 3, 1)  # (N, D)
    by_library = ops.attention.backward(dy, saved)  # (N, 3D)
    error = np.abs(by_hand - by_library).max()  # ()
    print(f"backward by hand against ops.attention:    {error:.1e}")
    model = Positioned({"c_attn": (N_EMBD, 3 * N_EMBD)}, body, body_backward)
    workbench.check_gradient(model)

    # %% Training
    # Untrained, the logits are small: expect about ln V, as in chapter 11. Trained, the head
    # can read up to 16 characters where a bigram reads one. It should be below the 2.5 of
    # chapter 11, if the earlier characters tell anything about the next.

    tokenizer = workbench.load_data()[0]
    ids = tokenizer.encode(TEXT)  # (T,)
    untrained = model.forward(ids[None])[1]
    print(f"expected: before ln {tokenizer.vocab_size} = {np.log(tokenizer.vocab_size):.3f}")
    workbench.train(model, "one head")
    trained = model.forward(ids[None])[1]
    workbench.in_the_video(2.40)
    print("A bigram model reaches 2.5; the rest of the gain comes from looking back.")

    # %% Where it looks
    # Row t of the weights is what token t reads. Untrained, all scores are near 0, so row t
    # should spread evenly over its t + 1 tokens. Trained, each row prefers some of them.

    # saved: ids, positions, (x, c_attn, (q, k, v, probs)), y
    before, after = untrained[2][2][3][0], trained[2][2][3][0]  # (T, T)
    print(f"last row, untrained: expected {1 / len(TEXT):.1%} for each token, measured", end=" ")
    print(f"{before[-1].min():.1%} to {before[-1].max():.1%}")
    print(f"            trained: the largest is {after[-1].max():.1%}\n")
    workbench.show_maps({"untrained": before, "trained": after}, TEXT)
    print("\nA trained row has its weight on tokens that lower the loss: no line of the code")
    print("says where to look.")

    # %% Try it
    # The backward of this head has the most lines so far. The command shows each next to its
    # forward line, with its shape and the error that was measured for it.

    workbench.try_it(
        "tinygpt study attention",
        "Look for the forward lines that have two gradients. Which line is the one for the mask?",
    )


if __name__ == "__main__":
    main()
