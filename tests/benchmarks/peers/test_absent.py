"""A peer that is not installed says how to install it."""

import importlib
import sys

import pytest


def test_what_is_not_installed_says_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.peers.torch_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # So an import of it fails.
    with pytest.raises(ImportError, match=r"PyTorch is not installed: pip install '\.\[bench\]'"):
        importlib.import_module("benchmarks.peers.torch_kernels")
