"""Kernels are found in files, and what cannot be run is refused with a reason."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks.mine.source import Kernel, find, find_all

PYTHON = '''
import numba
from numpy import dot as imported

raise SystemExit("not imported on the command line")

@numba.njit(parallel=PARALLEL)
def product(x, weight, y):
    """Multiply."""

@numba.njit
def serial(x, weight, y): ...

def product_of(a, b, c, block=64, threads=1): ...
def any_number(*arrays): ...
def softmax(x): ...
def norm(dy, qkv, dqkv, saved): ...
def back(dy, qkv, dqkv, saved): ...
def back_save(qkv): ...
def greedy(dy, qkv, dqkv, saved): ...
def greedy_save(dy, qkv): ...
def early(x, weight, y, saved): ...
def early_save(weight): ...
assigned_dx = numba.njit(product.py_func)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder with a file of kernels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(PYTHON.replace("PARALLEL", "False"))
    return tmp_path


def found(text: str, *operations: str) -> Kernel:
    return find(text, operations or cases.OPERATIONS)


def test_the_operation_is_found_by_the_names_of_the_parameters(folder: Path) -> None:
    kernel = found("my.py:product")
    assert (kernel.name, kernel.path) == ("my.py:product", str(folder / "my.py"))
    assert (kernel.operation, kernel.direction) == ("matmul", "forward")
    assert kernel.function.takes == ["x", "weight", "y"]
    assert (kernel.function.types, kernel.save, kernel.parallel) == ([], None, False)


@pytest.mark.parametrize(
    ("text", "operation", "case", "takes"),
    [
        ("my.py:product_of@forward", "matmul", "matmul forward", "x weight y threads"),
        ("my.py:product_of@dx", "matmul", "matmul dx", "dy weight dx threads"),
        ("my.py:any_number@dweight", "matmul", "matmul dweight", "x dy dweight"),
        ("my.py:imported@dx", "matmul", "matmul dx", "dy weight dx"),
        ("my.py:assigned_dx", "matmul", "matmul dx", "dy weight dx"),
        ("my.py:softmax", "softmax", "softmax forward", "x"),
        ("my.py:product@loss_and_gradient", "cross_entropy", "cross_entropy loss and gradient",
         "logits targets losses"),
    ],
)  # fmt: skip
def test_other_functions_are_called_by_position(
    text: str, operation: str, case: str, takes: str, folder: Path
) -> None:
    kernel = found(text, operation)
    assert f"{kernel.operation} {kernel.direction}" == case
    assert kernel.function.takes == takes.split()


@pytest.mark.parametrize(
    ("text", "operations", "reason"),
    [
        ("my.py", "", "must be FILE:FUNCTION, such as my_kernel.py:product, not my.py"),
        ("my.py:", "", "must be FILE:FUNCTION"),
        ("my.py:a-b", "", "must be FILE:FUNCTION"),
        ("no.py:product", "", "no.py does not exist"),
        ("folder.py:product", "", "folder.py is no file"),
        ("my.txt:product", "", "must be a .py, .c or .so file, not my.txt"),
        ("empty.py:product", "", "empty.py has no function product; it has none"),
        (
            "my.py:prodct",
            "",
            "my.py has no function prodct; it has imported, product, serial",
        ),
        ("bad.py:product", "", "bad.py, line 2: expected ':'"),
        ("null.py:product", "", "null"),
        ("my.py:softmax", "", "fits softmax forward and gelu forward and"),
        (
            "my.py:product@sideways",
            "matmul",
            "DIRECTION must be one of forward, dx, dweight, not ",
        ),
        ("my.py:product@update", "", "of product are x, weight, y, but must be those of update"),
        ("my.py:any_number", "matmul", "of any_number cannot be read, but must be one of these"),
        ("my.py:norm", "", "norm takes saved, so there must be a function norm_save"),
        ("my.py:greedy", "", "greedy_save may take qkv, not dy, qkv"),
        ("my.py:early", "", "forward has no forward, so nothing can be saved"),
    ],
)
def test_what_cannot_be_run_is_refused(
    text: str, operations: str, reason: str, folder: Path
) -> None:
    (folder / "folder.py").mkdir()
    (folder / "my.txt").touch()
    (folder / "empty.py").touch()
    (folder / "bad.py").write_text("\ndef product(x, weight, y)\n")
    (folder / "null.py").write_bytes(b"a\0b")
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared
        found(text, *operations.split())
    assert reason in str(refused.value)


def test_a_misfit_is_shown_the_first_line_of_each_direction(folder: Path) -> None:
    with pytest.raises(ValueError, match="product_of are") as refused:
        found("my.py:product_of", "matmul")
    assert str(refused.value).splitlines() == [
        "my.py: the parameters of product_of are a, b, c, threads, but must be one of these; "
        "@DIRECTION goes by their order",
        "  def product_of(x, weight, y)  # forward",
        "  def product_of(dy, weight, dx)  # dx",
        "  def product_of(x, dy, dweight)  # dweight",
    ]


def test_what_a_backward_takes_from_its_forward_is_computed_from_what_that_had(
    folder: Path,
) -> None:
    kernel = found("my.py:back")
    assert kernel.save is not None
    assert (kernel.save.name, kernel.save.takes) == ("back_save", ["qkv"])
    assert kernel.function.takes == ["dy", "qkv", "dqkv", "saved"]
    for name in ("my.py:back", "my.py:product"):
        assert Kernel.of(json.loads(json.dumps(asdict(found(name))))) == found(name)


def test_a_kernel_is_parallel_if_it_takes_threads_or_numba_makes_it_so(folder: Path) -> None:
    assert not found("my.py:product").parallel
    assert found("my.py:product_of@dx", "matmul").parallel
    assert not found("my.py:back").parallel
    (folder / "my.py").write_text(PYTHON.replace("PARALLEL", "True"))
    assert found("my.py:product").parallel
    assert found("my.py:back").parallel  # It may call the other.
    assert not found("my.py:serial").parallel


def test_equal_names_of_two_files_are_told_apart(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "my.py").write_text(PYTHON)
    texts = ["my.py:product", "b/my.py:product", "my.py:back", "my.py:product"]
    names = [kernel.name for kernel in find_all(texts, cases.OPERATIONS)]
    assert names == ["my.py:product", "b/my.py:product", "my.py:back"]
    both = find_all(["my.py:product_of@dx", "my.py:product_of@forward"], ["matmul"])
    assert [kernel.name for kernel in both] == ["my.py:product_of"] * 2
