"""The machine code of kernels: vector instructions and the hottest loop."""

import re
import subprocess
from collections.abc import Callable
from ctypes import CDLL, c_long, c_void_p
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.optional import needs_programs
from numba.core import config

from benchmarks.ladders.matmul import NOTHING
from benchmarks.worker import asm, sampling
from benchmarks.worker.counters import CountersError
from benchmarks.worker.loops import functions_of
from tinygpt_np.compiled import cache
from tinygpt_np.compiled.kernels.matmul import PLAIN, make_scratch, matmul
from tinygpt_np.compiled.simd.linking import compiled_kernels, linked
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import FUSED, LANES, ROWS, VECTORS, load, store

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


def deep_and_long(x: Any, times: Any) -> None:
    for i in range(times):
        for j in range(times):
            for k in range(times):
                x[i, j] += x[k, i] * x[j, k] * np.float32(3)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] *= np.float32(0.5)


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


def packed(*functions: Any) -> Any:
    return asm.of_numba(functions).fields()["packed"]


def test_the_fraction_is_that_of_the_arithmetic() -> None:
    numbers = compiled(in_order, ones())
    assert packed(numbers) == 0
    # Called from Python, the factor is a double that must be converted: that is not its work.
    vectors = compiled(scaled, ones(), TWO)
    (result,) = vectors.overloads.values()
    before = str(result.library._get_module_for_linking())
    assert packed(vectors) == 1
    assert str(result.library._get_module_for_linking()) == before  # To look changes nothing.
    mixed = [packed(vectors, numbers)]
    vectors(np.ones((FIXED, 3), np.float32)[:, 1], TWO)  # A second signature.
    mixed.append(packed(vectors))
    assert all(0 < (fraction or 0) < 1 for fraction in mixed)


def test_without_arithmetic_there_is_no_fraction_and_no_loop() -> None:
    nothing: dict[str, Any] = {"packed": None, "loop": [], "loop_flops": 0}
    assert asm.of_numba((compiled(size, ones()),)).fields() == nothing
    assert asm.of_numba((cache.strict(in_order),)).fields() == nothing  # Not compiled.
    program = asm.of_numba((compiled(scaled, ones(), TWO),))
    program.target = "powerpc64le-linux"
    assert program.fields() == nothing


def test_what_is_loaded_from_disk_has_the_code_that_it_had() -> None:
    first, second = cache.kernel(in_order), cache.kernel(in_order)
    first(ones())
    found, names = asm.of_numba((first,)).fields(), list[str]()
    with cache.watch(names.append):
        second(ones())
    assert names == []
    assert found["packed"]
    assert found["loop_flops"] >= LANES
    assert asm.of_numba((second,)).fields() == found


def test_a_linked_kernel_counts_with_its_caller() -> None:
    call = linked(add_one)

    def through(target: Any) -> None:
        for _ in range(3):
            call(target)

    x = ones()
    caller = compiled(through, x.ctypes.data)
    assert x[0] == 4
    assert packed(caller) == 0
    assert packed(call) == 0


def test_the_hottest_loop_of_a_matmul_is_the_register_tile() -> None:
    a, b, c = (np.ones((ROWS, FIXED), np.float32), np.ones((FIXED, FIXED), np.float32),
               np.zeros((ROWS, FIXED), np.float32))  # fmt: skip
    matmul(a, False, b, PLAIN, NOTHING, c, make_scratch(Arena()))
    found = asm.of_numba((matmul,)).fields()
    first, *_, last = found["loop"]
    assert first.startswith("tile_matmul, nesting depth ")
    # Four steps of the depth in an iteration; sums stay in registers.
    multiply_adds = 4 * ROWS * VECTORS
    assert found["loop_flops"] == 2 * LANES * multiply_adds
    assert "store" not in last
    if FUSED:
        assert last.startswith(f"{multiply_adds} FMA ×{LANES}, ")
    assert found["packed"] == 1


def test_the_loops_are_those_that_llvm_finds() -> None:
    (tile,) = (each for each in compiled_kernels if each.fndesc.qualname == "tile_matmul")
    machine = tile.library.codegen._tm
    machine.set_asm_verbosity(True)
    try:
        text, _ = asm.assembly(tile.library, asm.reached(tile)[0])
    finally:
        machine.set_asm_verbosity(False)
    # As in ".LBB0_9:   # =>  This Inner Loop Header: Depth=2", and more lines for outer loops.
    noted = re.findall(r"^(\S+):[^:]*?Loop Header: Depth=(\d+)", text, re.MULTILINE)
    expected = sorted((label, int(depth)) for label, depth in noted)
    assert len(expected) > 20
    assert expected == sorted(
        (function.blocks[loop.first].label, loop.depth)
        for function in functions_of(text).values()
        for loop in function.loops
    )


# As of GCC and objdump: a product, and a loop that is passed to OpenMP, with calls of expf.
LISTING = """
/tmp/kernel.so:     file format elf64-x86-64


Disassembly of section .plt:

0000000000001030 <expf@plt>:
    1030:	jmp    *0x2fca(%rip)        # 4000 <expf@GLIBC_2.27>

Disassembly of section .text:

0000000000001100 <sums._omp_fn.0>:
    1100:	vaddss (%rdi),%xmm0,%xmm0
    1104:	add    $0x4,%rdi
    1108:	call   1030 <expf@plt>
    110d:	cmp    %rdi,%rbx
    1110:	jne    1100 <sums._omp_fn.0>
    1116:	ret
    1117:	nopw   0x0(%rax,%rax,1)

0000000000001120 <product>:
    1120:	test   %rdx,%rdx
    1123:	je     1140 <product+0x20>
    1125:	data16 cs nopw 0x0(%rax,%rax,1)
    1130:	vmovups (%rdi,%rax,1),%ymm1
    1135:	vfmadd231ps (%rsi,%rax,1),%ymm1,%ymm0
    113a:	add    $0x20,%rax
    113e:	jne    1130 <product+0x10>
    1140:	jmp    1150 <product+0x30>
    1142:	nop
    1150:	vaddss %xmm0,%xmm1,%xmm0
    1154:	ret

0000000000001160 <sums>:
    1160:	lea    -0x67(%rip),%rdi        # 1100 <sums._omp_fn.0>
    1167:	call   1040 <GOMP_parallel@plt>
    116c:	ret
"""


