"""Damaged folders of tokens: train.bin, val.bin, meta.json, tokenizers, input.txt."""

import gzip
import io
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import bases, damage
from campaign.case import Case, Kind, contains, either, harmless, refused
from campaign.damage import HUGE, read_json, write_json
from helpers.tiny_run import TEXT

TRAIN, VAL, META = "train.bin", "val.bin", "meta.json"
# The folders: of tinygpt prepare, of characters and of byte pairs; of nanoGPT, with input.txt.
CHARACTERS, PAIRS, NANO = "characters", "bytes", "nano"
CUT = len(TEXT) * 9 // 10


def build(folder: Path) -> None:
    bases.text(folder)
    bases.byte_pair_files(folder)
    pairs = ["--tokenizer", "gpt2", "--tokenizer-path", "pairs"]
    for out, flags in ((CHARACTERS, ["--tokenizer", "char"]), (PAIRS, pairs)):
        bases.do(folder, "prepare", "--data", "text.txt", "--out", out, *flags)
    (folder / NANO).mkdir()
    for name in (TRAIN, VAL):
        (folder / NANO / name).write_bytes((folder / CHARACTERS / name).read_bytes())
    (folder / NANO / "input.txt").write_bytes((folder / "text.txt").read_bytes())


def train(place: str, *flags: str) -> list[str]:
    flags = flags or (("--tokenizer", "gpt2") if place == PAIRS else ())
    return ["train", "--data", place, *bases.TINY, "--eval-only", *flags]


def any_place(rng: Random) -> str:
    return rng.choice((CHARACTERS, PAIRS, NANO))


def names_of(place: str) -> tuple[str, ...]:
    """Damage of one file may be noticed from another."""
    return (*(f"{place}/{name}" for name in (TRAIN, VAL, META, "input.txt")), "tokens in", place)


def read_tokens(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), "<u2")


def other_format(rng: Random, folder: Path) -> Case:
    """Both files as another program would write them."""
    place = any_place(rng)
    way = rng.choice(
        (
            "uint32",
            "int64",
            "big endian",
            "float32",
            "uint8",
            "an llm.c header",
            "an .npy",
            "gzip",
            "text",
        )
    )
    for name in (TRAIN, VAL):
        path = folder / place / name
        tokens = read_tokens(path)
        header = np.zeros(256, np.int32)
        header[:3] = 20240520, 1, len(tokens)
        saved = io.BytesIO()
        np.save(saved, tokens)
        contents = {
            "uint32": tokens.astype("<u4").tobytes(),
            "int64": tokens.astype("<i8").tobytes(),
            "big endian": tokens.astype(">u2").tobytes(),
            "float32": tokens.astype("<f4").tobytes(),
            "uint8": tokens.astype("u1").tobytes(),
            "an llm.c header": header.tobytes() + tokens.tobytes(),
            "an .npy": saved.getvalue(),
            "gzip": gzip.compress(tokens.tobytes()),
            "text": " ".join(map(str, tokens)).encode(),
        }
        path.write_bytes(contents[way])
    return refused(f"{place} as {way}", train(place), *names_of(place))


def too_large(rng: Random, folder: Path) -> Case:
    """One token above the vocabulary, anywhere, so that a batch need not draw it."""
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    path = folder / place / name
    tokens = read_tokens(path).copy()
    value = rng.choice((18, 264, 300, 60_000, 65_535) if place != PAIRS else (264, 300, 65_535))
    tokens[rng.randrange(len(tokens))] = value
    path.write_bytes(tokens.tobytes())
    return refused(f"a token {value} in {place}/{name}", train(place), *names_of(place))


def odd_size(rng: Random, folder: Path) -> Case:
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    path = folder / place / name
    content = path.read_bytes()
    path.write_bytes(rng.choice((content + b"\0", content[:-1], b"\0")))
    return refused(f"{place}/{name} of an odd size", train(place), f"{place}/{name}")


def other_count(rng: Random, folder: Path) -> Case:
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    path = folder / place / name
    content = path.read_bytes()
    count = 2 * rng.randrange(1, 30)
    more = rng.random() < 0.5
    path.write_bytes(content + content[:count] if more else content[:-count])
    what = f"{place}/{name} with {count // 2} tokens {'more' if more else 'fewer'}"
    return refused(what, train(place), *names_of(place))


def nearly_empty(rng: Random, folder: Path) -> Case:
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    (folder / place / name).write_bytes(rng.choice((b"", b"\0\0", b"\0\0" * 8)))
    return refused(f"{place}/{name} nearly empty", train(place), *names_of(place), "too short")


