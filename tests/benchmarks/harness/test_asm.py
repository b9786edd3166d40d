"""The fraction of vector instructions in compiled code, fresh or loaded from disk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from llvmlite import binding as untyped  # pyright: ignore[reportMissingTypeStubs]
from numba.core import config

from benchmarks.harness import asm
from tinygpt_np.compiled import cache
from tinygpt_np.compiled.simd.linking import linked
from tinygpt_np.compiled.simd.vectors import load, store

FIXED = 1024  # A multiple of every vector.
TWO = np.float32(2)

binding: Any = cast(Any, untyped)


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


def any_size(x: Any, factor: Any) -> None:
    for i in range(x.size):
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
    mixed.append(asm.packed_fraction((compiled(any_size, ones(), TWO),)))  # Has a remainder.
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


def test_what_a_function_calls_counts() -> None:
    functions = {"called": "expf", "caller": "called", "wrapper": "caller"}
    module = binding.parse_assembly("declare float @expf(float)\n" + "\n".join(
        f"define float @{name}(float %x) {{ %y = call float @{callee}(float %x)\n ret float %y }}"
        for name, callee in functions.items()
    ))  # fmt: skip
    library = SimpleNamespace(_get_module_for_linking=lambda: module)
    result = SimpleNamespace(library=library, fndesc=SimpleNamespace(llvm_func_name="caller"))
    assert asm.reached(result) == ({"caller", "called"}, {"expf"})


def test_a_linked_kernel_counts_with_its_caller() -> None:
    call = linked(add_one)

    def through(target: Any) -> None:
        call(target)

    x = ones()
    caller = compiled(through, x.ctypes.data)
    assert x[0] == 2
    assert asm.packed_fraction((caller,)) == 0
    assert asm.packed_fraction((call,)) == 0


@pytest.mark.parametrize(
    ("triple", "packed", "lines"),
    [
        ("x86_64-unknown-linux-gnu", [True],
         ["vaddps %zmm1, %zmm2, %zmm2", "vfmadd231ps (%rdi,%rax,4){1to16}, %zmm1, %zmm2",
          "vsqrtpd %ymm1, %ymm2", "vcvtdq2ps %zmm1, %zmm2", "vcvttps2dq %zmm1, %zmm2",
          "vcmpnlt_usps %xmm1, %xmm2, %xmm3", "divps %xmm1, %xmm2"]),
        ("x86_64-unknown-linux-gnu", [False],
         ["vaddss %xmm1, %xmm2, %xmm2", "vcvtss2sd %xmm1, %xmm2, %xmm2",
          "vcvtsi2sdq %rax, %xmm2, %xmm2", "vucomiss %xmm1, %xmm2"]),
        ("x86_64-unknown-linux-gnu", [],
         ["vmovups (%rax), %zmm1", "vbroadcastss (%rax), %zmm1", "vxorps %xmm1, %xmm1, %xmm1",
          "vpmaxsd %ymm1, %ymm2, %ymm2", "subq $8, %rsp", "callq expf"]),
        ("arm64-apple-darwin23", [True],
         ["fadd v0.4s, v1.4s, v2.4s", "fmla v0.4s, v1.4s, v2.s[1]", "fmla.4s v0, v1, v2[1]",
          "fmla z0.s, p0/m, z1.s, z2.s", "scvtf v0.2d, v0.2d"]),
        ("arm64-apple-darwin23", [False],
         ["fmul s0, s1, v2.s[1]", "fmul.s s0, s1, v2[1]", "fmadd d0, d1, d2, d3", "fcmp s0, #0.0"]),
        ("arm64-apple-darwin23", [],
         ["fmov s0, s1", "ldr q0, [x0]", "add v0.4s, v1.4s, v2.4s", "dup v0.4s, v1.s[0]"]),
        ("powerpc64le-linux", [], ["vaddps %zmm1, %zmm2, %zmm2"]),
    ],
)  # fmt: skip
def test_the_mnemonic_or_the_registers_tell_vectors_from_numbers(
    triple: str, packed: list[bool], lines: list[str]
) -> None:
    for line in lines:
        assert asm.arithmetic(f"name:\n\t{line}\n", triple) == packed, line
