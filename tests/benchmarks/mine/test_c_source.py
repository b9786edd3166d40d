"""C is parsed, compiled and checked before it is run."""

import shutil
from pathlib import Path

import pytest
from helpers.optional import needs_programs

from benchmarks import cases
from benchmarks.mine.c_source import accepted, functions
from benchmarks.mine.signature import Parameter
from benchmarks.mine.source import Kernel, find

C = """
#include <stddef.h>
#include <stdint.h>
#define TWICE(x) { (x) + (x) }
// void hidden(float *x) {
/* void hidden_too(float *x) { */
typedef float real;
static float helper(void) { if (1) { while (0) {} } return 0; }
void softmax(const float *restrict x, float probs[], int64_t N, int V)
{
}
void odd(int N, int V, real *x, float *__restrict__ probs) { helper(); }
void twice(const double * x, float *probs, int64_t N, int64_t V) {}
void real_size(const float *x, float *probs, float N, int64_t V) {}
void by_value(float x, float *probs, int64_t N, int64_t V) {}
void a(const float *a, float *b, long c, size_t d, int64_t threads) {}
static void own(const float *x, float *probs, int64_t N, int64_t V) {}
void *back_save(const float *qkv, int64_t B) { return 0; }
void back(const float *dy, const float *qkv, float *dqkv, void *saved) {}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder, whose name has a space, with a file of kernels."""
    folder = tmp_path / "my kernels"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "my.c").write_text(C)
    return folder


def found(text: str, *operations: str) -> Kernel:
    return find(text, operations or cases.OPERATIONS)


def test_functions_are_read_from_their_definitions() -> None:
    read = functions(C)
    names = "helper softmax odd twice real_size by_value a own back_save back"
    assert [*read] == names.split()
    assert read["helper"] == []
    assert read["softmax"] == [
        Parameter("x", "float *"), Parameter("probs", "float *"), Parameter("N", "int64_t"),
        Parameter("V", "int"),
    ]  # fmt: skip
    assert read["odd"] == [
        Parameter("N", "int"), Parameter("V", "int"), Parameter("x", "real *"),
        Parameter("probs", "float *"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "wanted", "expected"),
    [
        ("float *", "float *", True),
        ("real *", "float *", True),
        ("double *", "float *", False),
        ("float", "float *", False),
        ("long *", "int64_t *", True),
        ("int *", "int64_t *", False),
        ("int", "int64_t", True),
        ("int *", "int64_t", False),
        ("float", "int64_t", False),
        ("double", "float", True),
        ("int", "float", False),
        ("mine", "int64_t", False),
        ("double *", "void *", True),
    ],
)
def test_types_that_hold_other_values_are_not_accepted(
    kind: str, wanted: str, expected: bool
) -> None:
    assert accepted(kind, wanted) == expected


@needs_programs("cc")
@pytest.mark.parametrize(
    ("text", "takes", "types"),
    [
        ("my.c:softmax", "x probs N V", "c_void_p c_void_p c_int64 c_int"),
        ("my.c:odd", "N V x probs", "c_int c_int c_void_p c_void_p"),
        ("my.c:a@forward", "x probs N V threads", "c_void_p c_void_p c_long c_size_t c_int64"),
    ],
)
def test_arguments_have_the_types_of_the_parameters(
    text: str, takes: str, types: str, folder: Path
) -> None:
    kernel = found(text, "softmax")
    assert (kernel.operation, kernel.direction) == ("softmax", "forward")
    assert Path(kernel.path).is_file()
    assert kernel.function.takes == takes.split()
    assert kernel.function.types == types.split()
    assert kernel.parallel == ("threads" in takes)


@needs_programs("cc")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("my.c:twice", "x must be float *, not double *"),
        ("my.c:by_value", "x must be float *, not float"),
        ("my.c:real_size", "N must be int64_t, not float"),
        ("my.c:own", "my.c does not export own; it must not be static"),
        ("my.c:hidden", "my.c has no function hidden; it has helper, softmax"),
        ("my.c:a", "void a(const float *x, float *probs, int64_t N, int64_t V);  // forward"),
        ("bad.c:softmax", "bad.c:1:69: error:"),
        ("my.so:softmax", "my.so cannot be loaded: OSError:"),
    ],
)
def test_what_cannot_be_run_is_refused(text: str, reason: str, folder: Path) -> None:
    body = "void softmax(const float *x, float *probs, long N, long V) {\n return y; }"
    (folder / "bad.c").write_text(body.replace("\n", ""))
    (folder / "my.so").write_text("no library")
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared
        found(text, "softmax")
    assert reason in str(refused.value)


@needs_programs("cc")
def test_a_library_is_called_with_all_that_a_kernel_may_take(folder: Path) -> None:
    kernel = found("my.c:back")
    assert kernel.save is not None
    assert kernel.save.takes == ["qkv", "B"]
    shutil.copy(kernel.path, "my.so")
    library = found("my.so:back@backward", "attention")
    assert library.function.takes == ["dy", "qkv", "dqkv", *"BTHD", "threads", "saved"]
    pointer, number = "c_void_p", "c_int64"
    assert library.function.types == [*[pointer] * 3, *[number] * 5, pointer]
    assert library.save is not None
    assert library.save.takes == ["qkv", *"BTHD"]
    assert not library.parallel


@needs_programs("cc")
def test_a_kernel_with_openmp_is_parallel(folder: Path) -> None:
    pragma = "#pragma omp parallel for\n for (int64_t n = 0; n < N; n++) probs[n] = x[n];"
    text = C.replace("int64_t N, int V)\n{", f"int64_t N, int V)\n{{\n{pragma}")
    (folder / "my.c").write_text(text)
    kernel = found("my.c:softmax")
    assert kernel.parallel
    shutil.copy(kernel.path, "my.so")
    assert found("my.so:softmax@forward", "softmax").parallel
