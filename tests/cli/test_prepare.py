"""`tinygpt prepare`: texts become token files that `tinygpt train` reads."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from helpers.commands import error_of, output_of
from helpers.optional import needs
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND, TINY

from tinygpt_np import cli
from tinygpt_np.training import runs


def test_texts_are_prepared_and_trained_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["prepare", "--tokenizer", "char", "--data", "text.txt", "text.txt", "--out", "two"])
    out = capsys.readouterr().out
    for expected in (
        r"text +3,440 characters",
        r"training +3,096 tokens",
        r"validation +344 tokens",
        r"tokenizer +char, 18 tokens in the vocabulary",
        r"train on it:  tinygpt train --data two\n",
    ):
        assert re.search(expected, out), expected
    cli.main(["train", "--data", "two", *TINY])
    assert re.search(r"data +.*two: 3,440 tokens", capsys.readouterr().out)
    assert runs.read_config(folder / "runs" / "cpu").data == str(folder / "two")
    cli.main(["train", "--resume", "cpu", "--max-iters", "22"])


def test_prepared_tokens_train_the_same_model_as_the_text(folder: Path) -> None:
    cli.main(["prepare", "--tokenizer", "char", "--data", "text.txt", "--out", "tokens"])
    for name, source in (("a", "text.txt"), ("b", "tokens")):
        cli.main(["train", "--data", source, "--name", name, *TINY])
    first, second = (runs.last_checkpoint(folder / "runs" / name)[0] for name in "ab")
    weights = "model.safetensors"
    assert (first / weights).read_bytes() == (second / weights).read_bytes()


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_a_small_text_is_refused_with_the_vocabulary_that_it_allows(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("sentencepiece")
    rest = TINY if command == "train" else ["--out", "x"]
    flags = [command, "--tokenizer", "sentencepiece", "--data", "text.txt", *rest]
    message = error_of(capsys, *flags)
    advised = re.search(
        r"1,024 pieces are too many .* --vocab-size (\d+) or less, or --tokenizer char", message
    )
    assert advised
    out = output_of(capsys, *flags, "--vocab-size", advised[1])
    if command == "train":
        assert runs.read_config(folder / "runs" / "cpu").vocab_size == int(advised[1])
        cli.main(["train", "--resume", "cpu", "--max-iters", "22"])
    else:
        assert f"{advised[1]} tokens in the vocabulary" in out


PIPE = "is a pipe; expected a regular file: save the text first"


@pytest.mark.parametrize(
    "command",
    [
        ("prepare", "--tokenizer", "char", "--out", "x", "--data"),
        ("train", *TINY, "--data"),
        ("tokenize", "hii", "--data"),
        ("tokenize", "--train", "sentencepiece", "--out", "x", "--data"),
    ],
    ids=["prepare", "train", "tokenize", "tokenize --train"],
)
def test_a_pipe_is_refused_as_a_text(
    command: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("fifo")
    assert f"fifo {PIPE}" in error_of(capsys, *command, "fifo")
    assert {path.name for path in folder.iterdir()} == {"fifo", "text.txt"}


def test_standard_input_is_read_only_if_it_is_a_regular_file(folder: Path) -> None:
    command = [*COMMAND, "prepare", "--tokenizer", "char", "--data", "/dev/stdin", "--out", "x"]
    found = subprocess.run(command, input="text", capture_output=True, text=True, timeout=LIMIT)
    assert found.returncode == 1
    assert f"/dev/stdin {PIPE}" in found.stderr
    with (folder / "text.txt").open() as text:
        subprocess.run(command, stdin=text, timeout=LIMIT, check=True)
    assert (folder / "x" / "train.bin").stat().st_size == 2 * 1548


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--out must name the folder to create"),
        (["--out", "."], ". exists already, and nothing is overwritten"),
        (["--out", "x", "--data", "nowhere.txt"], "there is no file nowhere.txt"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "prepare", "--tokenizer", "char", *flags)
    assert not Path("x").exists()
