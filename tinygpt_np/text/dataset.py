"""Load datasets: the tokens of a training and a validation split, and their tokenizer.

A text is split before it is encoded, as in nanoGPT. So the splits are the same for every tokenizer,
and losses in bits per character are comparable.

A token folder has nanoGPT's format: train.bin and val.bin, with each token a little-endian uint16.
All tokens are checked once; then the files, which may be larger than memory, are mapped.
`tinygpt prepare` adds meta.json and the tokenizer's files, which nanoGPT's own folders lack.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.config import PIECES, TrainConfig
from tinygpt_np.storage import checkpoint
from tinygpt_np.text import corpus as data
from tinygpt_np.text import tokenizers
from tinygpt_np.text.corpus import Corpus, DataError
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer, UnknownCharacterError

TRAIN, VAL, META = "train.bin", "val.bin", "meta.json"
# The text that nanoGPT's shakespeare_char has next to its tokens.
TEXT = "input.txt"
TOKEN = np.dtype("<u2")
# Tokens to read at a time when a file is checked.
PART = 1 << 20
# llm.c writes the same tokens after a header that starts with this number.
LLMC_MAGIC, LLMC_HEADER = (20240520).to_bytes(4, "little"), 1024
# Larger than any vocabulary. Pairs of uint16 tokens read as one uint32 mostly exceed it.
MAX_VOCABULARY = 1 << 20
# The fingerprint of a token folder covers this many bytes at each end of each file.
ENDS = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """The tokens of two splits, (M,) integers each, with their tokenizer.

    The name is that of a corpus or an absolute path, sha256 identifies the content, and about
    describes the size.
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    tokenizer: Tokenizer
    sha256: str
    about: str

    def bits_per_character(self, loss: float) -> float:
        """Convert a validation loss from nats per token to bits per character.

        The first token is not predicted, so its text is not counted. Without any other text, as in
        a split of a single predicted <|endoftext|>, return infinity.
        """
        if self.tokenizer.kind == "char":
            return loss / math.log(2)
        characters = length(self.tokenizer, self.val) - length(self.tokenizer, self.val[:1])
        bits = loss * (len(self.val) - 1) / math.log(2)
        return bits / characters if characters else math.inf

    def unseen(self) -> str:
        """Return the characters that only the validation split of a text has."""
        if self.tokenizer.kind != "char" or isinstance(self.train, np.memmap):
            return ""
        return self.tokenizer.decode(np.setdiff1d(self.val, self.train))


def length(tokenizer: Tokenizer, tokens: np.ndarray) -> int:
    """Return the number of characters that tokens (M,) decode to, without <|endoftext|>."""
    if tokenizer.end_of_text is not None:
        tokens = tokens[tokens != tokenizer.end_of_text]
    return sum(len(piece) for piece in tokenizer.stream(int(token) for token in tokens))