def displaced(rng: Random, folder: Path) -> Case:
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    what = damage.displace(rng, folder / place / name)
    return refused(f"{place}: {what}", train(place), f"{place}/{name}")


def device(rng: Random, folder: Path) -> Case:
    place, name = any_place(rng), rng.choice((TRAIN, VAL))
    path, target = folder / place / name, rng.choice(("/dev/zero", "/dev/null", "/dev/urandom"))
    path.unlink()
    path.symlink_to(target)
    return refused(f"{place}/{name} is {target}", train(place), f"{place}/{name}")


def linked(rng: Random, folder: Path) -> Case:
    place = any_place(rng)
    damage.behind_link(folder / place / rng.choice((TRAIN, VAL)))
    return harmless(f"a file of {place} behind a link", train(place))


def swapped(rng: Random, folder: Path) -> Case:
    place = rng.choice((CHARACTERS, PAIRS))  # The text of the third repeats itself.
    first, second = folder / place / TRAIN, folder / place / VAL
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    return refused(f"{place} with its splits swapped", train(place), *names_of(place))


META_LEAVES = ("tokenizer", "vocab_size", "dtype", "train_tokens", "val_tokens")


def wrong_meta(rng: Random, folder: Path) -> Case:
    place, name = rng.choice((CHARACTERS, PAIRS)), rng.choice(META_LEAVES)
    path = folder / place / META
    old = read_json(path)[name]
    new = damage.wrong_value(rng, old)
    if rng.random() < 0.5:
        texts = ["uint32", "sentencepiece", "int16", "bert", "CHAR", "UINT16 "]
        new = rng.choice(
            texts if isinstance(old, str) else [old + 1, old - 1, 0, -1, HUGE, old + 0.5]
        )
    what = damage.change_leaf(path, (name,), new)
    return refused(f"{place}: {what}", train(place), *names_of(place))


def wrecked_meta(rng: Random, folder: Path) -> Case:
    place = rng.choice((CHARACTERS, PAIRS))
    path = folder / place / META
    what = damage.wreck_json(rng, path)
    return refused(f"{place}: {what}", train(place), *names_of(place))


def damaged_meta(rng: Random, folder: Path) -> Case:
    place = rng.choice((CHARACTERS, PAIRS))
    path = folder / place / META
    if rng.random() < 0.5:
        ways = ("truncated", "emptied", "with all bytes zero", "compressed by gzip")
        what = damage.damage_bytes(rng, path, *ways)
    else:
        what = damage.displace(rng, path, "a folder", "a FIFO")
    return refused(f"{place}: {what}", train(place), *names_of(place))


def no_meta(rng: Random, folder: Path) -> Case:
    """Without it, only the flags can say what the tokens are of."""
    place = rng.choice((CHARACTERS, PAIRS))
    (folder / place / META).unlink()
    return refused(f"{place} without {META}", train(place, "--tokenizer", "char"), place)


def other_flag(rng: Random, folder: Path) -> Case:
    place, flags = rng.choice(
        [
            (CHARACTERS, ["--tokenizer", "gpt2"]),
            (CHARACTERS, ["--tokenizer", "sentencepiece"]),
            (PAIRS, ["--tokenizer", "sentencepiece"]),
            (NANO, ["--tokenizer", "sentencepiece"]),
            (NANO, ["--tokenizer-path", "pairs/nosuch"]),
        ]
    )
    return refused(
        f"{place} with {' '.join(flags)}", train(place, *flags), place, "--tokenizer", "nosuch"
    )


def damaged_tokenizer(rng: Random, folder: Path) -> Case:
    place, name = rng.choice(
        ((CHARACTERS, "tokenizer.json"), (PAIRS, "vocab.json"), (PAIRS, "merges.txt"))
    )
    path = folder / place / name
    ways = (
        "truncated",
        "emptied",
        "with all bytes zero",
        "compressed by gzip",
        "with random bytes",
    )
    if rng.random() < 0.5:
        what = damage.damage_bytes(rng, path, *ways)
    else:
        what = damage.displace(rng, path)
    return refused(f"{place}: {what}", train(place), name, "no tokenizer", place)


def other_characters(rng: Random, folder: Path) -> Case:
    path = folder / CHARACTERS / "tokenizer.json"
    vocabulary: list[Any] = read_json(path)["vocabulary"]
    changed = rng.choice(
        [
            vocabulary[:-1],
            [*vocabulary, "é"],
            [*vocabulary, *"äöü"],
            vocabulary[:2],
            [],
            [*vocabulary, 7],
        ]
    )
    write_json(path, {"type": "char", "vocabulary": changed})
    what = f"{len(changed)} characters for tokens of {len(vocabulary)}"
    return refused(what, train(CHARACTERS), CHARACTERS, "tokenizer.json")