def listed(monkeypatch: pytest.MonkeyPatch, result: Any) -> Mock:
    """Let objdump write a result."""
    monkeypatch.setattr("subprocess.run", run := Mock(side_effect=[result]))
    return run


def test_the_loop_of_a_library_is_read_from_objdump(monkeypatch: pytest.MonkeyPatch) -> None:
    run = listed(monkeypatch, SimpleNamespace(stdout=LISTING))
    found = asm.loop_of_library(Path("kernel.so"), "product")
    assert run.call_args.kwargs["env"]["LC_ALL"] == "C"  # It writes in other languages too.
    assert found["loop"] == [
        "product, nesting depth 1, chosen by its code:",
        ".L1130:",
        f"  {'vmovups (%rdi,%rax,1),%ymm1':44} load",
        f"  {'vfmadd231ps (%rsi,%rax,1),%ymm1,%ymm0':44} FMA ×8, load",
        f"  {'add $0x20,%rax':44} scalar",
        f"  {'jne .L1130':44} branch",
        "1 FMA ×8, 2 loads, 2 others: 16 FLOP per iteration",
    ]
    assert (found["loop_flops"], found["packed"]) == (16, 0.5)


def test_a_function_that_is_passed_to_openmp_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, SimpleNamespace(stdout=LISTING))
    found = asm.loop_of_library(Path("kernel.so"), "sums")
    first, *_, last = found["loop"]
    assert first == "sums, nesting depth 1, chosen by its code:"
    assert last == "1 arithmetic ×1, 1 load, 1 call, 3 others: 1 FLOP per iteration"


def test_a_library_without_objdump_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, FileNotFoundError("objdump"))
    found = asm.loop_of_library(Path("kernel.so"), "product")
    assert found["loop"] == ["objdump is needed to show the loop"]


@needs_programs("cc", "objdump")
def test_the_loop_of_a_real_library(tmp_path: Path) -> None:
    source, library = tmp_path / "kernel.c", tmp_path / "kernel.so"
    source.write_text(
        "void product(float *x, const float *y, long rows, long n) {\n"
        "    for (long row = 0; row < rows; row++)\n"
        "        for (long i = 0; i < n; i++) x[i] += y[row * n + i] * y[i];\n}\n"
    )
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    found = asm.loop_of_library(library, "product")
    assert found["loop"][0] == "product, nesting depth 2, chosen by its code:"
    assert found["loop_flops"] >= 2
    assert asm.loop_of_library(library, "absent")["loop"] == []
    # It is the same loop with samples, whose addresses are those where the library is loaded.
    x, y = np.ones(1000, np.float32), np.ones((100, 1000), np.float32)
    function: Any = CDLL(str(library)).product
    function.argtypes = (c_void_p, c_void_p, c_long, c_long)
    samples = sampled(partial(function, x.ctypes.data, y.ctypes.data, *y.shape))
    fields = asm.loop_of_library(library, "product", samples)
    assert re.fullmatch(r"product, nesting depth 2, \d+% of the samples:", fields["loop"][0])
    assert fields["loop"][-1] == found["loop"][-1]


def sampled(step: Callable[[], Any]) -> list[int]:
    """Return samples of a step, or skip a test where there are none."""
    try:
        return sampling.addresses(step, tuple, 1, 0.05)
    except CountersError as error:
        pytest.skip(str(error))


@needs_programs("objdump")
def test_with_samples_the_loop_is_that_in_memory_in_which_most_are() -> None:
    x = np.ones((100, FIXED), np.float32)
    # The first loop is deeper by its code, but it is empty.
    function = compiled(deep_and_long, x, 0)
    samples = sampled(lambda: function(x, 0))
    program = asm.of_numba((function,))
    found = program.fields(samples)
    head, *lines, last = found["loop"]
    share = re.fullmatch(r"deep_and_long, nesting depth 2, (\d+)% of the samples:", head)
    assert share is not None
    assert int(share[1]) > 0
    assert any(re.match(r" *\d+\.\d%  \w", line) for line in lines)
    assert last.endswith("FLOP per iteration")
    assert program.fields()["loop"][0].startswith("deep_and_long, nesting depth 3, chosen")


def test_without_objdump_samples_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    function = compiled(in_order, ones())
    program = asm.of_numba((function,))
    (start,) = program.addresses.values()
    for result in (FileNotFoundError("objdump"), SimpleNamespace(stdout="unknown machine")):
        listed(monkeypatch, result)
        assert program.fields([start]) == program.fields()
    monkeypatch.setattr(asm, "MAPS", Path("nowhere"))  # As on systems that cannot sample.
    assert program.fields()["loop"]


def test_memory_is_read_no_further_than_it_is_mapped() -> None:
    (start,) = asm.of_numba((compiled(scaled, ones(), TWO),)).addresses.values()
    end = asm.mapped_until(start)
    assert end > start
    assert end % 4096 == 0
    assert asm.mapped_until(1) == 1
