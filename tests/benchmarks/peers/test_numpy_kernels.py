"""NumPy as a peer; a peer that is not installed says how to install it."""

import importlib
import sys

import pytest

from benchmarks import cases
from benchmarks.peers import numpy_kernels


def test_it_is_the_rung_of_each_ladder_on_any_number_of_threads() -> None:
    for operation in cases.OPERATIONS:
        (rung,) = numpy_kernels.rungs(operation)
        assert (rung.name, rung.threads, rung.reference) == ("NumPy", "any", True)
        assert tuple(rung.runners) == cases.directions(operation)


def test_what_is_not_installed_says_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.peers.torch_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # So an import of it fails.
    with pytest.raises(ImportError, match=r"PyTorch is not installed: pip install '\.\[bench\]'"):
        importlib.import_module("benchmarks.peers.torch_kernels")
