"""Settings of Numba that compiled kernels cannot be used with."""

import os
import re
from pathlib import Path

import pytest
from helpers.commands import error_of, train_tiny
from helpers.processes import printed
from helpers.tiny_run import TEXT

from tinygpt_np.compiled import settings
from tinygpt_np.compiled.settings import CompilerError
from tinygpt_np.gradcheck import suite
from tinygpt_np.training import runs

OFF = "NUMBA_DISABLE_JIT=1 turns Numba's compiler off"


def run(code: str, **environment: str) -> str:
    """Return what a program prints in a process of its own, with variables set."""
    return printed(code, env=os.environ | environment)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        *(("NUMBA_NUM_THREADS", value, 1) for value in ("0", "", "1.5")),
        *(("NUMBA_DISABLE_JIT", value, 0) for value in ("-1", "yes")),
    ],
)
def test_a_wrong_value_is_reported_with_its_variable(
    name: str, value: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    expected = f"the environment variable {name} must be a whole number, {least} or more, not "
    with pytest.raises(CompilerError, match=f"{expected}{value!r}"):
        settings.check()
    monkeypatch.setenv(name, f"{least}")
    settings.check()
    assert settings.compiler_is_off() == ""


def test_settings_are_checked_before_numba_is_imported_and_those_of_a_program_count() -> None:
    code = "import tinygpt_np as tg; tg.GPT\ntry: tg.kernels\nexcept RuntimeError as e: print(e)"
    assert "NUMBA_NUM_THREADS must be a whole number" in run(code, NUMBA_NUM_THREADS="0")
    code = f"import numba; numba.config.DISABLE_JIT = True; {code}"
    assert OFF in run(code)


def test_without_the_compiler_kernels_say_why_and_doctor_tests_nothing() -> None:
    code = (
        "import tinygpt_np as tg; from tinygpt_np import cli; tg.GPT, dir(tg)\n"
        "try: tg.kernels\n"
        "except RuntimeError as error: print(error)\n"
        "cli.main(['doctor'])"
    )
    reason, *doctor = run(code, NUMBA_DISABLE_JIT="1").splitlines()
    assert OFF in reason
    assert "processor" in doctor[0]
    assert f"{OFF}; no compiled kernel can be tested" in "\n".join(doctor)
    assert "right" not in "\n".join(doctor)


def test_without_the_compiler_training_uses_numpy_and_refuses_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(settings, "compiler_is_off", lambda: "NUMBA_DISABLE_JIT=1")
    train_tiny()
    assert f"note  {OFF}, so the NumPy backend is used" in capsys.readouterr().err
    config = Path("runs", "cpu", runs.CONFIG)
    assert '"numpy"' in config.read_text()
    config.write_text(config.read_text().replace('"numpy"', '"numba"'))
    for arguments in (
        ["train", "--data", "text.txt", "--backend", "numba"],
        ["train", "--resume", "cpu", "--max-iters", "30"],
        ["sample", "--backend=numba"],
    ):
        message = error_of(capsys, *arguments)
        assert f"the numba backend cannot be used, because {OFF}" in message
        assert "NumPy computes" not in message


@pytest.mark.slow
def test_without_the_compiler_gradcheck_checks_numpy_alone_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(
        "from tinygpt_np.cli import main; main(['gradcheck', 'gelu', '--json'])",
        NUMBA_DISABLE_JIT="1",
    )
    assert f"{OFF}, so only NumPy's code is checked" in found
    titles = re.findall(r'"title": "([^"]*)"', found)
    assert titles
    assert not [title for title in titles if "numba" in title]
    monkeypatch.setattr(settings, "compiler_is_off", lambda: "NUMBA_DISABLE_JIT=1")
    assert suite.checkable() == [name for name in suite.NAMES if name != "step"]
    titles = [title for title, _ in suite.run("gpt", "complex", 0)]
    assert "gpt, float32" in titles
    assert not [title for title in titles if "numba" in title]
    with pytest.raises(CompilerError, match=OFF):
        next(suite.run("step", "complex", 0))
