"""A tokenizer of characters ("Let's build GPT", 00:09:28)."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from tinygpt_np.config import counted

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
# Hugging Face's description of splitting a text into characters.
SINGLE_CHARACTERS = {
    "type": "Split",
    "pattern": {"Regex": "[\\s\\S]"},
    "behavior": "Isolated",
    "invert": False,
}


class UnknownCharacterError(ValueError):
    """A text has a character that the vocabulary lacks."""


class CharTokenizer:
    """A tokenizer whose token i is the i-th character of the vocabulary."""

    kind = "char"

    def __init__(self, vocabulary: Sequence[str]) -> None:
        if any(len(char) != 1 for char in vocabulary) or len(set(vocabulary)) != len(vocabulary):
            raise ValueError("a vocabulary is a sequence of distinct single characters")
        self.vocabulary = tuple(vocabulary)
        self._ids = {char: i for i, char in enumerate(self.vocabulary)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Return a tokenizer of the distinct characters of a text, sorted."""
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        """Return the number of characters."""
        return len(self.vocabulary)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {counted(self.vocab_size, 'character')}>"

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64, or raise UnknownCharacterError."""
        try:
            return np.array([self._ids[char] for char in text], dtype=np.int64)
        except KeyError:
            raise UnknownCharacterError(self._describe_first_unknown(text)) from None

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of tokens (T,). Raise ValueError for a token that does not exist."""
        chars: list[str] = []
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"token ids must be in [0, {self.vocab_size}), not {i}")
            chars.append(self.vocabulary[i])
        return "".join(chars)

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the character of each token."""
        return (self.decode([token]) for token in tokens)

    def bytes_of(self, token: int) -> bytes:
        """Return the character of a token in UTF-8."""
        return self.decode([token]).encode()

    def start(self) -> np.ndarray:
        """Return a newline (1,), or the first character if the vocabulary has no newline."""
        return np.array([self._ids.get("\n", 0)])

    def files(self) -> dict[str, bytes]:
        """Return tokenizer.json."""
        description = {"type": self.kind, "vocabulary": self.vocabulary}
        content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        return {FILE: content.encode()}

    def files_for_transformers(self) -> dict[str, bytes]:
        """Return tokenizer.json and tokenizer_config.json for AutoTokenizer of transformers.

        Each character is a word. An unknown character is an error there too.
        """
        description: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": SINGLE_CHARACTERS,
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": self._ids, "unk_token": "<unk>"},
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        contents = {FILE: description, CONFIG: config}
        return {
            name: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
            for name, content in contents.items()
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "CharTokenizer":
        """Return the tokenizer that a tokenizer.json describes. Raise ValueError if it does not."""
        if not is_for_transformers(description):
            vocabulary: Any = description.get("vocabulary")
            if not isinstance(vocabulary, list) or not vocabulary:
                raise ValueError("it is not a list of characters")
            return cls(cast(list[str], vocabulary))
        ids: Any = description["model"]["vocab"]
        if description.get("pre_tokenizer") != SINGLE_CHARACTERS or not isinstance(ids, dict):
            raise ValueError("its words are not single characters")
        numbers = cast(dict[str, Any], ids)
        tokenizer = cls(sorted(numbers, key=numbers.__getitem__))
        if [*map(numbers.get, tokenizer.vocabulary)] != [*range(len(numbers))]:
            raise ValueError("its characters are not numbered from 0 on")
        return tokenizer

    def known(self, text: str) -> str:
        """Return a text without its unknown characters."""
        return "".join(char for char in text if char in self._ids)

    def nearest(self, char: str, count: int = 3) -> list[str]:
        """Return the most similar characters of the vocabulary: by base letter, then code point."""

        def distance(candidate: str) -> tuple[bool, bool, int]:
            return (
                base_letter(candidate) != base_letter(char),
                candidate.isalpha() != char.isalpha(),
                abs(ord(candidate) - ord(char)),
            )

        return sorted(self.vocabulary, key=distance)[:count]

    def _describe_first_unknown(self, text: str) -> str:
        position, char = next((i, c) for i, c in enumerate(text) if c not in self._ids)
        around = text[max(0, position - 10) : position + 11]
        nearest = ", ".join(repr(near) for near in self.nearest(char))
        return (
            f"character {char!r} (U+{ord(char):04X}) at position {position}, in {around!r}, is not "
            f"in the vocabulary of {self.vocab_size} characters; the nearest are {nearest}"
        )


def base_letter(char: str) -> str:
    """Return a letter without case or accents, such as e for É."""
    return unicodedata.normalize("NFKD", char)[0].casefold()


def is_for_transformers(description: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json is one of words, as files_for_transformers writes it."""
    model: Any = description.get("model")
    return isinstance(model, dict) and cast(dict[str, Any], model).get("type") == "WordLevel"
