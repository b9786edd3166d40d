"""GPT-2's byte-pair encoding with tiktoken, from the files of OpenAI or Hugging Face.

A pattern splits a text into words. The bytes of a word are merged in pairs, the pair that was
learned first before all others, until no learned pair is left. The files write each byte as a
character: itself if it is printable, else one from U+0100 on.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np.text.tokenizers.added import (
    CONFIG,
    END_OF_TEXT,
    OLDER,
    AddedToken,
    check_config,
    from_entries,
    in_folder,
    patterns,
    to_files,
)
from tinygpt_np.text.tokenizers.byte_level import (
    ByteLevel,
    TokenizerError,
    checked,
    missing,
    read_json,
    read_text,
)

# How GPT-2 splits a text into words: contractions, letters, digits, the rest, white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SOURCE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
# OpenAI's two files, with their SHA-256.
ENCODER = ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783")
MERGES = ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")


def byte_characters() -> list[str]:
    """Return the character that the files use for each byte."""
    printed = [chr(b) if chr(b).isprintable() and chr(b) != " " else "" for b in range(256)]
    others = iter(range(256, 512))
    return [char or chr(next(others)) for char in printed]


CHARACTERS = byte_characters()
BYTES = {char: bytes([byte]) for byte, char in enumerate(CHARACTERS)}


class GPT2Tokenizer(ByteLevel):
    """GPT-2's tokenizer, with added tokens.

    Parameters
    ----------
    vocabulary : dict
        Each token as the files write it, with its number: first the 256 bytes, then the results of
        the merges in their order, then added tokens, without gaps.
    merges : list of pairs of str
        The pairs of tokens to merge.
    added : sequence of AddedToken
        See added.py. Other tokens that no merge makes are special.
    name, merges_name : str
        The files of the vocabulary and the merges, for errors.
    """

    kind = "gpt2"

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: list[tuple[str, str]],
        name: str,
        added: Sequence[AddedToken] = (),
        merges_name: str | None = None,
    ) -> None:
        try:
            import tiktoken
        except ImportError:
            raise missing("tiktoken") from None
        self.vocabulary, self.merges, self.added = vocabulary, merges, tuple(added)
        ranks = ranks_of(vocabulary, merges, name)
        last = sorted(vocabulary, key=vocabulary.__getitem__)[len(ranks) :]
        check_left_over(last, vocabulary, self.added, merges_name or name)
        if hashlib.sha256(merges_file(merges)).hexdigest() != MERGES[1]:  # Saves a second.
            check_learned(merges, merges_name or name)
        super().__init__([*ranks, *(encoded(token, name) for token in last)])
        self.patterns = patterns(self.added)
        self.encoding: Any = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
        )

    @property
    def end_of_text(self) -> int | None:
        """Return the token <|endoftext|>, or None if the vocabulary has none."""
        return self.vocabulary.get(END_OF_TEXT)

    @classmethod
    def from_files(cls, vocabulary: Path, merges: Path) -> "GPT2Tokenizer":
        """Return the tokenizer of encoder.json and vocab.bpe, or vocab.json and merges.txt.

        Files of added tokens in the same folder are read, too.
        """
        check_config(vocabulary.parent)
        found = read_json(vocabulary)
        added = in_folder(vocabulary.parent, found)
        pairs = merges_in(read_text(merges), str(merges))
        everything = {**found, **{token.content: token.id for token in added}}
        # A duplicate or missing number may be in any of the files.
        others = [name for name in (CONFIG, OLDER) if (vocabulary.parent / name).exists()]
        name = " and ".join([str(vocabulary), *others]) if added else str(vocabulary)
        return cls(everything, pairs, name, added, str(merges))

    @classmethod
    def from_hugging_face(cls, path: Path, description: dict[str, Any]) -> "GPT2Tokenizer":
        """Return the tokenizer that a tokenizer.json describes.

        Raise TokenizerError if it encodes differently from GPT-2.
        """
        model: Any = description.get("model")
        if not isinstance(model, dict) or cast(Any, model).get("type", "BPE") != "BPE":
            raise TokenizerError(f"{path} is not a tokenizer of characters or byte pairs")
        parts = cast(dict[str, Any], model)
        vocabulary, merges = parts.get("vocab"), parts.get("merges")
        if not isinstance(vocabulary, dict) or not isinstance(merges, list):
            raise TokenizerError(f"{path} should have the vocab and the merges of a BPE model")
        check_description(path, description, parts)
        check_config(path.parent)
        pairs = [m.split(" ") if isinstance(m, str) else m for m in cast(list[Any], merges)]
        added = from_entries(description.get("added_tokens", []), str(path))
        numbers = cast(dict[str, int], vocabulary) | {token.content: token.id for token in added}
        return cls(numbers, checked_pairs(pairs, str(path)), str(path), added)

    @classmethod
    def from_cache(cls) -> "GPT2Tokenizer":
        """Return GPT-2's tokenizer from tiktoken's cache, downloading its files if necessary."""
        try:
            from tiktoken.load import read_file_cached
        except ImportError:
            raise missing("tiktoken") from None
        try:
            vocabulary, merges = (read_file_cached(SOURCE + n, sha) for n, sha in (ENCODER, MERGES))
        except (OSError, ValueError) as error:
            raise TokenizerError(
                f"GPT-2's tokenizer is not in tiktoken's cache, and cannot be downloaded "
                f"({type(error).__name__}): put {SOURCE}{ENCODER[0]} and {SOURCE}{MERGES[0]} into "
                "a folder, and name it with --tokenizer-path"
            ) from None
        # read_file_cached has compared the checksums.
        return cls(json.loads(vocabulary), merges_in(merges.decode(), MERGES[0]), ENCODER[0])

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64. Raise TokenizerError if it is not UTF-8."""
        return np.array(self.ids(checked(text), self.patterns), dtype=np.int64)

    def ids(self, text: str, patterns: Sequence[re.Pattern[str]]) -> list[int]:
        """Return the tokens of a text, matching added tokens with one pattern after another."""
        if not patterns:
            return self.encoding.encode_ordinary(text)
        ids: list[int] = []
        end = 0
        for found in patterns[0].finditer(text):
            ids += self.ids(text[end : found.start()], patterns[1:])
            ids.append(self.vocabulary[found[0]])
            end = found.end()
        return ids + self.ids(text[end:], patterns[1:])

    def start(self) -> np.ndarray:
        """Return <|endoftext|> (1,), as in GPT-2's training, or a newline if it is missing."""
        newline = self.vocabulary[CHARACTERS[ord("\n")]]
        return np.array([self.vocabulary.get(END_OF_TEXT, newline)])

    def files(self) -> dict[str, bytes]:
        """Return vocab.json, merges.txt and a file of added tokens, in transformers' format."""
        vocabulary = json.dumps(self.vocabulary, ensure_ascii=False)
        return {
            "vocab.json": vocabulary.encode(),
            "merges.txt": merges_file(self.merges),
            **to_files(self.added),
        }


