"""Convert text to tokens and back: characters, GPT-2's byte pairs, or SentencePiece.

A model's folder has the files of its tokenizer:

    char           tokenizer.json, {"type": "char", "vocabulary": […]}; or, for transformers,
                   Hugging Face's tokenizer.json whose words are single characters
    gpt2           Hugging Face's vocab.json and merges.txt; or OpenAI's encoder.json and
                   vocab.bpe; or Hugging Face's tokenizer.json; added tokens are in
                   tokenizer_config.json or added_tokens.json
    sentencepiece  tokenizer.model, or the only other .model
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinygpt_np.config import PIECES
from tinygpt_np.text.tokenizers.byte_level import MissingPackageError, TokenizerError, read_json
from tinygpt_np.text.tokenizers.char import (
    CharTokenizer,
    UnknownCharacterError,
    is_for_transformers,
)
from tinygpt_np.text.tokenizers.gpt2 import GPT2Tokenizer
from tinygpt_np.text.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = [
    "CharTokenizer", "GPT2Tokenizer", "MissingPackageError", "SentencePieceTokenizer", "Tokenizer",
    "TokenizerError", "UnknownCharacterError", "files_for_transformers", "from_path",
    "has_tokenizer", "load", "make",
]  # fmt: skip

# Used for characters and by Hugging Face; and a SentencePiece model.
DESCRIPTION, MODEL = "tokenizer.json", "tokenizer.model"
# The names of GPT-2's two files.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class Tokenizer(Protocol):
    """A tokenizer, whose tokens are integers in [0, vocab_size)."""

    @property
    def kind(self) -> str:
        """Return char, gpt2 or sentencepiece."""
        ...

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64. Raise ValueError if it cannot be encoded."""
        ...

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of tokens (T,). Raise ValueError for a token that does not exist."""
        ...

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens as they come, in complete characters."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token, which may be part of a character."""
        ...

    def start(self) -> np.ndarray:
        """Return the token (1,) that precedes the start of a text."""
        ...

    def files(self) -> dict[str, bytes]:
        """Return the files from which load() reads this tokenizer."""
        ...


def make(kind: str, path: str, text: str, vocab_size: int = PIECES) -> Tokenizer:
    """Return a tokenizer of a kind, loaded from a path or made from a text.

    Parameters
    ----------
    kind : {"char", "gpt2", "sentencepiece"}
        char uses the characters of the text.
    path : str
        gpt2: a folder or one of the files; "" for tiktoken's cache. sentencepiece: a .model or its
        folder; "" to train on the text.
    text : str
        The text to make it from.
    vocab_size : int
        The number of pieces that SentencePiece learns.
    """
    if vocab_size != PIECES and (kind != "sentencepiece" or path):
        raise TokenizerError(
            f"--vocab-size {vocab_size} sets how many pieces SentencePiece learns from a "
            "text; it needs --tokenizer sentencepiece without --tokenizer-path"
        )
    if kind == "char":
        if path:
            raise TokenizerError(f"characters need no files, but {path} was given for them")
        return CharTokenizer.from_text(text)
    if kind == "gpt2":
        return gpt2_at(Path(path)) if path else GPT2Tokenizer.from_cache()
    if kind == "sentencepiece":
        if path:
            return sentencepiece_at(Path(path))
        return SentencePieceTokenizer.train(text, vocab_size)
    raise TokenizerError(f"a tokenizer is one of char, gpt2, sentencepiece, not {kind!r}")


