"""llm.c's kernels, with a file in place of train_gpt2.c that has functions of its signatures.

-Ofast changes how a whole process rounds, so what is compiled is loaded in processes of its own.
"""

import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from helpers.processes import LIMIT

from benchmarks import cases
from benchmarks.harness.worker import Process, WorkerError
from benchmarks.peers import llmc_kernels

KERNELS = Path(__file__).parents[2] / "fixtures" / "llmc_kernels.c"
WAYS = ("forward", "backward")
BOTH_WAYS = [(name, way) for name in ("attention", "layer_norm", "gelu") for way in WAYS]
RIGHT = [("matmul", "forward"), ("softmax", "forward"), *BOTH_WAYS]
CROSS_ENTROPY = ("cross_entropy", "loss and gradient")


def compiler() -> bool:
    """Whether there is a cc that knows OpenMP."""
    command = ["cc", "-fopenmp", "-x", "c", "-c", "/dev/null", "-o", "/dev/null"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=LIMIT)
        return done.returncode == 0
    except FileNotFoundError:
        return False


needs_compiler = pytest.mark.skipif(not compiler(), reason="there is no cc with OpenMP here")


def started(folder: Path) -> Process:
    options = {"threads": 2, "folder": str(folder)}
    asked = {"source": llmc_kernels.__name__, "seed": 0, "options": options}
    return Process("llmc", "benchmarks.harness.rungs:Rungs", asked, 2)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process]:
    folder = tmp_path_factory.mktemp("llm.c")
    shutil.copy(KERNELS, folder / llmc_kernels.SOURCE)
    process = started(folder)
    yield process
    process.close()


def verdict(worker: Process, operation: str, direction: str) -> str | None:
    worker.ask("begin", operation=operation, direction=direction, shape="awkward")
    return worker.ask("open", name="llm.c", threads=2)["wrong"]


@needs_compiler
@pytest.mark.parametrize(("operation", "direction"), RIGHT)
def test_functions_are_called_with_llmc_s_signatures(
    worker: Process, operation: str, direction: str
) -> None:
    assert verdict(worker, operation, direction) is None


@needs_compiler
def test_cross_entropy_is_wrong_only_where_a_probability_underflows(worker: Process) -> None:
    wrong = verdict(worker, *CROSS_ENTROPY)
    assert wrong is not None
    assert wrong.startswith("losses[")
    assert wrong.endswith("2 of 101 elements are wrong")


@needs_compiler
def test_it_says_how_it_was_compiled(worker: Process) -> None:
    about = worker.ask("about")
    assert about["threads"] == 2
    assert about["compiler"]


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_all_that_is_offered_is_tested(operation: str) -> None:
    found = [(operation, way) for rung in llmc_kernels.rungs(operation) for way in rung.runners]
    assert found == [case for case in [*RIGHT, CROSS_ENTROPY] if case[0] == operation]


def test_a_folder_without_llmc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^llm.c: .*train_gpt2.c does not exist$"):
        llmc_kernels.set_up(1, str(tmp_path))


def test_a_machine_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / llmc_kernels.SOURCE).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"^llm.c: there is no C compiler, cc$"):
        llmc_kernels.set_up(1, str(tmp_path))


@needs_compiler
def test_the_first_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    (tmp_path / llmc_kernels.SOURCE).write_text("int two;\n#error it is broken\n#error twice\n")
    with pytest.raises(OSError, match=r"^llm.c: train_gpt2.c:2:2: error: .*it is broken"):
        llmc_kernels.set_up(1, str(tmp_path))


@needs_compiler
def test_a_missing_function_is_named(tmp_path: Path) -> None:
    (tmp_path / llmc_kernels.SOURCE).write_text("void matmul_forward(void) {}\n")
    process = started(tmp_path)
    try:
        with pytest.raises(WorkerError, match="has no softmax_forward"):
            process.ask("about")
    finally:
        process.close()