def encoded(token: str, name: str) -> bytes:
    """Return the UTF-8 of an added token; `name` is its file, for errors."""
    try:
        return checked(token).encode()
    except TokenizerError as error:
        raise TokenizerError(f"{name}: the token {token!r}: {error}") from None


def ranks_of(vocabulary: Any, merges: list[tuple[str, str]], name: str) -> dict[bytes, int]:
    """Return the bytes of all tokens that are not added, with their numbers, in order.

    Raise TokenizerError unless the vocabulary has just the tokens that the merges make.
    """
    if not isinstance(vocabulary, dict) or not all(
        type(i) is int for i in cast(dict[str, Any], vocabulary).values()
    ):
        raise TokenizerError(f"{name} should be a JSON object of tokens and their numbers")
    numbers = cast(dict[str, int], vocabulary)
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise TokenizerError(f"{name}: tokens should be numbered from 0 without gaps or repeats")
    made = [*CHARACTERS, *(first + second for first, second in merges)]
    for token in made:
        if token not in numbers:
            raise TokenizerError(f"{name} lacks the token {token!r}, which the merges make")
    for place, token in enumerate(made[256:], start=256):
        if numbers[token] != place:
            raise TokenizerError(
                f"{name}: the token {token!r} of merge {place - 256} should have the number "
                f"{place}, but has {numbers[token]}"
            )
    ordered = sorted(numbers, key=numbers.__getitem__)[: len(made)]
    known = set[str](made)
    for token in ordered:
        if token not in known:
            raise TokenizerError(f"{name}: no merge makes the token {token!r} ({numbers[token]})")
    return {b"".join(BYTES[char] for char in token): numbers[token] for token in ordered}


