"""`python -m benchmarks`: what it refuses, before anything is measured."""

import functools
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import matmul, sample
from benchmarks.rounds import DisagreementError
from tinygpt_np.machine import usable_cores


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be run: its contests, threads, options and path. Nothing is."""
    calls: list[Any] = []

    def run(_: str, *arguments: Any) -> bool:
        calls.extend(arguments)
        return True

    monkeypatch.setattr(command, "run", run)
    for benchmark in (matmul, sample):
        monkeypatch.setattr(benchmark, "run", functools.partial(run, ""))
    return calls


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves() == 0
    assert "kernels" in capsys.readouterr().out


def leaves(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    return left.value.code


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("train", "--work", "cpu", "gpt5"),
            "--work must be of cpu, gpt-384, lecture, gpt2, gpt2-256, not",
        ),
        (("train", "--threads", "0"), "--threads must be from 1 to "),
        (("attention", "--threads", "100000"), "--threads must be from 1 to "),
        (("matmul", "--threads", "2"), "--threads must be 1, for a product is one thread's, not 2"),
        (("sample", "--threads", "0"), "--threads must be from 1 to "),
        (("train", "--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("matmul", "--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("sample", "--json", "nowhere/all.json"), "nowhere/all.json cannot be written"),
        (("matmul", "--backend", "numpy"), "unrecognized arguments: --backend numpy"),
        (("train", "--json", "nowhere/all.json"), "nowhere/all.json cannot be written"),
        (("train", "--threads", "two"), "invalid int value: 'two'"),
        (("train", "--matmul", "magic"), "invalid choice: 'magic'"),
        (
            ("kernels", "softmix"),
            "an operation must be of matmul, softmax, ",
        ),
        (
            ("kernels", "--shapes", "cpu", "big"),
            "--shapes must be of cpu, lecture, gpt2, awkward, ",
        ),
        (("kernels", "--threads", "1", "0"), "--threads must be from 1 to "),
        (("kernels", "--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("kernels", "--rungs", "first"), "invalid choice: 'first'"),
        (("kernels", "--peers", "torch", "tinygrad"), "invalid choice: 'tinygrad'"),
        (("kernels", "--peers", "llmc"), "--peers llmc needs --llmc DIR, a checkout of llm.c"),
        (("kernels", "--json", "nowhere/all.json"), "nowhere/all.json cannot be written"),
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


def test_without_pytorch_ours_runs_alone_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", no_module)
    assert leaves("train", "--work", "cpu") == 0
    assert [side.name for side in asked[0][0].sides] == ["ours"]
    assert capsys.readouterr().err == "PyTorch is not installed: pip install '.[bench]'\n"


def no_module(_: str) -> None:
    return None


def test_all_works_run_by_default_on_all_cpus(asked: list[Any]) -> None:
    leaves("train")
    contests, threads, options, path = asked
    assert [each.name for each in contests] == ["cpu", "gpt-384", "lecture", "gpt2", "gpt2-256"]
    assert (threads, path) == (usable_cores(), None)
    assert options == {"backend": "numba", "matmul": "numba"}


def test_rounds_that_are_asked_for_are_those_of_every_work(asked: list[Any]) -> None:
    leaves("train", "--rounds", "4")
    assert [each.rounds for each in asked[0]] == [4, 4, 4, 4, 4]


def test_what_was_stopped_leaves_with_the_code_of_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> bool:
        return False

    monkeypatch.setattr(command, "run", stopped)
    assert leaves("attention") == 130


def test_products_are_measured_on_one_thread_without_pytorch(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", no_module)
    assert leaves("matmul") == 0
    assert [work.name for work in asked[0]] == ["cpu", "lecture", "gpt2"]
    assert capsys.readouterr().err == ""


def test_five_hundred_tokens_are_sampled_from_the_preset_cpu(asked: list[Any]) -> None:
    leaves("sample", "--rounds", "4")
    assert (asked[0].name, *asked[1:4]) == ("cpu", 500, usable_cores(), 4)


def test_what_is_wrong_leaves_with_1_and_its_line(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    def wrong(*_: Any) -> bool:
        raise DisagreementError("WRONG: cpu head y")

    monkeypatch.setattr(matmul, "run", wrong)
    assert leaves("matmul") == "python -m benchmarks: WRONG: cpu head y"
