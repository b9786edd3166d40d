"""Damaged checkpoints of nanoGPT; storage/test_nanogpt.py tests wrong tensors and archives."""

import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from campaign import inputs
from campaign.damage import (
    BYTES,
    DEVICES,
    PLACES,
    SPOILT,
    arguments,
    displaced,
    linked,
    rewritten,
)
from campaign.faults import Action, Damage, either, harmless, refused
from helpers.nanogpt_checkpoints import CONFIG, contents, generic
from helpers.optional import needs

CKPT = "ckpt.pt"
CONVERT = (("convert", CKPT, "out", "--text", "text.txt"),)
Contents = dict[Any, Any]
# Return other contents, given random numbers, the right contents and PyTorch.
Way = Callable[[Random, Contents, Any], Any]


def build(folder: Path) -> None:
    inputs.text(folder)
    needs("torch").save(contents(generic(CONFIG)), folder / CKPT)


def saved(ways: Mapping[str, Way], **options: Any) -> Action:
    """Save other contents with PyTorch."""

    def action(rng: Random, folder: Path) -> Damage:
        torch, way = needs("torch"), rng.choice(list(ways))
        value = ways[way](rng, contents(generic(CONFIG)), torch)
        torch.save(value, folder / CKPT, **options)
        return Damage(way)

    return action


def in_model(change: Callable[[Contents, Any], Contents]) -> Way:
    return lambda rng, found, torch: found | {"model": change(found["model"], torch)}


def wrong_arguments(rng: Random, found: Contents, torch: Any) -> Contents:
    name = rng.choice(sorted(found["model_args"]))
    wrong: list[Any] = ["x", None, [], {}, -1, float("nan"), torch.ones(2), 7]
    if name not in ("bias", "dropout"):
        wrong += [0, 1.5, 10**30, 5, 10**9]
    found["model_args"][name] = rng.choice(wrong)
    return found


class Call:
    """A call that a pickle makes when it is loaded without checks."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def code(rng: Random, found: Contents, torch: Any) -> Contents:
    """Add a call that makes a file; the runner finds the file."""
    call = rng.choice(
        (
            Call(eval, "open('canary', 'w').close()"),
            Call(exec, "open('canary', 'w').close()"),
            Call(open, "canary", "w"),
            Call(subprocess.call, ["touch", "canary"]),
            Call(shutil.copyfile, "text.txt", "canary"),
        )
    )
    return found | {rng.choice(("config", "model", "model_args", "optimizer")): call}


def pickled(rng: Random, folder: Path) -> Damage:
    (folder / CKPT).write_bytes(pickle.dumps(code(rng, {}, None)))
    return Damage("code in a pickle")


WRONG: dict[str, Way] = {
    "a state_dict": lambda rng, found, torch: found["model"],
    "no model_args": lambda rng, found, torch: {"model": found["model"]},
    "no model": lambda rng, found, torch: {"model_args": found["model_args"]},
    "an empty model": in_model(lambda model, torch: {}),
    "a list": lambda rng, found, torch: [found],
    "a tensor": lambda rng, found, torch: torch.ones(3),
    "None": lambda rng, found, torch: None,
    "names that are numbers": in_model(lambda model, torch: {7: torch.ones(3)}),
    "names with surrogates": in_model(lambda model, torch: {"\ud800": torch.ones(3)}),
    "control characters": in_model(lambda model, torch: model | {"a\0b\x1b[31m": torch.ones(3)}),
    "a long name": in_model(lambda model, torch: model | {"x" * 300: torch.ones(3)}),
    "two prefixes": in_model(lambda m, torch: m | {"module.ln_f.bias": torch.ones(12)}),
    "another head": in_model(lambda m, torch: m | {"lm_head.weight": m["lm_head.weight"] + 1}),
}

FAULTS = (
    refused(rewritten([CKPT], SPOILT), CONVERT, CKPT, weight=3),
    either(rewritten([CKPT], {"with a bit flipped": BYTES["with one bit flipped"]}), CONVERT, CKPT),
    refused(displaced(CKPT, ways=(*PLACES, *DEVICES)), CONVERT, CKPT),
    harmless(linked(CKPT), CONVERT),
    refused(saved({"wrong arguments": wrong_arguments}), CONVERT, CKPT, "memory", weight=3),
    refused(saved(WRONG), CONVERT, CKPT, weight=2),
    refused(saved({"code": code}), CONVERT, CKPT, weight=2),
    refused(saved({"code": code}, _use_new_zipfile_serialization=False), CONVERT, CKPT),
    refused(pickled, CONVERT, CKPT),
    refused(
        arguments(*((out,) for out in ("text.txt", ".", CKPT, "text.txt/x", "/proc/x"))),
        (("convert", CKPT, "--text", "text.txt"),), "text.txt", ".", CKPT, "/proc",
    ),
)  # fmt: skip
