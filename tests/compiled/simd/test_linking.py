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


def write_digits(target: Any, first: Any, second: Any, third: Any) -> None:
    """Write the arguments as the digits of a number."""
    store(target, np.float32(100 * first + 10 * second + third))


def add_one(target: Any) -> None:
    store(target, load(target) + np.float32(1))


@pytest.fixture(autouse=True)
def _nothing_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))


def machine_text(kernel: Any) -> str:
    """Return the optimised LLVM code of a kernel with one signature."""
    (text,) = kernel.inspect_llvm().values()
    return text


def test_arguments_of_any_integers_arrive_in_order() -> None:
    write = linked(write_digits)

    @njit
    def caller(target: Any, flag: Any) -> None:
        write(target, flag, np.int32(-2), np.uint8(200))

    target = np.full(3, np.nan, np.float32)
    caller(target[1:].ctypes.data, True)
    expected = np.array([np.nan, 100 - 20 + 200, np.nan], np.float32)
    np.testing.assert_array_equal(target, expected)


def copy_number(source: Matrix, row: Any, target: Matrix) -> None:
    store(target.address + row * target.stride, load(source.address + row * source.stride))


def test_matrices_arrive_as_address_and_stride() -> None:
    copy = linked(copy_number)

    @njit
    def caller(source: Any, row: Any, target: Any) -> None:
        copy(source, row, target)

    source, target = np.arange(12, dtype=np.float32).reshape(4, 3), np.zeros((4, 2), np.float32)
    caller(Matrix(source.ctypes.data, 12), 2, Matrix(target.ctypes.data, 8))
    np.testing.assert_array_equal(target, np.array([[0, 0], [0, 0], [6, 0], [0, 0]], np.float32))


def test_a_linked_kernel_is_compiled_once_and_at_once() -> None:
    compiled: list[str] = []
    with cache.watch(compiled.append):
        add = linked(add_one)
        assert compiled == ["test_linking.add_one"]

        @njit
        def caller(target: Any) -> None:
            add(target)

        @njit
        def other_caller(target: Any) -> None:
            add(target)
            caller(target)

        target = np.zeros(1, np.float32)
        caller(target.ctypes.data)
        other_caller(target.ctypes.data)
    assert target[0] == 3
    assert compiled == ["test_linking.add_one"]


def test_a_linked_kernel_is_not_compiled_into_its_caller() -> None:
    add = linked(add_one)

    @njit
    def caller(target: Any) -> None:
        add(target)
        add(target)

    caller(np.zeros(1, np.float32).ctypes.data)
    text = machine_text(caller)
    # The caller declares the linked kernel, and contains none of its additions.
    assert len(re.findall(rf'^declare i32 @"?{__name__}\.add_one"?\(', text, re.MULTILINE)) == 1
    assert "fadd" not in text


def test_a_caller_can_be_kept_on_disk() -> None:
    add = linked(add_one)

    @njit
    def caller(target: Any) -> None:
        add(target)

    caller(np.zeros(1, np.float32).ctypes.data)
    (compiled,) = caller.overloads.values()
    assert not compiled.library.has_dynamic_globals
