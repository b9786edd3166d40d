"""Choosing the operations by name."""

import pytest

from tinygpt_np import backend, ops
from tinygpt_np.compiled import kernels


def test_numpy_is_ops_and_numba_is_kernels_and_nothing_else_is_known() -> None:
    assert [backend.load(name) for name in backend.BACKENDS] == [ops, kernels]
    with pytest.raises(ValueError, match="one of numpy, numba, not 'nunpy'"):
        backend.load("nunpy")
