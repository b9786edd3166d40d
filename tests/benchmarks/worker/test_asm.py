"""The fraction of vector instructions in compiled code, fresh or loaded from disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import config

from benchmarks.worker import asm
from tinygpt_np.compiled import cache
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.vectors import load, store

FIXED = 1024  # A multiple of every vector.
TWO = np.float32(2)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a cache in which nothing was compiled before."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))


def in_order(x: Any) -> Any:
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


def scaled(x: Any, factor: Any) -> None:
    for i in range(FIXED):
        x[i] = x[i] * factor


def size(x: Any) -> Any:
    return x.size + 1


def add_one(target: Any) -> None:
    store(target, load(target) + np.float32(1))


def ones() -> np.ndarray:
    return np.ones(FIXED, np.float32)


def compiled(function: Any, *arguments: Any) -> Any:
    found = cache.strict(function)
    found(*arguments)
    return found


def test_the_fraction_is_that_of_the_arithmetic() -> None:
    numbers = compiled(in_order, ones())
    assert asm.packed_fraction((numbers,)) == 0
    # Called from Python, the factor is a double that must be converted: that is not its work.
    vectors = compiled(scaled, ones(), TWO)
    (result,) = vectors.overloads.values()
    before = str(result.library._get_module_for_linking())
    assert asm.packed_fraction((vectors,)) == 1
    assert str(result.library._get_module_for_linking()) == before  # To look changes nothing.
    mixed = [asm.packed_fraction((vectors, numbers))]
    vectors(np.ones((FIXED, 3), np.float32)[:, 1], TWO)  # A second signature.
    mixed.append(asm.packed_fraction((vectors,)))
    assert all(0 < (fraction or 0) < 1 for fraction in mixed)
    assert asm.packed_fraction((compiled(size, ones()),)) is None
    assert asm.packed_fraction((cache.strict(in_order),)) is None  # Not compiled.


def test_what_is_loaded_from_disk_has_the_fraction_that_it_had() -> None:
    first, second = cache.kernel(in_order), cache.kernel(in_order)
    first(ones())
    fraction, names = asm.packed_fraction((first,)), list[str]()
    with cache.watch(names.append):
        second(ones())
    assert names == []
    assert fraction
    assert asm.packed_fraction((second,)) == fraction


def test_a_linked_kernel_counts_with_its_caller() -> None:
    call = linked(add_one)

    def through(target: Any) -> None:
        call(target)

    x = ones()
    caller = compiled(through, x.ctypes.data)
    assert x[0] == 2
    assert asm.packed_fraction((caller,)) == 0
    assert asm.packed_fraction((call,)) == 0


X86, ARM = "x86_64-unknown-linux-gnu", "arm64-apple-darwin23"


@pytest.mark.parametrize(
    ("triple", "packed", "lines"),
    [
        (X86, [True], "vaddps a; vfmadd231ps a; vsqrtpd a; vcvtdq2ps a; vcvttps2dq a; divps a"),
        (X86, [True], "vcmpnlt_usps a"),
        (X86, [False], "vaddss a; vcvtss2sd a; vcvtsi2sdq a; vucomiss a"),
        (X86, [], "vmovups a; vbroadcastss a; vxorps a; vpmaxsd a; subq a; callq expf"),
        (ARM, [True], "fadd v0.4s, v1.4s; fmla v0.4s, v1.4s, v2.s[1]; fmla.4s v0, v1, v2[1]"),
        (ARM, [True], "fmla z0.s, p0/m, z1.s, z2.s; scvtf v0.2d, v0.2d"),
        (ARM, [False], "fmul s0, s1, v2.s[1]; fmul.s s0, v2[1]; fmadd d0, d1; fcmp s0, #0.0"),
        (ARM, [], "fmov s0, s1; ldr q0, [x0]; add v0.4s, v1.4s; dup v0.4s, v1.s[0]"),
        ("powerpc64le-linux", [], "vaddps a"),
    ],
)
def test_the_mnemonic_or_the_registers_tell_vectors_from_numbers(
    triple: str, packed: list[bool], lines: str
) -> None:
    for line in lines.split("; "):
        assert asm.arithmetic(f"name:\n\t{line}\n", triple) == packed, line
