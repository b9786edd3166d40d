"""The functions in which gradients are written do what their names say."""

import numpy as np

from tinygpt_np.study.proof import operations as op

X = np.arange(24.0).reshape(2, 3, 4)


def test_axes_are_exchanged_and_moved() -> None:
    np.testing.assert_array_equal(op.transpose(X), X.swapaxes(1, 2))
    np.testing.assert_array_equal(op.permuted(X, (1, 2, 0)), X.transpose(1, 2, 0))
    np.testing.assert_array_equal(op.shaped(X, (6, 4), "(N, C)"), X.reshape(6, 4))
    assert op.size(4, "C") == 4


def test_a_reduction_is_along_the_axes_that_it_is_given() -> None:
    total = op.aggregate("sum", X, (0, 2), True, "")
    np.testing.assert_array_equal(total, X.sum(axis=(0, 2), keepdims=True))
    np.testing.assert_array_equal(op.aggregate("std", X, (1,), False, ""), X.std(axis=1))


def test_spreading_a_reduction_and_summing_to_its_shape_are_adjoint() -> None:
    rng = np.random.default_rng(3)
    for shape, axes in {(2, 1, 4): (), (2, 4): (1,), (): (0, 1, 2)}.items():
        small = rng.standard_normal(shape)
        spread = op.spread(small, X.shape, axes)
        assert spread.shape == X.shape
        if len(shape) in (0, 3):
            np.testing.assert_allclose(np.sum(X * spread), np.sum(op.sum_to(X, shape, "") * small))
    np.testing.assert_array_equal(op.sum_to(X, (4,), "")[:], X.sum(axis=(0, 1)))


def test_what_is_stored_twice_at_an_index_is_added() -> None:
    stored = op.scattered(np.array([1.0, 2.0, 4.0]), (3,), op.index[np.array([0, 2, 0])])
    np.testing.assert_array_equal(stored, [5, 0, 2])
