"""A kernel of a user as a rung: what it is called with, and what its file may do."""

import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.gate import pass_gate, tiny_case
from helpers.optional import needs_programs

from benchmarks import cases
from benchmarks.ladders import Call
from benchmarks.mine.loading import load
from benchmarks.mine.source import find
from benchmarks.worker.problem import WrongResult

POOL = ThreadPoolExecutor(1)

PYTHON = """
import numba
import numpy as np
import beside

SEEN = []

@numba.njit
def product(x, weight, y):
    y[...] = 0
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for k in range(y.shape[1]):
                y[n, k] += beside.times(x[n, c], weight[c, k])

def returned(x, weight):
    return x @ weight

def nothing(x, weight, y):
    pass

def recipe(param, grad, first, second, beta1, threads, epsilon, P):
    SEEN.append((beta1, threads, epsilon, P))

def back_save(qkv):
    return [qkv]

def back(dy, qkv, dqkv, saved):
    SEEN.append(saved)
"""
BESIDE = """
import numba

@numba.njit
def times(a, b):
    return a * b
"""
C = """
#include <stdint.h>
#include <stdlib.h>
void softmax(const float *x, float *probs, int N, int64_t V, int64_t threads)
{ probs[0] = x[1]; probs[1] = N; probs[2] = V; probs[3] = threads; }
float *back_save(const float *qkv) { float *kept = malloc(4); *kept = qkv[0]; return kept; }
void back(const float *dy, const float *qkv, float *dqkv, const float *saved)
{ dqkv[0] = *saved; }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Work in a new folder with kernels; undo what importing them changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my.py").write_text(PYTHON)
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "my.c").write_text(C)
    yield tmp_path
    for name in ("my", "beside"):
        sys.modules.pop(name, None)


def loaded(text: str) -> Any:
    """Return the runner of a kernel and its rung."""
    kernel = find(text, cases.OPERATIONS)
    rung = load(kernel)
    return rung.runners[kernel.direction], rung


def call_of(operation: str, direction: str, threads: int = 1) -> Call:
    """Return a call with random arrays."""
    case = tiny_case(operation, direction)
    inputs = case.inputs(np.random.default_rng(0))
    outputs = {name: np.zeros(shape, np.float32) for name, shape in case.output_shapes.items()}
    return Call(case.sizes, inputs, outputs, threads, POOL)


def test_a_kernel_that_finds_a_module_beside_it_passes_the_gate(folder: Path) -> None:
    runner, rung = loaded("my.py:product")
    pass_gate(rung, "matmul", "forward")
    assert (rung.name, rung.threads, len(runner.compiled)) == ("my.py:product", "one", 1)


def test_a_kernel_may_return_its_outputs_which_are_copied_within_the_step(folder: Path) -> None:
    runner, rung = loaded("my.py:returned")
    pass_gate(rung, "matmul", "forward")
    call = call_of("matmul", "forward")
    runner.prepare(call)()
    np.testing.assert_array_equal(call.outputs["y"], call.inputs["x"] @ call.inputs["weight"])


def test_a_wrong_kernel_does_not_pass(folder: Path) -> None:
    with pytest.raises(WrongResult, match=r"y\[.*\] is nan, expected"):
        pass_gate(loaded("my.py:nothing")[1], "matmul", "forward")


def test_arguments_are_given_by_name(folder: Path) -> None:
    runner, rung = loaded("my.py:recipe")
    runner.prepare(call_of("adamw", "update", threads=3))()
    assert sys.modules["my"].SEEN == [(0.9, 3, 1e-8, 1003)]
    assert rung.threads == "any"


def test_what_was_saved_is_the_last_argument(folder: Path) -> None:
    runner, _ = loaded("my.py:back")
    call = call_of("attention", "backward")
    step = runner.prepare(call)
    for _ in range(2):
        call.saves[0]()
        step()
    first, second = sys.modules["my"].SEEN
    assert first[0] is second[0] is call.inputs["qkv"]
    assert first is not second


def test_a_file_that_exits_cannot_be_imported(folder: Path) -> None:
    (folder / "my.py").write_text("raise SystemExit(0)\ndef product(x, weight, y): ...")
    with pytest.raises(ImportError, match=r"my\.py exits when it is imported"):
        loaded("my.py:product")


@needs_programs("cc")
def test_c_gets_pointers_and_numbers(folder: Path) -> None:
    runner, rung = loaded("my.c:softmax")
    call = call_of("softmax", "forward", threads=3)
    runner.prepare(call)()
    (x,), (probs,) = call.inputs.values(), call.outputs.values()
    assert [*probs[0, :4]] == [x[0, 1], *x.shape, 3]
    assert rung.threads == "any"


@needs_programs("cc")
def test_openmp_has_as_many_threads_as_the_call(folder: Path) -> None:
    (folder / "my.c").write_text(
        "#include <omp.h>\n" + C.replace("= threads", "= omp_get_max_threads()")
    )
    runner, _ = loaded("my.c:softmax")
    call = call_of("softmax", "forward", threads=3)
    runner.prepare(call)()
    assert call.outputs["probs"][0, 3] == 3


@needs_programs("cc")
def test_c_gets_what_it_has_saved(folder: Path) -> None:
    runner, _ = loaded("my.c:back")
    call = call_of("attention", "backward")
    step = runner.prepare(call)
    for value in (7, 8):
        call.inputs["qkv"].flat[0] = value
        call.saves[0]()
        step()
        assert call.outputs["dqkv"].flat[0] == value


@needs_programs("cc")
def test_c_refuses_arrays_that_are_not_contiguous(folder: Path) -> None:
    runner, _ = loaded("my.c:softmax")
    call = call_of("softmax", "forward")
    call.inputs["x"] = np.asfortranarray(call.inputs["x"])
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        runner.prepare(call)
