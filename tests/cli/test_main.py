"""What holds for every command: how it is found, refused and explained."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt_np import cli


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "train, sample, convert, tokenize, prepare, gradcheck, study, lecture"),
        (["trian"], "trian"),
        (["train", "--n-lyer", "3"], "--n-layer"),
        (["train", "--n-embd", "10"], "10 is not a multiple of 4"),
        (["train", "--batch-size", "0"], "batch_size must be positive, not 0"),
        (["train", "--dropout", "1.5"], "dropout must be in [0, 1), not 1.5"),
        (["train", "--preset", "huge"], "lecture-small"),
    ],
)
def test_a_command_or_value_that_does_not_exist_is_refused_before_anything_is_done(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "command", ["train", "sample", "convert", "tokenize", "prepare", "gradcheck", "lecture"]
)
def test_every_flag_has_a_line_of_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    # An entry lasts from its flag to the next one; "(default: ...)" is no help.
    entries = re.split(r"\n\W*(?=--[a-z0-9])", capsys.readouterr().out)[1:]
    assert entries
    for entry in entries:
        words = re.findall(r"[a-z]{2,}", entry.split("(default")[0])
        assert len(words) > 3, entry


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--help"]])
def test_help_starts_without_the_compiler(arguments: list[str]) -> None:
    code = (
        "import sys; from tinygpt_np import cli\n"
        f"try: cli.main({arguments})\n"
        "finally: print('numba' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "False"
