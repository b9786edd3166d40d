"""NumPy computes every case and passes the gate."""

import pytest
from helpers.gate import CASES, pass_gate

from benchmarks.peers import numpy_kernels


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_numpy_is_right(operation: str, direction: str) -> None:
    (rung,) = numpy_kernels.rungs(operation)
    pass_gate(rung, operation, direction)
