"""Damaged runs: checkpoints, their state and checksums, configurations, names of runs."""

import hashlib
import os
from pathlib import Path
from random import Random
from typing import Any

from campaign import bases, damage
from campaign.case import Case, Kind, either, harmless, refused
from campaign.damage import HUGE, NAN, read_json, write_json
from campaign.run_names import contradiction, existing_out, finished, new_name, wrong_name

RUN = Path("runs", "mine")
LAST = RUN / "checkpoints" / "000002"
FILES = (
    *("config.json", "model.safetensors", "tokenizer.json"),
    *("optimizer.safetensors", "state.json", "sha256.json"),
)
SAMPLE = ["sample", "mine", *bases.SAMPLING]
RESUME = ["train", "--resume", "mine", "--max-iters", "3"]
EVALUATE = ["train", "--resume", "mine", "--eval-only"]
CONVERT = ["convert", "mine", "out"]
READERS = (SAMPLE, RESUME, EVALUATE, CONVERT)


def build(folder: Path) -> None:
    bases.text(folder)
    bases.run(folder)


def reseal(folder: Path) -> None:
    """Write the checksums anew, so that damage is not noticed by them."""
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "sha256.json"
    }
    write_json(folder / "sha256.json", sums)


def damaged_file(rng: Random, folder: Path) -> Case:
    name = rng.choice(FILES)
    what = damage.damage_bytes(rng, folder / LAST / name)
    # A file whose checksum is wrong is named, or the list of checksums is.
    return refused(what, rng.choice(READERS), name, "sha256.json")


def displaced_file(rng: Random, folder: Path) -> Case:
    name = rng.choice(FILES)
    what = damage.displace(rng, folder / LAST / name)
    return refused(what, rng.choice(READERS), name, "sha256.json")


def file_behind_a_link(rng: Random, folder: Path) -> Case:
    path = folder / LAST / rng.choice(FILES)
    target = folder / path.name
    path.rename(target)
    path.symlink_to(target)
    return harmless(f"{path.name} is a link to a valid one", rng.choice((SAMPLE, EVALUATE)))


def run_behind_a_link(rng: Random, folder: Path) -> Case:
    place = folder / rng.choice((RUN, RUN / "checkpoints", LAST))
    damage.behind_link(place)
    return harmless(f"{place.name} is a link to a folder", rng.choice((SAMPLE, CONVERT)))


STATE_LEAVES = (
    *(("step",), ("val_loss",), ("config",), ("generators",), ("generators", "data")),
    *(("generators", "dropout"), ("generators", "data", "state"), ("data",), ("data", "sha256")),
    *(("generators", "data", "bit_generator"), ("generators", "data", "state", "state")),
    *(("generators", "dropout", "state", "inc"), ("generators", "data", "has_uint32")),
    *(("generators", "dropout", "uinteger"), ("config", "n_layer"), ("config", "learning_rate")),
    *(("config", "bias"), ("config", "seed"), ("config", "batch_size")),
)


def wrong_state(rng: Random, folder: Path) -> Case:
    path, place = folder / LAST / "state.json", rng.choice(STATE_LEAVES)
    old = damage.at(read_json(path), place)
    new = damage.wrong_value(rng, old)
    if place == ("val_loss",) and new is None:
        new = "x"  # None is what a run has there that was stopped between two evaluations.
    return changed_state(rng, folder, damage.change_leaf(path, place, new))


def impossible_state(rng: Random, folder: Path) -> Case:
    """Numbers of the right type, but out of range."""
    path = folder / LAST / "state.json"
    place, new = rng.choice(
        [
            *((("step",), value) for value in (-1, 1.5, HUGE, NAN)),
            *((("val_loss",), value) for value in (NAN, float("inf"))),
            *((("generators", "data", "state", "state"), value) for value in (-1, 1.5, 2**128)),
            *((("generators", "dropout", "state", "inc"), value) for value in (-1, 0.5, 2**200)),
            *((("generators", "data", "has_uint32"), value) for value in (-1, HUGE)),
            *((("generators", "dropout", "uinteger"), value) for value in (-1, 2**32, HUGE)),
            (("generators", "data", "bit_generator"), "MT19937"),
            (("generators", "data", "bit_generator"), "nonsense"),
            (("data", "sha256"), "0" * 64),
            (("config", "n_embd"), 16),
            (("config", "dropout"), 0.5),
        ]
    )
    return changed_state(rng, folder, damage.change_leaf(path, place, new))


