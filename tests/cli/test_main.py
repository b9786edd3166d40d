"""Every command: its help, the errors it reports, and what it imports."""

import os
import re
import subprocess
import sys
from unittest.mock import Mock

import pytest
from helpers.commands import Captured, error_of
from helpers.processes import LIMIT, printed

import tinygpt_np as tg
from tinygpt_np import cli
from tinygpt_np.cli import flags

every_command = pytest.mark.parametrize("command", cli.COMMANDS)
# A message has none of these.
INTERNAL = ("Error parsing", "<class", "NoneType", "literal", "│")


def parser_of(command: str) -> flags.Parser:
    return flags.Parser(cli.load_command(command)(), command)


@every_command
def test_a_wrong_value_is_refused_with_its_flag(command: str, capsys: Captured) -> None:
    parser = parser_of(command)
    for flag, action in parser.flags.items():
        kind = parser.kinds.get(action.dest)
        wrong = {int: ["abc", "", "1.5", "-1", "9" * 5000], float: ["abc", "nan", "inf", "-1"]}
        values = [] if kind is str or kind is None else wrong.get(kind, [""])
        lines = [(f"{flag}={value}", "must be ") for value in values]
        if action.nargs == 0:
            lines.append((f"{flag}=maybe", "takes no value, but 'maybe' was given"))
        else:
            lines.append((flag, "needs a value"))
        for line, problem in lines:
            message = error_of(capsys, command, line)
            assert message.startswith(f"tinygpt: {flag} {problem}")
            assert message.endswith(f" (see tinygpt {command} --help)")
            assert len(message) < 250
            assert not [each for each in INTERNAL if each in message]


@every_command
def test_every_flag_has_help(command: str, capsys: Captured) -> None:
    for flag in ("--help", "-h"):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, flag])
        assert stop.value.code == 0
    out = capsys.readouterr().out
    # An entry extends to the next flag; "(default: ...)" is not help.
    entries = re.split(r"\n  (?=--)", out[out.rindex("usage:") :])[1:]
    shown = {
        flag for entry in entries for flag in re.findall(r"^--[\w-]+|(?<=, )--no-[\w-]+", entry)
    }
    assert shown == {*parser_of(command).flags}
    for entry in entries[1:]:
        assert len(re.findall(r"[a-z]{2,}", entry.split("(default")[0])) > 3, entry


def test_help_lists_every_command(capsys: Captured) -> None:
    cli.main(["--help"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for command, summary in cli.COMMANDS.items():
        assert lines.count([command, *summary.split()]) == 1
        assert (cli.load_command(command).__doc__ or "").startswith(summary)
    for arguments, shown in (([], "usage: tinygpt COMMAND"), (["trian"], "did you mean train?")):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
        assert shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], "numpy numba matplotlib jinja2 rich.progress tinygpt_np.cli.train"),
        (["doctor", "--help"], "numba matplotlib jinja2 tinygpt_np.cli.train"),
        (["train", "--help"], "numba matplotlib jinja2 tinygpt_np.gradcheck tinygpt_np.cli.study"),
        (["sample", "--help"], "numba matplotlib jinja2 rich.progress tinygpt_np.gradcheck"),
        (["study", "softmax"], "numba matplotlib jinja2 scipy torch jax rich.progress pooch"),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], unneeded: str) -> None:
    code = f"import sys; from tinygpt_np import cli\ntry: cli.main({arguments})\n"
    found = printed(f"{code}except SystemExit: pass\nprint(*sys.modules)").splitlines()[-1].split()
    assert "tinygpt_np.cli" in found
    assert not {*found} & {*unneeded.split()}


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_no_file_gets_the_number_of_a_closed_standard_stream() -> None:
    code = (
        "import os; from tinygpt_np import cli; from tinygpt_np.cli.output import write\n"
        "cli.main(['--version']); write(['sampled text'])\n"
        "assert os.open(os.devnull, os.O_RDONLY) > 2"
    )
    command = ["sh", "-c", f'exec {sys.executable} -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(command, timeout=LIMIT).returncode == 0


@pytest.mark.parametrize("said", ["Unable to allocate 9.0 TiB", ""])
def test_too_little_memory_is_reported_with_what_is_available(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(cli, "available_memory", lambda: 123e6)
    monkeypatch.setattr(cli, "parse", Mock(side_effect=MemoryError(said)))
    message = error_of(capsys, "train")
    assert f"tinygpt train: {said or 'one allocation was too large'}; 123 MB are" in message


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "tinygpt_np", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert out.stdout == f"tinygpt-np {tg.__version__}\n"
