"""Damaged tokenizers: merges, vocabularies, tokenizer.json, SentencePiece models."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from campaign import inputs
from campaign.damage import (
    BROKEN,
    BYTES,
    HUGE,
    NAN,
    SPOILT,
    Change,
    Leaf,
    added,
    arguments,
    displaced,
    json_removed,
    json_values,
    linked,
    one_of,
    rewritten,
    wrecked,
)
from campaign.faults import Check, Damage, Outcome, either, harmless, refused
from helpers import byte_pairs

TEXT = "hi there, the hello  re\n<|endoftext|> é🙂 hii"
SIZE = len(byte_pairs.vocabulary())
VOCABULARY, MERGES, SAVED = "pairs/vocab.json", "pairs/merges.txt", "saved/tokenizer.json"
PIECES = "pieces/tokenizer.model"


def build(folder: Path) -> None:
    inputs.text(folder)
    inputs.pairs(folder)
    inputs.hugging_face(folder)
    inputs.pieces(folder)
    inputs.characters(folder)
    inputs.gpt2(folder)


def readers(place: str, kind: str = "gpt2") -> tuple[tuple[str, ...], ...]:
    flags = ("--tokenizer", kind, "--tokenizer-path", place)
    return (
        ("tokenize", TEXT, *flags),
        ("prepare", "--data", "text.txt", "--out", "out", *flags),
        (*inputs.TRAIN, "--eval-only", *flags),
    )


def lines(change: Callable[[Random, list[str]], list[str]], end: str = "\n") -> Change:
    def write(rng: Random, content: bytes) -> bytes:
        changed = change(rng, content.decode().splitlines())
        return "".join(line + end for line in changed).encode()

    return write


def swapped(rng: Random, found: list[str]) -> list[str]:
    first, second = sorted(rng.sample(range(1, len(found)), 2))
    found[first], found[second] = found[second], found[first]
    return found


def inserted(rng: Random, found: list[str]) -> list[str]:
    bad = ["x", "x y z", "x  y", "  ", "é \u4e2d", "\u4e2d x", "qq x", "x\ty", " x", "x ", "x y"]
    place = rng.randrange(1, len(found) + 1)
    return [*found[:place], rng.choice(bad), *found[place:]]


WRONG_MERGES: dict[str, Change | bytes] = {
    "cut off after a line": lines(lambda rng, found: found[: rng.randrange(len(found))]),
    "cut off": lambda rng, content: content[: rng.randrange(len(content.rstrip()))],
    "with one twice": lines(lambda rng, found: [*found, rng.choice(found[1:])]),
    "with all twice": lines(lambda rng, found: [*found, *found[1:]]),
    "without one": lines(lambda rng, found: [x for i, x in enumerate(found) if i != 3]),
    "with two swapped": lines(swapped),
    "with a bad line": lines(inserted),
    **BROKEN,
}
SAME_MERGES: dict[str, Change | bytes] = {
    "without a version": lines(lambda rng, found: found[1:]),
    "of another version": lines(lambda rng, found: ["#version: 0.1 - trained", *found[1:]]),
    "with empty lines": lines(lambda rng, found: [*found, "", ""]),
    "with lines of Windows": lines(lambda rng, found: found, "\r\n"),
    "without the last line end": lambda rng, content: content.rstrip(),
}


def same_ids(size: int) -> Check:
    """Return a check that the text has the same tokens, of a vocabulary of `size`."""
    expected = " ".join(map(str, byte_pairs.small().encode(TEXT)))

    def check(outcome: Outcome) -> str:
        *table, counts = outcome.stdout.splitlines()
        rows = [line.split() for line in table]
        ids = " ".join(row[0] for row in rows if len(row) > 2 and row[0].isdecimal())
        return "" if ids == expected and str(size) in counts else f"expected {expected}, not {ids}"

    return check


def two_tokenizers(rng: Random, folder: Path) -> Damage:
    for source in ("characters", "pairs"):
        for path in (folder / source).iterdir():
            (folder / "pieces" / path.name).write_bytes(path.read_bytes())
    return Damage("three tokenizers in a folder")


def both_forms(rng: Random, folder: Path) -> Damage:
    (folder / "pairs" / "tokenizer.json").write_bytes((folder / SAVED).read_bytes())
    return Damage("tokenizer.json next to the pair")


# The tokens "hi", number 256, and "a", number 64.
TOKEN, BYTE = ("hi",), ("a",)
WRONG_NUMBERS: dict[Leaf, list[Any]] = {
    TOKEN: [257, 3, -1, HUGE, SIZE, 256.5, 256.0, "256", None, [256], True, NAN],
    BYTE: [256, -1, HUGE, SIZE, 64.5, "64", None, [64], True, NAN],
    ("\ud800",): [SIZE],
    ("<more>",): [SIZE + 5, SIZE - 1, "x"],
}
ADDED = [{"<pad>": "x"}, {"<pad>": SIZE + 7}, {"<pad>": 3}, {"<pad>": -1}, {"<pad>": SIZE + 0.5},
         {"<pad>": SIZE, "<sep>": SIZE}, ["<pad>"], None]  # fmt: skip
WRONG_DESCRIPTIONS: dict[Leaf, list[Any]] = {
    ("model",): [None, [], "BPE", 7, {}],
    ("model", "type"): ["WordPiece", "Unigram", "WordLevel", None, 7, "bpe"],
    ("model", "vocab"): [None, [], "x", 7, {}, {"a": 0}, {"a": "x"}],
    ("model", "merges"): [
        *(None, {}, "x", 7, [], ["x"], [7], [["x"]], [["x", "y", "z"]], [[1, 2]], [None]),
    ],
    ("pre_tokenizer",): [None, {}, [], 7, {"type": "Whitespace"}, {"type": "Metaspace"}],
    ("pre_tokenizer", "add_prefix_space"): [True, None, "x"],
    ("pre_tokenizer", "use_regex"): [False, None, "x"],
    ("normalizer",): [{"type": "NFC"}, {"type": "Lowercase"}, [], "x", 7],
    ("added_tokens",): [7, "x", [7], [{}], [None], [{"id": "x", "content": "y"}], {"id": 1}],
    ("added_tokens", 0, "id"): [3, -1, HUGE, "x", None, 1.5, NAN, SIZE + 9],
    ("model", "continuing_subword_prefix"): ["##"],
    ("model", "end_of_word_suffix"): ["</w>"],
    ("model", "ignore_merges"): [True],
    ("model", "dropout"): [0.5],
}
SAMPLE = ("sample", "--model", "gpt", "--prompt", "the", *inputs.SAMPLING)

FAULTS = (
    refused(rewritten([MERGES], WRONG_MERGES), readers("pairs"), "merge", "vocab.json", weight=5),
    harmless(rewritten([MERGES], SAME_MERGES), readers("pairs")[:1]),
    refused(displaced(MERGES, VOCABULARY), readers("pairs"), "merges.txt", "vocab.json", "pairs"),
    refused(
        one_of(json_values(VOCABULARY, WRONG_NUMBERS), json_removed(VOCABULARY, TOKEN, BYTE)),
        readers("pairs"), "vocab.json", "merge", weight=4,
    ),
    refused(one_of(wrecked(VOCABULARY), rewritten([VOCABULARY], BROKEN)), readers("pairs"),
            "vocab.json", weight=2),
    harmless(json_values(VOCABULARY, {("<pad>",): [SIZE], ("é🙂",): [SIZE]}), readers("pairs")[:1],
             same_ids(SIZE + 1)),
    refused(added({"pairs/added_tokens.json": [b"{", *(json.dumps(x).encode() for x in ADDED)]}),
            readers("pairs"), "added_tokens.json", weight=2),
    harmless(added({"pairs/added_tokens.json": [json.dumps({"<pad>": SIZE}).encode()]}),
             readers("pairs")[:1], same_ids(SIZE + 1)),
    refused(json_values(SAVED, WRONG_DESCRIPTIONS), readers("saved"), "saved", weight=5),
    refused(one_of(wrecked(SAVED), rewritten([SAVED], SPOILT)),
            readers("saved"), "tokenizer.json", weight=2),
    harmless(
        one_of(
            json_values(SAVED, {("truncation",): [{"max_length": 3}], ("post_processor",): [None],
                                ("model", "merges"): [[*map(" ".join, byte_pairs.PAIRS)]]}),
            json_removed(SAVED, ("model", "type"), ("pre_tokenizer", "use_regex")),
        ),
        readers("saved")[:1],
    ),
    harmless(both_forms, readers("pairs")[:1]),
    refused(one_of(rewritten([PIECES], SPOILT), displaced(PIECES)),
            readers("pieces", "sentencepiece"), "pieces", weight=3),
    either(rewritten([PIECES], {"with a bit flipped": BYTES["with one bit flipped"]}),
           readers("pieces", "sentencepiece")[:1], "pieces"),
    refused(two_tokenizers, readers("pieces", "sentencepiece"), "pieces"),
    refused(
        arguments(*(("--tokenizer-path", path) for path in
                    ("nosuch", "text.txt", ".", "pairs/nosuch", "/dev/null", "x" * 300, "\ud800",
                     "pieces", "characters", PIECES))),
        [command[:-2] for command in readers("")], "nosuch", "text.txt", ".", "/dev/null", "xxx",
        "d800", "pieces", "characters", weight=2,
    ),
    refused(
        arguments(*(("--tokenizer-path", path) for path in
                    ("nosuch", "text.txt", "pairs", "saved", "characters", VOCABULARY))),
        [command[:-2] for command in readers("", "sentencepiece")], "nosuch", "text.txt", "pairs",
        "saved", "characters",
    ),
    harmless(linked(MERGES, VOCABULARY), readers("pairs")[:1]),
    harmless(linked("saved"), readers("saved")[:1]),
    refused(
        one_of(rewritten(["gpt/merges.txt"], {"cut off": WRONG_MERGES["cut off after a line"]}),
               rewritten(["gpt/vocab.json"], SPOILT)),
        (SAMPLE, ("convert", "gpt", "out")), "gpt/",
    ),
    refused(
        added({"pairs/tokenizer.json": [b'{"type": "char"}', b'{"vocabulary": [1]}', b'{"a": 1}',
                                        b'{"type": "char", "vocabulary": "abc"}']}),
        readers("pairs"), "tokenizer.json", "pairs",
    ),
)  # fmt: skip
