"""`python -m benchmarks`: what it refuses before anything is measured, and what it runs."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import experiments, kernels, products, tokenizers
from benchmarks.harness.rounds import DisagreementError
from tinygpt_np.machine import usable_cores


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the arguments of what would be run; nothing is."""
    calls: list[Any] = []

    def run(*arguments: Any) -> bool:
        calls.extend(arguments)
        return True

    for module in (experiments, products, tokenizers):
        monkeypatch.setattr(module, "run", run)
    for name in ("run_sampling", "run_pretrained"):
        monkeypatch.setattr(experiments, name, run)
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
        (
            ("train", "--work", "cpu", "gpt5"),
            "--work must be one of cpu, gpt-384, lecture, gpt2, gpt2-256, not gpt5",
        ),
        (("train", "--threads", "0"), "--threads must be from 1 to "),
        (("attention", "--threads", "100000"), "--threads must be from 1 to "),
        (("train", "--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("tokenizers", "--seconds", "0"), "--seconds must be more than 0, not 0.0"),
        (("sample", "--json", "nowhere/all.json"), "nowhere/all.json cannot be written"),
        (("matmul", "--backend", "numpy"), "unrecognized arguments: --backend numpy"),
        (("kernels", "softmix"), "an operation must be one of matmul, softmax, "),
        (
            ("kernels", "--shapes", "cpu", "big"),
            "--shapes must be one of cpu, lecture, gpt2, awkward, not big",
        ),
        (("kernels", "--threads", "1", "0"), "--threads must be from 1 to "),
        (("kernels", "--peers", "llmc"), "--peers llmc needs --llmc DIR, a checkout of llm.c"),
        (("kernels", "--json", "nowhere/all.json"), "nowhere/all.html cannot be written"),
        (
            ("kernels", "--json", "all.html"),
            "--json must be a file that ends in .json, not all.html",
        ),
        (
            ("kernels", "--llmc", "nowhere"),
            "--llmc must be a checkout of llm.c: nowhere has no train",
        ),
        (("trian",), "invalid choice: 'trian'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: tuple[str, ...], line: str, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(*arguments) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert asked == []


def test_a_file_that_exists_is_refused(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.json"
    path.write_text("as it was")
    assert leaves("train", "--json", str(path)) == 2
    assert "exists already" in capsys.readouterr().err


def no_module(_: str) -> None:
    return None


def test_without_pytorch_ours_runs_alone_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", no_module)
    assert leaves("train", "--work", "cpu") == 0
    assert [entry.name for entry in asked[1][0].entries] == ["ours"]
    assert capsys.readouterr().err == "PyTorch is not installed: pip install '.[bench]'\n"


def test_all_workloads_are_trained_by_default_on_all_cpus(asked: list[Any]) -> None:
    leaves("train", "--rounds", "4")
    benchmark, found, options, path = asked
    assert benchmark == "train"
    assert [each.name for each in found] == ["cpu", "gpt-384", "lecture", "gpt2", "gpt2-256"]
    assert {each.rounds for each in found} == {4}
    assert options == {"threads": usable_cores(), "backend": "numba", "matmul": "numba"}
    assert path is None


def test_every_other_benchmark_is_run_with_its_defaults_and_matmul_without_pytorch(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves("sample", "--rounds", "4") == 0
    experiment, options, _ = asked
    assert (experiment.about["name"], experiment.samples, experiment.rounds) == ("cpu", 500, 4)
    assert options == {"threads": usable_cores()}
    monkeypatch.setattr("importlib.util.find_spec", no_module)
    capsys.readouterr()
    for arguments, expected in (
        (["matmul"], [("cpu", "lecture", "gpt2"), products.ROUNDS, None]),
        (["tokenizers", "--seconds", "5"],
         ["shakespeare", "", 5.0, tokenizers.ROUNDS, usable_cores(), None]),
    ):  # fmt: skip
        asked.clear()
        assert leaves(*arguments) == 0
        assert asked == expected
    assert capsys.readouterr().err == ""
    assert leaves("pretrained", "--rounds", "3") == 0
    assert asked[-4:-2] == [usable_cores(), 3]


@pytest.mark.parametrize("name", ["attention", "matmul", "pretrained"])
def test_a_stopped_run_leaves_with_the_code_of_ctrl_c(
    name: str, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    def stopped(*_: Any) -> bool:
        return False

    monkeypatch.setattr(experiments, "run", stopped)
    monkeypatch.setattr(experiments, "run_pretrained", stopped)
    monkeypatch.setattr(products, "run", stopped)
    assert leaves(name) == 130


def test_a_wrong_result_leaves_with_its_line(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    def wrong(*_: Any) -> bool:
        raise DisagreementError("WRONG: cpu head y")

    monkeypatch.setattr(products, "run", wrong)
    assert leaves("matmul") == "python -m benchmarks: WRONG: cpu head y"


def test_quick_runs_fewer_rounds_at_one_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plans: list[kernels.Plan] = []

    def run(plan: kernels.Plan, *_: Any) -> dict[str, Any]:
        plans.append(plan)
        return {"complete": True}

    monkeypatch.setattr(kernels, "run", run)
    path = str(tmp_path / "new.json")
    assert leaves("kernels", "gelu", "--quick", "--rungs", "last", "--json", path) == 0
    (plan,) = plans
    assert (plan.operations, plan.shapes, plan.rounds) == (["gelu"], ("cpu",), 6)
    assert (plan.threads, plan.last_only) == (sorted({1, usable_cores()}), True)
