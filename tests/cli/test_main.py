"""Every command: its help, the errors it reports, and what it imports."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints
from unittest.mock import Mock

import pytest
from helpers.commands import Captured, error_of, start
from helpers.processes import LIMIT

import tinygpt_np as tg
from tinygpt_np import cli
from tinygpt_np.cli import flags


def test_without_a_command_the_usage_is_shown(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "usage: tinygpt COMMAND" in capsys.readouterr().err


every_command = pytest.mark.parametrize("command", cli.COMMANDS)


def job_of(command: str) -> Any:
    """Return the dataclass of a command, with its defaults."""
    return cli.load_command(command)[0]()


def flags_of(command: str, *kinds: Any) -> list[str]:
    """Return the flags of a command whose values have one of these types, or any type."""
    job = job_of(command)
    hints = get_type_hints(cast(Any, type(job)), include_extras=True)
    found: list[str] = []
    for field in dataclasses.fields(job):
        kind, hint = flags.without_none(hints[field.name]), hints[field.name]
        positional = any(getattr(m, "positional", False) for m in get_args(hint)[1:])
        shown = not positional and field.name != flags.TYPED
        if shown and (not kinds or kind in kinds or get_origin(kind) in kinds):
            found.append(flags.flag_of(field.name))
    return found


def refused(capsys: Captured, command: str, *arguments: str) -> str:
    """Return the one sentence with which a command line is refused."""
    with pytest.raises(SystemExit) as stop:
        cli.main([command, *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.removesuffix("\n")
    assert message.startswith("tinygpt: ")
    assert message.endswith(f" (see tinygpt {command} --help)")
    for internal in ("\n", "Traceback", "Error parsing", "<class", "NoneType", "literal", "│"):
        assert internal not in message
    return message


WRONG = {
    int: ["abc", "", "1.5", "1e3", "-1", "None", "9" * 5000],
    float: ["abc", "", "nan", "inf", "-inf", "-1", "None", "1,5"],
    Literal: ["nosuch", "", "None"],
    Path: [""],
}


@every_command
def test_a_malformed_value_is_refused_with_its_flag(command: str, capsys: Captured) -> None:
    for kind, values in WRONG.items():
        for flag in flags_of(command, kind):
            for number, value in enumerate(values):
                arguments = [f"{flag}={value}"] if number % 2 else [flag, value]
                message = refused(capsys, command, *arguments)
                assert message.startswith(f"tinygpt: {flag} must be ")
                assert len(message) < 250


@every_command
def test_a_missing_or_unexpected_value_is_refused_with_its_flag(
    command: str, capsys: Captured
) -> None:
    for flag in flags_of(command, int, float, Literal, Path, str, tuple):
        message = refused(capsys, command, flag)
        assert message.startswith(f"tinygpt: {flag} needs a value")
    for flag in flags_of(command, bool):
        message = refused(capsys, command, f"{flag}=maybe")
        assert message.startswith(f"tinygpt: {flag} takes no value, but 'maybe' was given")
    message = refused(capsys, command, "--no-such=3")
    assert message.startswith("tinygpt: there is no flag --no-such")


def help_of(capsys: Captured, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command(capsys: Captured) -> None:
    cli.main(["--help"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for command, summary in cli.COMMANDS.items():
        assert lines.count([command, *summary.split()]) == 1
        assert (type(job_of(command)).__doc__ or "").startswith(summary)


@every_command
def test_every_flag_has_help(command: str, capsys: Captured) -> None:
    out = help_of(capsys, command, "--help")
    assert out == help_of(capsys, command, "-h")
    # An entry extends to the next flag; "(default: ...)" is not help.
    entries = re.split(r"\n  (?=--)", out)[2:]
    shown = [re.split(r"[\s,]", entry)[0] for entry in entries]
    assert shown == flags_of(command)
    for entry in entries:
        words = re.findall(r"[a-z]{2,}", entry.split("(default")[0])
        assert len(words) > 3, entry


def modules_after(code: str) -> set[str]:
    """Return the modules that a program imports."""
    out = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return {*out.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], "numpy numba matplotlib jinja2 rich.progress tinygpt_np.cli.train"),
        (["doctor", "--help"], "numba matplotlib jinja2 tinygpt_np.cli.train"),
        (["train", "--help"], "numba matplotlib jinja2 tinygpt_np.gradcheck tinygpt_np.cli.study"),
        (["sample", "--help"], "numba matplotlib jinja2 rich.progress tinygpt_np.gradcheck"),
    ],
)
def test_help_imports_only_what_it_needs(arguments: list[str], unneeded: str) -> None:
    code = f"from tinygpt_np import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass"
    found = modules_after(code)
    assert "tinygpt_np.cli" in found
    assert not found & {*unneeded.split()}


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("arguments", "code"), [("tokenize hii", 0), ("trian", 2)])
def test_a_command_runs_without_its_standard_streams(
    closed: str, arguments: str, code: int
) -> None:
    found = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m tinygpt_np {arguments} {closed}"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert found.returncode == code
    assert "Traceback" not in found.stderr
    assert ("there is no command" in found.stderr) == (code == 2 and "2>" not in closed)


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_no_file_gets_the_number_of_a_closed_standard_stream() -> None:
    code = (
        "import os; from tinygpt_np import cli; from tinygpt_np.cli.output import write\n"
        "cli.main(['--version']); write(['sampled text'])\n"
        "assert os.open(os.devnull, os.O_RDONLY) > 2"
    )
    command = ["sh", "-c", f'exec {sys.executable} -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(command, timeout=LIMIT).returncode == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9.0 TiB"), "Unable to allocate 9.0 TiB"),
        (MemoryError(), "one allocation was too large"),
    ],
)
def test_too_little_memory_is_reported_with_what_is_available(
    error: MemoryError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(cli, "available_memory", lambda: 123e6)
    monkeypatch.setattr(cli, "parse", Mock(side_effect=error))
    expected = (
        f"tinygpt: there is not enough memory for tinygpt train: {said}; 123 MB are available"
    )
    assert error_of(capsys, "train").startswith(expected)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["gradcheck", "softmax"], ["lecture"]])
def test_a_reader_that_has_gone_is_not_an_error(command: list[str]) -> None:
    process = start(*command)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=LIMIT) == 0


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "tinygpt_np", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert out.stdout == f"tinygpt-np {tg.__version__}\n"