def incomplete_state(rng: Random, folder: Path) -> Case:
    path = folder / LAST / "state.json"
    place = rng.choice([place for place in STATE_LEAVES if place[0] != "config"])
    return changed_state(rng, folder, damage.drop_leaf(path, place))


def wrecked_state(rng: Random, folder: Path) -> Case:
    what = damage.wreck_json(rng, folder / LAST / "state.json")
    reseal(folder / LAST)
    names = ("state.json",)
    if "too many digits" in what:  # Python's reader refuses it, another would not.
        return either(what, SAMPLE, "it is JSON, and not read", *names)
    return refused(what, rng.choice(READERS), *names)


def changed_state(rng: Random, folder: Path, what: str) -> Case:
    """Return a case for a state that training cannot resume; sampling does not need it."""
    reseal(folder / LAST)
    command = rng.choice((RESUME, RESUME, EVALUATE, SAMPLE))
    names = ("state.json", "runs/mine was trained")
    if command is SAMPLE:
        return either(what, SAMPLE, "only training needs the state", *names)
    return refused(what, command, *names)


CONFIG_LEAVES = (
    "block_size",
    "n_layer",
    "n_head",
    "n_embd",
    "dropout",
    "bias",
    "gelu",
    "vocab_size",
)


def wrong_model_config(rng: Random, folder: Path) -> Case:
    path, name = folder / LAST / "config.json", rng.choice(CONFIG_LEAVES)
    new = damage.wrong_value(rng, read_json(path)[name])
    if type(read_json(path)[name]) is int and rng.random() < 0.5:
        new = rng.choice([0, -1, 1.5, HUGE, 3, 7, 10**9])
    what = damage.change_leaf(path, (name,), new)
    reseal(folder / LAST)
    return refused(
        what, rng.choice(READERS), "config.json", "model.safetensors", "tokenizer.json", name
    )


def incomplete_model_config(rng: Random, folder: Path) -> Case:
    path = folder / LAST / "config.json"
    name = rng.choice(("vocab_size", "n_embd", "n_layer", "block_size"))
    what = damage.drop_leaf(path, (name,))
    reseal(folder / LAST)
    return refused(what, rng.choice(READERS), "config.json", "model.safetensors")


def unknown_model_config(rng: Random, folder: Path) -> Case:
    path, name = folder / LAST / "config.json", rng.choice(("n_experts", "", "self", "\ud800"))
    write_json(path, {**read_json(path), name: rng.choice((1, None, "x"))})
    reseal(folder / LAST)
    return refused(f"config.json has {name!a}", rng.choice(READERS), "config.json")


def wrong_tensor(rng: Random, folder: Path) -> Case:
    name = rng.choice(("model.safetensors", "optimizer.safetensors"))
    path = folder / LAST / name
    tensors = damage.read_tensors(path)
    what = damage.damage_tensor(rng, tensors)
    damage.write_tensors(path, tensors)
    reseal(folder / LAST)
    # Only training reads the optimizer.
    readers = READERS if name == "model.safetensors" else (RESUME, EVALUATE)
    return refused(f"{name}: {what}", rng.choice(readers), name)


def wrong_header(rng: Random, folder: Path) -> Case:
    name = rng.choice(("model.safetensors", "optimizer.safetensors"))
    what = damage.damage_header(rng, folder / LAST / name)
    reseal(folder / LAST)
    readers = READERS if name == "model.safetensors" else (RESUME, EVALUATE)
    return refused(what, rng.choice(readers), name)


