"""The fields of a dataclass become flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from helpers.commands import Captured

from tinygpt_np.cli import flags
from tinygpt_np.cli.flags import Argument, Switch, UsageError


@dataclass(frozen=True, kw_only=True)
class Base:
    max_iters: int = 3
    """How many, of 100 % at most."""
    rate: float = 0.5
    """How
    fast."""

    def __post_init__(self) -> None:
        if self.max_iters < 1 or self.rate > self.max_iters:
            raise ValueError(f"max_iters must be above rate = {self.rate}, not {self.max_iters}")


@dataclass(frozen=True, kw_only=True)
class Job(Base):
    """Do something."""

    source: Annotated[str | None, Argument("SOURCE", positional=True)] = None
    """The source."""
    target: Annotated[str, Argument("TARGET", positional=True)] = ""
    """The destination."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    files: tuple[str, ...] = ("x", "y")
    """Some."""
    top_k: int | None = None
    """At most."""
    out: Path | None = None
    """A file."""
    bias: bool = False
    """With or without."""
    fast: Switch = False
    """Quickly."""


def parsed(*argv: str) -> Job:
    return flags.parse(Job(), "do", [*argv])


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], Job()),
        (["--max-iters", "5", "--rate=1e-1"], Job(max_iters=5, rate=0.1)),
        (["--max_iters=5", "--top_k", "7"], Job(max_iters=5, top_k=7)),
        (["--max-iters=5", "--max-iters=6"], Job(max_iters=6)),
        (["--bias", "--fast"], Job(bias=True, fast=True)),
        (["--bias", "--no-bias"], Job()),
        (["--kind", "b", "--out", "f"], Job(kind="b", out=Path("f"))),
        (["--files", "p", "q", "--fast"], Job(files=("p", "q"), fast=True)),
        (["--files=p", "from"], Job(files=("p",), source="from")),
        (["from", "--fast", "to"], Job(source="from", target="to", fast=True)),
        (["--rate", "-1.5e-3"], Job(rate=-1.5e-3)),
        (["--out", "-x"], Job(out=Path("-x"))),
        (["--out=--fast"], Job(out=Path("--fast"))),
        (["--", "--fast", "-3"], Job(source="--fast", target="-3")),
        (["-", "a=b"], Job(source="-", target="a=b")),
    ],
)
def test_the_command_line_sets_the_fields(argv: list[str], expected: Job) -> None:
    assert parsed(*argv) == expected


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--max-itres", "5"], "there is no flag --max-itres; did you mean --max-iters?"),
        (["--max"], "there is no flag --max"),
        (["-f"], "there is no flag -f"),
        (["--out", "--fast"], "--out needs a value"),
        (["--out"], "--out needs a value"),
        (["--files", "--fast"], "--files needs a value"),
        (["--fast=1"], "--fast takes no value, but '1' was given"),
        (["--out=--"], "--out needs a value other than --"),
        (["--no-fast"], "there is no flag --no-fast"),
        (["from", "to", "and", "more"], "unexpected argument and more"),
        (["--kind", "c"], "--kind must be one of a, b, not 'c'"),
        (["--rate", "0.7", "--max-iters=0"], "--max-iters must be above --rate = 0.7, not 0"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_pointer_to_help(
    argv: list[str], problem: str
) -> None:
    with pytest.raises(UsageError) as error:
        parsed(*argv)
    assert str(error.value).startswith(problem)
    assert str(error.value).endswith(" (see do --help)")


def test_help_has_what_a_flag_does_and_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        flags.parse(Job(rate=2.0), "do", ["--help", "--max-iters", "4"])
    assert stop.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["usage: do [flags] [SOURCE] [TARGET]", "", "Do something."]
    for line in (
        "SOURCE The source.",
        "--max-iters INT How many, of 100 % at most. (default: 3)",
        "--rate FLOAT How fast. (default: 2.0)",
        "--kind {a,b} Which. (default: a)",
        "Some. (default: x y)",
        "--top-k INT At most.",
        "--bias, --no-bias With or without. (default: --no-bias)",
        "--fast Quickly.",
    ):
        assert line in lines
