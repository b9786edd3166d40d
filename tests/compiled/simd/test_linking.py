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


def write_digits(target: Matrix, row: Any, first: Any, second: Any, third: Any) -> None:
    """Write the arguments as the digits of a number."""
    store(target.address + row * target.stride, np.float32(100 * first + 10 * second + third))


def add_one(target: Any) -> None:
    store(target, load(target) + np.float32(1))


@pytest.fixture(autouse=True)
def _nothing_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))


def test_matrices_and_any_integers_arrive_in_order() -> None:
    write = linked(write_digits)

    @njit
    def caller(target: Any, flag: Any) -> None:
        write(target, 2, flag, np.int32(-2), np.uint8(200))

    target = np.zeros((4, 2), np.float32)
    caller(Matrix(target.ctypes.data, 8), True)
    expected = np.array([[0, 0], [0, 0], [100 - 20 + 200, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(target, expected)


def test_a_linked_kernel_is_compiled_once_and_called_from_what_can_be_kept_on_disk() -> None:
    names: list[str] = []
    with cache.watch(names.append):
        add = linked(add_one)
        assert names == ["test_linking.add_one"]

        @njit
        def caller(target: Any) -> None:
            add(target)
            add(target)

        @njit
        def other_caller(target: Any) -> None:
            add(target)
            caller(target)

        target = np.zeros(1, np.float32)
        caller(target.ctypes.data)
        other_caller(target.ctypes.data)
    assert target[0] == 5
    assert names == ["test_linking.add_one"]
    # The caller declares the linked kernel, and contains none of its additions.
    (text,) = caller.inspect_llvm().values()
    assert len(re.findall(rf'^declare i32 @"?{__name__}\.add_one"?\(', text, re.MULTILINE)) == 1
    assert "fadd" not in text
    (compiled,) = caller.overloads.values()
    assert not compiled.library.has_dynamic_globals
