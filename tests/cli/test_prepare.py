"""`tinygpt prepare`: texts become token files that `tinygpt train` reads."""

import re
import subprocess
from pathlib import Path

from helpers.commands import Captured, error_of, output_of
from helpers.optional import needs
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND, TEXT, TINY

from tinygpt_np import cli
from tinygpt_np.training import runs


def test_prepared_tokens_train_the_same_model_as_the_text(folder: Path, capsys: Captured) -> None:
    text = TEXT[:860]
    (folder / "half.txt").write_text(text, encoding="utf-8")
    flags = ["--tokenizer", "char", "--data", "half.txt", "half.txt", "--out", "my tokens"]
    out = output_of(capsys, "prepare", *flags)
    for expected in (
        r"text +1,720 characters",
        r"training +1,548 tokens",
        r"validation +172 tokens",
        r"tokenizer +char, 18 tokens in the vocabulary",
        r"train on it:  tinygpt train --data 'my tokens'\n",
    ):
        assert re.search(expected, out), expected
    (folder / "text.txt").write_text(text + text, encoding="utf-8")
    for name, source in (("a", "text.txt"), ("b", "my tokens")):
        out = output_of(capsys, "train", "--data", source, "--name", name, *TINY)
    assert re.search(r"data +.*tokens: 1,720 tokens", out)
    first, second = (runs.last_checkpoint(folder / "runs" / name)[0] for name in "ab")
    weights = "model.safetensors"
    assert (first / weights).read_bytes() == (second / weights).read_bytes()
    assert runs.read_config(folder / "runs" / "b").data == str(folder / "my tokens")
    cli.main(["train", "--resume", "b", "--max-iters", "22"])


def test_a_small_text_is_refused_with_the_vocabulary_that_it_allows(
    folder: Path, capsys: Captured
) -> None:
    needs("sentencepiece")
    flags = ["train", "--tokenizer", "sentencepiece", "--data", "text.txt", *TINY]
    message = error_of(capsys, *flags)
    advised = re.search(r"1,024 pieces are too many .* --vocab-size (\d+) or less", message)
    assert advised
    cli.main([*flags, "--vocab-size", advised[1]])
    assert runs.read_config(folder / "runs" / "cpu").vocab_size == int(advised[1])
    cli.main(["train", "--resume", "cpu", "--max-iters", "22"])


def test_standard_input_is_read_only_if_it_is_a_regular_file(folder: Path) -> None:
    command = [*COMMAND, "prepare", "--tokenizer", "char", "--data", "/dev/stdin", "--out", "x"]
    found = subprocess.run(command, input="text", capture_output=True, text=True, timeout=LIMIT)
    assert found.returncode == 1
    assert "/dev/stdin is a pipe; expected a regular file: save the text first" in found.stderr
    with (folder / "text.txt").open() as text:
        subprocess.run(command, stdin=text, timeout=LIMIT, check=True)
    assert (folder / "x" / "train.bin").stat().st_size == 2 * 1548
