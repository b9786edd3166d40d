"""Damaged files of tokenizers: merges, vocabularies, tokenizer.json, models of SentencePiece."""

import json
from pathlib import Path
from random import Random
from typing import Any

from campaign import bases, damage
from campaign.case import Case, Check, Kind, Outcome, Process, Refused, either, harmless, refused
from campaign.damage import HUGE, NAN, read_json, write_json
from campaign.tokenizer_commands import SIZE, TEXT, reader, tokenize
from campaign.tokenizer_json import (
    added_token,
    contradicting_twice,
    same_description,
    same_twice,
    wrecked_description,
    wrong_description,
)
from helpers import byte_pairs


def build(folder: Path) -> None:
    bases.text(folder)
    bases.byte_pair_files(folder)
    bases.hugging_face_file(folder)
    bases.pieces(folder)
    bases.gpt2(folder)
    (folder / "characters").mkdir()
    characters = sorted(set((folder / "text.txt").read_text(encoding="utf-8")))
    write_json(folder / "characters" / "tokenizer.json", {"type": "char", "vocabulary": characters})


def lines(folder: Path) -> list[str]:
    return (folder / "pairs" / "merges.txt").read_text(encoding="utf-8").splitlines()


def write_lines(folder: Path, found: list[str], end: str = "\n") -> None:
    content = "".join(f"{line}{end}" for line in found)
    (folder / "pairs" / "merges.txt").write_bytes(content.encode())


def fewer_merges(rng: Random, folder: Path) -> Case:
    """The file ends early, at the end of a line, so that nothing of it looks damaged."""
    found = lines(folder)
    kept = rng.randrange(len(found))
    write_lines(folder, found[:kept])
    return refused(f"{kept} of {len(found)} merges", reader(rng, "pairs"), "merges", "vocab.json")


def cut_merges(rng: Random, folder: Path) -> Case:
    path = folder / "pairs" / "merges.txt"
    content = path.read_bytes().rstrip(b"\n")
    path.write_bytes(content[: rng.randrange(len(content))])
    return refused("merges.txt cut off", reader(rng, "pairs"), "merges", "vocab.json")


def changed_merges(rng: Random, folder: Path) -> Case:
    found = lines(folder)
    first, second = sorted(rng.sample(range(1, len(found)), 2))
    line = found[first]
    bad = rng.choice(
        ["x", "x y z", "x  y", "  ", "é \u4e2d", "\u4e2d x", "qq x", "x\ty", " x", "x "]
    )
    other = {
        "one twice": [*found, line],
        "two swapped": [
            *found[:first],
            found[second],
            *found[first + 1 : second],
            line,
            *found[second + 1 :],
        ],
        "one missing": [*found[:first], *found[first + 1 :]],
        "one too many": [*found, "x y"],
        f"the line {bad!a}": [*found[:first], bad, *found[first:]],
        f"the line {bad!a} last": [*found, bad],
        "all twice": [*found, *found[1:]],
    }
    way = rng.choice(list(other))
    write_lines(folder, other[way])
    return refused(f"merges with {way}", reader(rng, "pairs"), "merge", "vocab.json", "pairs")


def same_merges(rng: Random, folder: Path) -> Case:
    found = lines(folder)
    way = rng.choice(
        ("lines of Windows", "no version", "another version", "no last end", "empty lines")
    )
    if way == "no version":
        write_lines(folder, found[1:])
    elif way == "another version":
        write_lines(folder, ["#version: 0.1 - Trained by tokenizers", *found[1:]])
    elif way == "no last end":
        (folder / "pairs" / "merges.txt").write_bytes("\n".join(found).encode())
    elif way == "empty lines":
        write_lines(folder, [*found, "", ""])
    else:
        write_lines(folder, found, "\r\n")
    return harmless(f"merges with {way}", tokenize("pairs"))


def damaged_pair(rng: Random, folder: Path) -> Case:
    name = rng.choice(("vocab.json", "merges.txt"))
    ways = ("emptied", "with all bytes zero", "compressed by gzip", "with random bytes")
    what = damage.damage_bytes(rng, folder / "pairs" / name, *ways)
    return refused(what, reader(rng, "pairs"), name, "vocab.json")


def displaced_pair(rng: Random, folder: Path) -> Case:
    name = rng.choice(("vocab.json", "merges.txt"))
    what = damage.displace(rng, folder / "pairs" / name)
    return refused(what, reader(rng, "pairs"), name, "pairs")


