"""Convert text to tokens and back: characters, GPT-2's byte pairs, or SentencePiece.

A model's folder has the files of its tokenizer:

    char           tokenizer.json, {"type": "char", "vocabulary": […]}; or, for transformers,
                   Hugging Face's tokenizer.json whose words are single characters
    gpt2           Hugging Face's vocab.json and merges.txt; or OpenAI's encoder.json and
                   vocab.bpe; or Hugging Face's tokenizer.json; added tokens are in
                   tokenizer_config.json or added_tokens.json
    sentencepiece  tokenizer.model, or the only other .model
"""

from pathlib import Path
from typing import Any

from tinygpt_np.config import PIECES
from tinygpt_np.text.tokenizers.base import (
    MissingPackageError,
    Tokenizer,
    TokenizerError,
    read_json,
)
from tinygpt_np.text.tokenizers.char import CharTokenizer, UnknownCharacterError, is_of_characters
from tinygpt_np.text.tokenizers.gpt2 import GPT2Tokenizer
from tinygpt_np.text.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = [
    "CharTokenizer", "GPT2Tokenizer", "MissingPackageError", "SentencePieceTokenizer", "Tokenizer",
    "TokenizerError", "UnknownCharacterError", "from_path", "has_tokenizer", "load", "make",
]  # fmt: skip

# Used for characters and by Hugging Face; and a SentencePiece model.
DESCRIPTION, MODEL = "tokenizer.json", "tokenizer.model"
# The names of GPT-2's two files.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
PAIR_NAMES = " and ".join(f"{first} with {second}" for first, second in PAIRS)


def make(kind: str, path: str, text: str, vocab_size: int = PIECES) -> Tokenizer:
    """Return a tokenizer of a kind, loaded from a path or made from a text.

    The path is a folder or one of the tokenizer's files; without one, the characters of the text
    are the vocabulary (char), vocab_size pieces are learned from the text (sentencepiece), or
    tiktoken's cache is used (gpt2).
    """
    if vocab_size != PIECES and (kind != "sentencepiece" or path):
        raise TokenizerError(
            f"--vocab-size {vocab_size} sets how many pieces SentencePiece learns from a "
            "text; it needs --tokenizer sentencepiece without --tokenizer-path"
        )
    if path:
        place = Path(path)
        if kind == "char":
            raise TokenizerError(f"characters need no files, but {path} was given for them")
        if kind == "sentencepiece" and not place.is_dir():
            return SentencePieceTokenizer.from_file(place)  # It may have any name.
        found = from_path(place)
        if found.kind != kind:
            raise TokenizerError(
                f"{path} has a tokenizer of another kind, {found.kind}, not {kind}"
            )
        return found
    if kind == "char":
        return CharTokenizer.from_text(text)
    if kind == "gpt2":
        return GPT2Tokenizer.from_cache()
    if kind == "sentencepiece":
        return SentencePieceTokenizer.train(text, vocab_size)
    raise TokenizerError(f"a tokenizer is one of char, gpt2, sentencepiece, not {kind!r}")


def load(folder: Path) -> Tokenizer:
    """Return the tokenizer in a folder. Raise TokenizerError, which names what is wrong."""
    path, models, pair = folder / DESCRIPTION, models_in(folder), pair_in(folder)
    description = read_json(path) if path.exists() else None
    is_char = is_of_characters(description or {})
    found = [*([path] if is_char else []), *models, *pair[:1]]
    if len(found) > 1:
        raise TokenizerError(f"{folder} has two tokenizers: {found[0].name} and {found[1].name}")
    if models:
        return SentencePieceTokenizer.from_file(models[0])
    if description is not None:  # Hugging Face may write the pair as well, with the same content.
        return described(path, description)
    if pair:
        return GPT2Tokenizer.from_files(*pair)
    raise TokenizerError(
        f"there is no tokenizer in {folder}: neither {DESCRIPTION} nor {MODEL} nor {PAIR_NAMES}"
    )


def from_path(path: Path) -> Tokenizer:
    """Return the tokenizer in a folder, in a .model, or in one of GPT-2's files."""
    if path.is_dir():
        return load(path)
    if path.suffix == ".model":
        return SentencePieceTokenizer.from_file(path)
    if path.name == DESCRIPTION:
        return described(path, read_json(path))
    for names in PAIRS:
        if path.name in names:
            return GPT2Tokenizer.from_files(*(path.parent / name for name in names))
    raise TokenizerError(
        f"{path} is not a tokenizer: expected a folder, a .model, {DESCRIPTION}, or {PAIR_NAMES}"
    )


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a tokenizer that load() can read."""
    return (folder / DESCRIPTION).exists() or bool(pair_in(folder) or models_in(folder))


def pair_in(folder: Path) -> list[Path]:
    """Return GPT-2's two files, the vocabulary first, if both exist, else []."""
    pairs = ([folder / name for name in names] for names in PAIRS)
    return next((pair for pair in pairs if all(file.exists() for file in pair)), list[Path]())


def models_in(folder: Path) -> list[Path]:
    """Return the SentencePiece model of the usual name, or else all that exist."""
    model = folder / MODEL
    return [model] if model.exists() else sorted(folder.glob("*.model"))


def described(path: Path, description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that the content of a tokenizer.json describes."""
    kind = CharTokenizer if is_of_characters(description) else GPT2Tokenizer
    return kind.from_description(path, description)
