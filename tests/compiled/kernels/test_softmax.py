import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import normals, plain, poisoned

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import softmax

_, normal = normals(11)
SIZES = [1, 2, 7, 15, 16, 17, 65, 127, 513, 4099, 33001]


def forward_bound(x: np.ndarray, probs: np.ndarray) -> np.ndarray:
    # x - largest rounds once, which moves exp by that much: U |shifted|, in each exp and, weighted
    # by probs, in the total. Then exp twice, the total of V terms, the quotient, the product.
    shifted = np.abs(x - x.max(axis=-1, keepdims=True)).astype(np.float64)
    moved = U * (shifted + (probs * shifted).sum(axis=-1, keepdims=True))
    return probs * (moved + gamma(2 * EXP + x.shape[-1] + 2)) * 1.01 + TINY


# In rows far below zero exp(x) underflows to 0, but exp(x - max) does not.
@pytest.mark.parametrize(
    ("rows", "size", "scale", "offset"),
    [
        *((5, size, scale, 0) for size in SIZES for scale in (1, 30)),
        *((5, size, 1, -1000) for size in (1, 17, 4099)),
        *((rows, 3, 1, 0) for rows in (520, 65541)),
    ],
)
def test_forward_is_the_truth_but_for_rounding(
    rows: int, size: int, scale: float, offset: float
) -> None:
    x = normal(rows, size) * np.float32(scale) + np.float32(offset)
    truth, _ = ops.softmax.forward(x.astype(np.float64))
    probs = poisoned(rows, size)
    softmax.forward_rows(x, probs)
    assert_within(probs, truth, forward_bound(x, truth))


@pytest.mark.parametrize("size", SIZES)
def test_backward_is_the_truth_but_for_rounding(size: int) -> None:
    probs, _ = softmax.forward(normal(5, size))
    dprobs = normal(5, size)
    p, d = probs.astype(np.float64), dprobs.astype(np.float64)
    truth = plain(ops.softmax.backward)(d, (p, None))
    # A sum of V products (V roundings), a difference, a product.
    bound = gamma(size + 2) * p * (np.abs(d) + (np.abs(d) * p).sum(axis=-1, keepdims=True))
    dx = poisoned(5, size)
    softmax.backward_rows(dprobs, probs, dx)
    assert_within(dx, truth, bound + TINY)


def test_huge_logits_take_all_or_share_it_and_minus_infinity_gets_nothing() -> None:
    x = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -np.inf]], np.float32)
    probs, saved = softmax.forward(x)
    assert probs.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    dprobs = np.array([[1, 2, 3], [1, 2, 3]], np.float32)
    assert softmax.backward(dprobs, saved).tolist() == [[0, 0, 0], [-0.25, 0.25, 0]]
