"""Encode texts of any size to token folders in nanoGPT's format; see dataset.py.

The texts are read twice, to count their characters and to encode them, in pieces that fit into
memory. Pieces end before white space that follows another character. No token of GPT-2 or of a
SentencePiece model trained here spans such a place, so the tokens are those of the whole text.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygpt_np.config import PIECES
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.text import corpus, tokenizers
from tinygpt_np.text.corpus import DataError
from tinygpt_np.text.dataset import META, TOKEN, TRAIN, VAL
from tinygpt_np.text.tokenizers import GPT2Tokenizer, Tokenizer
from tinygpt_np.text.tokenizers.added import END_OF_TEXT

# A piece of this many characters is encoded even if it has no white space.
MAX_PIECE = 1 << 22
# SentencePiece is trained on at most this many characters.
SAMPLE = 1 << 24

# Called with the number of encoded characters and the total.
Report = Callable[[int, int], None]


def prepare(
    paths: Sequence[Path],
    kind: str,
    tokenizer_path: str,
    out: Path,
    report: Report,
    *,
    separate_documents: bool = False,
    vocab_size: int = PIECES,
) -> dict[str, object]:
    """Write a new token folder atomically and return the contents of its meta.json.

    Parameters
    ----------
    paths : sequence of Path
        UTF-8 texts, which are concatenated in this order.
    kind, tokenizer_path, vocab_size
        See tokenizers.make.
    out : Path
        The folder to write.
    report : callable
        Called with the number of encoded characters and the total.
    separate_documents : bool
        Whether to put GPT-2's <|endoftext|> after each file.
    """
    files.refuse_existing(out)
    characters, seen = survey(paths)
    if characters == 0:
        raise DataError(f"{', '.join(map(str, paths))}: there is no text to train on")
    tokenizer = choose(paths, kind, tokenizer_path, vocab_size, seen)
    end = end_of_text(tokenizer) if separate_documents else None
    if tokenizer.vocab_size > np.iinfo(TOKEN).max + 1:
        raise DataError(
            f"token files are uint16, for a vocabulary of at most {np.iinfo(TOKEN).max + 1:,} "
            f"tokens; that of {kind} has {tokenizer.vocab_size:,}"
        )
    with files.new_folder(out) as temporary:
        counts = encode_into(temporary, paths, tokenizer, end, characters, report)
        meta: dict[str, object] = {
            "tokenizer": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "dtype": "uint16",
            "characters": characters,
            "train_tokens": counts[TRAIN],
            "val_tokens": counts[VAL],
        }
        contents = {META: checkpoint.to_json(meta), **tokenizer.files()}
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
    return meta


def survey(paths: Sequence[Path]) -> tuple[int, set[str]]:
    """Return the number of characters in the texts and the set of distinct ones."""
    count, seen = 0, set[str]()
    for piece in pieces(paths):
        count += len(piece)
        seen.update(piece)
    return count, seen


def choose(
    paths: Sequence[Path], kind: str, tokenizer_path: str, vocab_size: int, seen: set[str]
) -> Tokenizer:
    """Return the requested tokenizer, trained on the texts if necessary."""
    if kind == "char":
        return tokenizers.make(kind, tokenizer_path, "".join(seen), vocab_size)
    sample = io.StringIO()
    if kind == "sentencepiece" and not tokenizer_path:
        for piece in pieces(paths):
            sample.write(piece)
            if sample.tell() >= SAMPLE:
                break
    tokenizer = tokenizers.make(kind, tokenizer_path, sample.getvalue(), vocab_size)
    for token in tokenizer.added if isinstance(tokenizer, GPT2Tokenizer) else ():
        if not token.special and last_gap(token.content):
            raise DataError(
                f"the added token {token.content!r} has white space inside, where long texts are "
                "split into pieces; prepare does not support that"
            )
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """Return the token that separates documents. Raise DataError if there is none."""
    end = tokenizer.end_of_text if isinstance(tokenizer, GPT2Tokenizer) else None
    if end is None:
        raise DataError(
            f"documents are separated by {END_OF_TEXT}, which is a token of gpt2; tokenizer "
            f"{tokenizer.kind} does not have it"
        )
    return end


def encode_into(
    folder: Path,
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    end: int | None,
    characters: int,
    report: Report,
) -> dict[str, int]:
    """Write train.bin and val.bin, and return the number of tokens in each.

    `end` is the token to put after each text, if any. Raise DataError if the texts do not have the
    number of characters that `survey` counted.
    """
    cut, done = int(corpus.TRAIN_SHARE * characters), 0
    counts = {TRAIN: 0, VAL: 0}
    with (folder / TRAIN).open("wb") as train, (folder / VAL).open("wb") as val:
        for document in [paths] if end is None else [[path] for path in paths]:
            for piece in whole_words(pieces(document), cut - done):
                name, file = (TRAIN, train) if done < cut else (VAL, val)
                counts[name] += write(file, tokenizer.encode(piece))
                done += len(piece)
                report(done, characters)
            if end is not None:  # After each document, as nanoGPT does.
                name, file = (TRAIN, train) if done <= cut else (VAL, val)
                counts[name] += write(file, np.array([end]))
    if done != characters:
        raise DataError(
            f"{', '.join(map(str, paths))} changed while being read: it had {characters:,} "
            f"characters, and then {done:,}; nothing was written"
        )
    return counts


def write(file: BinaryIO, tokens: np.ndarray) -> int:
    """Write tokens to a file and return their number."""
    file.write(tokens.astype(TOKEN).tobytes())
    return len(tokens)


def whole_words(pieces: Iterator[str], cut: int) -> Iterator[str]:
    """Yield the same text in pieces that end before white space, and one at `cut` characters."""
    rest, done = "", 0
    for piece in pieces:
        rest += piece
        while True:
            end = cut - done if done < cut <= done + len(rest) else last_gap(rest)
            if end == 0 and len(rest) >= MAX_PIECE:
                end = len(rest)
            if end == 0:
                break
            yield rest[:end]
            rest, done = rest[end:], done + end
    if rest:
        yield rest


def last_gap(text: str) -> int:
    """Return the last position of a space or newline that follows no white space, or 0.

    Tokenizers disagree about which other characters are white space.
    """
    for place in range(len(text) - 1, 0, -1):
        if text[place] in " \n" and not text[place - 1].isspace():
            return place
    return 0


def pieces(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the texts of all files in pieces; see corpus.pieces."""
    for path in paths:
        yield from corpus.pieces(path)


def paths_of(sources: Sequence[str]) -> list[Path]:
    """Return the files that --data names: paths, shakespeare or tinyshakespeare."""
    named = {"shakespeare": corpus.embedded_file, "tinyshakespeare": corpus.tinyshakespeare_file}
    return [named[source]() if source in named else Path(source) for source in sources]
