"""`python -m benchmarks`: what it refuses before anything is measured, and what it runs."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks import __main__ as command
from benchmarks import cases, experiments, kernels, speedrun
from benchmarks.cases.shapes import MICRO_BATCHES
from benchmarks.harness.rounds import DisagreementError
from tinygpt_np.machine import usable_cores
from tinygpt_np.text.corpus import TINYSHAKESPEARE_SHA256

CORES = usable_cores()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what would be run; nothing is."""
    calls: list[Any] = []

    def run(*arguments: Any, **named: Any) -> Any:
        calls.append((*arguments, named) if named else arguments)
        return {"complete": True, "cases": []}

    monkeypatch.setattr(experiments, "run", run)
    monkeypatch.setattr(kernels, "run", run)
    monkeypatch.setitem(command.COMMANDS, "tokenizers", run)
    monkeypatch.setattr(speedrun, "run", run)
    return calls


def leaves(*arguments: str) -> Any:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    return left.value.code


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in command.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train --work cpu gpt5", "argument --work: invalid choice: 'gpt5' (choose from 'cpu', "),
        ("train --threads 0", f"argument --threads: must be from 1 to {CORES}, not 0"),
        ("kernels --threads 1 100000", f"--threads: must be from 1 to {CORES}, not 100000"),
        ("matmul --threads 2", "argument --threads: must be from 1 to 1, not 2"),
        ("train --rounds 0", "argument --rounds: must be at least 1, not 0"),
        ("train --rounds many", "argument --rounds: invalid int value: 'many'"),
        ("tokenizers --seconds 0", "argument --seconds: must be at least 0.1, not 0"),
        ("sample --json nowhere/all.json", "all.json cannot be written: No such file or directory"),
        ("train --json OLD", "exists already, and nothing is overwritten"),
        ("kernels --json nowhere/all.json", "nowhere/all.html cannot be written"),
        ("kernels --csv nowhere/all.csv", "argument --csv: nowhere/all.csv cannot be written"),
        ("kernels --json all.html", "must be a file that ends in .json, not all.html"),
        ("kernels softmix", "an operation must be one of matmul, softmax, "),
        ("kernels --shapes cpu big", "argument --shapes: must be cpu, "),
        (
            "kernels --sizes 64:512",
            "argument --sizes: must be LOW:HIGH:xFACTOR, LOW:HIGH:+STEP or ",
        ),
        ("kernels matmul gelu --sizes K=8,9", "argument --sizes: gelu has the sizes P, not K"),
        ("kernels --sizes 8 --shapes cpu gpt2", "--sizes needs one of --shapes, not cpu gpt2"),
        (
            "kernels --sizes 8 --shapes big",
            "argument --shapes: must be cpu, ",
        ),
        ("kernels matmul gelu --shapes N=5", "argument --shapes: gelu has the sizes P, not N"),
        (
            "kernels gelu --shapes P=0",
            "argument --shapes: P must be from 1 to 1,000,000,000, not 0",
        ),
        ("kernels --peers llmc", "--peers llmc needs --llmc DIR, a checkout of llm.c"),
        ("kernels --llmc nowhere", "must be a checkout of llm.c: nowhere has no train_gpt2.c"),
        ("kernels --mine nowhere.py:f", "argument --mine: nowhere.py does not exist"),
        ("kernels --mine gelu", "--mine: must be FILE:FUNCTION, such as my_kernel.py:product, not"),
        ("kernels --template softmix", "--template: an operation must be one of matmul, softmax"),
        ("kernels --template gelu rust", "--template: a language must be one of numba, numpy, c, "),
        ("kernels --template gelu c numba", "expected OPERATION and LANGUAGE, not also numba"),
        ("speedrun --recipes fastest", "argument --recipes: invalid choice: 'fastest' (choose fr"),
        ("speedrun --seeds -1", "argument --seeds: must be from 0 to 4294967295, not -1"),
        ("speedrun --evaluations 0", "argument --evaluations: must be at least 1, not 0"),
        ("speedrun --record --quick", "--record needs at least 3 seeds, and all steps"),
        ("speedrun --record --seeds 1 2 2", "--record needs at least 3 seeds, and all steps"),
        ("speedrun --record --data shakespeare", "--record needs tinyshakespeare, not shakespeare"),
        ("trian", "invalid choice: 'trian'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: str, line: str, asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.json"
    old.write_text("as it was")
    assert leaves(*arguments.replace("OLD", str(old)).split()) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert asked == []
    assert old.read_text() == "as it was"


def test_each_benchmark_is_run_with_its_defaults(asked: list[Any], tmp_path: Path) -> None:
    names = ("train", "attention", "sample", "pretrained", "matmul", "tokenizers", "speedrun")
    for name in names:
        assert leaves(name) == 0
    train, attention, sample, pretrained, (products, _, named), (tokenizers,), (race,) = asked
    numba = {"threads": CORES, "backend": "numba"}
    assert [each.name for each in train[1]] == ["cpu", "gpt-384", "lecture", "gpt2", "gpt2-256"]
    assert train[0::2] == ("train", {**numba, "matmul": "numba"})
    assert [each.by for each in train[1][0].entries] == ["ours", "torch", "torch"]
    assert attention[0::2] == ("attention", numba)
    assert (attention[1][0].tokens, len(attention[1][0].entries)) == (2048, 3)
    (experiment,) = sample[1]
    assert (experiment.about["name"], experiment.samples, experiment.rounds) == ("cpu", 500, 9)
    assert pretrained[0::2] == ("pretrained", {"threads": CORES})
    assert products == kernels.Plan(["products"], tuple(MICRO_BATCHES), [1], 20)
    assert named == {"benchmark": "matmul"}
    assert (tokenizers["data"], tokenizers["seconds"]) == ("shakespeare", 60.0)
    assert race == {
        "recipes": speedrun.DEFAULT, "target": None, "seeds": (1, 2, 3), "evaluations": 40,
        "data": "tinyshakespeare", "threads": CORES, "quick": False, "record": False, "json": None,
    }  # fmt: skip


def test_a_record_needs_the_whole_text_and_a_commit_without_changes(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Mock(sha256=TINYSHAKESPEARE_SHA256)
    monkeypatch.setattr(command, "load", {"tinyshakespeare": text}.__getitem__)
    for commit, code in (("abc+", 2), (None, 2), ("abc", 0)):
        monkeypatch.setattr(command.machine, "commit", Mock(return_value=commit))
        assert leaves("speedrun", "--record") == code
    assert capsys.readouterr().err.count("--record needs a commit without changes") == 2
    assert len(asked) == 1


def test_quick_runs_fewer_rounds_at_one_shape(asked: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    line = f"kernels gelu --quick --rungs trained --json {path} --csv {path}.csv"
    assert leaves(*line.split()) == 0
    plan = kernels.Plan(
        ["gelu"], ("cpu",), sorted({1, CORES}), 6, trained_only=True, csv=f"{path}.csv"
    )
    assert asked == [(plan, path, None)]
    assert not path.exists()  # The check that it can be written leaves nothing.
    assert leaves("kernels", "--quick") == leaves("kernels") == 0
    assert [plan.operations for plan, *_ in asked[1:]] == [cases.GPT2, cases.OPERATIONS]


def test_a_sweep_runs_the_kernels_of_training_at_each_size(asked: list[Any]) -> None:
    for line in ("gelu --sizes 8:16:x2", "gelu --sizes 8,9 --shapes lecture --rungs all"):
        assert leaves("kernels", *line.split()) == 0
    first, second = (plan for plan, *_ in asked)
    assert [shape for *_, shape in first.cases] == ["P=8", "P=16"] * 2
    assert [shape for *_, shape in second.cases] == ["lecture,P=8", "lecture,P=9"] * 2
    assert (first.trained_only, second.trained_only) == (True, False)


def test_the_exit_code_says_that_a_run_was_stopped_or_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = DisagreementError("WRONG: cpu")
    monkeypatch.setattr(experiments, "run", Mock(side_effect=[False, KeyboardInterrupt, wrong]))
    codes = [leaves("attention") for _ in range(3)]
    assert codes == [130, 130, "python -m benchmarks: WRONG: cpu"]


def test_a_template_is_a_new_file_and_the_next_command_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert leaves("kernels", "--template", "softmax", "c") == 0
    assert capsys.readouterr().out == (
        "written my_softmax.c; measure it with\n  python -m benchmarks kernels softmax "
        "--mine my_softmax.c:forward my_softmax.c:backward --quick\n"
    )
    assert leaves("kernels", "--template", "softmax", "c") == 2
    assert "my_softmax.c exists already" in capsys.readouterr().err


def test_kernels_of_the_user_are_measured_in_their_directions_only(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("def a(x, weight, y): ...\ndef b(x, dy, dweight): ...\ndef c(x): ...")
    for line in (
        "kernels --mine my.py:a my.py:b --quick",
        "kernels matmul gelu --mine my.py:a --mine my.py:b --quick",
        "kernels gelu --mine my.py:c --quick",
    ):
        assert leaves(*line.split()) == 0
    alone, with_more, last = (plan for plan, *_ in asked)
    own = [("matmul", "forward", "cpu"), ("matmul", "dweight", "cpu")]
    assert [each.name for each in alone.mine] == ["my.py:a", "my.py:b"]
    assert alone.cases == own
    assert with_more.cases == [*own, ("gelu", "forward", "cpu"), ("gelu", "backward", "cpu")]
    assert last.cases == [("gelu", "forward", "cpu")]
