"""NumPy's kernels pass the gate; a peer that is not installed says how to install it."""

import importlib
import sys

import pytest
from helpers.gate import CASES, pass_gate

from benchmarks.peers import numpy_kernels


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_numpy_is_right(operation: str, direction: str) -> None:
    (rung,) = numpy_kernels.rungs(operation)
    pass_gate(rung, operation, direction)


def test_what_is_not_installed_says_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.peers.torch_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # So an import of it fails.
    with pytest.raises(ImportError, match=r"PyTorch is not installed: pip install '\.\[bench\]'"):
        importlib.import_module("benchmarks.peers.torch_kernels")
