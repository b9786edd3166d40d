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

from tinygpt_np.storage.checkpoint import as_object
from tinygpt_np.text.tokenizers import added as added_tokens
from tinygpt_np.text.tokenizers import base
from tinygpt_np.text.tokenizers.added import END_OF_TEXT, AddedToken
from tinygpt_np.text.tokenizers.base import Tokenizer, TokenizerError, checked, missing

# The words into which GPT-2 splits a text: contractions, letters, digits, the rest, white space.
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


class GPT2Tokenizer(Tokenizer):
    """GPT-2's tokenizer, with added tokens; tokens that no merge makes are special.

    The vocabulary numbers the tokens as the files write them: first the 256 bytes, then the results
    of the merges in file order, then added tokens, without gaps. File names are for errors.
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
        try:
            super().__init__([*ranks, *(checked(token).encode() for token in last)])
        except TokenizerError as error:
            raise TokenizerError(f"{name}: in a token, {error}") from None
        self.end_of_text = vocabulary.get(END_OF_TEXT)
        self.patterns = added_tokens.patterns(self.added)
        self.encoding: Any = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
        )

    @classmethod
    def from_files(cls, vocabulary: Path, merges: Path) -> "GPT2Tokenizer":
        """Return the tokenizer of two files, with the added tokens of others in their folder."""
        folder = vocabulary.parent
        added_tokens.check_config(folder)
        found = base.read_json(vocabulary)
        added = added_tokens.in_folder(folder, found)
        pairs = merges_in(base.read_text(merges), str(merges))
        everything = {**found, **{token.content: token.id for token in added}}
        # A duplicate or missing number may be in any of the files.
        files = (added_tokens.CONFIG, added_tokens.OLDER) if added else ()
        name = " and ".join([str(vocabulary), *(n for n in files if (folder / n).exists())])
        return cls(everything, pairs, name, added, str(merges))

    @classmethod
    def from_description(cls, path: Path, description: dict[str, Any]) -> "GPT2Tokenizer":
        """Return the tokenizer of a tokenizer.json. Raise TokenizerError if it is not GPT-2's."""
        model = as_object(description.get("model"))
        if not model or model.get("type", "BPE") != "BPE":
            raise TokenizerError(f"{path} is not a tokenizer of characters or byte pairs")
        vocabulary, merges = model.get("vocab"), model.get("merges")
        if not isinstance(vocabulary, dict) or not isinstance(merges, list):
            raise TokenizerError(f"{path} should have the vocab and the merges of a BPE model")
        check_description(path, description, model)
        added_tokens.check_config(path.parent)
        pairs = [m.split(" ") if isinstance(m, str) else m for m in cast(list[Any], merges)]
        added = added_tokens.from_entries(description.get("added_tokens", []), path)
        numbers = cast(dict[str, int], vocabulary) | {token.content: token.id for token in added}
        return cls(numbers, checked_pairs(pairs, str(path)), str(path), added)

    @classmethod
    def from_cache(cls) -> "GPT2Tokenizer":
        """Return GPT-2's tokenizer from tiktoken's cache, downloading its files if necessary."""
        try:
            from tiktoken.load import read_file_cached

            # It compares the checksums.
            vocabulary, merges = (read_file_cached(SOURCE + n, sha) for n, sha in (ENCODER, MERGES))
        except ImportError:
            raise missing("tiktoken") from None
        except (OSError, ValueError) as error:
            raise TokenizerError(
                f"GPT-2's tokenizer is not in tiktoken's cache, and cannot be downloaded "
                f"({type(error).__name__}): put {SOURCE}{ENCODER[0]} and {SOURCE}{MERGES[0]} into "
                "a folder, and name it with --tokenizer-path"
            ) from None
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
        return np.array([newline if self.end_of_text is None else self.end_of_text])

    def files(self) -> dict[str, bytes]:
        """Return vocab.json, merges.txt and a file of added tokens, in transformers' format."""
        vocabulary = json.dumps(self.vocabulary, ensure_ascii=False).encode()
        pair = {"vocab.json": vocabulary, "merges.txt": merges_file(self.merges)}
        return pair | added_tokens.to_files(self.added)


def ranks_of(numbers: dict[str, int], merges: list[tuple[str, str]], name: str) -> dict[bytes, int]:
    """Return the bytes of the tokens that bytes and merges make, with their numbers, in order."""
    if not all(type(number) is int for number in numbers.values()):
        raise TokenizerError(f"{name} should be a JSON object of tokens and their numbers")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise TokenizerError(f"{name}: tokens should be numbered from 0 without gaps or repeats")
    made = [*CHARACTERS, *(first + second for first, second in merges)]
    for token in made:
        if token not in numbers:
            raise TokenizerError(f"{name} lacks the token {token!r}, which the merges make")
    ordered = sorted(numbers, key=numbers.__getitem__)[: len(made)]
    for number, (found, token) in enumerate(zip(ordered, made, strict=False)):
        if number < 256 and found not in BYTES:
            raise TokenizerError(f"{name}: token {number} should be a byte, but is {found!r}")
        if number >= 256 and found != token:
            raise TokenizerError(
                f"{name}: token {number} should be {token!r}, the result of merge {number - 255}, "
                f"but is {found!r}"
            )
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
        later = (max(numbers.get(half, len(numbers)) for half in pair) for pair in halves)
        if token not in known and min(later, default=len(numbers)) < numbers[token]:
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


def check_description(path: Path, description: dict[str, Any], model: dict[str, Any]) -> None:
    """Raise TokenizerError if a tokenizer.json encodes differently from GPT-2."""
    splitting: Any = description.get("pre_tokenizer")
    words = as_object(splitting)
    settings = (words.get("type"), words.get("add_prefix_space"), words.get("use_regex", True))
    if settings != ("ByteLevel", False, True):
        raise TokenizerError(
            f"{path} splits texts into words differently from GPT-2: {splitting!r:.200}"
        )
    after: Any = description.get("post_processor")
    kind, single = (as_object(after).get(name) for name in ("type", "single"))
    adds_nothing = kind == "TemplateProcessing" and isinstance(single, list) and len(single) == 1  # pyright: ignore[reportUnknownArgumentType]
    if after is not None and kind != "ByteLevel" and not adds_nothing:
        raise TokenizerError(
            f"{path} has a post_processor that adds tokens to every text, which is not supported: "
            f"{after!r:.200}"
        )
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    options = {
        "normalizer": description.get("normalizer"),
        **{n: model.get(n) or None for n in names},
    }
    for name, value in options.items():
        if value is not None:
            raise TokenizerError(f"{path} has {name} = {value!r:.200}, which is not supported")


def merges_file(merges: Sequence[tuple[str, str]]) -> bytes:
    """Return the content of merges.txt."""
    return "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]).encode()


def merges_in(text: str, name: str) -> list[tuple[str, str]]:
    """Return the pairs in the content of a merges.txt or vocab.bpe."""
    first, *others = text.split("\n")
    lines = others if first.startswith("#version") else [first, *others]
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
