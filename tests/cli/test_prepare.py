"""tinygpt prepare, as a person uses it."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli.running import error_of
from helpers import byte_pairs
from helpers.optional import needs
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
        r"tinygpt train --data two",
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


def test_documents_are_separated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("tiktoken")
    byte_pairs.write(folder)
    flags = ("--tokenizer", "gpt2", "--tokenizer-path", ".", "--data", "text.txt", "text.txt")
    cli.main(["prepare", *flags, "--separate-documents", "--out", "two"])
    tokens = np.concatenate([np.fromfile(f"two/{name}.bin", "<u2") for name in ("train", "val")])
    assert (tokens == 263).sum() == 2
    assert tokens[-1] == 263
    cli.main(["train", "--data", "two", *TINY])
    assert re.search(r"bits per character", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_a_small_text_says_how_many_pieces_it_has(
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
    cli.main([*flags, "--vocab-size", advised[1]])
    if command == "train":
        assert runs.read_config(folder / "runs" / "cpu").vocab_size == int(advised[1])
        cli.main(["train", "--resume", "cpu", "--max-iters", "22"])
    else:
        assert f"{advised[1]} tokens in the vocabulary" in capsys.readouterr().out


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
@pytest.mark.parametrize("source", ["fifo", "/dev/stdin"])
def test_a_pipe_is_refused_by_every_command_that_reads_a_text(
    command: tuple[str, ...], source: str, folder: Path
) -> None:
    os.mkfifo("fifo")
    found = subprocess.run(
        [*COMMAND, *command, source], input="text", capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1
    assert f"{source} is a pipe; expected a regular file: save the text first" in found.stderr
    assert {path.name for path in folder.iterdir()} == {"fifo", "text.txt"}


def test_a_regular_file_as_standard_input_is_read(folder: Path) -> None:
    with (folder / "text.txt").open() as text:
        flags = ("--tokenizer", "char", "--data", "/dev/stdin", "--out", "x")
        subprocess.run([*COMMAND, "prepare", *flags], stdin=text, timeout=60, check=True)
    assert (folder / "x" / "train.bin").stat().st_size == 2 * 1548


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--out must name the folder to create"),
        (["--out", "."], ". exists already, and nothing is overwritten"),
        (["--out", "x", "--data", "nowhere.txt"], "there is no file nowhere.txt"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "prepare", "--tokenizer", "char", *flags)
    assert not Path("x").exists()
