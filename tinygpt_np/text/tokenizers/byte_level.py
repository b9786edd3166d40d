"""The base class of tokenizers whose tokens are UTF-8 bytes, and how they read files."""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np.config import counted
from tinygpt_np.text import corpus


class TokenizerError(ValueError):
    """A tokenizer cannot be loaded or cannot encode a text."""


class MissingPackageError(TokenizerError):
    """A tokenizer needs a package that is not installed."""


class ByteLevel:
    """Decodes tokens, given the bytes of each; a token may be part of a character."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = tokens

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {counted(self.vocab_size, 'token')}>"

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of tokens (T,). Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens as they come, each character when its last byte has come.

        Incomplete characters become U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            if text := decoder.decode(self.bytes_of(token)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token. Raise ValueError if there is no such token."""
        if not 0 <= token < len(self.tokens):
            raise ValueError(f"token ids must be in [0, {len(self.tokens)}), not {token}")
        return self.tokens[token]


def checked(text: str) -> str:
    """Return a text unchanged. Raise TokenizerError if it has an unpaired surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the character U+{ord(text[error.start]):04X} at position {error.start} is half of a "
            "surrogate pair and has no UTF-8 encoding"
        ) from None
    return text


def missing(package: str) -> MissingPackageError:
    """Return the error for a package of the extra `tokenizers` that is not installed."""
    return MissingPackageError(
        f"this tokenizer needs {package}: pip install 'tinygpt-np[tokenizers]'"
    )


def read(path: Path) -> bytes:
    """Return the content of a regular file. Raise TokenizerError if it cannot be read."""
    try:
        corpus.file_size(path)
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    except corpus.DataError as error:
        raise TokenizerError(str(error)) from None


def read_text(path: Path) -> str:
    """Return the text of a file. Raise TokenizerError if it cannot be read."""
    try:
        return corpus.read_text(path)
    except corpus.DataError as error:
        raise TokenizerError(str(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise TokenizerError if it has none."""
    content = read_text(path)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} is damaged: it is not a JSON object")
    return cast(dict[str, Any], found)
