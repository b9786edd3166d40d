"""Kernels that are compiled once and called by name."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core import config

from tinygpt_np.compiled import cache
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.memory import Matrix
from tinygpt_np.compiled.simd.vectors import load, store


def add_number(target: Matrix, row: Any, number: Any) -> None:
    address = target.address + row * target.stride
    store(address, load(address) + np.float32(number))


def test_a_linked_kernel_is_compiled_once_and_called_with_matrices_and_any_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    names: list[str] = []
    with cache.watch(names.append):
        add = linked(add_number)
        assert names == ["test_linking.add_number"]

        @njit
        def caller(target: Any, flag: Any) -> None:
            add(target, flag, np.int32(-2))
            add(target, 2, np.uint8(200))

        target = np.zeros((4, 2), np.float32)
        caller(Matrix(target.ctypes.data, 8), True)
    np.testing.assert_array_equal(target, np.array([[0, 0], [-2, 0], [200, 0], [0, 0]], np.float32))
    assert names == ["test_linking.add_number"]
    # The caller declares it, contains none of its additions, and can be kept on disk.
    (text,) = caller.inspect_llvm().values()
    declared = re.findall(rf'^declare i32 @"?{__name__}\.add_number"?\(', text, re.MULTILINE)
    assert len(declared) == 1
    assert "fadd" not in text
    (compiled,) = caller.overloads.values()
    assert not compiled.library.has_dynamic_globals
