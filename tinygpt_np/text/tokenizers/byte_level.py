"""Tokens that are bytes of UTF-8: one of them may be half a character, or several."""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np.config import counted
from tinygpt_np.text import reading


class TokenizerError(ValueError):
    """A tokenizer cannot be had, or cannot take a text."""


class MissingPackageError(TokenizerError):
    """A tokenizer needs a package that is not installed."""


class ByteLevel:
    """Decoding, given the bytes that each token stands for."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = tokens

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {counted(self.vocab_size, 'token')}>"

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """(T,) integers in [0, vocab_size) -> text; what is no UTF-8 becomes U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Their text as they come, in whole characters: what is half one waits for the rest.

        What never becomes whole is U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            if text := decoder.decode(self.bytes_of(token)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 that a token stands for: half a character, or several. Raises ValueError."""
        if not 0 <= token < len(self.tokens):
            raise ValueError(f"token ids must be in [0, {len(self.tokens)}), not {token}")
        return self.tokens[token]


def checked(text: str) -> str:
    """The text itself. Raises TokenizerError if it is none: half a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the character U+{ord(text[error.start]):04X} at position {error.start} is half of a "
            "pair, and cannot be written as UTF-8"
        ) from None
    return text


def missing(package: str) -> MissingPackageError:
    """Return the error for a package of the extra `tokenizers` that is not installed."""
    return MissingPackageError(
        f"this tokenizer needs {package}: pip install 'tinygpt-np[tokenizers]'"
    )


def read(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises TokenizerError for anything else."""
    try:
        reading.file_size(path)
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    except reading.DataError as error:
        raise TokenizerError(str(error)) from None


def read_text(path: Path) -> str:
    """Return the text of a tokenizer's file; see texts.read_text. Raises TokenizerError."""
    try:
        return reading.read_text(path)
    except reading.DataError as error:
        raise TokenizerError(str(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a tokenizer's file. Raises TokenizerError."""
    content = read_text(path)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} is damaged: it is not a JSON object")
    return cast(dict[str, Any], found)
