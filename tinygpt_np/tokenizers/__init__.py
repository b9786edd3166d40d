"""Text to integers and back, in three ways: characters, GPT-2's byte pairs, SentencePiece's pieces.

In a model's folder lie the files of its tokenizer:

    char           tokenizer.json, {"type": "char", "vocabulary": […]}
    gpt2           vocab.json and merges.txt, as Hugging Face has them; or encoder.json and
                   vocab.bpe, as OpenAI published them; or Hugging Face's own tokenizer.json
    sentencepiece  tokenizer.model
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from tinygpt_np.tokenizers.byte_level import TokenizerError
from tinygpt_np.tokenizers.char import CharTokenizer
from tinygpt_np.tokenizers.gpt2 import GPT2Tokenizer
from tinygpt_np.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = [
    "CharTokenizer", "GPT2Tokenizer", "SentencePieceTokenizer", "Tokenizer", "TokenizerError",
    "lies_in", "load", "make",
]  # fmt: skip

# What a description of our own, or Hugging Face's, is called; and a model of SentencePiece's.
DESCRIPTION, MODEL = "tokenizer.json", "tokenizer.model"
# Of GPT-2's two files, which names they go by together.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
# Pieces that are trained where nobody says how many.
PIECES = 1024


class Tokenizer(Protocol):
    """Tokens are integers in [0, vocab_size)."""

    @property
    def kind(self) -> str:
        """char, gpt2 or sentencepiece."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> np.ndarray:
        """text -> (T,) int64."""
        ...

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """(T,) tokens -> text, of which encode made them. Raises ValueError for what is none."""
        ...

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Their text as they come, in whole characters: what is half one waits for the rest."""
        ...

    def start(self) -> np.ndarray:
        """(1,) the token that a text begins after, where nothing stands before it."""
        ...

    def files(self) -> dict[str, bytes]:
        """What is to lie in a folder for load() to find this tokenizer there."""
        ...


def make(kind: str, path: str, text: str) -> Tokenizer:
    """A tokenizer by its kind. path: of its files, or "" for none; text: to make it from.

    char: the text's characters. gpt2: of a folder, or of one of its files; without a path, from
    tiktoken's cache. sentencepiece: of a .model; without a path, trained on the text.
    """
    if kind == "char":
        if path:
            raise TokenizerError(f"characters need no files, but {path} was given for them")
        return CharTokenizer.from_text(text)
    if kind == "gpt2":
        return gpt2_at(Path(path)) if path else GPT2Tokenizer.from_cache()
    if kind == "sentencepiece":
        if path:
            return SentencePieceTokenizer.from_file(sentencepiece_file(Path(path)))
        return SentencePieceTokenizer.train(text, PIECES)
    raise TokenizerError(f"a tokenizer is one of char, gpt2, sentencepiece, not {kind!r}")


def load(folder: Path) -> Tokenizer:
    """The tokenizer whose files lie in a folder. Raises TokenizerError, which names what is wrong."""
    for vocabulary, merges in PAIRS:
        if (folder / vocabulary).exists() and (folder / merges).exists():
            return GPT2Tokenizer.from_files(folder / vocabulary, folder / merges)
    if (folder / MODEL).exists():
        return SentencePieceTokenizer.from_file(folder / MODEL)
    path = folder / DESCRIPTION
    if not path.exists():
        pairs = " and ".join(f"{first} with {second}" for first, second in PAIRS)
        raise TokenizerError(
            f"no tokenizer lies in {folder}: neither {DESCRIPTION} nor {MODEL} nor {pairs}"
        )
    return described(path)


def lies_in(folder: Path) -> bool:
    """Whether there is a tokenizer for load() to read."""
    if (folder / DESCRIPTION).exists() or (folder / MODEL).exists():
        return True
    return any((folder / a).exists() and (folder / b).exists() for a, b in PAIRS)


def described(path: Path) -> Tokenizer:
    """What a tokenizer.json says: ours, of characters, or Hugging Face's, of byte pairs."""
    try:
        found: Any = json.loads(path.read_bytes())
    except ValueError:
        raise TokenizerError(f"{path} is damaged: it is not JSON") from None
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} is no tokenizer: it is not a JSON object")
    entries = cast(dict[str, Any], found)
    if entries.get("type") == "char" or "vocabulary" in entries:
        try:
            return CharTokenizer(entries["vocabulary"])
        except (KeyError, TypeError, ValueError) as error:
            raise TokenizerError(f"{path} holds no vocabulary: {error}") from None
    return GPT2Tokenizer.from_hugging_face(path, entries)


def gpt2_at(path: Path) -> GPT2Tokenizer:
    """GPT-2's tokenizer from a folder, or from one of two files with the other beside it."""
    folder = path if path.is_dir() else path.parent
    for vocabulary, merges in PAIRS:
        if path.is_dir() or path.name in (vocabulary, merges):
            files = folder / vocabulary, folder / merges
            if all(file.is_file() for file in files):
                return GPT2Tokenizer.from_files(*files)
    if (folder / DESCRIPTION).is_file() and (path.is_dir() or path.name == DESCRIPTION):
        found = described(folder / DESCRIPTION)
        if isinstance(found, GPT2Tokenizer):
            return found
    raise TokenizerError(
        f"{path} is no tokenizer of GPT-2's: expected a folder with vocab.bpe and encoder.json, "
        "with vocab.json and merges.txt, or with a tokenizer.json of Hugging Face's"
    )


def sentencepiece_file(path: Path) -> Path:
    """A .model, given by itself or by its folder."""
    if path.is_dir() and (path / MODEL).is_file():
        return path / MODEL
    if not path.is_file():
        raise TokenizerError(f"{path} is no file of SentencePiece's; expected a .model")
    return path
