"""What a GPT is trained on: the tokens of two splits, and the tokenizer that they come from.

A text is split first and encoded then, each part by itself, as nanoGPT does; so the splits are of
the same text whatever the tokenizer, and a loss in bits per character can be compared.

A folder of tokens is nanoGPT's: train.bin and val.bin, each token an unsigned integer of 16 bits,
the lower byte first. They are mapped into memory, not read: a corpus may be larger than it.
`tinygpt prepare` adds meta.json and the tokenizer's files; nanoGPT's own folders do not have them.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np import checkpoint, data, tokenizers
from tinygpt_np.config import TrainConfig
from tinygpt_np.data import Corpus, DataError
from tinygpt_np.tokenizers import CharTokenizer, Tokenizer

TRAIN, VAL, META = "train.bin", "val.bin", "meta.json"
# What nanoGPT's shakespeare_char keeps beside its tokens.
TEXT = "input.txt"
TOKEN = np.dtype("<u2")
# Of a folder of tokens, what is hashed: its sizes, and so many bytes at each end of each file.
ENDS = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """Tokens to train and to validate on, (M,) integers each.

    name: what --data calls it; a path is absolute. sha256: tells it from another of that name.
    about: its size, in words.
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    tokenizer: Tokenizer
    sha256: str
    about: str

    def bits_per_character(self, loss: float) -> float:
        """Convert a validation loss from nats per token to bits per character.

        The first token is given, and the text that it stands for is not counted.
        """
        if self.tokenizer.kind == "char":
            return loss / math.log(2)
        characters = length(self.tokenizer, self.val) - length(self.tokenizer, self.val[:1])
        return loss * (len(self.val) - 1) / math.log(2) / characters

    def unseen(self) -> str:
        """The characters of a text that its validation split has, and its training split not."""
        if not isinstance(self.tokenizer, CharTokenizer) or isinstance(self.train, np.memmap):
            return ""
        return self.tokenizer.decode(np.setdiff1d(self.val, self.train))


def length(tokenizer: Tokenizer, tokens: np.ndarray) -> int:
    """How many characters tokens (M,) stand for."""
    return sum(len(piece) for piece in tokenizer.stream(int(token) for token in tokens))


def load(config: TrainConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """What config.data names. tokenizer: a model's own; without it, the configuration's.

    Raises DataError unless each split has a block and the token after it.
    """
    folder = Path(config.data)
    if config.data not in data.NAMED and folder.is_dir():
        found = from_folder(folder.resolve(), config, tokenizer)
    else:
        corpus = data.load(config.data)
        if tokenizer is None:
            tokenizer = tokenizers.make(config.tokenizer, config.tokenizer_path, corpus.text)
        found = from_corpus(corpus, tokenizer)
    data.check_lengths(found.train, found.val, config.block_size)
    return found


def from_corpus(corpus: Corpus, tokenizer: Tokenizer | None = None) -> Dataset:
    """A text in memory, split as in the lecture. Without a tokenizer, tokens are characters."""
    tokenizer = tokenizer or CharTokenizer.from_text(corpus.text)
    cut = int(data.TRAIN_SHARE * len(corpus.text))
    train, val = tokenizer.encode(corpus.text[:cut]), tokenizer.encode(corpus.text[cut:])
    about = f"{len(corpus.text):,} characters, {len(set(corpus.text))} distinct"
    if tokenizer.kind != "char":
        about = f"{len(corpus.text):,} characters, {len(train) + len(val):,} tokens"
    return Dataset(corpus.name, train, val, tokenizer, corpus.sha256, about)


def from_folder(folder: Path, config: TrainConfig, tokenizer: Tokenizer | None) -> Dataset:
    """A folder of train.bin and val.bin, with meta.json or without."""
    train, val = (mapped(folder / name) for name in (TRAIN, VAL))
    theirs = tokenizer_of(folder, config, train, val)
    if tokenizer is not None and (tokenizer.kind, tokenizer.vocab_size) != (
        theirs.kind,
        theirs.vocab_size,
    ):
        raise DataError(
            f"the tokens in {folder} are of {describe(theirs)}, but the model's are of "
            f"{describe(tokenizer)}"
        )
    about = f"{len(train) + len(val):,} tokens"
    return Dataset(str(folder), train, val, theirs, fingerprint(folder), about)


def describe(tokenizer: Tokenizer) -> str:
    return f"tokenizer {tokenizer.kind} with a vocabulary of {tokenizer.vocab_size}"


def mapped(path: Path) -> np.ndarray:
    """The tokens of a file, (M,) uint16, mapped into memory."""
    if not path.is_file():
        raise DataError(
            f"there is no file {path}; a folder given to --data holds {TRAIN} and {VAL}, "
            "as tinygpt prepare writes them; a text is given as a file"
        )
    size = path.stat().st_size
    if size == 0 or size % TOKEN.itemsize:
        raise DataError(
            f"{path} should hold tokens of {TOKEN.itemsize} bytes each, but has {size:,} bytes"
        )
    return np.memmap(path, TOKEN, mode="r")


def tokenizer_of(
    folder: Path, config: TrainConfig, train: np.ndarray, val: np.ndarray
) -> Tokenizer:
    """What the tokens in a folder are of: as meta.json says, or as the configuration does."""
    asked = config.tokenizer
    if (folder / META).exists():
        kind: Any = checkpoint.read_json(folder / META).get("tokenizer")
        found = tokenizers.load(folder)
        if kind != found.kind or asked not in ("char", found.kind):
            raise DataError(
                f"the tokens in {folder} are of tokenizer {kind}, beside them lie the files of "
                f"{found.kind}, and --tokenizer is {asked}; all three must be the same"
            )
        return found
    if asked == "gpt2" or config.tokenizer_path:
        return tokenizers.make(asked, config.tokenizer_path, "")
    if not (folder / TEXT).exists():
        raise DataError(
            f"{folder} has no {META} that says what its tokens are: add --tokenizer gpt2, or make "
            "the folder with tinygpt prepare"
        )
    # nanoGPT's character-level folders: their vocabulary is a pickle, and is not read.
    text = data.read_text(folder / TEXT)
    found = CharTokenizer.from_text(text)
    first = min(len(train), 1000)
    same = len(train) + len(val) == len(text)
    if not same or (found.encode(text[:first]) != train[:first]).any():
        raise DataError(
            f"the tokens in {folder} are not the characters of {TEXT} beside them; "
            "make the folder anew with tinygpt prepare"
        )
    return found


def fingerprint(folder: Path) -> str:
    """The SHA-256 of the sizes and of both ends of the two files; whole, they may be too large."""
    digest = hashlib.sha256()
    for name in (TRAIN, VAL):
        with (folder / name).open("rb") as file:
            size = file.seek(0, 2)
            digest.update(size.to_bytes(8, "little"))
            for start in (0, max(size - ENDS, 0)):
                file.seek(start)
                digest.update(file.read(ENDS))
    return digest.hexdigest()