def wrong_characters(rng: Random, folder: Path) -> Case:
    path = folder / LAST / "tokenizer.json"
    vocabulary: list[Any] = read_json(path)["vocabulary"]
    other: dict[str, Any] = {
        "a character too many": [*vocabulary, "é"],
        "a character too few": vocabulary[:-1],
        "one twice": [*vocabulary[:-1], vocabulary[0]],
        "two characters in one": [*vocabulary[:-1], "ab"],
        "an empty text": [*vocabulary[:-1], ""],
        "a number": [*vocabulary[:-1], 7],
        "a list": [*vocabulary[:-1], ["a"]],
        "half a pair of surrogates": [*vocabulary[:-1], "\ud800"],
        "no list": 7,
        "null": None,
        "an object": dict.fromkeys(vocabulary, 1),
        "nothing": [],
    }
    way = rng.choice(list(other))
    write_json(path, {"type": "char", "vocabulary": other[way]})
    reseal(folder / LAST)
    return refused(f"a vocabulary with {way}", rng.choice(READERS), "tokenizer", "vocabulary")


def wrong_checksums(rng: Random, folder: Path) -> Case:
    path = folder / LAST / "sha256.json"
    sums = read_json(path)
    outside = hashlib.sha256((folder / "text.txt").read_bytes()).hexdigest()
    other: dict[str, dict[str, Any]] = {
        "a file outside": {"../../../../text.txt": outside},
        "a file by its whole path": {str(folder / "text.txt"): outside},
        "a file that is not there": {"more.bin": outside},
        "the folder itself": {".": outside},
        "the folder above": {"..": outside},
        "an empty name": {"": outside},
        "a name with a NUL": {"a\0b": outside},
        "half a pair of surrogates": {"\ud800": outside},
        "a name of 300 characters": {"x" * 300: outside},
        "a number for a checksum": {"config.json": 7},
        "null for a checksum": {"model.safetensors": None},
        "an upper-case checksum": {"config.json": sums["config.json"].upper()},
    }
    way = rng.choice(list(other))
    write_json(path, {**sums, **other[way]})
    command = rng.choice(READERS)
    if way == "an upper-case checksum":
        return either(way, command, "the same number", "sha256.json", "config.json")
    return refused(f"sha256.json names {way}", command, "sha256.json", LAST.name, "config.json")


def fewer_checksums(rng: Random, folder: Path) -> Case:
    name = rng.choice([name for name in FILES if name != "sha256.json"])
    what = damage.drop_leaf(folder / LAST / "sha256.json", (name,))
    return refused(what, rng.choice(READERS), "sha256.json")


def extra_file(rng: Random, folder: Path) -> Case:
    (folder / LAST / rng.choice(("notes.txt", "vocab.json", ".DS_Store"))).write_text("x")
    reason = "strays are told of, or left alone"
    return either("a file too many", rng.choice(READERS), reason, "sha256.json")


def wrong_run_config(rng: Random, folder: Path) -> Case:
    path = folder / RUN / "config.json"
    found = read_json(path)
    name = rng.choice(sorted(set(found) - {"threads"}))
    new = damage.wrong_value(rng, found[name])
    if isinstance(found[name], int) and rng.random() < 0.3:
        new = rng.choice([-1, 1.5, HUGE])
    what = damage.change_leaf(path, (name,), new)
    # The text may be elsewhere now, but not there.
    return refused(
        what, rng.choice((RESUME, EVALUATE)), name, "no file", "runs/mine", "config.json"
    )


def damaged_run_config(rng: Random, folder: Path) -> Case:
    path = folder / RUN / "config.json"
    way = rng.randrange(4)
    if way == 0:
        what = damage.wreck_json(rng, path)
    elif way == 1:
        what = damage.damage_bytes(rng, path, "truncated", "emptied", "with all bytes zero")
    elif way == 2:
        what = damage.displace(rng, path, "a folder", "a FIFO", "missing", "a link to itself")
    else:
        what = damage.drop_leaf(path, (rng.choice(("n_layer", "data", "learning_rate")),))
    return refused(what, rng.choice((RESUME, EVALUATE)), "config.json", "no run mine")


