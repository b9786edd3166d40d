"""Causal multi-head attention: every token gathers information from itself and earlier tokens.

    S = Q Kᵀ / √D,  S_ts = hidden for s > t,  P = softmax(S),  Y = P V    for each head and sequence

with Q, K, V (B, H, T, D) from qkv (N, E). Row t of P is the attention of token t. The columns of
qkv are H heads of queries, then J of keys and J of values, so E = (H + 2J) D; J divides H.
Why 1/√D: the dot product of two D-vectors of unit variance has variance D; without the factor, the
softmax of such products is nearly one-hot and its gradient nearly zero.

Derivation, one head. Y = P V is a product, so dP = dY Vᵀ and dV = Pᵀ dY; the softmax has
its own backward; hidden scores are constants, so their gradient is exactly 0; and S_ts = Σ_d
Q_td K_sd/√D gives

    ∂L/∂Q_td = Σ_s ∂L/∂S_ts K_sd / √D     dQ = dS K / √D
    ∂L/∂K_sd = Σ_t ∂L/∂S_ts Q_td / √D     dK = dSᵀ Q / √D

Grouped queries, J < H: the R = H/J heads of queries h with h // R = j all read K_j and V_j. A value
that is used several times gets the sum of the gradients of its uses: dK_j = Σ_{h // R = j} dK_h.

Common mistakes: Qᵀ dS for dK, which is dKᵀ; its shape fits if T = D, and the loss still falls.
h % J for h // R: each query reads the wrong keys, and every shape fits. No sum over the group.
Sources: Vaswani et al., "Attention Is All You Need" (2017), eq. 1; the lecture's self-attention;
Ainslie et al., "GQA" (2023).
"""

from typing import Any

import numpy as np

from tinygpt_np.ops import dropout, softmax

# Finite in float32, usable with complex numbers, and below any other score.
HIDDEN = -3e38


def split_heads(rows: np.ndarray, batch: int, n_head: int) -> np.ndarray:
    """rows (N, C), batch B, n_head H -> heads (B, H, T, D)."""
    return rows.reshape(batch, -1, n_head, rows.shape[-1] // n_head).swapaxes(1, 2)


def merge_heads(heads: np.ndarray) -> np.ndarray:
    """heads (B, H, T, D) -> rows (N, C); the inverse of split_heads."""
    batch, n_head, time, head_size = heads.shape
    return heads.swapaxes(1, 2).reshape(batch * time, n_head * head_size)


def group_heads(heads: np.ndarray, n_kv_head: int) -> np.ndarray:
    """heads (B, H, T, D), n_kv_head J -> groups (B, J, R, T, D)."""
    batch, _, time, head_size = heads.shape
    return heads.reshape(batch, n_kv_head, -1, time, head_size)


def forward(
    qkv: np.ndarray,
    batch: int,
    n_head: int,
    mask: np.ndarray | None = None,
    n_kv_head: int | None = None,
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """qkv (N, E), batch B, n_head H, mask (B, H, T, T) or None, n_kv_head J or None -> y (N, C), saved.

    The rows are those of `batch` sequences, one after another; `mask` is a dropout mask. Without
    n_kv_head, J = H.
    """  # noqa: E501
    kv_heads = n_head if n_kv_head is None else n_kv_head
    all_heads = n_head + 2 * kv_heads
    ends = [n_head, n_head + kv_heads]
    # The head of keys and values that each head of queries reads.
    shared = np.arange(n_head) // (n_head // kv_heads)  # (H,)
    parts = split_heads(qkv, batch, all_heads)  # (B, W, T, D)
    q, keys, values = np.split(parts, ends, axis=1)  # (B, H, T, D), (B, J, T, D), (B, J, T, D)
    k = keys[:, shared]  # (B, H, T, D)
    v = values[:, shared]  # (B, H, T, D)
    scale = q.shape[-1] ** -0.5
    visible = np.tri(q.shape[-2], dtype=bool)  # (T, T)
    products = q @ k.mT  # (B, H, T, T)
    scores = products * scale  # (B, H, T, T)
    masked = np.where(visible, scores, HIDDEN)  # (B, H, T, T)
    probs, saved_probs = softmax.forward(masked)  # (B, H, T, T)
    kept, saved_kept = dropout.forward(probs, mask)  # (B, H, T, T)
    heads = kept @ v  # (B, H, T, D)
    y = merge_heads(heads)  # (N, C)
    return y, (q, k, v, kept, saved_probs, saved_kept, kv_heads)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dqkv (N, E)."""
    q, k, v, kept, saved_probs, saved_kept, kv_heads = saved
    batch, n_head, time, head_size = q.shape
    scale = head_size**-0.5
    visible = np.tri(time, dtype=bool)  # (T, T)
    # y = merge_heads(heads)
    dheads = split_heads(dy, batch, n_head)  # (B, H, T, D)
    # heads = kept @ v
    dkept = dheads @ v.mT  # (B, H, T, T)
    dv = kept.mT @ dheads  # (B, H, T, D)
    # kept, saved_kept = dropout.forward(probs, mask)
    dprobs = dropout.backward(dkept, saved_kept)  # (B, H, T, T)
    # probs, saved_probs = softmax.forward(masked)
    dmasked = softmax.backward(dprobs, saved_probs)  # (B, H, T, T)
    # masked = np.where(visible, scores, HIDDEN)
    dscores = np.where(visible, dmasked, 0)  # (B, H, T, T)
    # scores = products * scale
    dproducts = dscores * scale  # (B, H, T, T)
    # products = q @ k.mT
    dq = dproducts @ k  # (B, H, T, D)
    dk = dproducts.mT @ q  # (B, H, T, D)
    # v = values[:, shared]
    dvalues = group_heads(dv, kv_heads).sum(axis=2)  # (B, J, T, D)
    # k = keys[:, shared]
    dkeys = group_heads(dk, kv_heads).sum(axis=2)  # (B, J, T, D)
    # q, keys, values = np.split(parts, ends, axis=1)
    dparts = np.concatenate([dq, dkeys, dvalues], axis=1)  # (B, W, T, D)
    # parts = split_heads(qkv, batch, all_heads)
    dqkv = merge_heads(dparts)  # (N, E)
    return dqkv