def load(folder: Path) -> Tokenizer:
    """Return the tokenizer in a folder. Raise TokenizerError, which names what is wrong."""
    pair, models = pair_in(folder), models_in(folder)
    path = folder / DESCRIPTION
    description = read_description(path) if path.exists() else {}
    if is_of_characters(description):
        if pair or models:
            other = (*pair, *models)[0].name
            raise TokenizerError(f"{folder} has two tokenizers: {DESCRIPTION} and {other}")
        return of_characters(path, description)
    if models:
        if pair or len(models) > 1:
            raise TokenizerError(
                f"{folder} has two tokenizers: {models[0].name} and {(*pair, models[-1])[0].name}"
            )
        return SentencePieceTokenizer.from_file(models[0])
    if description:  # Hugging Face may write the pair as well, with the same content.
        return GPT2Tokenizer.from_hugging_face(path, description)
    if pair:
        return GPT2Tokenizer.from_files(*pair)
    pairs = " and ".join(f"{first} with {second}" for first, second in PAIRS)
    raise TokenizerError(
        f"there is no tokenizer in {folder}: neither {DESCRIPTION} nor {MODEL} nor {pairs}"
    )


def from_path(path: Path) -> Tokenizer:
    """Return the tokenizer in a folder, in a .model, or in one of GPT-2's files."""
    if path.is_dir():
        return load(path)
    if path.name == DESCRIPTION and is_of_characters(description := read_description(path)):
        return of_characters(path, description)
    return sentencepiece_at(path) if path.suffix == ".model" else gpt2_at(path)


def files_for_transformers(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the files from which transformers loads a tokenizer."""
    is_char = isinstance(tokenizer, CharTokenizer)
    return tokenizer.files_for_transformers() if is_char else tokenizer.files()


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a tokenizer that load() can read."""
    return (folder / DESCRIPTION).exists() or bool(pair_in(folder) or models_in(folder))


def pair_in(folder: Path) -> tuple[Path, ...]:
    """Return GPT-2's two files, the vocabulary first, if both exist, else ()."""
    for names in PAIRS:
        files = tuple(folder / name for name in names)
        if all(file.exists() for file in files):
            return files
    return ()


def models_in(folder: Path) -> list[Path]:
    """Return the SentencePiece model of the usual name, or else all that exist."""
    model = folder / MODEL
    return [model] if model.exists() else sorted(folder.glob("*.model"))


def read_description(path: Path) -> dict[str, Any]:
    """Return the JSON object in a tokenizer.json, of characters or of Hugging Face."""
    found = read_json(path)
    if not found:
        raise TokenizerError(f"{path} is not a tokenizer: it is an empty JSON object")
    return found


def is_of_characters(description: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json is one of characters, in either of its two forms."""
    own = description.get("type") == "char" or "vocabulary" in description
    return own or is_for_transformers(description)


def of_characters(path: Path, description: dict[str, Any]) -> CharTokenizer:
    """Return the tokenizer that a tokenizer.json of characters describes."""
    try:
        return CharTokenizer.from_description(description)
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path} has no valid vocabulary: {error}") from None


def gpt2_at(path: Path) -> GPT2Tokenizer:
    """Return the GPT-2 tokenizer in a folder, or in a file and the other one in its folder."""
    if path.is_dir() and has_tokenizer(path):
        found = load(path)
        if isinstance(found, GPT2Tokenizer):
            return found
    for names in PAIRS:
        if path.name in names and not path.is_dir():
            vocabulary, merges = (path.parent / name for name in names)
            return GPT2Tokenizer.from_files(vocabulary, merges)
    if path.name == DESCRIPTION:
        return GPT2Tokenizer.from_hugging_face(path, read_description(path))
    raise TokenizerError(
        f"{path} is not a GPT-2 tokenizer: expected a folder with vocab.bpe and encoder.json, "
        "with vocab.json and merges.txt, or with a tokenizer.json of Hugging Face's"
    )


def sentencepiece_at(path: Path) -> SentencePieceTokenizer:
    """Return the SentencePiece tokenizer in a .model or in its folder."""
    if path.is_dir():
        found = load(path)
        if isinstance(found, SentencePieceTokenizer):
            return found
        raise TokenizerError(f"{path} has a tokenizer of another kind, {found.kind}")
    return SentencePieceTokenizer.from_file(path)
