"""Damage to Hugging Face's tokenizer.json."""

from pathlib import Path
from random import Random
from typing import Any

from campaign import damage
from campaign.case import Case, Outcome, either, harmless, refused
from campaign.damage import HUGE, NAN, read_json, write_json
from campaign.tokenizer_commands import SIZE, reader, tokenize


def description(folder: Path) -> dict[str, Any]:
    return read_json(folder / "saved" / "tokenizer.json")


def write_description(folder: Path, value: Any) -> None:
    write_json(folder / "saved" / "tokenizer.json", value)


DESCRIBED: dict[tuple[str, ...], list[Any]] = {
    ("model",): [None, [], "BPE", 7, {}],
    ("model", "type"): ["WordPiece", "Unigram", "WordLevel", None, 7, "bpe"],
    ("model", "vocab"): [None, [], "x", 7, {}, {"a": 0}, {"a": "x"}],
    ("model", "merges"): [
        None,
        {},
        "x",
        7,
        [],
        ["x"],
        [7],
        [["x"]],
        [["x", "y", "z"]],
        [[1, 2]],
        [None],
    ],
    ("pre_tokenizer",): [None, {}, [], 7, {"type": "Whitespace"}, {"type": "Metaspace"}],
    ("pre_tokenizer", "add_prefix_space"): [True, None, "x"],
    ("pre_tokenizer", "use_regex"): [False, None, "x"],
    ("normalizer",): [{"type": "NFC"}, {"type": "Lowercase"}, [], "x", 7],
    ("added_tokens",): [7, "x", [7], [{}], [None], [{"id": "x", "content": "y"}], {"id": 1}],
    ("added_tokens", "id"): [3, -1, HUGE, "x", None, 1.5, NAN, SIZE + 9],
    ("model", "continuing_subword_prefix"): ["##"],
    ("model", "end_of_word_suffix"): ["</w>"],
    ("model", "ignore_merges"): [True],
    ("model", "dropout"): [0.5],
}


def wrong_description(rng: Random, folder: Path) -> Case:
    place = rng.choice(list(DESCRIBED))
    value = rng.choice(DESCRIBED[place])
    found = description(folder)
    where: damage.Leaf = ("added_tokens", 0, "id") if place[-1] == "id" else place
    write_description(folder, damage.replaced(found, where, value))
    what = f"tokenizer.json: {'.'.join(place)} = {damage.short(value)}"
    return refused(what, reader(rng, "saved"), "tokenizer.json", "saved")


def wrecked_description(rng: Random, folder: Path) -> Case:
    path = folder / "saved" / "tokenizer.json"
    if rng.random() < 0.5:
        what = damage.wreck_json(rng, path)
    else:
        ways = ("truncated", "emptied", "with all bytes zero", "with random bytes")
        what = damage.damage_bytes(rng, path, *ways)
    return refused(what, reader(rng, "saved"), "tokenizer.json")


def same_description(rng: Random, folder: Path) -> Case:
    """Older spellings of the same tokenizer."""
    found = description(folder)
    way = rng.choice(
        ("merges as texts", "no type", "no use_regex", "a post processor", "truncation")
    )
    if way == "merges as texts":
        found["model"]["merges"] = [" ".join(pair) for pair in found["model"]["merges"]]
    elif way == "no type":
        del found["model"]["type"]
    elif way == "no use_regex":
        del found["pre_tokenizer"]["use_regex"]
    elif way == "a post processor":
        found["post_processor"] = None
    else:
        found["truncation"] = {"max_length": 3}
    write_description(folder, found)
    return harmless(f"tokenizer.json with {way}", tokenize("saved"))


def added_token(rng: Random, folder: Path) -> Case:
    """A token that was added, and is no special one, is found in texts; or it is refused."""
    found = description(folder)
    token = rng.choice(("hello", "the", " re", "é🙂"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    found["added_tokens"].append({"id": SIZE, "content": token, **flags, "special": False})
    write_description(folder, found)

    def check(outcome: Outcome) -> str:
        return (
            ""
            if f"\n{SIZE} " in "\n" + outcome.stdout.replace("\n ", "\n")
            else f"it should have a token {SIZE}"
        )

    return either(
        f"{token!a} added", tokenize("saved"), "it may be refused", token, "added", check=check
    )


def same_twice(rng: Random, folder: Path) -> Case:
    """Hugging Face's description and the two files say the same."""
    (folder / "pairs" / "tokenizer.json").write_bytes(
        (folder / "saved" / "tokenizer.json").read_bytes()
    )
    return harmless("tokenizer.json and the pair", tokenize("pairs"))


def contradicting_twice(rng: Random, folder: Path) -> Case:
    """Hugging Face's description and the two files say something else."""
    found = description(folder)
    del found["added_tokens"][0]
    found["model"]["merges"].pop()
    last = max(found["model"]["vocab"], key=found["model"]["vocab"].__getitem__)
    del found["model"]["vocab"][last]
    write_json(folder / "pairs" / "tokenizer.json", found)
    reason = "transformers reads the description alone"
    return either(
        "another tokenizer.json next to the pair",
        tokenize("pairs"),
        reason,
        "tokenizer.json",
        "pairs",
    )
