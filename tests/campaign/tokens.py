"""Damaged token folders: train.bin, val.bin, meta.json, tokenizers, input.txt."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import inputs
from campaign.damage import (
    DEVICES,
    HUGE,
    PLACES,
    REMOVED,
    SPOILT,
    Change,
    added,
    arguments,
    displaced,
    json_types,
    json_values,
    linked,
    one_of,
    rewritten,
    wrecked,
)
from campaign.faults import Action, Damage, either, harmless, prints, refused
from helpers.tiny_run import TEXT

# Written by tinygpt prepare, of characters and of byte pairs; and in nanoGPT's format.
CHARACTERS, PAIRS, NANO = PLACED = "characters", "bytes", "nano"
TRAIN, VAL, META = "train.bin", "val.bin", "meta.json"
MARKED = "\ufeff" + TEXT


def build(folder: Path) -> None:
    inputs.text(folder)
    inputs.pairs(folder)
    pairs = ("--tokenizer", "gpt2", "--tokenizer-path", "pairs")
    for out, flags in ((CHARACTERS, ("--tokenizer", "char")), (PAIRS, pairs)):
        inputs.do(folder, "prepare", "--data", "text.txt", "--out", out, *flags)
    (folder / NANO).mkdir()
    for name in (TRAIN, VAL):
        (folder / NANO / name).write_bytes((folder / CHARACTERS / name).read_bytes())
    (folder / NANO / "input.txt").write_bytes((folder / "text.txt").read_bytes())


def load(place: str, *flags: str) -> tuple[str, ...]:
    flags = flags or (("--tokenizer", "gpt2") if place == PAIRS else ())
    return ("train", "--data", place, *inputs.TINY, "--eval-only", *flags)


LOAD = {place: (load(place),) for place in PLACED}


def names(place: str) -> tuple[str, ...]:
    """Damage to one file may be found in another."""
    return (*(f"{place}/{name}" for name in (TRAIN, VAL, META, "input.txt")), "tokens in", place)


def tokens_of(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<u2").copy()


def as_dtype(dtype: str) -> Change:
    return lambda rng, content: tokens_of(content).astype(dtype).tobytes()


def as_npy(rng: Random, content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, tokens_of(content))
    return file.getvalue()


FORMATS: dict[str, Change] = {
    **{f"as {dtype}": as_dtype(dtype) for dtype in ("<u4", "<i8", ">u2", "<f4", "u1")},
    "with llm.c's header": lambda rng, content: (
        np.array([20240520, 1, len(content) // 2, *[0] * 253], "<i4").tobytes() + content
    ),
    "as .npy": as_npy,
    "as gzip": lambda rng, content: gzip.compress(content, mtime=0),
    "as text": lambda rng, content: " ".join(map(str, tokens_of(content))).encode(),
}


def in_both(ways: dict[str, Change]) -> Callable[[str], Action]:
    """Damage train.bin and val.bin of a folder in the same way."""

    def of_folder(place: str) -> Action:
        def action(rng: Random, folder: Path) -> Damage:
            way = rng.choice(list(ways))
            for name in (TRAIN, VAL):
                rewritten([f"{place}/{name}"], {way: ways[way]})(rng, folder)
            return Damage(f"{place} {way}")

        return action

    return of_folder


def beyond(rng: Random, content: bytes) -> bytes:
    """Put one token that no vocabulary here has anywhere."""
    tokens = tokens_of(content)
    tokens[rng.randrange(len(tokens))] = rng.choice((264, 300, 60_000, 65_535))
    return tokens.tobytes()


def other_token(rng: Random, content: bytes) -> bytes:
    tokens, place = tokens_of(content), rng.randrange(len(content) // 2)
    tokens[place] = (tokens[place] + 1) % 18
    return tokens.tobytes()


SIZES: dict[str, Change | bytes] = {
    "with a token out of range": beyond,
    "with another byte": lambda rng, content: content + b"\0",
    "without its last byte": lambda rng, content: content[:-1],
    "with more tokens": lambda rng, content: content + content[: 2 * rng.randrange(1, 30)],
    "with fewer tokens": lambda rng, content: content[: -2 * rng.randrange(1, 30)],
    "empty": b"",
    "of one token": b"\0\0",
    "of eight tokens": b"\0\0" * 8,
}


def swapped(rng: Random, folder: Path) -> Damage:
    place = folder / CHARACTERS
    first, second = (place / TRAIN).read_bytes(), (place / VAL).read_bytes()
    (place / TRAIN).write_bytes(second)
    (place / VAL).write_bytes(first)
    return Damage("splits swapped")


def marked(rng: Random, folder: Path) -> Damage:
    """Make a byte order mark one of the tokens, as nanoGPT does."""
    characters, cut = sorted(set(MARKED)), int(0.9 * len(MARKED))
    ids = np.array([characters.index(char) for char in MARKED], "<u2")
    (folder / NANO / TRAIN).write_bytes(ids[:cut].tobytes())
    (folder / NANO / VAL).write_bytes(ids[cut:].tobytes())
    (folder / NANO / "input.txt").write_text(MARKED, encoding="utf-8")
    return Damage("a byte order mark among the tokens")


def metas(place: str) -> Action:
    path = f"{place}/{META}"
    return one_of(
        json_types(path, *((n,) for n in ("tokenizer", "vocab_size", "dtype", "train_tokens"))),
        json_values(path, {("tokenizer",): ["sentencepiece", "bert", "CHAR", REMOVED],
                           ("dtype",): ["uint32", "int16", "UINT16 "],
                           ("vocab_size",): [0, -1, 17, 19, HUGE],
                           ("val_tokens",): [0, -1, 3, HUGE]}),
        wrecked(path),
        rewritten([path], SPOILT),
        displaced(path, ways=("a folder", "a FIFO")),
    )  # fmt: skip


def vocabulary(change: Callable[[list[Any]], list[Any]]) -> Change:
    def write(rng: Random, content: bytes) -> bytes:
        found = json.loads(content)["vocabulary"]
        return json.dumps({"type": "char", "vocabulary": change(found)}).encode()

    return write


INPUT = f"{NANO}/input.txt"
BINS = {place: (f"{place}/{TRAIN}", f"{place}/{VAL}") for place in PLACED}
FAULTS = (
    *(refused(in_both(FORMATS)(place), LOAD[place], *names(place), weight=2) for place in PLACED),
    *(refused(rewritten(BINS[place], SIZES), LOAD[place], *names(place), "too short", weight=2)
      for place in PLACED),
    *(refused(displaced(*BINS[place], ways=(*PLACES, *DEVICES)), LOAD[place], f"{place}/")
      for place in PLACED),
    *(harmless(linked(*BINS[place]), LOAD[place]) for place in PLACED),
    refused(swapped, LOAD[CHARACTERS], *names(CHARACTERS)),
    refused(rewritten(BINS[NANO], {"with another token": other_token}), LOAD[NANO], *names(NANO)),
    either(rewritten(BINS[PAIRS], {"with another token": other_token}), LOAD[PAIRS], PAIRS),
    refused(metas(CHARACTERS), LOAD[CHARACTERS], *names(CHARACTERS), weight=3),
    refused(metas(PAIRS), LOAD[PAIRS], *names(PAIRS), weight=2),
    refused(displaced(f"{CHARACTERS}/{META}", ways=["missing"]), LOAD[CHARACTERS], CHARACTERS),
    refused(arguments(("--tokenizer", "gpt2"), ("--tokenizer", "sentencepiece")),
            LOAD[CHARACTERS], CHARACTERS, "--tokenizer"),
    refused(arguments(("--tokenizer", "sentencepiece"), ("--tokenizer-path", "pairs/nosuch")),
            LOAD[NANO], NANO, "--tokenizer", "nosuch"),
    *(refused(one_of(rewritten(files, SPOILT), displaced(*files)),
              LOAD[place], *(Path(f).name for f in files), "no tokenizer", place)
      for place, files in ((CHARACTERS, (f"{CHARACTERS}/tokenizer.json",)),
                           (PAIRS, (f"{PAIRS}/vocab.json", f"{PAIRS}/merges.txt")))),
    refused(
        rewritten([f"{CHARACTERS}/tokenizer.json"],
                  {"shorter": vocabulary(lambda v: v[:-1]), "empty": vocabulary(lambda v: []),
                   "longer": vocabulary(lambda v: [*v, "é"]),
                   "with 7": vocabulary(lambda v: [*v, 7])}),
        LOAD[CHARACTERS], CHARACTERS, "tokenizer.json",
    ),
    refused(
        one_of(
            rewritten([INPUT], {
                "with a character changed": lambda rng, content: (
                    content[: (n := rng.randrange(1700))] + b"~" + content[n + 1 :]),
                "with a character more": lambda rng, content: b"T" + content,
                "with a character less": lambda rng, content: content[1:],
                "cut in half": TEXT[: len(TEXT) // 2].encode(),
                "twice": (TEXT * 2).encode(),
                "another": b"abc\n" * 430,
                "empty": b"",
                "in UTF-16": TEXT.encode("utf-16"),
                "in UTF-32": TEXT.encode("utf-32"),
            }),
            displaced(INPUT),
        ),
        LOAD[NANO], "input.txt", weight=3,
    ),
    harmless(
        one_of(
            rewritten([INPUT], {
                "with lines of Windows": TEXT.replace("\n", "\r\n").encode(),
                "with a byte order mark": MARKED.encode(),
            }),
            added({f"{NANO}/meta.pkl": [b"", b"\x80\x04", b"cos\nsystem\n"]}),
        ),
        LOAD[NANO],
    ),
    harmless(marked, LOAD[NANO], prints(f"{len(MARKED):,} tokens")),
    *(refused(arguments(*(("--block-size", size) for size in ("200", "2000", "100000"))),
              LOAD[place], "too short", "--block-size") for place in PLACED),
    refused(arguments(*(("--data", place) for place in ("pairs", ".", "/proc"))),
            (("train", *inputs.TINY, "--eval-only"),), "train.bin"),
)  # fmt: skip
