"""The files, commands, outputs and figures in the READMEs are the real ones."""

import contextlib
import inspect
import re
import shlex
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from tinygpt_np import cli, config
from tinygpt_np.gradcheck.detectors import WEAK_CHECKS
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS
from tinygpt_np.gradcheck.verdict import ORACLE_NAMES
from tinygpt_np.ops import softmax
from tinygpt_np.training import runs

ROOT = Path(__file__).parents[1]
READMES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(
        [
            *ROOT.glob("README.md"),
            *(ROOT / "tinygpt_np").rglob("README.md"),
            *(ROOT / folder / "README.md" for folder in ("benchmarks", "data", "tests")),
        ]
    )
}
ALL = "\n".join(READMES.values())
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", ALL, re.DOTALL)
PLAIN_BLOCKS = [block[1:] for block in ALL.split("```")[1::2] if block.startswith("\n")]
COMMANDS = sorted(
    {
        command.split("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", ALL, re.DOTALL)
        for line in block.splitlines()
        for command in line.split("&&")
        if command.strip().startswith("tinygpt")
    }
)


def test_the_map_is_the_tree_and_the_readme_is_short() -> None:
    assert len(READMES["README.md"].splitlines()) <= 250
    (block,) = (block for block in PLAIN_BLOCKS if block.startswith("tinygpt_np/\n"))
    drawn = [line.split()[0] for line in block.splitlines()]
    inside = {name.strip() for name in drawn[1:] if f"  {name}" in block}
    package = ROOT / "tinygpt_np"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert modules == {"backend.py", "config.py", "hooks.py", "machine.py", "__main__.py"}
    assert inside == folders | modules
    assert set(drawn) - inside == {"tinygpt_np/", "data/", "tests/", "benchmarks/"}


@pytest.mark.parametrize("name", READMES)
def test_every_link_leads_to_a_file(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", READMES[name]):
        assert target.startswith("https://") or (ROOT / name).parent.joinpath(target).exists()


def test_the_operation_shown_is_the_source() -> None:
    functions = (softmax.forward, softmax.backward_steps, softmax.backward)
    assert "\n\n".join(inspect.getsource(function) for function in functions) in PYTHON_BLOCKS


def test_the_example_runs_and_says_what_its_comments_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = next(block for block in PYTHON_BLOCKS if "model.generate(" in block)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    loss, vocab_size = re.findall(r"[\d.]+", lines[0])
    assert abs(float(loss) - 2.89) < 0.1  # ln 18
    assert int(vocab_size) == 18
    assert lines[1] == "(32, 96)"


def studied(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what tinygpt study prints."""
    with contextlib.suppress(SystemExit):
        cli.main(["study", *arguments])
    return capsys.readouterr().out


def test_the_checks_and_studies_print_what_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "132")  # The width of the examples.
    shown = next(block for block in PLAIN_BLOCKS if "forward ↓" in block)
    assert blurred(studied(capsys, "softmax")) == blurred(shown)
    rule = next(block for block in PLAIN_BLOCKS if block.startswith("rule of line"))
    assert " ".join(rule.split()) in " ".join(studied(capsys, "softmax", "--line", "29").split())
    # A wrong layer norm of a user.
    code = next(block for block in PYTHON_BLOCKS if "tg.gradcheck.check(" in block)
    path = tmp_path / "layer_norm.py"
    path.write_text(code, encoding="utf-8")
    exec(compile(code, str(path), "exec"), {})
    assert blurred(capsys.readouterr().out) == blurred(ALL.split(code)[1].split("```")[2])
    text = code.replace("import tinygpt_np as tg\n", "").split("\nrng =")[0].rstrip() + "\n"
    (tmp_path / "layer_norm.py").write_text(text, encoding="utf-8")
    target = f"{tmp_path / 'layer_norm.py'}:forward,backward"
    out = studied(capsys, target, "--args", "x (N, C), weight (C,), bias (C,)")
    shown = next(block for block in PLAIN_BLOCKS if block.startswith("layer_norm.py, line"))
    assert blurred(out[out.index("layer_norm.py, line") :]) == blurred(shown)


def blurred(text: str) -> list[str]:
    """Return the words of a text without figures that depend on rounding and the machine."""
    return re.sub(r"\d\.\de-1\d|\d+×|1[4-6] digits", "~", text).split()


def test_the_table_of_missed_bugs_names_every_check() -> None:
    table = ALL.split("| check | misses |")[1].split("\n\n")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert named == ["the oracles here: " + ", ".join(ORACLE_NAMES.values()), *WEAK_CHECKS.values()]
    table = ALL.split("| check of a library |")[1].split("\n\n")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert named == [check.about for check in LIBRARY_CHECKS.values()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "read_config", lambda run: config.TrainConfig())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr("tinygpt_np.training.runs.find_run", Path)
    name = shlex.split(command)[1]
    job, _ = cli.parse(shlex.split(command)[1:])
    assert type(job).__name__.lower() == name


def test_the_bands_are_the_measured_ones() -> None:
    rows = re.findall(r"^\| `(\S+)` +\| `(\S+)` +\| ([\d. ]+) +\| (.*?) +\|$", ALL, re.MULTILINE)
    found = {(preset, corpus): (losses, band) for preset, corpus, losses, band in rows}
    assert set(found) == set(config.MEASURED)
    for (preset, corpus), losses in config.MEASURED.items():
        run = replace(config.PRESETS[preset], data=corpus)
        band = config.expected_band(run)
        assert band is not None
        assert found[preset, corpus] == (
            " ".join(f"{loss:.3f}" for loss in losses),
            f"{band[0]:.3f} to {band[1]:.3f}",
        )
        assert band[0] < statistics.mean(losses) < band[1]