def wrong_vocabulary(rng: Random, folder: Path) -> Case:
    path = folder / "pairs" / "vocab.json"
    found: dict[str, Any] = read_json(path)
    token, other = rng.sample(sorted(found), 2)
    while found[token] < 256 and found[other] < 256:  # Bytes may have any order.
        other = rng.choice(sorted(found))
    number = found[token]
    changes: dict[str, dict[str, Any]] = {
        "a number twice": {token: found[other]},
        "two swapped": {token: found[other], other: number},
        "a negative number": {token: -1},
        "a number far above": {token: HUGE},
        "a gap": {token: SIZE},
        "a fraction": {token: number + 0.5},
        "a number as a fraction": {token: float(number)},
        "a text for a number": {token: str(number)},
        "null for a number": {token: None},
        "a list for a number": {token: [number]},
        "true for a number": {token: True},
        "no number": {token: NAN},
        "a token that nothing makes": {"qqq": number},
        "a surrogate": {"\ud800": SIZE},
        "a gap before one more": {"<more>": SIZE + 5},
    }
    way = rng.choice([*changes, "one missing"])
    if way == "one missing":
        del found[token]
    changed = {**found, **changes.get(way, {})}
    if way == "a token that nothing makes":
        del changed[token]
    write_json(path, changed)
    return refused(
        f"vocab.json with {way} ({token!a})", reader(rng, "pairs"), "vocab.json", "merge"
    )


def wrecked_vocabulary(rng: Random, folder: Path) -> Case:
    what = damage.wreck_json(rng, folder / "pairs" / "vocab.json")
    return refused(what, reader(rng, "pairs"), "vocab.json")


def special_tokens(rng: Random, folder: Path) -> Case:
    """Tokens above the merges, which no text is cut into."""
    path = folder / "pairs" / "vocab.json"
    found = read_json(path)
    names = ("<pad>", "<sep>", "<|im_start|>", "[MASK]", "é🙂")
    more = rng.sample(names, rng.randrange(1, 5))
    write_json(path, {**found, **{name: SIZE + i for i, name in enumerate(more)}})
    return harmless(f"vocab.json with {more} too", tokenize("pairs"), same_ids(SIZE + len(more)))


def same_ids(size: int) -> Check:
    """Return a check that the text has the same tokens, of a vocabulary of `size`."""
    expected = " ".join(map(str, byte_pairs.small().encode(TEXT)))

    def check(outcome: Outcome) -> str:
        *table, counts = outcome.stdout.splitlines()
        rows = [line.split() for line in table]
        ids = " ".join(row[0] for row in rows if len(row) > 2 and row[0].isdecimal())
        if ids != expected:
            return f"its tokens should be {expected}, not {ids}"
        return "" if str(size) in counts else f"it should have {size} tokens"

    return check


def added_file(rng: Random, folder: Path) -> Case:
    """added_tokens.json, as transformers wrote it: it makes the vocabulary larger."""
    path = folder / "pairs" / "added_tokens.json"
    good = {"<pad>": SIZE, "<sep>": SIZE + 1}
    bad: dict[str, Any] = {
        "a list": ["<pad>"], "a text for a number": {"<pad>": "x"}, "null": None,
        "a gap": {"<pad>": SIZE + 7}, "a number that is taken": {"<pad>": 3},
        "a negative one": {"<pad>": -1}, "a fraction": {"<pad>": SIZE + 0.5},
        "a number twice": {"<pad>": SIZE, "<sep>": SIZE},
    }  # fmt: skip
    way = rng.choice([*bad, "good", "good", "no JSON"])
    if way == "no JSON":
        path.write_bytes(b"{")
    else:
        write_json(path, good if way == "good" else bad[way])
    if way == "good":
        return harmless("added_tokens.json", tokenize("pairs"), same_ids(SIZE + 2))
    return refused(f"added_tokens.json with {way}", reader(rng, "pairs"), "added_tokens.json")


def damaged_pieces(rng: Random, folder: Path) -> Case:
    """In a process of its own, for what reads it is no Python."""
    path = folder / "pieces" / "tokenizer.model"
    ways = (
        "truncated",
        "emptied",
        "with all bytes zero",
        "compressed by gzip",
        "with random bytes",
    )
    what = damage.damage_bytes(rng, path, *ways)
    place = rng.choice(("pieces", "pieces/tokenizer.model"))
    command = reader(rng, place, "sentencepiece")
    return Case(what, command, Refused(("tokenizer.model",)), process=Process())


