"""A peer that is not installed says how to install it."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("peer", "library", "said"),
    [
        ("torch_kernels", "torch", "PyTorch is not installed: pip install '.[bench]'"),
    ],
)
def test_what_is_not_installed_says_how_it_is(
    monkeypatch: pytest.MonkeyPatch, peer: str, library: str, said: str
) -> None:
    monkeypatch.delitem(sys.modules, f"benchmarks.peers.{peer}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)  # So an import of it fails.
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"benchmarks.peers.{peer}")
    assert str(caught.value) == said
