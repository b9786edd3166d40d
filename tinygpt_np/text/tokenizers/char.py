"""A tokenizer of characters ("Let's build GPT", 00:09:28)."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.storage.checkpoint import as_object, to_json
from tinygpt_np.text.tokenizers.base import Tokenizer, TokenizerError

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
# Hugging Face's description of splitting a text into characters.
SINGLE_CHARACTERS = {
    "type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False,
}  # fmt: skip


class UnknownCharacterError(ValueError):
    """A text has a character that the vocabulary lacks."""


class CharTokenizer(Tokenizer):
    """A tokenizer whose token i is the i-th character of the vocabulary."""

    kind, noun = "char", "character"

    def __init__(self, vocabulary: Sequence[str]) -> None:
        if any(len(char) != 1 for char in vocabulary) or len(set(vocabulary)) != len(vocabulary):
            raise ValueError("a vocabulary is a sequence of distinct single characters")
        super().__init__([char.encode() for char in vocabulary])
        self.vocabulary = tuple(vocabulary)
        self._ids = {char: i for i, char in enumerate(self.vocabulary)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Return a tokenizer of the distinct characters of a text, sorted."""
        return cls(sorted(set(text)))

    @classmethod
    def from_description(cls, path: Path, description: dict[str, Any]) -> "CharTokenizer":
        """Return the tokenizer that the content of a tokenizer.json describes."""
        try:
            return cls(vocabulary_in(description))
        except (TypeError, ValueError) as error:
            raise TokenizerError(f"{path} has no valid vocabulary: {error}") from None

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64, or raise UnknownCharacterError."""
        try:
            return np.array([self._ids[char] for char in text], dtype=np.int64)
        except KeyError:
            raise UnknownCharacterError(self._describe_first_unknown(text)) from None

    def start(self) -> np.ndarray:
        """Return a newline (1,), or the first character if the vocabulary has no newline."""
        return np.array([self._ids.get("\n", 0)])

    def files(self) -> dict[str, bytes]:
        """Return tokenizer.json."""
        return {FILE: to_json({"type": self.kind, "vocabulary": self.vocabulary})}

    def files_for_transformers(self) -> dict[str, bytes]:
        """Return the two files for AutoTokenizer of transformers, in which characters are words."""
        description: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": SINGLE_CHARACTERS, "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": self._ids, "unk_token": "<unk>"},
        }  # fmt: skip
        name = "PreTrainedTokenizerFast"
        config = {"tokenizer_class": name, "clean_up_tokenization_spaces": False}
        return {FILE: to_json(description), CONFIG: to_json(config)}

    def known(self, text: str) -> str:
        """Return a text without its unknown characters."""
        return "".join(char for char in text if char in self._ids)

    def nearest(self, char: str) -> list[str]:
        """Return the three most similar characters: by base letter, then code point."""

        def distance(candidate: str) -> tuple[bool, bool, int]:
            other = base_letter(candidate) != base_letter(char)
            return other, candidate.isalpha() != char.isalpha(), abs(ord(candidate) - ord(char))

        return sorted(self.vocabulary, key=distance)[:3]

    def _describe_first_unknown(self, text: str) -> str:
        position, char = next((i, c) for i, c in enumerate(text) if c not in self._ids)
        around = text[max(0, position - 10) : position + 11]
        return (
            f"character {char!r} (U+{ord(char):04X}) at position {position}, in {around!r}, is not "
            f"in the vocabulary of {self.vocab_size} characters; the nearest are "
            f"{', '.join(map(repr, self.nearest(char)))}"
        )


def base_letter(char: str) -> str:
    """Return a letter without case or accents, such as e for É."""
    return unicodedata.normalize("NFKD", char)[0].casefold()


def is_of_characters(description: dict[str, Any]) -> bool:
    """Return whether the content of a tokenizer.json is of characters, in either of two forms."""
    own = description.get("type") == "char" or "vocabulary" in description
    return own or has_words(description)


def has_words(description: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json is one of words, as files_for_transformers writes it."""
    return as_object(description.get("model")).get("type") == "WordLevel"


def vocabulary_in(description: dict[str, Any]) -> list[str]:
    """Return the characters in the content of a tokenizer.json. Raise ValueError if it has none."""
    if not has_words(description):
        vocabulary: Any = description.get("vocabulary")
        if not isinstance(vocabulary, list) or not vocabulary or None in vocabulary:
            raise ValueError("it is not a list of characters")
        return vocabulary  # pyright: ignore[reportUnknownVariableType]
    ids = as_object(description["model"].get("vocab"))
    if description.get("pre_tokenizer") != SINGLE_CHARACTERS or not ids:
        raise ValueError("its words are not single characters")
    characters = sorted(ids, key=ids.__getitem__)
    if [*map(ids.get, characters)] != [*range(len(ids))]:
        raise ValueError("its characters are not numbered from 0 on")
    return characters
