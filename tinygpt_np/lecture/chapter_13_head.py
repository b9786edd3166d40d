"""01:02:00 Version 4: one head of self-attention, and why it is scaled

Now the scores depend on the tokens. Each token emits a query (what it looks for) and a key (what it
contains). The score is their dot product: where query and key match, it is high, and much of that
token's value is taken.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.chapter_12_positions import Positioned, Result
from tinygpt_np.lecture.workbench import N_EMBD
from tinygpt_np.model.language_model import Saved
from tinygpt_np.storage.parameters import Tensors

TEXT = "my lord, my king"


def attend(qkv: np.ndarray, batch: int) -> Result:
    """qkv (N, 3D) of `batch` sequences -> y (N, D), saved; the last of saved are the weights."""
    rows = qkv.reshape(batch, -1, qkv.shape[1])  # (B, T, 3D)
    q, k, v = np.split(rows, 3, axis=-1)  # (B, T, D)
    scores = q @ k.mT * q.shape[-1] ** -0.5  # (B, T, T)
    masked = np.where(np.tri(q.shape[1], dtype=bool), scores, -1e30)  # (B, T, T)
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
    # probs = softmax(masked); where masked, probs and therefore dscores are 0
    dscores = probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))  # (B, T, T)
    # scores = q @ k.mT * D ** -0.5
    dq = dscores @ k * q.shape[-1] ** -0.5  # (B, T, D)
    dk = dscores.mT @ q * q.shape[-1] ** -0.5  # (B, T, D)
    return np.concatenate([dq, dk, dv], axis=-1).reshape(len(dy_rows), -1)  # (N, 3D)


def body(params: Tensors, x: np.ndarray, batch: int) -> Result:
    """x (N, C) -> y (N, C), saved: one head as wide as the embeddings."""
    y, attention = attend(x @ params["c_attn"], batch)  # (N, C)
    return y, (x, params["c_attn"], attention)


def body_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, Tensors]:
    x, c_attn, attention = saved
    dqkv = attend_backward(dy, attention)  # (N, 3C)
    return dqkv @ c_attn.T, {"c_attn": x.T @ dqkv}  # (N, C), (C, 3C)


def main() -> None:
    rng = np.random.default_rng(1337)
    print("q · k of D-vectors with unit variance, and a softmax over 8 such products")
    print("   D   variance: of q · k   of q · k / √D    largest weight: unscaled   scaled")
    for D in (4, 16, 64):
        q, k = rng.standard_normal((2, 10_000, 8, D))  # (N, 8, D)
        products = (q * k).sum(axis=-1)  # (N, 8)
        sharp, soft = (ops.softmax.forward(s)[0] for s in (products, products / D**0.5))  # (N, 8)
        print(f"  {D:2}   {products.var():19.2f}   {products.var() / D:13.2f}", end="    ")
        print(f"{sharp.max(axis=-1).mean():24.2f}   {soft.max(axis=-1).mean():6.2f}")
    print("Unscaled, a wide head would start with nearly all weight on one token, by chance.")
    print("in the video, with D = 16 and other random numbers: 17.47 and 1.09\n")

    qkv, dy = rng.standard_normal((15, 21)), rng.standard_normal((15, 7))  # (N, 3D), (N, D)
    by_hand = attend_backward(dy, attend(qkv, 3)[1])  # (N, 3D)
    by_library = ops.attention.backward(dy, ops.attention.forward(qkv, 3, 1)[1])  # (N, 3D)
    print(f"backward by hand against ops.attention:    {np.abs(by_hand - by_library).max():.1e}")
    model = Positioned({"c_attn": (N_EMBD, 3 * N_EMBD)}, body, body_backward)
    workbench.check_gradient(model)

    ids = workbench.load_data()[0].encode(TEXT)  # (T,)
    before = model.forward(ids[None])[1]
    workbench.train(model, "one head")
    after = model.forward(ids[None])[1]
    workbench.in_the_video(2.40)
    print("A bigram model reaches 2.5; the rest of the gain comes from looking back.\n")
    # The forward has saved: ids, positions, (x, c_attn, (q, k, v, probs)), y.
    maps = {"untrained": before[2][2][3][0], "trained": after[2][2][3][0]}  # (T, T)
    print(workbench.heat_maps(maps, TEXT))


if __name__ == "__main__":
    main()
