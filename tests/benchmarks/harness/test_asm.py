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


def add_one(target: Any) -> None:
    store(target, load(target) + np.float32(1))


def ones() -> np.ndarray:
    return np.ones(FIXED, np.float32)


def test_a_sum_that_must_be_in_order_has_no_vectors() -> None:
    compiled = cache.strict(in_order)
    compiled(ones())
    assert asm.packed_fraction((compiled,)) == 0


def test_a_loop_without_a_remainder_is_all_vectors_whatever_python_calls_it_by() -> None:
    # Called from Python, the factor is a double that must be converted: that is not its work.
    compiled = cache.strict(scaled)
    compiled(ones(), np.float32(2))
    assert asm.packed_fraction((compiled,)) == 1


def test_a_remainder_is_no_vector() -> None:
    def any_size(x: Any, factor: Any) -> None:
        for i in range(x.size):
            x[i] = x[i] * factor

    compiled = cache.strict(any_size)
    compiled(ones(), np.float32(2))
    fraction = asm.packed_fraction((compiled,))
    assert fraction is not None
    assert 0 < fraction < 1


def test_what_is_loaded_from_disk_has_the_fraction_that_it_had() -> None:
    first, second = cache.kernel(in_order), cache.kernel(in_order)
    first(ones())
    fraction = asm.packed_fraction((first,))
    compiled: list[str] = []
    with cache.watch(compiled.append):
        second(ones())
    assert compiled == []
    assert fraction is not None
    assert asm.packed_fraction((second,)) == fraction


def test_to_look_changes_nothing() -> None:
    compiled = cache.strict(scaled)
    compiled(ones(), np.float32(2))
    (result,) = compiled.overloads.values()
    module = result.library._get_module_for_linking()
    before = str(module)
    asm.packed_fraction((compiled,))
    assert str(module) == before


def test_what_was_not_compiled_or_computes_nothing_has_no_fraction() -> None:
    @cache.strict
    def count(x: Any) -> Any:
        return x.size + 1

    count(ones())
    assert asm.packed_fraction((count,)) is None
    assert asm.packed_fraction((cache.strict(in_order),)) is None
    assert asm.packed_fraction(()) is None


def test_every_signature_counts() -> None:
    compiled = cache.strict(scaled)
    compiled(ones(), np.float32(2))
    strided = np.ones((FIXED, 3), np.float32)[:, 1]
    compiled(strided, np.float32(2))
    fraction = asm.packed_fraction((compiled,))
    assert fraction is not None
    assert 0 < fraction < 1


def test_every_function_counts() -> None:
    vectors, numbers = cache.strict(scaled), cache.strict(in_order)
    vectors(ones(), np.float32(2))
    numbers(ones())
    fraction = asm.packed_fraction((vectors, numbers))
    assert fraction is not None
    assert 0 < fraction < 1


def test_what_a_function_calls_counts() -> None:
    module = binding.parse_assembly("""
        declare float @expf(float)
        define float @caller(float %x) {
          %y = call float @called(float %x)
          ret float %y
        }
        define float @called(float %x) noinline {
          %y = call float @expf(float %x)
          ret float %y
        }
        define float @wrapper(float %x) {
          %y = call float @caller(float %x)
          ret float %y
        }
    """)
    library = SimpleNamespace(_get_module_for_linking=lambda: module)
    result = SimpleNamespace(library=library, fndesc=SimpleNamespace(llvm_func_name="caller"))
    assert asm.reached(result) == ({"caller", "called"}, {"expf"})


def test_a_linked_kernel_counts_with_whoever_calls_it() -> None:
    call = linked(add_one)

    @cache.strict
    def through(target: Any) -> None:
        call(target)

    x = ones()
    through(x.ctypes.data)
    assert x[0] == 2
    assert asm.packed_fraction((through,)) == 0


def test_a_linked_kernel_has_a_fraction_of_its_own() -> None:
    assert asm.packed_fraction((linked(add_one),)) == 0


@pytest.mark.parametrize(
    ("line", "packed"),
    [
        ("vaddps %zmm1, %zmm2, %zmm2", [True]),
        ("vfmadd231ps (%rdi,%rax,4){1to16}, %zmm1, %zmm2", [True]),
        ("vmaxps %ymm1, %ymm2, %ymm2", [True]),
        ("vsqrtpd %ymm1, %ymm2", [True]),
        ("vcvtdq2ps %zmm1, %zmm2", [True]),
        ("vcvttps2dq %zmm1, %zmm2", [True]),
        ("vcmpnlt_usps %xmm1, %xmm2, %xmm3", [True]),
        ("divps %xmm1, %xmm2", [True]),
        ("vaddss %xmm1, %xmm2, %xmm2", [False]),
        ("vfmadd213sd %xmm1, %xmm2, %xmm2", [False]),
        ("vcvtss2sd %xmm1, %xmm2, %xmm2", [False]),
        ("vcvtsi2sdq %rax, %xmm2, %xmm2", [False]),
        ("vucomiss %xmm1, %xmm2", [False]),
        ("vmovups (%rax), %zmm1", []),
        ("vbroadcastss (%rax), %zmm1", []),
        ("vxorps %xmm1, %xmm1, %xmm1", []),
        ("vpmaxsd %ymm1, %ymm2, %ymm2", []),
        ("vpaddd %ymm1, %ymm2, %ymm2", []),
        ("subq $8, %rsp", []),
        ("callq expf", []),
    ],
)
def test_on_x86_the_mnemonic_tells(line: str, packed: list[bool]) -> None:
    assert asm.arithmetic(f"name:\n\t{line}\n", "x86_64-unknown-linux-gnu") == packed


@pytest.mark.parametrize(
    ("line", "packed"),
    [
        ("fadd v0.4s, v1.4s, v2.4s", [True]),
        ("fmla v0.4s, v1.4s, v2.s[1]", [True]),
        ("fmla.4s v0, v1, v2[1]", [True]),
        ("fmla z0.s, p0/m, z1.s, z2.s", [True]),
        ("scvtf v0.2d, v0.2d", [True]),
        ("fadd s0, s1, s2", [False]),
        ("fmul s0, s1, v2.s[1]", [False]),
        ("fmul.s s0, s1, v2[1]", [False]),
        ("fmadd d0, d1, d2, d3", [False]),
        ("fcmp s0, #0.0", [False]),
        ("fmov s0, s1", []),
        ("ldr q0, [x0]", []),
        ("add v0.4s, v1.4s, v2.4s", []),
        ("dup v0.4s, v1.s[0]", []),
        ("bl expf", []),
    ],
)
def test_on_arm_the_registers_tell(line: str, packed: list[bool]) -> None:
    assert asm.arithmetic(f"name:\n\t{line}\n", "arm64-apple-darwin23") == packed


def test_the_assembly_of_other_processors_tells_nothing() -> None:
    assert asm.arithmetic("\tvaddps %zmm1, %zmm2, %zmm2\n", "powerpc64le-linux") == []
