"""A loss as a function of named tensors, and the curves through its point."""

import numpy as np

from tinygpt_np.gradcheck.rounding import NOISE, Noise, NoisyArray
from tinygpt_np.gradcheck.subject import Subject

VALUES = {"a": np.array([1.0, -2.0]), "b": np.array([0.01, 0.02])}
SUBJECT = Subject(lambda tensors: np.outer(tensors["a"], tensors["b"]), VALUES)


def test_a_curve_moves_some_tensors_and_returns_the_terms() -> None:
    curve = SUBJECT.curve({"a": np.array([0.0, 1.0])})
    np.testing.assert_allclose(curve(0.5), [0.01, 0.02, -0.015, -0.03])
    assert np.iscomplexobj(curve(1j))


def test_the_size_is_that_of_the_terms_relative_to_small_values() -> None:
    np.testing.assert_allclose(SUBJECT.size, 0.09)
    np.testing.assert_allclose(SUBJECT.size_of("a"), 0.09)
    np.testing.assert_allclose(SUBJECT.size_of("b"), 6)


def test_noise_is_added_to_operations_and_not_to_the_point() -> None:
    seen: list[np.ndarray] = []
    subject = Subject(lambda tensors: seen.append(tensors["a"]) or 3 * tensors["a"], VALUES)
    with Noise.of(NOISE, 0):
        found = subject.curve({"a": np.ones(2)}, noisy=True)(0.25)
    assert type(found) is np.ndarray
    assert isinstance(seen[0], NoisyArray)
    np.testing.assert_array_equal(np.asarray(seen[0]), [1.25, -1.75])
    assert 0 < np.abs(found - [3.75, -5.25]).max() < 6 * NOISE
