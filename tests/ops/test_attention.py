from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import attention

rng = np.random.default_rng(10)
B, T, H, D = 2, 5, 3, 4
C = H * D
QKV = rng.standard_normal((B * T, 3 * C))
DY = rng.standard_normal((B * T, C))


def by_loops(qkv: np.ndarray) -> np.ndarray:
    """Return the formula of the docstring, computed one number at a time."""
    q, k, v = np.split(qkv.reshape(B, T, 3 * C), 3, axis=-1)
    y = np.zeros((B, T, C))
    for b, t, h in np.ndindex(B, T, H):
        head = slice(h * D, (h + 1) * D)
        scores = np.array([q[b, t, head] @ k[b, s, head] / np.sqrt(D) for s in range(t + 1)])
        probs = np.exp(scores) / np.exp(scores).sum()
        y[b, t, head] = sum(probs[s] * v[b, s, head] for s in range(t + 1))
    return y.reshape(B * T, C)


def test_it_is_the_formula() -> None:
    y, _ = attention.forward(QKV, B, H)
    np.testing.assert_allclose(y, by_loops(QKV), rtol=1e-12)


@pytest.mark.parametrize("scale", [1, 1e6])
def test_the_future_never_changes_the_past_nor_gets_a_gradient_from_it(scale: float) -> None:
    # With 1e6, scores reach -1e12: a hidden score must be lower than any visible one.
    qkv, dy = scale * QKV, rng.standard_normal((B, T, C))
    changed = qkv.reshape(B, T, 3 * C).copy()
    changed[:, 3:] = scale * rng.standard_normal((B, T - 3, 3 * C))
    y, saved = attention.forward(qkv, B, H)
    after = attention.forward(changed.reshape(B * T, 3 * C), B, H)[0].reshape(B, T, C)
    np.testing.assert_array_equal(after[:, :3], y.reshape(B, T, C)[:, :3])
    assert (after[:, 3:] != y.reshape(B, T, C)[:, 3:]).any()
    dy[:, 3:] = 0
    dqkv = attention.backward(dy.reshape(B * T, C), saved).reshape(B, T, 3 * C)
    assert (dqkv[:, 3:] == 0).all()
    assert (dqkv[:, :3] != 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_scores_choose_one_token_and_have_no_gradient(dtype: Any) -> None:
    # Scores of ±1e4 and more: the exponential of the distance to the largest is 0.
    qkv = np.array([2e2, 2e2, 1.0]).repeat(C) * QKV
    y, saved = attention.forward(qkv.astype(dtype), B, H)
    q, k, v = (attention.split_heads(rows, B, H) for rows in np.split(qkv, 3, axis=-1))
    scores = np.where(np.tri(T, dtype=bool), q @ k.mT, -np.inf)  # (B, H, T, T)
    chosen = np.take_along_axis(v, scores.argmax(axis=-1)[..., None], axis=-2)  # (B, H, T, D)
    np.testing.assert_array_equal(y, attention.merge_heads(chosen).astype(dtype))
    dq, dk, _ = np.split(attention.backward(DY.astype(dtype), saved), 3, axis=-1)
    assert (dq == 0).all()
    assert (dk == 0).all()
