import numpy as np
import pytest

from tinygpt_np.ops import attention

rng = np.random.default_rng(10)
B, T, H, D = 2, 5, 3, 4
C = H * D
QKV = rng.standard_normal((B * T, 3 * C))


def by_loops(qkv: np.ndarray) -> np.ndarray:
    """The formula of the docstring, one number at a time."""
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


def test_split_heads_and_merge_heads_undo_each_other() -> None:
    rows = rng.standard_normal((B * T, C))
    heads = attention.split_heads(rows, B, H)
    assert heads.shape == (B, H, T, D)
    np.testing.assert_array_equal(attention.merge_heads(heads), rows)


@pytest.mark.parametrize("scale", [1, 100, 1e6])
def test_the_future_never_changes_the_past(scale: float) -> None:
    # With 1e6, scores reach -1e12: a hidden score must be lower than any that is seen.
    qkv = scale * QKV
    changed = qkv.reshape(B, T, 3 * C).copy()
    changed[:, 3:] = scale * rng.standard_normal((B, T - 3, 3 * C))
    y = attention.forward(qkv, B, H)[0].reshape(B, T, C)
    after = attention.forward(changed.reshape(B * T, 3 * C), B, H)[0].reshape(B, T, C)
    np.testing.assert_array_equal(after[:, :3], y[:, :3])
    assert (after[:, 3:] != y[:, 3:]).any()


def test_a_loss_on_the_past_gives_the_future_exactly_no_gradient() -> None:
    dy = rng.standard_normal((B, T, C))
    dy[:, 3:] = 0
    _, saved = attention.forward(QKV, B, H)
    dqkv = attention.backward(dy.reshape(B * T, C), saved).reshape(B, T, 3 * C)
    assert (dqkv[:, 3:] == 0).all()
    assert (dqkv[:, :3] != 0).any()


def test_a_single_token_attends_to_itself() -> None:
    y, _ = attention.forward(QKV, B * T, H)
    np.testing.assert_array_equal(y, QKV[:, 2 * C :])


def test_permuting_the_texts_permutes_the_result() -> None:
    swapped = QKV.reshape(B, T, 3 * C)[::-1].reshape(B * T, 3 * C)
    y = attention.forward(QKV, B, H)[0].reshape(B, T, C)
    after = attention.forward(swapped, B, H)[0].reshape(B, T, C)
    np.testing.assert_array_equal(after, y[::-1])


def test_the_key_bias_has_no_gradient() -> None:
    # Adding one vector to all keys shifts every score of a row alike, and softmax does not notice.
    _, saved = attention.forward(QKV, B, H)
    dqkv = attention.backward(rng.standard_normal((B * T, C)), saved)
    np.testing.assert_allclose(dqkv[:, C : 2 * C].sum(axis=0), 0, atol=1e-14)
