"""llm.c's kernels, with a file in place of train_gpt2.c that has functions of its signatures.

-Ofast changes how a whole process rounds, so what is compiled is loaded in processes of its own.
"""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from helpers.gate import CASES
from helpers.processes import LIMIT

from benchmarks import cases
from benchmarks.harness.process import Process, WorkerError
from benchmarks.peers import llmc_kernels

KERNELS = Path(__file__).parents[2] / "fixtures" / "llmc_kernels.c"
# Directions that llm.c does not offer; see the docstring of llmc_kernels.
ABSENT = {
    *(("matmul", "dx"), ("matmul", "dweight"), ("softmax", "backward"), ("adamw", "update")),
    ("muon", "orthogonalize"),
}


COMPILE = "cc -fopenmp -x c -c /dev/null -o /dev/null"
compiled = subprocess.run(COMPILE, shell=True, capture_output=True, check=False, timeout=LIMIT)
needs_compiler = pytest.mark.skipif(compiled.returncode != 0, reason="there is no cc with OpenMP")


def started(folder: Path) -> Process:
    options = {"threads": 2, "folder": str(folder)}
    asked = {"source": llmc_kernels.__name__, "seed": 0, "options": options}
    return Process("llmc", "benchmarks.worker.rungs:Rungs", asked, 2)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process]:
    folder = tmp_path_factory.mktemp("llm.c")
    shutil.copy(KERNELS, folder / llmc_kernels.SOURCE)
    with closing(started(folder)) as process:
        yield process


@needs_compiler
@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_functions_are_called_with_llmc_s_signatures(
    worker: Process, operation: str, direction: str
) -> None:
    begun = worker.ask("begin", operation=operation, direction=direction, shape="awkward")
    offered = operation in cases.GPT2 and (operation, direction) not in ABSENT
    assert bool(begun["rungs"]) == offered
    if begun["rungs"]:
        wrong = worker.ask("open", name="llm.c", threads=2)["wrong"]
        if operation == "cross_entropy":  # Wrong only where a probability underflows.
            assert wrong.startswith("losses[")
            assert wrong.endswith("2 of 101 elements are wrong")
        else:
            assert wrong is None
    assert worker.ask("about")["threads"] == 2


@needs_compiler
@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        (None, None, r"^llm.c: .*train_gpt2.c does not exist$"),
        ("", "/nowhere", r"^llm.c: there is no C compiler, cc$"),
        ('#include "two.h"', None, r"^llm.c: .*two.h:1:2: error: .*it is broken"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, path: str | None,
    message: str,
) -> None:  # fmt: skip
    (tmp_path / "two.h").write_text("#error it is broken\n#error twice\n")
    if source is not None:
        (tmp_path / llmc_kernels.SOURCE).write_text(source)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(OSError, match=message):
        llmc_kernels.set_up(1, str(tmp_path))


@needs_compiler
def test_a_missing_function_is_named(tmp_path: Path) -> None:
    (tmp_path / llmc_kernels.SOURCE).write_text("void matmul_forward(void) {}\n")
    with (
        closing(started(tmp_path)) as process,
        pytest.raises(WorkerError, match="has no softmax_forward"),
    ):
        process.ask("about")
