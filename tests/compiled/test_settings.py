"""Settings of Numba that compiled kernels cannot be used with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import error_of, train_tiny
from helpers.tiny_run import TEXT

from tinygpt_np.compiled import settings
from tinygpt_np.compiled.settings import CompilerError
from tinygpt_np.gradcheck import suite
from tinygpt_np.training import runs

OFF = "NUMBA_DISABLE_JIT=1 turns Numba's compiler off"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with variables set."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        *(("NUMBA_NUM_THREADS", value, 1) for value in ("0", "-1", "abc", "", "1.5")),
        *(("NUMBA_DISABLE_JIT", value, 0) for value in ("-1", "yes", "")),
    ],
)
def test_a_wrong_value_is_reported_with_its_variable(
    name: str, value: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    expected = f"the environment variable {name} must be a whole number, {least} or more, not "
    with pytest.raises(CompilerError, match=f"{expected}{value!r}"):
        settings.check()


def test_values_that_numba_takes_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    settings.check()
    assert settings.compiler_is_off() == ""


def test_a_wrong_value_is_reported_before_numba_stops_at_it() -> None:
    found = run("import tinygpt_np as tg; tg.GPT; tg.kernels", NUMBA_NUM_THREADS="0")
    assert found.stderr.splitlines()[-1].endswith(
        "the environment variable NUMBA_NUM_THREADS must be a whole number, 1 or more, not '0'"
    )


def test_without_the_compiler_kernels_say_why_they_cannot_be_used() -> None:
    code = (
        "import tinygpt_np as tg; tg.GPT, dir(tg)\n"
        "try: tg.kernels\n"
        "except RuntimeError as error: print(error)"
    )
    found = run(code, NUMBA_DISABLE_JIT="1")
    assert found.stderr == ""
    assert OFF in found.stdout


def test_without_the_compiler_doctor_shows_the_machine_and_tests_nothing() -> None:
    found = run("from tinygpt_np import cli; cli.main(['doctor'])", NUMBA_DISABLE_JIT="1")
    assert (found.returncode, found.stderr) == (0, "")
    assert "processor" in found.stdout
    assert f"{OFF}; no compiled kernel can be tested" in found.stdout
    assert "right" not in found.stdout


def test_without_the_compiler_training_uses_numpy_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "compiler_is_off", lambda: "NUMBA_DISABLE_JIT=1")
    train_tiny("--name", "mine")
    assert f"note  {OFF}, so the NumPy backend is used" in capsys.readouterr().err
    assert runs.read_config(folder / "runs" / "mine").backend == "numpy"


def test_without_the_compiler_the_numba_backend_is_refused_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny("--backend", "numpy")
    config = folder / "runs" / "cpu" / runs.CONFIG
    config.write_text(config.read_text().replace('"numpy"', '"numba"'))
    capsys.readouterr()
    monkeypatch.setattr(settings, "compiler_is_off", lambda: "NUMBA_DISABLE_JIT=1")
    for arguments in (
        ["train", "--data", "text.txt", "--backend", "numba"],
        ["train", "--resume", "cpu", "--max-iters", "30"],
        ["sample", "--backend=numba"],
    ):
        message = error_of(capsys, *arguments)
        assert f"the numba backend cannot be used, because {OFF}" in message
        assert "NumPy computes" not in message


def test_a_setting_that_a_program_makes_counts() -> None:
    code = (
        "import numba; numba.config.DISABLE_JIT = True\n"
        "from tinygpt_np.compiled import settings; print(settings.compiler_is_off())"
    )
    assert run(code).stdout == "NUMBA_DISABLE_JIT=1\n"


@pytest.mark.slow
def test_gradcheck_without_the_compiler_checks_numpy_alone_and_says_so() -> None:
    found = run(
        "from tinygpt_np.cli import main; main(['gradcheck', 'gelu', '--json'])",
        NUMBA_DISABLE_JIT="1",
    )
    assert found.returncode == 0, found.stderr
    assert f"{OFF}, so only NumPy's code is checked" in found.stderr
    titles = [report["title"] for report in json.loads(found.stdout)["reports"]]
    assert titles
    assert not [title for title in titles if "numba" in title]


@pytest.mark.slow
def test_everything_that_gradcheck_has_without_the_compiler_is_all_but_the_compiled_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert suite.checkable() == [*suite.NAMES]
    monkeypatch.setattr(settings, "compiler_is_off", lambda: "NUMBA_DISABLE_JIT=1")
    assert suite.checkable() == [name for name in suite.NAMES if name != "step"]
    titles = [title for title, _ in suite.run("gpt", "complex", 0)]
    assert "gpt, float32" in titles
    assert not [title for title in titles if "numba" in title]
    with pytest.raises(CompilerError, match=OFF):
        next(suite.run("step", "complex", 0))