def check_left_over(
    tokens: Sequence[str], numbers: dict[str, int], added: Sequence[AddedToken], merges_name: str
) -> None:
    """Raise TokenizerError if merges are missing, given the tokens that no merge makes.

    A learned token is two earlier ones merged; <|endoftext|> and similar tokens are not.
    """
    known = {END_OF_TEXT, *(token.content for token in added)}
    for token in tokens:
        halves = ((token[:place], token[place:]) for place in range(1, len(token)))
        if token not in known and any(
            all(numbers.get(half, len(numbers)) < numbers[token] for half in pair)
            for pair in halves
        ):
            raise TokenizerError(
                f"{merges_name} is truncated or for another vocabulary: no merge makes the token "
                f"{token!r} ({numbers[token]}), the first of {len(tokens)} without a merge"
            )


def check_learned(merges: Sequence[tuple[str, str]], name: str) -> None:
    """Raise TokenizerError unless encoding each token's bytes ends with its own merge.

    This holds for merges that were learned. tiktoken, which knows only the tokens and not the
    pairs, then encodes as the merges do.
    """
    ranks: dict[tuple[str, str], int] = {}
    for number, pair in enumerate(merges):
        parts = list("".join(pair))
        while len(parts) > 1:
            rank, place = min((ranks.get(p, number), i) for i, p in enumerate(pairwise(parts)))
            if rank == number:
                break
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        if tuple(parts) != pair:
            raise TokenizerError(
                f"{name}: merge {number + 1}, {pair}, is never applied, because earlier merges "
                f"turn its characters into {parts}; learned merges are never like this"
            )
        ranks[pair] = number


def merges_file(merges: Sequence[tuple[str, str]]) -> bytes:
    """Return the content of merges.txt."""
    return "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]).encode()


def check_description(path: Path, description: dict[str, Any], model: dict[str, Any]) -> None:
    """Raise TokenizerError if a tokenizer.json encodes differently from GPT-2."""
    splitting: Any = description.get("pre_tokenizer")
    if not splits_as_gpt2(splitting):
        raise TokenizerError(
            f"{path} splits texts into words differently from GPT-2: {splitting!r:.200}"
        )
    if description.get("normalizer") is not None:
        raise TokenizerError(
            f"{path} has a normalizer, which is not supported: {description['normalizer']!r:.200}"
        )
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(name):
            raise TokenizerError(f"{path} has {name} = {model[name]!r}, which is not supported")
    after: Any = description.get("post_processor")
    if after is not None and not adds_nothing(after):
        raise TokenizerError(
            f"{path} has a post_processor that adds tokens to every text, which is not supported: "
            f"{after!r:.200}"
        )


def splits_as_gpt2(pre_tokenizer: Any) -> bool:
    """Return whether a pre_tokenizer splits texts with PATTERN."""
    if not isinstance(pre_tokenizer, dict):
        return False
    found = cast(dict[str, Any], pre_tokenizer)
    settings = (found.get("type"), found.get("add_prefix_space"), found.get("use_regex", True))
    return settings == ("ByteLevel", False, True)


def adds_nothing(post_processor: Any) -> bool:
    """Return whether a post_processor leaves a single text unchanged."""
    if not isinstance(post_processor, dict):
        return False
    found = cast(dict[str, Any], post_processor)
    if found.get("type") == "TemplateProcessing":
        single: Any = found.get("single")
        return isinstance(single, list) and len(cast(list[Any], single)) == 1
    return found.get("type") == "ByteLevel"


def merges_in(text: str, name: str) -> list[tuple[str, str]]:
    """Return the pairs in the content of a merges.txt or vocab.bpe."""
    lines = text.split("\n")
    if lines[0].startswith("#version"):
        del lines[0]
    return checked_pairs([line.split(" ") for line in lines if line], name)


def checked_pairs(pairs: list[Any], name: str) -> list[tuple[str, str]]:
    """Return merges as pairs of tokens. Raise TokenizerError, which names the first wrong one."""
    known = set(CHARACTERS)
    for number, pair in enumerate(pairs, start=1):
        parts = cast(list[Any], pair) if isinstance(pair, list) else []
        if len(parts) != 2 or not all(isinstance(part, str) and part in known for part in parts):
            raise TokenizerError(
                f"{name}: merge {number} should be two bytes or results of earlier merges, "
                f"but is {pair!r}"
            )
        known.add(parts[0] + parts[1])
    return [(first, second) for first, second in pairs]
