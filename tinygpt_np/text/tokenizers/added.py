"""Tokens added to a byte-pair vocabulary, in the formats of Hugging Face's tokenizers.

Ordinary added tokens are matched before a text is split into words. Special ones, such as
<|endoftext|>, are only decoded: in a text they are encoded like any other characters, as with
tiktoken's encode_ordinary and with split_special_tokens=True in transformers.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from tinygpt_np.text.tokenizers.byte_level import TokenizerError, read_json

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


def from_entries(entries: Any, name: str) -> list[AddedToken]:
    """Return the added tokens in a list of JSON objects; `name` is the file, for errors."""
    if not isinstance(entries, list):
        raise TokenizerError(f"{name}: added_tokens should have a content and an id")
    return [from_entry(entry, name) for entry in cast(list[Any], entries)]


def from_entry(entry: Any, name: str) -> AddedToken:
    """Return an added token. Raise TokenizerError if it is malformed or not supported."""
    found = cast(dict[str, Any], entry if isinstance(entry, dict) else {})
    content, number = found.get("content"), found.get("id")
    if not isinstance(content, str) or not content or type(number) is not int:
        raise TokenizerError(f"{name}: added_tokens should have a content and an id")
    special = bool(found.get("special", False))
    for flag in FLAGS:
        if found.get(flag) and not special:
            raise TokenizerError(
                f"{name}: the added token {content!r} has {flag}, which is not supported"
            )
    return AddedToken(content, number, special, bool(found.get("normalized", not special)))


def in_folder(folder: Path, vocabulary: dict[str, int]) -> list[AddedToken]:
    """Return the tokens that files next to vocab.json and merges.txt add or declare special."""
    config = _read_if_exists(folder / CONFIG)
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        path = folder / CONFIG
        try:
            entries = [{**entry, "id": int(number)} for number, entry in decoder.items()]
        except (AttributeError, TypeError, ValueError):
            raise TokenizerError(
                f"{path}: added_tokens_decoder should have tokens by their numbers"
            ) from None
        return from_entries(entries, str(path))
    special = set(special_names({**config, **_read_if_exists(folder / SPECIAL)}))
    older = _read_if_exists(folder / OLDER)
    entries = [{"content": t, "id": i, "special": t in special} for t, i in older.items()]
    known = [
        AddedToken(token, vocabulary[token], special=True, normalized=False)
        for token in sorted(special & vocabulary.keys())
    ]
    return known + from_entries(entries, str(folder / OLDER))


def check_config(folder: Path) -> None:
    """Raise TokenizerError if tokenizer_config.json adds a prefix to every text."""
    config = _read_if_exists(folder / CONFIG)
    for name, what in (("add_prefix_space", "a space"), ("add_bos_token", "a token")):
        if config.get(name):
            raise TokenizerError(
                f"{folder / CONFIG}: {name} puts {what} before every text, which is not supported"
            )


def _read_if_exists(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or {} if there is no such file."""
    return read_json(path) if path.exists() else {}


def special_names(entries: dict[str, Any]) -> Iterator[str]:
    """Yield the special tokens in special_tokens_map.json or tokenizer_config.json."""
    for name, value in entries.items():
        if name.endswith(("_token", "_special_tokens")):
            for token in cast(list[Any], value if isinstance(value, list) else [value]):
                content = (
                    cast(dict[str, Any], token).get("content") if isinstance(token, dict) else token
                )
                if isinstance(content, str):
                    yield content


def patterns(tokens: Iterable[AddedToken]) -> list[re.Pattern[str]]:
    """Return patterns that match ordinary added tokens, the longest first, to apply in order."""
    ordinary = [token for token in tokens if not token.special]
    groups = (
        [t.content for t in ordinary if t.normalized is normalized] for normalized in (False, True)
    )
    return [
        re.compile("|".join(map(re.escape, sorted(group, key=len, reverse=True))))
        for group in groups
        if group
    ]


def to_files(tokens: Sequence[AddedToken]) -> dict[str, bytes]:
    """Return the file from which in_folder() and transformers read the tokens."""
    entries = {
        str(token.id): {**dict.fromkeys(FLAGS, False), **asdict(token)}
        for token in tokens
        if not (token.special and token.content == END_OF_TEXT)  # Every GPT-2 has it.
    }
    if not entries:
        return {}
    for entry in entries.values():
        del entry["id"]
    config = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": entries}
    return {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