def other_text(rng: Random, folder: Path) -> Case:
    """nanoGPT's input.txt is not what the tokens were made from."""
    path = folder / NANO / "input.txt"
    place = rng.randrange(len(TEXT))
    another = rng.choice([char for char in set(TEXT) if char != TEXT[place]])
    contents = {
        "a character changed": TEXT[:place] + another + TEXT[place + 1 :],
        "a character more": TEXT[:place] + another + TEXT[place:],
        "a character less": TEXT[:place] + TEXT[place + 1 :],
        "a character of its own": TEXT[:place] + "é" + TEXT[place + 1 :],
        "half of it": TEXT[: len(TEXT) // 2],
        "all of it twice": TEXT * 2,
        "another text": "abc\n" * 430,
        "nothing": "",
    }
    way = rng.choice(list(contents))
    path.write_text(contents[way], encoding="utf-8")
    return refused(f"input.txt with {way}", train(NANO), "input.txt")


def damaged_text(rng: Random, folder: Path) -> Case:
    path = folder / NANO / "input.txt"
    encodings = ("utf-16", "utf-32", "utf-16-be")
    if rng.random() < 0.4:
        path.write_bytes(TEXT.encode(rng.choice(encodings)))
        what = "input.txt in another encoding"
    else:
        what = damage.displace(rng, path)
    return refused(what, train(NANO), "input.txt")


def same_text(rng: Random, folder: Path) -> Case:
    path = folder / NANO / "input.txt"
    way = rng.choice(("lines of Windows", "a byte order mark", "a pickle"))
    if way == "a pickle":  # nanoGPT's, which is not read.
        (folder / NANO / "meta.pkl").write_bytes(rng.randbytes(rng.randrange(200)))
    elif way == "a byte order mark":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    else:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return harmless(f"input.txt with {way}", train(NANO))


def mark_in_tokens(rng: Random, folder: Path) -> Case:
    """A byte order mark that nanoGPT took for a character: it is the last of the vocabulary."""
    text = "\ufeff" + TEXT
    characters = sorted(set(text))
    ids = np.array([characters.index(char) for char in text], "<u2")
    cut = int(0.9 * len(ids))
    (folder / NANO / TRAIN).write_bytes(ids[:cut].tobytes())
    (folder / NANO / VAL).write_bytes(ids[cut:].tobytes())
    (folder / NANO / "input.txt").write_text(text, encoding="utf-8")
    lines = f"{len(ids):,} tokens"
    return harmless("a byte order mark among the tokens", train(NANO), contains(lines))


def changed_token(rng: Random, folder: Path) -> Case:
    """A token for another one: seen where the text is there, and nowhere else."""
    place = any_place(rng)
    path = folder / place / rng.choice((TRAIN, VAL))
    tokens = read_tokens(path).copy()
    where = rng.randrange(len(tokens))
    tokens[where] = (tokens[where] + 1) % 18
    path.write_bytes(tokens.tobytes())
    if place == NANO:
        return refused(f"a token of {place} changed", train(place), *names_of(place))
    return either(f"a token of {place} changed", train(place), "there is no checksum", place)


def too_small_for_block(rng: Random, folder: Path) -> Case:
    place = any_place(rng)
    size = rng.choice(("200", "2000", "100000"))
    command = [size if part == "8" else part for part in train(place)]
    position = command.index("--n-embd") + 1
    command[position] = "8"
    return refused(f"{place} for a block of {size}", command, "too short", "--block-size")


def not_a_folder_of_tokens(rng: Random, folder: Path) -> Case:
    place = rng.choice(("pairs", ".", "empty", "loop", "/proc", "runs"))
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    return refused(f"tokens in {place}", train(place), place)


KINDS: tuple[Kind, ...] = (
    other_format, other_format, other_format, too_large, too_large, odd_size, other_count,
    other_count, nearly_empty, displaced, displaced, device, linked, swapped, wrong_meta,
    wrong_meta, wrong_meta, wrecked_meta, damaged_meta, no_meta, other_flag, damaged_tokenizer,
    damaged_tokenizer, other_characters, other_text, other_text, damaged_text, same_text,
    mark_in_tokens, changed_token, too_small_for_block, not_a_folder_of_tokens,
)  # fmt: skip
