"""What the READMEs show is what there is: files, commands, outputs and figures."""

import contextlib
import inspect
import json
import re
import shlex
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ladders
from benchmarks.standing import FASTER, SAME, SLOWER
from tinygpt_np import cli, config
from tinygpt_np.gradcheck.detectors import WEAK_CHECKS
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


def test_the_readme_is_short() -> None:
    assert len(READMES["README.md"].splitlines()) <= 250


def test_the_map_is_the_tree() -> None:
    (block,) = (block for block in PLAIN_BLOCKS if block.startswith("tinygpt_np/\n"))
    drawn = [line.split()[0] for line in block.splitlines()]
    inside = {name.strip() for name in drawn[1:] if f"  {name}" in block}
    package = ROOT / "tinygpt_np"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
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


def test_the_wrong_layer_norm_prints_the_table_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = next(block for block in PYTHON_BLOCKS if "tg.gradcheck.check(" in block)
    exec(compile(code, "README.md", "exec"), {})
    shown = ALL.split(code)[1].split("```")[2]
    assert blurred(capsys.readouterr().out) == blurred(shown)


def studied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> str:
    """Return what tinygpt study prints in a terminal as wide as the README's examples."""
    monkeypatch.setenv("COLUMNS", "132")
    with contextlib.suppress(SystemExit):
        cli.main(["study", *arguments])
    return capsys.readouterr().out


def test_the_study_of_softmax_prints_what_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = next(block for block in PLAIN_BLOCKS if "forward ↓" in block)
    assert blurred(studied(capsys, monkeypatch, "softmax")) == blurred(shown)


def test_the_study_of_the_wrong_layer_norm_prints_what_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = next(block for block in PYTHON_BLOCKS if "tg.gradcheck.check(" in block)
    text = code.replace("import tinygpt_np as tg\n", "").split("\nrng =")[0].rstrip() + "\n"
    (tmp_path / "layer_norm.py").write_text(text, encoding="utf-8")
    target = f"{tmp_path / 'layer_norm.py'}:forward,backward"
    described = "x (N, C), weight (C,), bias (C,)"
    out = studied(capsys, monkeypatch, target, "--args", described)
    shown = next(block for block in PLAIN_BLOCKS if ".py, line" in block)
    assert blurred(out[out.index("layer_norm.py, line") :]) == blurred(shown)


def blurred(text: str) -> list[str]:
    """Return the words of a text without figures that depend on rounding and the machine."""
    return re.sub(r"\d\.\de-1\d|\d+×|1[4-6] digits", "~", text).split()


def test_the_table_of_missed_bugs_names_every_check() -> None:
    table = ALL.split("| check | misses |")[1].split("\n\n")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert named == ["the oracles here: " + ", ".join(ORACLE_NAMES.values()), *WEAK_CHECKS.values()]


def test_the_readmes_show_commands() -> None:
    assert len(COMMANDS) >= 8


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


def result() -> dict[str, Any]:
    """Return the benchmark result whose figures the README shows."""
    path = ROOT / "benchmarks" / "results" / "ice-lake.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_ladder_of_a_product_is_that_of_the_result_that_lies_there() -> None:
    (task,) = (
        task
        for task in result()["tasks"]
        if (task["operation"], task["direction"], task["shape"]) == ("matmul", "forward", "lecture")
    )
    table = ALL.split("| rung | idea | ms |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [row for row in task["rows"] if "seconds" in row and "by_ours" not in row]
    ideas = {rung.name: rung.idea for rung in ladders.rungs("matmul")}
    for line, row in zip(table, rows, strict=True):
        name, idea, ms, gained, gflops, share = (cell.strip() for cell in line.split("|")[1:-1])
        assert name.split(" ×")[0] == row["rung"]
        assert idea == ideas[row["rung"]]
        assert ms == f"{row['seconds'][0] * 1e3:.1f}"
        assert gflops == f"{task['flops'] / row['seconds'][0] / 1e9:.1f}"
        assert share == f"{row['share']:.0%}"
        if "gain" in row:
            median, low, high, _ = row["gain"]
            sign = {FASTER: "▲", SLOWER: "▼", SAME: "~"}[row["verdict"]]
            assert gained == f"{median:.2f} ({low:.2f}–{high:.2f}) {sign}"


@pytest.mark.parametrize(
    ("peer", "threads", "said"),
    [
        ("torch", 1, r"PyTorch takes ([\d.]+) times as long as the kernels of training"),
        ("torch", 2, r"On two threads PyTorch takes ([\d.]+) times as long"),
    ],
)
def test_the_peers_take_as_long_as_in_the_result_that_lies_there(
    peer: str, threads: int, said: str
) -> None:
    ratios = [
        row["by_ours"][0]
        for task in result()["tasks"]
        for row in task["rows"]
        if row.get("by") == peer and row.get("threads", 1) == threads
    ]
    (figure,) = re.findall(said, ALL)
    assert figure == f"{statistics.geometric_mean(ratios):.2f}"


def test_the_table_of_tokenizers_is_that_of_the_result_that_lies_there() -> None:
    path = ROOT / "benchmarks" / "results" / "tokenizers.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    table = ALL.split("| tokens | vocabulary | width |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(found["results"])
    for line, (kind, result) in zip(table, found["results"].items(), strict=True):
        bits, ratio = result["bits"], result["characters_per_token"]
        read = statistics.median(result["tokens"]) * ratio / 1e6
        assert [cell.strip() for cell in line.split("|")[1:-1]] == [
            kind, f"{result['vocab_size']:,}", str(result["n_embd"]), f"{ratio:.2f}",
            f"{read:.1f} million",
            f"{statistics.median(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})",
        ]  # fmt: skip
        assert abs(result["params"] - 3.5e6) < 0.1e6
        assert len(bits) == 3
    assert (found["seconds"], found["corpus"]) == (60, "shakespeare")
