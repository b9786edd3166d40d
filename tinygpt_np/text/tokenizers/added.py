"""Tokens added to a byte-pair vocabulary, in the formats of Hugging Face's tokenizers.

Ordinary added tokens are matched before a text is split into words. Special ones, such as
<|endoftext|>, are only decoded: in a text they are encoded like any other characters, as with
tiktoken's encode_ordinary and with split_special_tokens=True in transformers.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tinygpt_np.storage.checkpoint import as_object, to_json
from tinygpt_np.text.tokenizers.base import TokenizerError, read_json

END_OF_TEXT = "<|endoftext|>"
# Files next to vocab.json and merges.txt: what transformers writes since 2023, and before.
CONFIG, OLDER, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
# Options for the text around a token, which are not supported.
FLAGS = ("single_word", "lstrip", "rstrip")


@dataclass(frozen=True)
class AddedToken:
    """The text of an added token and its number; normalized ones are matched after the others."""

    content: str
    id: int
    special: bool
    normalized: bool


def from_entries(entries: Any, path: Path) -> list[AddedToken]:
    """Return added tokens from JSON objects. Raise TokenizerError if one is wrong."""
    tokens: list[AddedToken] = []
    for entry in cast(list[Any], entries if isinstance(entries, list) else [None]):
        found = as_object(entry)
        content, number = found.get("content"), found.get("id")
        if not isinstance(content, str) or not content or type(number) is not int:
            raise TokenizerError(f"{path}: added_tokens should have a content and an id")
        special = bool(found.get("special", False))
        for flag in FLAGS:
            if found.get(flag) and not special:
                raise TokenizerError(
                    f"{path}: the added token {content!r} has {flag}, which is not supported"
                )
        normalized = bool(found.get("normalized", not special))
        tokens.append(AddedToken(content, number, special, normalized))
    return tokens


def in_folder(folder: Path, vocabulary: dict[str, int]) -> list[AddedToken]:
    """Return the tokens that files next to vocab.json and merges.txt add or declare special."""
    config, special_map, older = (
        read_json(folder / name) if (folder / name).exists() else {}
        for name in (CONFIG, SPECIAL, OLDER)
    )
    if (decoder := config.get("added_tokens_decoder")) is not None:
        try:
            entries = [{**entry, "id": int(number)} for number, entry in decoder.items()]
        except (AttributeError, TypeError, ValueError):
            raise TokenizerError(
                f"{folder / CONFIG}: added_tokens_decoder should have tokens by their numbers"
            ) from None
        return from_entries(entries, folder / CONFIG)
    special = set(special_names({**config, **special_map}))
    known = [
        AddedToken(token, vocabulary[token], special=True, normalized=False)
        for token in sorted(special & vocabulary.keys())
    ]
    entries = [{"content": t, "id": i, "special": t in special} for t, i in older.items()]
    return known + from_entries(entries, folder / OLDER)


def check_config(folder: Path) -> None:
    """Raise TokenizerError if tokenizer_config.json adds a prefix to every text."""
    path = folder / CONFIG
    config = read_json(path) if path.exists() else {}
    for name, what in (("add_prefix_space", "a space"), ("add_bos_token", "a token")):
        if config.get(name):
            raise TokenizerError(
                f"{path}: {name} puts {what} before every text, which is not supported"
            )


def special_names(entries: dict[str, Any]) -> Iterator[str]:
    """Yield the special tokens in special_tokens_map.json or tokenizer_config.json."""
    for name, value in entries.items():
        if name.endswith(("_token", "_special_tokens")):
            for token in cast(list[Any], value if isinstance(value, list) else [value]):
                content = as_object(token).get("content", token)
                if isinstance(content, str):
                    yield content


def patterns(tokens: Iterable[AddedToken]) -> list[re.Pattern[str]]:
    """Return patterns that match ordinary added tokens, the longest first, to apply in order."""
    ordinary = sorted((t for t in tokens if not t.special), key=lambda t: -len(t.content))
    groups = ([t.content for t in ordinary if t.normalized is last] for last in (False, True))
    return [re.compile("|".join(map(re.escape, group))) for group in groups if group]


def to_files(tokens: Sequence[AddedToken]) -> dict[str, bytes]:
    """Return the file from which in_folder() and transformers read the tokens."""
    entries = {
        str(t.id): dict.fromkeys(FLAGS, False)
        | {"content": t.content, "special": t.special, "normalized": t.normalized}
        for t in tokens
        if not (t.special and t.content == END_OF_TEXT)  # Every GPT-2 has it.
    }
    config = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": entries}
    return {CONFIG: to_json(config)} if entries else {}
