"""A small GPT-2 tokenizer and its files."""

import json
from pathlib import Path
from typing import Any

from tinygpt_np.text.tokenizers import GPT2Tokenizer
from tinygpt_np.text.tokenizers.gpt2 import CHARACTERS, END_OF_TEXT

# "Ġ" is how a space is written in the files.
PAIRS = [("h", "i"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("r", "e"), ("Ġthe", "re"), ("hi", "i")]


def vocabulary(pairs: list[tuple[str, str]] = PAIRS) -> dict[str, int]:
    """Return the bytes, the results of the merges and the special token."""
    tokens = [*CHARACTERS, *(first + second for first, second in pairs), END_OF_TEXT]
    return {token: i for i, token in enumerate(tokens)}


def small() -> GPT2Tokenizer:
    return GPT2Tokenizer(vocabulary(), PAIRS, "small")


def description(*added: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return its tokenizer.json in Hugging Face's format, with added tokens and entries changed."""
    words = {token: i for token, i in vocabulary().items() if token != END_OF_TEXT}
    end = {"id": len(words), "content": END_OF_TEXT, "special": True, "normalized": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    splitting = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [flags | token for token in (end, *added)],
        "normalizer": None,
        "pre_tokenizer": {"add_prefix_space": False, **splitting},
        "decoder": {"add_prefix_space": True, **splitting},
        "model": {"type": "BPE", "vocab": words, "merges": [list(pair) for pair in PAIRS]},
        **changes,
    }


def write(folder: Path, tokens: object = None, merges: str | None = None) -> tuple[Path, Path]:
    """Write its files, with other tokens or merges if given."""
    paths = folder / "vocab.json", folder / "merges.txt"
    paths[0].write_text(json.dumps(vocabulary() if tokens is None else tokens), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in PAIRS), ""]
    paths[1].write_text("\n".join(lines) if merges is None else merges, encoding="utf-8")
    return paths