def load(config: TrainConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Return the dataset that config.data names, for a model's tokenizer or the configured one."""
    folder = Path(config.data)
    is_folder = config.data not in data.NAMED and folder.is_dir()
    if config.vocab_size != PIECES and (is_folder or config.init_from != "scratch"):
        raise DataError(
            f"--vocab-size {config.vocab_size} sets how many pieces SentencePiece learns "
            f"from a text; {config.data if is_folder else config.init_from} has its own vocabulary"
        )
    if is_folder:
        found = from_folder(folder.resolve(), config, tokenizer)
    else:
        corpus, settings = data.load(config.data), (config.tokenizer, config.tokenizer_path)
        made = tokenizer or tokenizers.make(*settings, corpus.text, config.vocab_size)
        found = from_corpus(corpus, made)
    data.check_lengths(found.train, found.val, config.block_size)
    return found


def from_corpus(corpus: Corpus, tokenizer: Tokenizer | None = None) -> Dataset:
    """Return the dataset of a text; without a tokenizer, tokens are characters."""
    tokenizer = tokenizer or CharTokenizer.from_text(corpus.text)
    cut = int(data.TRAIN_SHARE * len(corpus.text))
    try:
        train, val = tokenizer.encode(corpus.text[:cut]), tokenizer.encode(corpus.text[cut:])
    except UnknownCharacterError as error:
        raise DataError(f"{corpus.name} does not fit this model: {error}") from None
    about = f"{len(set(corpus.text))} distinct"
    if tokenizer.kind != "char":
        about = f"{len(train) + len(val):,} tokens"
    about = f"{len(corpus.text):,} characters, {about}"
    return Dataset(corpus.name, train, val, tokenizer, corpus.sha256, about)


def from_folder(folder: Path, config: TrainConfig, tokenizer: Tokenizer | None) -> Dataset:
    """Return the dataset in a folder; `tokenizer` is that of the model to train further."""
    train, val = (mapped(folder / name) for name in (TRAIN, VAL))
    if os.path.lexists(folder / META):  # A link to a missing file is an error, not another format.
        found = from_meta(folder, config.tokenizer, {TRAIN: len(train), VAL: len(val)})
    elif config.tokenizer != "char" or config.tokenizer_path:
        found = from_path(folder, config)
    else:
        found = from_text(folder, train, val)
    for name in (TRAIN, VAL):
        check_tokens(folder / name, found)
    kinds = [
        f"tokenizer {t.kind} with a vocabulary of {t.vocab_size}"
        for t in (found, tokenizer or found)
    ]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"the tokens in {folder} are of {kinds[0]}, but the model's are of {kinds[1]}"
        )
    about = f"{len(train) + len(val):,} tokens"
    return Dataset(str(folder), train, val, found, fingerprint(folder), about)


def from_meta(folder: Path, asked: str, counts: dict[str, int]) -> Tokenizer:
    """Return the tokenizer in a folder of `tinygpt prepare`; counts are of tokens in files."""
    meta, found = checkpoint.read_json(folder / META), tokenizers.load(folder)
    kind: Any = meta.get("tokenizer")
    if kind != found.kind or asked not in ("char", found.kind):
        raise DataError(
            f"the tokens in {folder} are of tokenizer {kind}, its tokenizer files are of "
            f"{found.kind}, and --tokenizer is {asked}; all three must be the same"
        )
    for name, value in (("dtype", "uint16"), ("vocab_size", found.vocab_size)):
        if meta.get(name, value) != value:
            raise DataError(f"{folder / META} should say {name} {value!r}, but says {meta[name]!r}")
    for file, count in counts.items():
        said = meta.get(f"{Path(file).stem}_tokens", count)
        if said != count:
            looks = appearance(folder / file, found.vocab_size)
            raise DataError(f"{folder / file} has {count} tokens, but {META} says {said}; {looks}")
    return found


def from_path(folder: Path, config: TrainConfig) -> Tokenizer:
    """Return the tokenizer that --tokenizer and --tokenizer-path name for a folder's tokens."""
    if config.tokenizer == "sentencepiece" and not config.tokenizer_path:
        raise DataError(
            f"--tokenizer sentencepiece needs --tokenizer-path here: the model that encoded the "
            f"tokens in {folder}"
        )
    found = tokenizers.make(config.tokenizer, config.tokenizer_path, "")
    for path in (folder / TRAIN, folder / VAL):
        # Small uint32 numbers are also valid uint16, with every second token 0.
        if below(path, "<u4", found.vocab_size):
            looks = appearance(path, found.vocab_size)
            raise DataError(f"{path} should hold uint16, but {looks}")
    return found


