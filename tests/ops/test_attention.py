from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import attention

rng = np.random.default_rng(10)
B, T, H, D = 2, 5, 6, 4
C = H * D
QKV = rng.standard_normal((B * T, 3 * C))
DY = rng.standard_normal((B * T, C))
MASK = 1.5 * (rng.random((B, H, T, T)) < 2 / 3)


def grouped(n_kv_head: int) -> np.ndarray:
    """Return generic rows for H heads of queries and n_kv_head of keys and of values."""
    return rng.standard_normal((B * T, (H + 2 * n_kv_head) * D))


def by_loops(qkv: np.ndarray, n_kv_head: int) -> np.ndarray:
    """Return the formula of the docstring, computed one number at a time."""
    columns = qkv.reshape(B, T, -1, D)
    y = np.zeros((B, T, H, D))
    for b, t, h in np.ndindex(B, T, H):
        key = H + h // (H // n_kv_head)
        q, k, v = (columns[b, :, head] for head in (h, key, key + n_kv_head))
        scores = np.array([q[t] @ k[s] / np.sqrt(D) for s in range(t + 1)])
        probs = np.exp(scores) / np.exp(scores).sum()
        y[b, t, h] = sum(probs[s] * v[s] for s in range(t + 1))
    return y.reshape(B * T, C)


@pytest.mark.parametrize("n_kv_head", [1, 2, 3, H])
def test_it_is_the_formula(n_kv_head: int) -> None:
    qkv = grouped(n_kv_head)
    y, _ = attention.forward(qkv, B, H, None, n_kv_head)
    np.testing.assert_allclose(y, by_loops(qkv, n_kv_head), rtol=1e-12)


def test_without_a_number_of_key_heads_each_query_has_its_own() -> None:
    (y, saved), (expected, as_well) = (
        attention.forward(QKV, B, H, MASK, *given) for given in ((), (H,))
    )
    np.testing.assert_array_equal(y, expected)
    dqkv, expected = (attention.backward(DY, each) for each in (saved, as_well))
    np.testing.assert_array_equal(dqkv, expected)


@pytest.mark.parametrize("n_kv_head", [1, 2, 3])
def test_a_group_is_as_heads_with_equal_keys_and_values_whose_gradients_add(n_kv_head: int) -> None:
    def of_heads(rows: np.ndarray, count: int) -> list[np.ndarray]:
        return np.split(rows.reshape(B * T, -1, D), [H, H + count], axis=1)

    qkv, group = grouped(n_kv_head), H // n_kv_head
    q, k, v = of_heads(qkv, n_kv_head)
    repeated = np.concatenate([q, *(np.repeat(each, group, axis=1) for each in (k, v))], axis=1)
    y, saved = attention.forward(qkv, B, H, MASK, n_kv_head)
    expected, as_well = attention.forward(repeated.reshape(B * T, -1), B, H, MASK)
    np.testing.assert_array_equal(y, expected)
    dq, dk, dv = of_heads(attention.backward(DY, saved), n_kv_head)
    dq_expected, *uses = of_heads(attention.backward(DY, as_well), H)
    np.testing.assert_array_equal(dq, dq_expected)
    for found, each in zip((dk, dv), uses, strict=True):
        sums = sum(each[:, i::group] for i in range(group))
        np.testing.assert_allclose(found, sums, rtol=1e-12)


def test_a_single_token_copies_the_value_of_its_group() -> None:
    qkv = rng.standard_normal((B, (H + 4) * D))
    y, saved = attention.forward(qkv, B, H, None, 2)
    values = qkv[:, -2 * D :].reshape(B, 2, D)
    np.testing.assert_array_equal(y.reshape(B, H, D), values[:, [0, 0, 0, 1, 1, 1]])
    dq, dk, dv = np.split(attention.backward(DY[:B], saved), [C, C + 2 * D], axis=1)
    assert not dq.any()
    assert not dk.any()
    np.testing.assert_allclose(dv.reshape(B, 2, D), DY[:B].reshape(B, 2, 3, D).sum(axis=2))


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