def damaged_metrics(rng: Random, folder: Path) -> Case:
    path = folder / RUN / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    bad = rng.choice(
        [b"\n", b"null\n", b"{}\n", b"[1]\n", b'{"step": "x"}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
    )
    path.write_bytes(b"".join([bad, *lines]))
    command = rng.choice(READERS)
    if command is RESUME:
        return refused(f"metrics.jsonl has the line {bad[:20]!r}", command, "metrics.jsonl")
    return harmless(f"metrics.jsonl has the line {bad[:20]!r}, which is not needed", command)


def displaced_metrics(rng: Random, folder: Path) -> Case:
    what = damage.displace(
        rng, folder / RUN / "metrics.jsonl", "a folder", "a FIFO", "a link to itself"
    )
    return refused(what, RESUME, "metrics.jsonl")


def strange_checkpoints(rng: Random, folder: Path) -> Case:
    checkpoints = folder / RUN / "checkpoints"
    name, ignored = rng.choice(
        [
            *(("000003", False), ("9" * 30, False), ("٣", False), ("best", True)),
            *((".writing-000003", True), ("abc", True), ("-1", True), ("1.5", True), ("²", True)),
        ]
    )
    place = checkpoints / name
    if rng.random() < 0.3:
        place.write_bytes(b"a file, no folder")
        return harmless(f"a file named {name}", rng.choice((SAMPLE, EVALUATE, CONVERT)))
    place.mkdir()
    if ignored:
        return harmless(f"an empty folder {name}", rng.choice((SAMPLE, EVALUATE, CONVERT)))
    return refused(f"an empty folder {name} for a checkpoint", rng.choice(READERS), name)


def without_checkpoints(rng: Random, folder: Path) -> Case:
    place = folder / RUN / "checkpoints"
    what = damage.displace(rng, place, "missing", "a folder", "a dangling link")
    return refused(what, rng.choice((SAMPLE, CONVERT)), "runs/mine", "mine")


def unwritable(rng: Random, folder: Path) -> Case:
    """Nothing can be written below a file, not even by root."""
    place = folder / rng.choice((RUN / "checkpoints" / ".writing-000003", RUN / "loss.svg"))
    if place.exists():
        place.unlink()
    place.mkdir()
    (place / "kept.txt").write_text("x")
    case = either(f"{place.name} is a folder", RESUME, "it may be replaced", place.name)
    return Case(case.what, case.command, case.expected, writes=("runs/mine/",))


def resumed(rng: Random, folder: Path) -> Case:
    """The last line of the metrics is cut off, as after a crash: the run goes on all the same."""
    path = folder / RUN / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + content[: rng.randrange(1, 30)].rstrip(b"\n"))
    os.remove(folder / RUN / "loss.svg")
    case = harmless("metrics.jsonl ends in half a line", RESUME, went_on)
    return Case(case.what, case.command, case.expected, writes=("runs/mine/",))


def went_on(outcome: Any) -> str:
    made = "runs/mine/checkpoints/000003/model.safetensors"
    return "" if made in outcome.made else f"there is no {made}"


KINDS: tuple[Kind, ...] = (
    damaged_file, damaged_file, displaced_file, file_behind_a_link, run_behind_a_link,
    wrong_state, wrong_state, wrong_state, impossible_state, impossible_state, incomplete_state,
    wrecked_state, wrong_model_config, wrong_model_config, incomplete_model_config,
    unknown_model_config, wrong_tensor, wrong_tensor, wrong_header, wrong_header,
    wrong_characters, wrong_checksums, fewer_checksums, extra_file, wrong_run_config,
    wrong_run_config, damaged_run_config, damaged_metrics, displaced_metrics, strange_checkpoints,
    without_checkpoints, wrong_name, wrong_name, new_name, contradiction, finished, existing_out,
    unwritable, resumed,
)  # fmt: skip