def from_text(folder: Path, train: np.ndarray, val: np.ndarray) -> Tokenizer:
    """Return the tokenizer of characters whose tokens of input.txt are those in the folder."""
    if not (folder / TEXT).exists():
        raise DataError(
            f"{folder} has no {META}, so its tokenizer is unknown: add --tokenizer gpt2, or put "
            f"nanoGPT's {TEXT} for characters into it (meta.pkl is a pickle and is never read), or "
            "make the folder with tinygpt prepare"
        )
    # In nanoGPT's folders of characters, a byte order mark is a character.
    text = data.read_text(folder / TEXT, keep_mark=True)
    for characters in (text, text.removeprefix(data.BYTE_ORDER_MARK)):
        found = CharTokenizer.from_text(characters)
        first, rest = np.split(found.encode(characters), [len(train)])
        if np.array_equal(first, train) and np.array_equal(rest, val):
            return found
    wrong = folder / (VAL if np.array_equal(first, train) else TRAIN)
    raise DataError(
        f"{wrong} is not the encoded {TEXT} of its folder; {appearance(wrong, found.vocab_size)}"
    )


def mapped(path: Path) -> np.ndarray:
    """Map the tokens of a file, (M,) uint16, into memory."""
    if not path.is_file():
        raise DataError(
            f"there is no file {path}; --data is a text file or a folder with {TRAIN} and {VAL}, "
            "as tinygpt prepare writes it"
        )
    size = path.stat().st_size
    if size == 0 or size % TOKEN.itemsize:
        raise DataError(
            f"{path} should hold tokens of {TOKEN.itemsize} bytes each, but has {size:,} bytes"
        )
    tokens = np.memmap(path, TOKEN, mode="r")
    if tokens[:2].tobytes() == LLMC_MAGIC:
        raise DataError(
            f"{path} has the header of llm.c, of {LLMC_HEADER:,} bytes; "
            + rewrite(path, "<u2", LLMC_HEADER)
        )
    return tokens


def check_tokens(path: Path, tokenizer: Tokenizer) -> None:
    """Raise DataError unless all tokens of a file are in the vocabulary."""
    position = 0
    for part in parts(path, TOKEN):
        if part.max() >= tokenizer.vocab_size:
            first = int(np.argmax(part >= tokenizer.vocab_size))
            raise DataError(
                f"{path} has the token {part[first]} at position {position + first:,}, but the "
                f"vocabulary of tokenizer {tokenizer.kind} has {tokenizer.vocab_size:,} tokens; "
                f"{appearance(path, tokenizer.vocab_size)}"
            )
        position += len(part)


def appearance(path: Path, vocab_size: int) -> str:
    """Return the likely format of a file that is not little-endian uint16, and what to do."""
    if below(path, "<u4", MAX_VOCABULARY):
        return f"it looks like uint32; {rewrite(path, '<u4')}"
    if below(path, ">u2", vocab_size):
        return f"it looks like big-endian uint16; {rewrite(path, '>u2')}"
    return "it is damaged or was written with another tokenizer"


def below(path: Path, dtype: str, limit: int) -> bool:
    """Return whether a file can be read as integers of a dtype that are all below a limit."""
    fits = path.stat().st_size % np.dtype(dtype).itemsize == 0
    return fits and all(part.max() < limit for part in parts(path, dtype))


def rewrite(path: Path, dtype: str, offset: int = 0) -> str:
    """Return advice to rewrite a file of tokens as little-endian uint16."""
    new = f"{path.stem}-uint16.bin"
    return (
        "rewrite it with NumPy:  "
        f"np.fromfile({str(path)!r}, {dtype!r}, offset={offset}).astype('<u2').tofile({new!r})"
    )


def parts(path: Path, dtype: Any) -> Iterator[np.ndarray]:
    """Yield the numbers in a file in parts, to limit memory."""
    with path.open("rb") as file:
        while len(part := np.fromfile(file, dtype, PART)):
            yield part


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 of the sizes and both ends of the two files, which may be very large."""
    digest = hashlib.sha256()
    for name in (TRAIN, VAL):
        with (folder / name).open("rb") as file:
            size = file.seek(0, 2)
            digest.update(size.to_bytes(8, "little"))
            for start in (0, max(size - ENDS, 0)):
                file.seek(start)
                digest.update(file.read(ENDS))
    return digest.hexdigest()
