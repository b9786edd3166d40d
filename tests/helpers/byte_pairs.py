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


def description(**changes: Any) -> dict[str, Any]:
    """Return its tokenizer.json in Hugging Face's format, with entries changed."""
    words = {token: i for token, i in vocabulary().items() if token != END_OF_TEXT}
    return {
        "added_tokens": [{"id": len(words), "content": END_OF_TEXT, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": words, "merges": [list(pair) for pair in PAIRS]},
        **changes,
    }


def write(
    folder: Path,
    tokens: object = None,
    merges: str | None = None,
    names: tuple[str, str] = ("vocab.json", "merges.txt"),
) -> tuple[Path, Path]:
    """Write its files, with other tokens or merges if given."""
    paths = folder / names[0], folder / names[1]
    paths[0].write_text(json.dumps(vocabulary() if tokens is None else tokens), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in PAIRS), ""]
    paths[1].write_text("\n".join(lines) if merges is None else merges, encoding="utf-8")
    return paths
