"""Text to integers and back, in three ways: characters, GPT-2's byte pairs, SentencePiece's pieces.

A model's folder has the files of its tokenizer:

    char           tokenizer.json, {"type": "char", "vocabulary": […]}; or, for transformers, a
                   tokenizer.json of Hugging Face's whose words are single characters
    gpt2           vocab.json and merges.txt, as Hugging Face has them; or encoder.json and
                   vocab.bpe, as OpenAI published them; or Hugging Face's own tokenizer.json;
                   tokens added to these are in tokenizer_config.json or added_tokens.json
    sentencepiece  tokenizer.model, or whatever the only .model there is called
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
    "TokenizerError", "UnknownCharacterError", "at", "exported", "lies_in", "load", "make",
]  # fmt: skip

# What a description of our own, or Hugging Face's, is called; and a model of SentencePiece's.
DESCRIPTION, MODEL = "tokenizer.json", "tokenizer.model"
# Of GPT-2's two files, which names they go by together.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class Tokenizer(Protocol):
    """Tokens are integers in [0, vocab_size)."""

    @property
    def kind(self) -> str:
        """char, gpt2 or sentencepiece."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> np.ndarray:
        """text -> (T,) int64. Raises ValueError for a text that it cannot write."""
        ...

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """(T,) tokens -> text, of which encode made them. Raises ValueError for what is none."""
        ...

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Their text as they come, in whole characters: what is half one waits for the rest."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 that a token stands for: half a character, or several."""
        ...

    def start(self) -> np.ndarray:
        """(1,) the token that a text begins after, where nothing stands before it."""
        ...

    def files(self) -> dict[str, bytes]:
        """What is to lie in a folder for load() to find this tokenizer there."""
        ...


def make(kind: str, path: str, text: str, vocab_size: int = PIECES) -> Tokenizer:
    """Return a tokenizer of a kind. path: of its files, or "" for none; text: to make it from.

    char: the text's characters. gpt2: of a folder, or of one of its files; without a path, from
    tiktoken's cache. sentencepiece: of a .model; without a path, vocab_size pieces that are learned
    from the text.
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
    """The tokenizer whose files lie in a folder. Raises TokenizerError, naming what is wrong."""
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
    if description:  # Where Hugging Face writes the pair, too, it says the same.
        return GPT2Tokenizer.from_hugging_face(path, description)
    if pair:
        return GPT2Tokenizer.from_files(*pair)
    pairs = " and ".join(f"{first} with {second}" for first, second in PAIRS)
    raise TokenizerError(
        f"there is no tokenizer in {folder}: neither {DESCRIPTION} nor {MODEL} nor {pairs}"
    )


def at(path: Path) -> Tokenizer:
    """The tokenizer in a folder, of a .model, or of one of GPT-2's files."""
    if path.is_dir():
        return load(path)
    if path.name == DESCRIPTION and is_of_characters(description := read_description(path)):
        return of_characters(path, description)
    return sentencepiece_at(path) if path.suffix == ".model" else gpt2_at(path)


def exported(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the files of a tokenizer for a folder that transformers loads."""
    is_char = isinstance(tokenizer, CharTokenizer)
    return tokenizer.files_for_transformers() if is_char else tokenizer.files()


def lies_in(folder: Path) -> bool:
    """Whether there is a tokenizer for load() to read."""
    return (folder / DESCRIPTION).exists() or bool(pair_in(folder) or models_in(folder))


def pair_in(folder: Path) -> tuple[Path, ...]:
    """The two files of GPT-2's, the vocabulary first, if both are there."""
    for names in PAIRS:
        files = tuple(folder / name for name in names)
        if all(file.exists() for file in files):
            return files
    return ()


def models_in(folder: Path) -> list[Path]:
    """SentencePiece's: the one with our name for it, else all there are."""
    ours = folder / MODEL
    return [ours] if ours.exists() else sorted(folder.glob("*.model"))


def read_description(path: Path) -> dict[str, Any]:
    """Return what a tokenizer.json says: ours, of characters, or Hugging Face's, of byte pairs."""
    found = read_json(path)
    if not found:
        raise TokenizerError(f"{path} is no tokenizer: it is a JSON object without entries")
    return found


def is_of_characters(description: dict[str, Any]) -> bool:
    ours = description.get("type") == "char" or "vocabulary" in description
    return ours or is_for_transformers(description)


def of_characters(path: Path, description: dict[str, Any]) -> CharTokenizer:
    try:
        return CharTokenizer.from_description(description)
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path} holds no vocabulary: {error}") from None


def gpt2_at(path: Path) -> GPT2Tokenizer:
    """GPT-2's tokenizer from a folder, or from one of its files with the other beside it."""
    if path.is_dir() and lies_in(path):
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
        f"{path} is no tokenizer of GPT-2's: expected a folder with vocab.bpe and encoder.json, "
        "with vocab.json and merges.txt, or with a tokenizer.json of Hugging Face's"
    )


def sentencepiece_at(path: Path) -> SentencePieceTokenizer:
    """A .model, given by itself or by its folder."""
    if path.is_dir():
        found = load(path)
        if isinstance(found, SentencePieceTokenizer):
            return found
        raise TokenizerError(f"{path} has a tokenizer of another kind, {found.kind}")
    return SentencePieceTokenizer.from_file(path)
