"""Tokens that are added to a vocabulary of byte pairs, as Hugging Face's tokenizers keep them.

An ordinary added token is found in a text before the text is cut into words. A special one, such as
<|endoftext|>, is only decoded: where a text spells it out, that is just text, as with tiktoken's
encode_ordinary, and with transformers' split_special_tokens=True.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from tinygpt_np.text.tokenizers.byte_level import TokenizerError, read_json

END_OF_TEXT = "<|endoftext|>"
# Next to vocab.json and merges.txt: what transformers writes since 2023, and what it wrote before.
CONFIG, OLDER, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
# How a token may take more or less of the text around it.
FLAGS = ("single_word", "lstrip", "rstrip")


@dataclass(frozen=True)
class AddedToken:
    """A token by the text that it stands for, with its number.

    normalized: whether it is looked for after those that are not.
    """

    content: str
    id: int
    special: bool
    normalized: bool


def from_entries(entries: Any, name: str) -> list[AddedToken]:
    """Return the added tokens in a list of JSON objects. name: of their file, for errors."""
    if not isinstance(entries, list):
        raise TokenizerError(f"{name}: added_tokens should have a content and an id")
    return [from_entry(entry, name) for entry in cast(list[Any], entries)]


def from_entry(entry: Any, name: str) -> AddedToken:
    """Return an added token. Raises TokenizerError for one that would be encoded otherwise here."""
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
    """Return the tokens that the files next to vocab.json and merges.txt add or call special."""
    config = optional(folder / CONFIG)
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
    special = set(special_names({**config, **optional(folder / SPECIAL)}))
    older = optional(folder / OLDER)
    entries = [{"content": t, "id": i, "special": t in special} for t, i in older.items()]
    known = [
        AddedToken(token, vocabulary[token], special=True, normalized=False)
        for token in sorted(special & vocabulary.keys())
    ]
    return known + from_entries(entries, str(folder / OLDER))


def check_config(folder: Path) -> None:
    """Raise TokenizerError if tokenizer_config.json puts anything before a text."""
    config = optional(folder / CONFIG)
    for name, what in (("add_prefix_space", "a space"), ("add_bos_token", "a token")):
        if config.get(name):
            raise TokenizerError(
                f"{folder / CONFIG}: {name} puts {what} before every text, which is not supported"
            )


def optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty if there is no such file."""
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
    """Return what finds ordinary added tokens in a text, to be applied one after the other.

    Of several tokens that begin at the same place the longest is found.
    """
    ordinary = [token for token in tokens if not token.special]
    groups = ([t.content for t in ordinary if t.normalized is last] for last in (False, True))
    return [
        re.compile("|".join(map(re.escape, sorted(group, key=len, reverse=True))))
        for group in groups
        if group
    ]


def to_files(tokens: Sequence[AddedToken]) -> dict[str, bytes]:
    """Return the file that keeps them, for in_folder() and for transformers."""
    entries = {
        str(token.id): {**dict.fromkeys(FLAGS, False), **asdict(token)}
        for token in tokens
        if not (token.special and token.content == END_OF_TEXT)  # Is one in every GPT-2.
    }
    if not entries:
        return {}
    for entry in entries.values():
        del entry["id"]
    config = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": entries}
    return {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
