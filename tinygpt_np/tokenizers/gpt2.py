"""GPT-2's byte-pair encoding, by tiktoken, from the files that OpenAI or Hugging Face publish.

A text is cut into words by a pattern; a word is bytes, of which pairs are merged, the pair that was
learned first before all others, until no pair of the list is left. In the files a byte is written
as a character: itself where it can be printed, else one from U+0100 on.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np.tokenizers.byte_level import ByteLevel, TokenizerError, checked, optional, read

END_OF_TEXT = "<|endoftext|>"
# How GPT-2 cuts a text into words: contractions, letters, digits, the rest, white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SOURCE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
# The two files there, with their SHA-256.
ENCODER = ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783")
MERGES = ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")


def byte_characters() -> list[str]:
    """The character for each byte, in the files."""
    printed = [chr(b) if chr(b).isprintable() and chr(b) != " " else "" for b in range(256)]
    others = iter(range(256, 512))
    return [char or chr(next(others)) for char in printed]


CHARACTERS = byte_characters()
BYTES = {char: bytes([byte]) for byte, char in enumerate(CHARACTERS)}


class GPT2Tokenizer(ByteLevel):
    """vocabulary: each token as it is written in the files, with its number, from 0 on without a
    gap: first the 256 bytes, then what the merges make, in their order, then special ones.

    merges: pairs of tokens. name: of where they come from, for errors.
    Special tokens are decoded, and never made by encode: a text that has <|endoftext|> in it is
    just a text.
    """

    kind = "gpt2"

    def __init__(
        self, vocabulary: dict[str, int], merges: list[tuple[str, str]], name: str
    ) -> None:
        tiktoken = optional("tiktoken")
        self.vocabulary, self.merges = vocabulary, merges
        ranks = ranks_of(vocabulary, merges, name)
        special = {token: i for token, i in vocabulary.items() if i >= len(ranks)}
        last = sorted(special, key=special.__getitem__)
        super().__init__([*ranks, *(checked(token).encode() for token in last)])
        self.encoding: Any = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
        )

    @classmethod
    def from_files(cls, vocabulary: Path, merges: Path) -> "GPT2Tokenizer":
        """Of encoder.json and vocab.bpe, or vocab.json and merges.txt."""
        return cls.from_bytes(read(vocabulary), read(merges), str(vocabulary), str(merges))

    @classmethod
    def from_bytes(
        cls, vocabulary: bytes, merges: bytes, vocabulary_name: str, merges_name: str
    ) -> "GPT2Tokenizer":
        try:
            found: Any = json.loads(vocabulary)
            lines = merges.decode().splitlines()
        except ValueError as error:
            raise TokenizerError(
                f"{vocabulary_name} and {merges_name} are damaged, or no tokenizer: {error}"
            ) from None
        if lines and lines[0].startswith("#version"):
            del lines[0]
        pairs = [line.split(" ") for line in lines if line]
        return cls(found, checked_pairs(pairs, merges_name), vocabulary_name)

    @classmethod
    def from_hugging_face(cls, path: Path, description: dict[str, Any]) -> "GPT2Tokenizer":
        """Of what stands in a tokenizer.json."""
        model: Any = description.get("model")
        cutting: Any = description.get("pre_tokenizer")
        if not isinstance(model, dict) or cast(Any, model).get("type", "BPE") != "BPE":
            raise TokenizerError(f"{path} is no tokenizer of characters or byte pairs")
        vocabulary, merges = (cast(Any, model).get(name) for name in ("vocab", "merges"))
        if not isinstance(vocabulary, dict) or not isinstance(merges, list):
            raise TokenizerError(f"{path} should have the vocab and the merges of a BPE model")
        if description.get("normalizer") is not None or not cuts_as_gpt2(cutting):
            raise TokenizerError(
                f"{path} cuts texts into words in another way than GPT-2: {cutting!r:.200}"
            )
        pairs = [m.split(" ") if isinstance(m, str) else m for m in cast(list[Any], merges)]
        added = description.get("added_tokens", [])
        try:
            special = {str(token["content"]): int(token["id"]) for token in added}
        except (TypeError, KeyError, ValueError):
            raise TokenizerError(f"{path}: added_tokens should have a content and an id") from None
        whole = {**cast(dict[str, int], vocabulary), **special}
        return cls(whole, checked_pairs(pairs, str(path)), str(path))

    @classmethod
    def from_cache(cls) -> "GPT2Tokenizer":
        """From tiktoken's own cache, which downloads the two files when they are not there yet."""
        read_cached = optional("tiktoken.load").read_file_cached
        try:
            vocabulary, merges = (read_cached(SOURCE + n, sha) for n, sha in (ENCODER, MERGES))
        except (OSError, ValueError) as error:
            raise TokenizerError(
                f"GPT-2's tokenizer is not in tiktoken's cache, and cannot be downloaded "
                f"({type(error).__name__}): put {SOURCE}{ENCODER[0]} and {SOURCE}{MERGES[0]} into "
                "a folder, and name it with --tokenizer-path"
            ) from None
        return cls.from_bytes(vocabulary, merges, ENCODER[0], MERGES[0])

    def encode(self, text: str) -> np.ndarray:
        """text -> (T,) int64. Raises TokenizerError for what is no UTF-8."""
        return np.array(self.encoding.encode_ordinary(checked(text)), dtype=np.int64)

    def start(self) -> np.ndarray:
        """The end of the text before, as GPT-2 was trained; a new line where there is no such."""
        newline = self.vocabulary[CHARACTERS[ord("\n")]]
        return np.array([self.vocabulary.get(END_OF_TEXT, newline)])

    def files(self) -> dict[str, bytes]:
        """vocab.json and merges.txt, as Hugging Face reads them."""
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges), ""]
        vocabulary = json.dumps(self.vocabulary, ensure_ascii=False)
        return {"vocab.json": vocabulary.encode(), "merges.txt": "\n".join(lines).encode()}


def ranks_of(vocabulary: Any, merges: list[tuple[str, str]], name: str) -> dict[bytes, int]:
    """The bytes of all tokens but special ones, with their numbers, in order.

    Raises TokenizerError unless the vocabulary is what the merges make.
    """
    if not isinstance(vocabulary, dict) or not all(
        type(i) is int for i in cast(dict[str, Any], vocabulary).values()
    ):
        raise TokenizerError(f"{name} should be a JSON object of tokens and their numbers")
    numbers = cast(dict[str, int], vocabulary)
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise TokenizerError(f"{name}: tokens should be numbered from 0 on, each number once")
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


def cuts_as_gpt2(pre_tokenizer: Any) -> bool:
    """Whether Hugging Face's description of how words are cut is that of PATTERN."""
    if not isinstance(pre_tokenizer, dict):
        return False
    found = cast(dict[str, Any], pre_tokenizer)
    asked = (found.get("type"), found.get("add_prefix_space"), found.get("use_regex", True))
    return asked == ("ByteLevel", False, True)


def checked_pairs(pairs: list[Any], name: str) -> list[tuple[str, str]]:
    """Merges as pairs of tokens. Raises TokenizerError, which names the first that is none."""
    known = set(CHARACTERS)
    for number, pair in enumerate(pairs, start=1):
        parts = cast(list[Any], pair) if isinstance(pair, list) else []
        if len(parts) != 2 or not all(isinstance(part, str) and part in known for part in parts):
            raise TokenizerError(
                f"{name}: merge {number} should be of two tokens that stand above it, "
                f"but is {pair!r}"
            )
        known.add(parts[0] + parts[1])
    return [(first, second) for first, second in pairs]
