import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned, wide

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import EXP, TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import softmax

_, normal = normals(11)


# In rows far below zero exp(x) underflows to 0, but exp(x - max) does not.
@pytest.mark.parametrize(
    ("rows", "size", "scale", "offset"),
    [
        *((5, size, 30, 0) for size in (1, 2, 7, 15, 16, 17, 65, 513, 33001)),
        *((5, size, 1, -1000) for size in (1, 17, 4099)),
        (65541, 3, 1, 0),
    ],
)
def test_results_are_the_truth_but_for_rounding(
    rows: int, size: int, scale: float, offset: float
) -> None:
    x, dprobs = normal(rows, size) * np.float32(scale) + np.float32(offset), normal(rows, size)
    probs, dx = poisoned(rows, size), poisoned(rows, size)
    softmax.forward_rows(x, probs)
    truth, _ = ops.softmax.forward(x.astype(np.float64))
    # x - largest rounds once, which moves exp by that much: U |shifted|, in each exp and, weighted
    # by probs, in the total. Then exp twice, the total of V terms, the quotient, the product.
    shifted = np.abs(x - x.max(axis=-1, keepdims=True)).astype(np.float64)
    moved = U * (shifted + (truth * shifted).sum(axis=-1, keepdims=True))
    assert_within(probs, truth, truth * (moved + gamma(2 * EXP + size + 2)) * 1.01 + TINY)
    softmax.backward_rows(dprobs, probs, dx)
    p, d = wide(probs, dprobs)
    # A sum of V products (V roundings), a difference, a product.
    bound = gamma(size + 2) * p * (np.abs(d) + (np.abs(d) * p).sum(axis=-1, keepdims=True))
    assert_within(dx, unchecked(ops.softmax.backward)(d, (p, None)), bound + TINY)


def test_huge_logits_take_all_or_share_it_and_minus_infinity_gets_nothing() -> None:
    x = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -np.inf]], np.float32)
    probs, saved = softmax.forward(x)
    assert probs.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    dprobs = np.array([[1, 2, 3], [1, 2, 3]], np.float32)
    assert softmax.backward(dprobs, saved).tolist() == [[0, 0, 0], [-0.25, 0.25, 0]]
