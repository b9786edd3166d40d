"""Muon: the momentum of a matrix, with all its singular values brought near one, as the update.

The gradient of a matrix is dominated by a few directions. With the singular value decomposition
U S Vᵀ of the momentum, U Vᵀ moves the weights equally far in all of them: among all matrices of
spectral norm one, it is the one along which the loss falls fastest.

Newton-Schulz finds U Vᵀ without a decomposition. A polynomial in X Xᵀ times X leaves the singular
vectors and acts on each singular value alone: with A = X Xᵀ,

    a X + (b A + c A²) X = U (a S + b S³ + c S⁵) Vᵀ

The usual coefficients converge to one. Those of Muon do not: their slope at zero, a, is as large
as it can be while values in (0, 1] stay between 0.68 and 1.21 once they are there. So
after five steps only singular values below a thousandth of the norm are still small, and that the
others are only near one changes little.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

import itertools
import math

import numpy as np

from tinygpt_np.config import MUON_EPSILON, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, Architecture
from tinygpt_np.storage.parameters import Tensors


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix with the same singular vectors and singular values near one."""
    a, b, c = NEWTON_SCHULZ
    # X Xᵀ is smallest if X has at most as many rows as columns.
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # (m, n)
    # The polynomial is made for singular values of at most one, and none is above this norm.
    x = x / (math.sqrt(np.sum(np.square(x, dtype=np.float64))) + MUON_EPSILON)  # (m, n)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T  # (m, m)
        x = a * x + (b * gram + c * (gram @ gram)) @ x  # (m, n)
    return x.T if tall else x


def scale_of(rows: int, columns: int) -> float:
    """Return the scale of the update of a matrix (in, out), so that widths can share a rate.

    All singular values of the update are near one. An input of root mean square one is spread over
    more outputs if there are more outputs than inputs, so the update may be larger.
    """
    return math.sqrt(max(1, columns / rows))


def parts_of(config: Architecture, params: Tensors) -> dict[str, list[slice]]:
    """Return the matrices that Muon updates, each with the columns that are one matrix by meaning.

    These are the matrices of the blocks. Embeddings and the head are not among them: their rows
    belong to tokens, and are no directions of one space. c_attn holds queries, keys and values in
    one, and for SwiGLU c_fc holds two halves.
    """
    q, k, F = config.n_embd, config.qk_width, config.inner_width
    splits = {"attn.c_attn": [0, q, k, config.qkv_width]}
    if config.activation == "swiglu":
        splits["mlp.c_fc"] = [0, F, 2 * F]
    found: dict[str, list[slice]] = {}
    for name, param in params.items():
        if name.startswith("h.") and param.ndim == 2:
            layer = name.removesuffix(".weight").split(".", 2)[2]
            ends = splits.get(layer, [0, param.shape[1]])
            found[name] = [slice(*each) for each in itertools.pairwise(ends)]
    return found
