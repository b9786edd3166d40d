"""Commands that are run until they end or the block does; a stand-in for mpirun."""

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks.harness import mpi
from benchmarks.harness.process import WorkerError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_without_mpi_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi, "mpirun", lambda: None)
    assert str(mpi.missing(2)).endswith("not installed: " + mpi.INSTALL)
    monkeypatch.setattr(mpi, "mpirun", lambda: "/bin/mpirun")
    monkeypatch.setattr(mpi, "find_spec", Mock(return_value=None))
    assert mpi.missing(2)
    monkeypatch.setattr(mpi, "find_spec", Mock(return_value=find_spec("json")))
    assert mpi.missing(1) == "two ranks need two cores"
    assert mpi.missing(2) is None


def test_mpirun_next_to_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name / "mpirun" for name in ("own", "other")]
    for path in paths:
        path.parent.mkdir()
        path.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(paths[0].with_name("python")))
    monkeypatch.setenv("PATH", str(paths[1].parent))
    assert mpi.mpirun() == str(paths[0])
    paths[0].unlink()
    assert mpi.under_mpirun(3, ["a", "b"]) == [str(paths[1]), "-n", "3", "a", "b"]


def test_lines_are_given_as_they_are_printed_in_the_folder_with_the_threads(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd()); print(os.environ['NUMBA_NUM_THREADS'])"
    with mpi.running(python(code), 3, tmp_path) as lines:
        assert [*lines] == [f"{tmp_path}\n", "3\n"]


def test_a_failure_is_raised_with_the_last_line_of_the_errors() -> None:
    code = "import sys; print('fine'); sys.exit('tinygpt: the disk is full\\n---')"
    with (
        pytest.raises(WorkerError, match=r"python.*: tinygpt: the disk is full$"),
        mpi.running(python(code), 1) as lines,
    ):
        assert [*lines] == ["fine\n"]


def test_an_interrupt_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    child = f"import time\nwhile True: open({str(beats)!r}, 'a').write('.'); time.sleep(0.01)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    def interrupted() -> None:
        with mpi.running(python(parent), 1):
            while not beats.exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    size = beats.stat().st_size
    time.sleep(0.1)
    assert beats.stat().st_size == size
