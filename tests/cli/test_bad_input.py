"""Bad input to any command is refused in one sentence, and nothing is written."""

import os
import shlex
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, CharTokenizer, GPTConfig

GPT2 = GPTConfig(vocab_size=18, block_size=12, n_layer=2, n_head=2, n_embd=8, bias=True)
BAD = {
    "help": "there is no command help; the commands are train, sample, runs, convert",
    "train small.txt": "unexpected argument small.txt; to use a text, give --data small.txt",
    "train config/x.py": "config files are not run; give their settings as flags",
    "train --preset cpu --min-lr 1": "--min-lr must be at most --learning-rate = 0.001, not 1.0",
    "train --data nowhere.txt": "there is no file nowhere.txt",
    "train --data .": "train.bin; --data is a text file or a folder with train.bin and val.bin",
    "train --data text.txt --block-size 999": "the text is too short",
    "train --name cpu --data text.txt --block-size 8": "runs/cpu exists already, and nothing is",
    "train --resume cpu": "runs/cpu has already taken 20 steps; to train further",
    "train --resume cpu --n-layer 3": (
        "trained with --n-layer 1, which cannot be changed; "
        "to train with --n-layer 3, start a new run"
    ),
    "train --resume cpu --max-iters 30 --eval-tokens 9": "with --eval-tokens 0, which cannot",
    "train --max-minutes 0": "--max-minutes must be positive, not 0.0",
    "train --max-minutes 5 --eval-only": "limits training; leave it out with --eval-only",
    "train --eval-tokens 1e6": "--eval-tokens must be an integer, not '1e6'",
    "train --resume cpu --name other": "leave out --name and --preset",
    "train --init-from gpt --data text.txt --n-layer 4": (  # The default, but typed.
        "gpt has --n-layer 2, which --init-from keeps; leave out --n-layer 4"
    ),
    "train --init-from gpt --data text.txt --tokenizer gpt2": "gpt has --tokenizer char, which",
    "train --name ../outside": "the name of a new folder in runs/",
    "train --vocab-size 99": "--vocab-size 99 sets how many pieces SentencePiece learns",
    "sample --temperature -1": "--temperature must be zero or more, not -1.0",
    "sample --top-k 0": "--top-k must be positive, not 0",
    "sample --greedy --temperature 0.5": "--greedy",
    "sample --top-p 0": "--top-p must be in (0, 1], not 0.0",
    "sample --num-samples 0": "--num-samples must be positive, not 0",
    "sample --seed 4294967295 --num-samples 2": "the last sample would have seed 42949",
    "sample --endless --tokens 500": "leave out --tokens (see tinygpt sample",
    "sample --endless --num-samples 2": "--endless never ends its first sample",
    "sample --prompt a --prompt-file text.txt": "leave out one of them",
    "sample --prompt-file fifo": "fifo is a pipe; expected a regular file",
    "sample --prompt-file latin.txt": "iconv -f LATIN1 -t UTF-8 latin.txt",
    "sample a --model b": "leave out the run a, or leave out --model b",
    "prepare --tokenizer char": "--out must name the folder to create",
    "tokenize --train sentencepiece --out mine.model": "mine.model exists already, and nothing",
    "tokenize": "give a text, or --train sentencepiece",
    "tokenize hii --out x.model": "--out is the file that --train writes",
    "tokenize --train sentencepiece": "--out must name the file to write",
    "tokenize hii --train sentencepiece --out x.model": "leave out the text",
    "tokenize 'caf€'": "character '€' (U+20AC) at position 3",
    "sample '\x1b[31mmine'": r"there is no model \x1b[31mmine",  # No control characters.
    "runs nosuch": "there is no run nosuch",
    "lecture trigram": "there is no chapter trigram; there are: 1 reading",
    "convert": "convert takes two arguments: SOURCE, and OUT",
    "convert text.txt out": "text.txt is not a PyTorch checkpoint: it is not a zip",
    "study linear --html pages": "pages is not empty",
    "study nothing": "TARGET must be one of linear, ",
    "study linear --all": "--all studies all targets; leave out linear",
    "study linear --line 3": "ops/linear.py: --line must be one of 23, 27, ",
    "study linear --line 27 --html x": "--line needs a target and does not go with --html",
    "study linear --args 'x (N,)'": "linear has its own arguments",
    "study --args 'x (N,)'": "--args needs FILE.py:forward,backward",
    "study layer.py": "given as FILE.py:forward,backward, not layer.py",
    "study layer.py:a,b": "there is no file layer.py",
    "train --tokenizer-path text.txt": "characters need no files, but text.txt was given",
    "study linear --seed -1": "--seed must be in [0, 2**32), not -1",
    "train --device=cuda": "--device=cuda: only --device=cpu is supported",
    "train --init_from=resume": "--init_from=resume: use --resume RUN instead",
    "train --decay_lr=false": "--decay_lr must be True or False, not 'false'",
    "sample --start": "--start needs a value (see tinygpt sample --help)",
    "sample --start --seed 1": "--start needs a value",
    "sample --start FILE:": "--start=FILE: must name a file after FILE:",
}


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file and folder, with the contents of the files."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_refused_in_one_sentence(command: str, folder: Path, capsys: Captured) -> None:
    (folder / "latin.txt").write_bytes("To bé".encode("latin-1"))
    (folder / "mine.model").write_text("precious")
    (folder / "pages").mkdir()
    (folder / "pages" / "notes.txt").write_text("mine")
    os.mkfifo(folder / "fifo")
    GPT(GPT2).save_pretrained(folder / "gpt", CharTokenizer.from_text(TEXT))
    before = contents(folder)
    assert BAD[command] in error_of(capsys, *shlex.split(command))
    assert contents(folder) == before