def flipped_pieces(rng: Random, folder: Path) -> Case:
    path = folder / "pieces" / "tokenizer.model"
    what = damage.damage_bytes(rng, path, "with one bit flipped")
    reason = "a bit of a piece or of its score makes another model"
    case = either(what, tokenize("pieces", "sentencepiece"), reason, "tokenizer.model", "pieces")
    return Case(case.what, case.command, case.expected, process=Process())


def displaced_pieces(rng: Random, folder: Path) -> Case:
    what = damage.displace(rng, folder / "pieces" / "tokenizer.model")
    place = rng.choice(("pieces", "pieces/tokenizer.model"))
    return refused(what, reader(rng, place, "sentencepiece"), "pieces")


def wrong_path(rng: Random, folder: Path) -> Case:
    path = rng.choice(
        (
            "nosuch",
            "text.txt",
            ".",
            "pairs/nosuch",
            "/dev/null",
            "x" * 300,
            "\ud800",
            "runs",
            "gpt/config.json",
        )
    )
    kind = rng.choice(("gpt2", "sentencepiece"))
    names = path[:20].encode(errors="backslashreplace").decode()
    return refused(f"--tokenizer-path {path[:20]!a}, {kind}", reader(rng, path, kind), names)


def other_kind(rng: Random, folder: Path) -> Case:
    place, kind = rng.choice(
        [
            ("pairs", "sentencepiece"), ("saved", "sentencepiece"), ("pieces", "gpt2"),
            ("characters", "gpt2"), ("characters", "sentencepiece"), ("pairs", "char"),
            ("pieces/tokenizer.model", "gpt2"), ("pairs/vocab.json", "sentencepiece"),
        ]
    )  # fmt: skip
    return refused(f"{place} as {kind}", reader(rng, place, kind), place)


def two_tokenizers(rng: Random, folder: Path) -> Case:
    """Two tokenizers in one folder, of which nothing says which is meant."""
    place = rng.choice(("pairs", "pieces"))
    source = rng.choice([other for other in ("characters", "pieces", "pairs") if other != place])
    for path in (folder / source).iterdir():
        (folder / place / path.name).write_bytes(path.read_bytes())
    kind = "sentencepiece" if place == "pieces" else "gpt2"
    return refused(f"{source} and {place} in one folder", reader(rng, place, kind), place)


def linked(rng: Random, folder: Path) -> Case:
    place, kind = rng.choice((("pairs", "gpt2"), ("saved", "gpt2"), ("pieces", "sentencepiece")))
    for path in list((folder / place).iterdir()):
        damage.behind_link(path)
        moved = path.with_name(f"moved-{path.name}")
        moved.rename(folder / moved.name)
        path.unlink()
        path.symlink_to(Path("..", moved.name))
    return harmless(f"{place} behind links", tokenize(place, kind))


def beside_a_model(rng: Random, folder: Path) -> Case:
    """Damaged tokenizer files in the folder of a GPT-2."""
    path = folder / "gpt" / rng.choice(("vocab.json", "merges.txt"))
    if path.name == "merges.txt":
        path.write_bytes(b"\n".join(path.read_bytes().splitlines()[: rng.randrange(7)]))
        what = "fewer merges next to a model"
    else:
        what = damage.damage_bytes(rng, path, "truncated", "emptied", "with random bytes")
    command = ["sample", "--model", "gpt", "--prompt", "the", *bases.SAMPLING]
    return refused(what, rng.choice((command, ["convert", "gpt", "out"])), "gpt/")


def wrong_characters(rng: Random, folder: Path) -> Case:
    """A tokenizer.json of ours, where Hugging Face's is expected: taken for what it is."""
    value = rng.choice(
        [{"type": "char"}, {"type": "char", "vocabulary": "abc"}, {"vocabulary": [1]}, {"a": 1}]
    )
    write_json(folder / "pairs" / "tokenizer.json", value)
    return refused(
        f"tokenizer.json is {json.dumps(value)}", reader(rng, "pairs"), "tokenizer.json", "pairs"
    )


KINDS: tuple[Kind, ...] = (
    fewer_merges, fewer_merges, cut_merges, changed_merges, changed_merges, changed_merges,
    same_merges, damaged_pair, displaced_pair, wrong_vocabulary, wrong_vocabulary, wrong_vocabulary,
    wrecked_vocabulary, special_tokens, added_file, added_file, wrong_description,
    wrong_description, wrong_description, wrong_description, wrecked_description, same_description,
    added_token, damaged_pieces, flipped_pieces, displaced_pieces, wrong_path, other_kind,
    two_tokenizers, same_twice, contradicting_twice, linked, beside_a_model, wrong_characters,
)  # fmt: skip
