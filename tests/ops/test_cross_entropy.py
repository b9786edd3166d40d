import numpy as np
import pytest

from tinygpt_np.ops import cross_entropy

rng = np.random.default_rng(4)
N, V = 6, 11
LOGITS = rng.standard_normal((N, V))
TARGETS = np.array([4, -1, 0, 4, 10, -1])


def test_equal_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    loss, _ = cross_entropy.forward(np.full((N, V), 0.7), TARGETS)
    assert loss == pytest.approx(np.log(V), rel=1e-15)


def test_the_loss_is_the_mean_of_minus_log_probability() -> None:
    counted = [(row, target) for row, target in zip(LOGITS, TARGETS, strict=True) if target >= 0]
    expected = np.mean([-np.log(np.exp(row[t]) / np.exp(row).sum()) for row, t in counted])
    loss, _ = cross_entropy.forward(LOGITS, TARGETS)
    assert loss == pytest.approx(expected, rel=1e-14)


def test_ignored_rows_change_nothing() -> None:
    counted = TARGETS >= 0
    loss, saved = cross_entropy.forward(LOGITS, TARGETS)
    alone, saved_alone = cross_entropy.forward(LOGITS[counted], TARGETS[counted])
    assert loss == alone
    dlogits = cross_entropy.backward(1.0, saved)
    np.testing.assert_array_equal(dlogits[counted], cross_entropy.backward(1.0, saved_alone))
    assert (dlogits[~counted] == 0).all()


def test_every_row_of_the_gradient_sums_to_zero() -> None:
    _, saved = cross_entropy.forward(LOGITS, TARGETS)
    np.testing.assert_allclose(cross_entropy.backward(1.7, saved).sum(axis=-1), 0, atol=1e-16)


def test_with_nothing_to_count_loss_and_gradient_are_zero() -> None:
    loss, saved = cross_entropy.forward(LOGITS, np.full(N, -1))
    assert loss == 0
    assert (cross_entropy.backward(1.0, saved) == 0).all()
    assert (cross_entropy.backward_steps(1.0, saved) == 0).all()


def test_a_float64_upstream_gradient_leaves_float32_as_it_is() -> None:
    _, saved = cross_entropy.forward(LOGITS.astype(np.float32), TARGETS)
    for backward in (cross_entropy.backward, cross_entropy.backward_steps):
        assert backward(np.asarray(2.0), saved).dtype == np.float32


def test_a_single_class_is_no_surprise() -> None:
    loss, _ = cross_entropy.forward(LOGITS[:, :1], np.zeros(N, dtype=np.int64))
    assert loss == 0


def test_huge_logits_cost_their_distance() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    loss, saved = cross_entropy.forward(logits, np.array([1]))
    assert loss == 2e4
    assert cross_entropy.backward(1.0, saved).tolist() == [[1, -1, 0]]
