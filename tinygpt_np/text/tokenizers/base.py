"""The base class of tokenizers, and how they read files."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.config import counted
from tinygpt_np.storage import checkpoint
from tinygpt_np.text import corpus


class TokenizerError(ValueError):
    """A tokenizer cannot be loaded or cannot encode a text."""


class MissingPackageError(TokenizerError):
    """A tokenizer needs a package that is not installed."""


class Tokenizer(ABC):
    """A tokenizer, whose tokens are integers in [0, vocab_size).

    `kind` is char, gpt2 or sentencepiece; `tokens` has the UTF-8 bytes of each token, which may be
    part of a character.
    """

    kind: str
    noun = "token"
    # The token <|endoftext|>, if the vocabulary has it.
    end_of_text: int | None = None

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = tokens

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {counted(self.vocab_size, self.noun)}>"

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64. Raise ValueError if it cannot be encoded."""

    @abstractmethod
    def start(self) -> np.ndarray:
        """Return the token (1,) that precedes the start of a text."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return the files from which load() reads this tokenizer."""

    def files_for_transformers(self) -> dict[str, bytes]:
        """Return the files from which transformers loads this tokenizer."""
        return self.files()

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token. Raise ValueError if there is no such token."""
        if not 0 <= token < len(self.tokens):
            raise ValueError(f"token ids must be in [0, {len(self.tokens)}), not {token}")
        return self.tokens[token]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of tokens (T,). Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens as they come, each character when its last byte has come."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            if text := decoder.decode(self.bytes_of(token)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text


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


def read_text(path: Path) -> str:
    """Return the text of a file. Raise TokenizerError if it cannot be read."""
    try:
        return corpus.read_text(path)
    except corpus.DataError as error:
        raise TokenizerError(str(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise TokenizerError if it has none."""
    try:
        return checkpoint.read_json(path)
    except checkpoint.CheckpointError as error:
        raise TokenizerError(str(error)) from None
