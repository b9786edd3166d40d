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


def test_every_function_and_every_signature_counts() -> None:
    vectors, numbers = cache.strict(scaled), cache.strict(in_order)
    vectors(ones(), np.float32(2))
    numbers(ones())
    fraction = asm.packed_fraction((vectors, numbers))
    assert fraction is not None
    assert 0 < fraction < 1
    # A second signature of one function.
    vectors(np.ones((FIXED, 3), np.float32)[:, 1], np.float32(2))
    fraction = asm.packed_fraction((vectors,))
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


def test_a_linked_kernel_counts_with_its_caller() -> None:
    call = linked(add_one)

    @cache.strict
    def through(target: Any) -> None:
        call(target)

    x = ones()
    through(x.ctypes.data)
    assert x[0] == 2
    assert asm.packed_fraction((through,)) == 0
    assert asm.packed_fraction((call,)) == 0


X86 = {
    True: [
        "vaddps %zmm1, %zmm2, %zmm2", "vfmadd231ps (%rdi,%rax,4){1to16}, %zmm1, %zmm2",
        "vsqrtpd %ymm1, %ymm2", "vcvtdq2ps %zmm1, %zmm2", "vcvttps2dq %zmm1, %zmm2",
        "vcmpnlt_usps %xmm1, %xmm2, %xmm3", "divps %xmm1, %xmm2",
    ],
    False: [
        "vaddss %xmm1, %xmm2, %xmm2", "vcvtss2sd %xmm1, %xmm2, %xmm2",
        "vcvtsi2sdq %rax, %xmm2, %xmm2", "vucomiss %xmm1, %xmm2",
    ],
    None: [
        "vmovups (%rax), %zmm1", "vbroadcastss (%rax), %zmm1", "vxorps %xmm1, %xmm1, %xmm1",
        "vpmaxsd %ymm1, %ymm2, %ymm2", "subq $8, %rsp", "callq expf",
    ],
}  # fmt: skip
ARM = {
    True: [
        "fadd v0.4s, v1.4s, v2.4s", "fmla v0.4s, v1.4s, v2.s[1]", "fmla.4s v0, v1, v2[1]",
        "fmla z0.s, p0/m, z1.s, z2.s", "scvtf v0.2d, v0.2d",
    ],
    False: [
        "fmul s0, s1, v2.s[1]", "fmul.s s0, s1, v2[1]", "fmadd d0, d1, d2, d3", "fcmp s0, #0.0",
    ],
    None: ["fmov s0, s1", "ldr q0, [x0]", "add v0.4s, v1.4s, v2.4s", "dup v0.4s, v1.s[0]"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "triple"), [(X86, "x86_64-unknown-linux-gnu"), (ARM, "arm64-apple-darwin23")]
)
def test_the_mnemonic_or_the_registers_tell_vectors_from_numbers(
    lines: dict[bool | None, list[str]], triple: str
) -> None:
    for packed, each in lines.items():
        for line in each:
            expected = [] if packed is None else [packed]
            assert asm.arithmetic(f"name:\n\t{line}\n", triple) == expected, line


def test_the_assembly_of_other_processors_tells_nothing() -> None:
    assert asm.arithmetic("\tvaddps %zmm1, %zmm2, %zmm2\n", "powerpc64le-linux") == []
