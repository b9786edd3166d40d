"""Damaged runs: checkpoints, states, checksums, settings, names."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from campaign import inputs
from campaign.damage import (
    BYTES,
    HUGE,
    NAN,
    REMOVED,
    SPOILT,
    Leaf,
    added,
    arguments,
    displaced,
    header,
    json_removed,
    json_types,
    json_values,
    json_whole,
    linked,
    nothing,
    one_of,
    read_json,
    rewritten,
    shown,
    tensor,
    wrecked,
    write_json,
)
from campaign.faults import Action, Damage, Outcome, either, harmless, refused
from campaign.inputs import TRAIN

RUN = "runs/mine"
LAST = f"{RUN}/checkpoints/000002"
CONFIG, MODEL, OPTIMIZER, STATE, SUMS, TOKENIZER = (
    f"{LAST}/{name}"
    for name in (
        *("config.json", "model.safetensors", "optimizer.safetensors"),
        *("state.json", "sha256.json", "tokenizer.json"),
    )
)
FILES = (CONFIG, MODEL, OPTIMIZER, STATE, SUMS, TOKENIZER)
SAMPLE = ("sample", "mine", *inputs.SAMPLING)
RESUME = ("train", "--resume", "mine", "--max-iters", "3")
EVALUATE = ("train", "--resume", "mine", "--eval-only")
CONVERT = ("convert", "mine", "out")
READERS = (SAMPLE, RESUME, EVALUATE, CONVERT)
TRAINING = (RESUME, EVALUATE)
build = inputs.run


def sealed(action: Action) -> Action:
    """Make the checksums agree with the damaged files."""

    def seal(rng: Random, folder: Path) -> Damage:
        damage, sums = action(rng, folder), folder / SUMS
        files = [path for path in sums.parent.iterdir() if path != sums]
        write_json(sums, {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
        return damage

    return seal


def name_of_run(*names: str) -> Action:
    """Replace "mine" in the command; see NAMES."""

    def action(rng: Random, folder: Path) -> Damage:
        name = rng.choice(names)
        return Damage(f"a run called {name[:20]!a}", (name,), (*shown(name), "run", "SOURCE"))

    return action


def went_on(outcome: Outcome) -> str:
    made = f"{RUN}/checkpoints/000003/model.safetensors"
    return "" if made in outcome.made else f"there is no {made}"


def half_a_line(rng: Random, folder: Path) -> Damage:
    """End the metrics in half a line, as after a crash."""
    path = folder / RUN / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + content[: rng.randrange(1, 30)].rstrip(b"\n"))
    os.remove(folder / RUN / "loss.svg")
    return Damage("metrics.jsonl ends in half a line")


def foreign_name(rng: Random, folder: Path) -> Damage:
    """Add a name to the checksums, with a checksum that is right for some file."""
    names = ["../../../../text.txt", str(folder / "text.txt"), "more.bin", ".", "..", "", "a\0b",
             "\ud800", "x" * 300]  # fmt: skip
    name, sums = rng.choice(names), read_json(folder / SUMS)
    write_json(folder / SUMS, sums | {name: sums["config.json"]})
    return Damage(f"sha256.json names {name[:20]!a}")


STATE_LEAVES: tuple[Leaf, ...] = (
    *(("step",), ("config",), ("generators",), ("generators", "data"), ("data",)),
    *(("generators", "dropout"), ("generators", "data", "state"), ("data", "sha256")),
    *(("generators", "data", "bit_generator"), ("generators", "data", "state", "state")),
    *(("generators", "dropout", "state", "inc"), ("generators", "data", "has_uint32")),
    *(("generators", "dropout", "uinteger"), ("config", "n_layer"), ("config", "learning_rate")),
    *(("config", "bias"), ("config", "seed"), ("config", "batch_size")),
)
STATES = one_of(
    json_types(STATE, *STATE_LEAVES),
    json_removed(STATE, ("val_loss",), *(leaf for leaf in STATE_LEAVES if leaf[0] != "config")),
    json_values(
        STATE,
        {
            ("step",): [-1, 1.5, HUGE, NAN],
            ("val_loss",): [NAN, float("inf"), "x", True, -1],
            ("generators", "data", "state", "state"): [-1, 1.5, 2**128],
            ("generators", "dropout", "state", "inc"): [-1, 0.5, 2**200],
            ("generators", "data", "has_uint32"): [-1, HUGE],
            ("generators", "dropout", "uinteger"): [-1, 2**32, HUGE],
            ("generators", "data", "bit_generator"): ["MT19937", "nonsense"],
            ("data", "sha256"): ["0" * 64],
            ("config", "n_embd"): [16],
            ("config", "dropout"): [0.5],
        },
    ),
)
SIZES = ("block_size", "n_layer", "n_head", "n_embd", "vocab_size")
NAMES = (
    *("nosuch", "../nosuch", "/nosuch", "mine/nosuch", "\ud800", "x" * 300, "a\nb", "~"),
    *("runs", ".", "..", "text.txt", "mine/config.json", "/dev/null", "/dev/zero", "", " "),
    *("[bold]mine[/bold]", "runs/mine/checkpoints", "\x1b[31mmine", "mine/../mine/.."),
)
VOCABULARIES: dict[str, Callable[[list[Any]], Any]] = {
    "a character too many": lambda v: [*v, "é"],
    "a character too few": lambda v: v[:-1],
    "a character twice": lambda v: [*v[:-1], v[0]],
    "two characters in one": lambda v: [*v[:-1], "ab"],
    "an empty string": lambda v: [*v[:-1], ""],
    "a number": lambda v: [*v[:-1], 7],
    "half a surrogate pair": lambda v: [*v[:-1], "\ud800"],
    "null": lambda v: None,
    "an object": lambda v: dict.fromkeys(v, 1),
    "nothing": lambda v: [],
}

FAULTS = (
    refused(rewritten(FILES, BYTES), READERS, *(Path(f).name for f in FILES), weight=2),
    refused(displaced(*FILES), READERS, *(Path(f).name for f in FILES)),
    harmless(linked(CONFIG, MODEL, STATE), (SAMPLE, EVALUATE)),
    harmless(linked(RUN, f"{RUN}/checkpoints", LAST), (SAMPLE, CONVERT)),
    refused(sealed(STATES), TRAINING, "state.json", "runs/mine was trained", weight=5),
    either(sealed(STATES), (SAMPLE,), "state.json"),  # Only training needs the state.
    refused(sealed(wrecked(STATE)), READERS, "state.json"),
    refused(
        sealed(
            one_of(
                json_types(CONFIG, *((name,) for name in (*SIZES, "dropout", "bias", "gelu"))),
                json_removed(CONFIG, *((name,) for name in SIZES)),
                json_values(CONFIG, {(name,): [0, -1, 1.5, HUGE, 3, 7, 10**9] for name in SIZES}),
                json_values(CONFIG, {(name,): [1, "x"] for name in ("n_experts", "", "\ud800")}),
            )
        ),
        READERS,
        *("config.json", "model.safetensors", "tokenizer.json"),
        weight=4,
    ),
    refused(sealed(one_of(tensor(MODEL), header(MODEL))), READERS, "model.safetensors", weight=2),
    refused(
        sealed(one_of(tensor(OPTIMIZER), header(OPTIMIZER))),
        TRAINING, "optimizer.safetensors", weight=2,
    ),
    refused(
        sealed(
            json_whole(
                TOKENIZER,
                {
                    way: lambda v, change=change: v | {"vocabulary": change(v["vocabulary"])}
                    for way, change in VOCABULARIES.items()
                },
            )
        ),
        READERS, "tokenizer", "vocabulary",
    ),
    refused(foreign_name, READERS, "sha256.json", "000002"),
    refused(
        json_values(SUMS, {("config.json",): [7, None, REMOVED], ("tokenizer.json",): [REMOVED]}),
        READERS, "sha256.json",
    ),
    refused(added({f"{LAST}/{name}": [b"x"] for name in ("notes.txt", "vocab.json")}), READERS,
            "sha256.json"),
    refused(
        one_of(
            json_types(f"{RUN}/config.json", *((n,) for n in (*SIZES[:4], "bias", "seed", "data",
                       "learning_rate", "max_iters", "dropout", "tokenizer", "backend"))),
            json_removed(f"{RUN}/config.json", ("n_layer",), ("data",), ("learning_rate",)),
            wrecked(f"{RUN}/config.json"),
            rewritten([f"{RUN}/config.json"], SPOILT),
            displaced(f"{RUN}/config.json"),
        ),
        TRAINING, "config.json", "no file", "runs/mine", "no run mine", weight=4,
    ),
    refused(
        one_of(
            displaced(f"{RUN}/metrics.jsonl", ways=("a folder", "a FIFO")),
            rewritten(
                [f"{RUN}/metrics.jsonl"],
                {
                    f"beginning with {line[:20]!r}": lambda rng, content, line=line: line + content
                    for line in (b"\n", b"null\n", b"{}\n", b"[1]\n", b'{"step": "x"}\n', b"\xff\n",
                                 b"[" * 100_000 + b"\n")
                },
            ),
        ),
        (RESUME,), "metrics.jsonl",
    ),
    either(half_a_line, (RESUME,), check=went_on, may_change=(f"{RUN}/",)),
    harmless(
        added({f"{RUN}/checkpoints/{n}/x": [b"x"] for n in (".writing-000003", "abc", "-1", "²")}),
        (SAMPLE, EVALUATE, CONVERT),
    ),
    harmless(added({f"{RUN}/checkpoints/{n}": [b"x"] for n in ("000003", "abc")}),
             (SAMPLE, EVALUATE, CONVERT)),
    refused(added({f"{RUN}/checkpoints/{n}/x": [b"x"] for n in ("000003", "9" * 30, "٣")}), READERS,
            "000003", "9" * 30, "٣"),
    refused(displaced(f"{RUN}/checkpoints", ways=("missing", "a folder", "a dangling link")),
            (SAMPLE, CONVERT), "mine"),
    refused(
        name_of_run(*NAMES),
        (("sample", *inputs.SAMPLING), ("train", "--resume")),
        weight=2,
    ),
    refused(
        arguments(*(("--name", name) for name in
                    ("", ".", "..", "a/b", "/tmp/x", "mine", "x" * 300, "\ud800", "../x"))),
        (TRAIN,), "--name", "runs/",
    ),
    refused(
        arguments(
            *(("--n-layer", "3"), ("--dropout", "0.5"), ("--seed", "7"), ("--tokenizer", "gpt2")),
            *(("--name", "other"), ("--preset", "smoke"), ("--backend", "numba")),
            *(("--block-size", "4"), ("--learning-rate", "0.1"), ("--dtype", "float64")),
            *(("--init-from", "gpt2"), ("--data", "shakespeare"), ("--data", "nosuch.txt")),
        ),
        (RESUME,), "--n-layer", "--dropout", "--seed", "--tokenizer", "--name", "--preset",
        "--backend", "--block-size", "--learning-rate", "--dtype", "--init-from", "shakespeare",
        "nosuch.txt",
    ),
    refused(nothing, (("train", "--resume", "mine"),), "steps"),
)  # fmt: skip
