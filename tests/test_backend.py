"""Choosing the operations by name."""

import pytest
from helpers.processes import printed

from tinygpt_np import backend, ops
from tinygpt_np.compiled import kernels


def test_numpy_is_ops_and_numba_is_kernels_and_nothing_else_is_known() -> None:
    assert [backend.load(name) for name in backend.BACKENDS] == [ops, kernels]
    with pytest.raises(ValueError, match="one of numpy, numba, not 'nunpy'"):
        backend.load("nunpy")


def test_numpy_does_not_import_a_compiler() -> None:
    code = "import sys; from tinygpt_np import backend; backend.load('numpy'); "
    assert printed(code + "print('numba' in sys.modules)") == "False\n"
