"""Encode texts of any size to token folders in nanoGPT's format; see dataset.py.

The texts are read twice, to count their characters and to encode them, in pieces that fit into
memory. Pieces end before white space that follows another character. No token of GPT-2 or of a
SentencePiece model trained here spans such a place, so the tokens are those of the whole text.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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

    The UTF-8 texts are concatenated, with GPT-2's <|endoftext|> after each if separate_documents is
    true. See tokenizers.make for kind, tokenizer_path and vocab_size.
    """
    files.refuse_existing(out)
    characters, seen = 0, set[str]()
    for piece in pieces(paths):
        characters += len(piece)
        seen.update(piece)
    names = ", ".join(map(str, paths))
    if characters == 0:
        raise DataError(f"{names}: there is no text to train on")
    tokenizer = choose(paths, kind, tokenizer_path, vocab_size, seen)
    end = tokenizer.end_of_text if separate_documents else None
    if separate_documents and end is None:
        raise DataError(
            f"documents are separated by {END_OF_TEXT}, which is a token of gpt2; tokenizer {kind} "
            "does not have it"
        )
    with files.new_folder(out) as folder:
        done, counts = 0, {TRAIN: 0, VAL: 0}
        with (folder / TRAIN).open("wb") as train, (folder / VAL).open("wb") as val:
            for name, tokens, done in encoded(paths, tokenizer, end, characters):
                (train if name == TRAIN else val).write(tokens.astype(TOKEN).tobytes())
                counts[name] += len(tokens)
                report(done, characters)
        if done != characters:
            raise DataError(
                f"{names} changed while being read: it had {characters:,} characters, and then "
                f"{done:,}; nothing was written"
            )
        meta: dict[str, object] = {
            "tokenizer": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "dtype": "uint16",
            "characters": characters,
            "train_tokens": counts[TRAIN],
            "val_tokens": counts[VAL],
        }
        for name, content in {META: checkpoint.to_json(meta), **tokenizer.files()}.items():
            (folder / name).write_bytes(content)
    return meta


def choose(
    paths: Sequence[Path], kind: str, tokenizer_path: str, vocab_size: int, seen: set[str]
) -> Tokenizer:
    """Return the requested tokenizer, trained on the texts or made of their characters."""
    sample = io.StringIO()
    if kind == "sentencepiece" and not tokenizer_path:
        for piece in pieces(paths):
            sample.write(piece)
            if sample.tell() >= SAMPLE:
                break
    text = "".join(seen) if kind == "char" else sample.getvalue()
    tokenizer = tokenizers.make(kind, tokenizer_path, text, vocab_size)
    most = np.iinfo(TOKEN).max + 1
    if tokenizer.vocab_size > most:
        raise DataError(
            f"token files are uint16, for a vocabulary of at most {most:,} tokens; that of {kind} "
            f"has {tokenizer.vocab_size:,}"
        )
    for token in tokenizer.added if isinstance(tokenizer, GPT2Tokenizer) else ():
        if not token.special and last_gap(token.content):
            raise DataError(
                f"the added token {token.content!r} has white space inside, where long texts are "
                "split into pieces; prepare does not support that"
            )
    return tokenizer


def encoded(
    paths: Sequence[Path], tokenizer: Tokenizer, end: int | None, characters: int
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield the name of a file, tokens for it, and the number of characters encoded so far."""
    cut, done = int(corpus.TRAIN_SHARE * characters), 0
    for document in [paths] if end is None else [[path] for path in paths]:
        for piece in whole_words(pieces(document), cut - done):
            name = TRAIN if done < cut else VAL
            done += len(piece)
            yield name, tokenizer.encode(piece), done
        if end is not None:
            yield TRAIN if done <= cut else VAL, np.array([end]), done


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
    """Return the last position of a space or newline that follows no white space, or 0."""
    # Tokenizers disagree about which other characters are white space.
    for place in range(len(text) - 1, 0, -1):
        if text[place] in " \n" and not text[place - 1].isspace():
            return place
    return 0


def pieces(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the texts of all files in pieces; see corpus.pieces."""
    for path in paths:
        yield from corpus.pieces(path)
