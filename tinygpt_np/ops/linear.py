"""Linear: multiply each row by a matrix and add a bias.

    y_nk = Σ_c x_nc W_ck + b_k            x: (N, C)   W: (C, K)   b: (K,)   y: (N, K)

Derivation. Let L be the loss. x_nc contributes to every output of its row, W_ck and b_k to the k-th
output of every row:

    ∂L/∂x_nc = Σ_k ∂L/∂y_nk W_ck          dx = dy Wᵀ
    ∂L/∂W_ck = Σ_n x_nc ∂L/∂y_nk          dW = xᵀ dy
    ∂L/∂b_k  = Σ_n ∂L/∂y_nk               db = the column sums of dy

The shapes alone leave no choice: the only product of dy (N, K) and W (C, K) that gives (N, C) is
dy Wᵀ. Common mistake: dyᵀ x, which is dWᵀ and has the right shape if C = K.
The weight is (in, out), as in GPT-2's checkpoints (Conv1D); PyTorch's nn.Linear is (out, in).
Source: "Let's build GPT" 00:58:26 (the lm_head); makemore part 4, exercise 1.
"""

from typing import Any

import numpy as np


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), weight (C, K), bias (K,) or None -> y (N, K), saved."""
    product = x @ weight  # (N, K)
    y = product if bias is None else product + bias  # (N, K)
    return y, (x, weight, bias is None)


def backward(
    dy: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """dy (N, K) -> dx (N, C), dweight (C, K), dbias (K,) or None if there was no bias."""
    x, weight, unbiased = saved
    # y = product if bias is None else product + bias
    dproduct = dy  # (N, K)
    dbias = None if unbiased else dy.sum(axis=0)  # (K,)
    # product = x @ weight
    dx = dproduct @ weight.T  # (N, C)
    dweight = x.T @ dproduct  # (C, K)
    return dx, dweight, dbias
