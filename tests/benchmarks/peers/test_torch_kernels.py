"""PyTorch computes every case and passes the gate."""

import importlib
from typing import Any

import pytest
from helpers.gate import CASES, pass_gate
from helpers.optional import needs

needs("torch")
torch_kernels: Any = importlib.import_module("benchmarks.peers.torch_kernels")


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_pytorch_is_right(operation: str, direction: str) -> None:
    (rung,) = torch_kernels.rungs(operation)
    pass_gate(rung, operation, direction)


def test_pytorch_takes_as_many_threads_as_it_is_told() -> None:
    before = torch_kernels.about()["threads"]
    try:
        torch_kernels.set_up(threads=3)
        assert torch_kernels.about()["threads"] == 3
    finally:
        torch_kernels.set_up(threads=before)
