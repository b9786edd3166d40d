"""Save and load models and training checkpoints: weights in safetensors, the rest in JSON.

A model is a folder with config.json and model.safetensors. A checkpoint also has the tokenizer,
the optimizer and the state of the run. Loading checks everything: checksums detect damage, and
values must have the types, ranges and shapes that training writes.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from tinygpt_np.config import Architecture, GPTConfig, Purpose, TrainConfig, generator
from tinygpt_np.storage import files
from tinygpt_np.storage.files import FileError
from tinygpt_np.storage.parameters import Shape, Tensors, each_param

CONFIG, MODEL = "config.json", "model.safetensors"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
CHECKSUMS = "sha256.json"
BEST = "best"
# The number of newest checkpoints that are kept.
KEPT = 2
# Settings that older runs lack, because today's default was the only value.
ADDED_LATER = (
    *("threads", "matmul", "dtype", "tokenizer", "tokenizer_path", "init_from"),
    *("gradient_accumulation_steps", "vocab_size", "keep_best"),
    *("optimizer", "muon_learning_rate", "muon_momentum", "lr_decay", "data_order"),
    *("n_kv_head", "n_inner", "norm", "norm_epsilon", "positions", "rope_theta", "qk_norm"),
    *("activation", "tied_head", "logit_soft_cap", "init_std", "embedding_std"),
    *("eval_tokens", "reduction"),
)
# The values of the field `gelu`, which was here before `activation`.
GELU = {"tanh": "gelu", "exact": "gelu_exact"}
# The random generators whose state is saved.
GENERATORS: tuple[Purpose, ...] = ("data", "dropout")

Config = TypeVar("Config", GPTConfig, TrainConfig)
# The exception that callers catch.
CheckpointError = FileError


@dataclass(frozen=True)
class State:
    """The state of a run between two steps, without its tensors.

    val_loss is None if these weights were not evaluated. generators has the state of each of
    GENERATORS; data_name and data_sha256 identify the training data.
    """

    step: int
    val_loss: float | None
    config: TrainConfig
    generators: dict[str, Any]
    data_name: str
    data_sha256: str


def save_model(folder: Path, config: GPTConfig, params: Tensors) -> None:
    """Write config.json and model.safetensors into a new folder."""
    files.write_folder(folder, {CONFIG: to_json(asdict(config)), MODEL: to_safetensors(params)})


def load_model(folder: Path) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a folder, which may be float32 or float64."""
    config, path = config_of(GPTConfig, read_json(folder / CONFIG), folder / CONFIG), folder / MODEL
    found = read_safetensors(path)
    dtype = "float64" if {t.dtype.name for t in found.values()} == {"float64"} else "float32"
    return config, matching(found, each_param(config), dtype, path)


def config_of(kind: type[Config], found: Any, path: Path) -> Config:
    """Return a configuration from the JSON in a file. Raise CheckpointError if a field is wrong."""
    what = "a GPT's configuration" if kind is GPTConfig else "the configuration of a training run"
    values = as_object(found)
    if "gelu" in values and "activation" not in values:
        gelu = values.pop("gelu")
        values["activation"] = GELU.get(gelu, gelu) if isinstance(gelu, str) else gelu
    optional = {f.name for f in fields(kind) if f.default is not MISSING and f.name in ADDED_LATER}
    missing = [f.name for f in fields(kind) if f.name not in {*values, *optional}]
    if missing:
        raise CheckpointError(f"{path} is not {what}: it lacks {', '.join(missing)}")
    try:
        return kind(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is not {what}: {error}") from None


def save_checkpoint(
    checkpoints: Path,
    config: GPTConfig,
    params: Tensors,
    tokenizer: Mapping[str, bytes],
    optimizer: Tensors,
    state: State,
) -> Path:
    """Write checkpoints/<step>, with the tokenizer's files, and return this folder."""
    description = {
        "step": state.step,
        "config": asdict(state.config),
        "val_loss": state.val_loss,
        "generators": state.generators,
        "data": {"name": state.data_name, "sha256": state.data_sha256},
    }
    contents = {
        CONFIG: to_json(asdict(config)),
        MODEL: to_safetensors(params),
        **tokenizer,
        OPTIMIZER: to_safetensors(optimizer),
        STATE: to_json(description),
    }
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[CHECKSUMS] = to_json(checksums)
    folder = checkpoints / f"{state.step:06d}"
    files.write_folder(folder, contents)
    return folder


def prune(checkpoints: Path, keep_best: bool) -> None:
    """Remove all checkpoints but the two newest and the best, and leftovers of killed processes.

    With keep_best, `best` becomes a link to the checkpoint with the lowest validation loss, or
    OSError is raised if the file system has no links; the best checkpoint is kept anyway.
    """
    files.clean(checkpoints)
    link, best = checkpoints / BEST, best_in(checkpoints) if keep_best else None
    try:
        if best and best.name not in (link.name, link.resolve().name):
            files.write_link(link, best)
    finally:
        kept = {link.resolve().name, best.name if best else ""}
        for old in steps_in(checkpoints)[:-KEPT]:
            if old.name not in kept:
                files.remove_folder(old)


def best_in(checkpoints: Path) -> Path | None:
    """Return the earliest checkpoint with the lowest validation loss, or None."""
    link = checkpoints / BEST  # A folder instead of a link in a copy of a run.
    copied = [link] if link.is_dir() and not link.is_symlink() else []
    losses: dict[Path, float] = {}
    for folder in [*copied, *steps_in(checkpoints)]:
        try:
            loss = read_json(folder / STATE).get("val_loss")
        except CheckpointError:
            continue  # Damaged checkpoints are not kept.
        if is_loss(loss):
            losses[folder] = cast(float, loss)
    return min(losses, key=losses.__getitem__) if losses else None


def load_state(folder: Path) -> State:
    """Return the state of a checkpoint. Raise CheckpointError if any of its files is wrong."""
    check_files(folder)
    state = state_of(read_json(folder / STATE), folder / STATE)
    if folder.name.isdecimal() and int(folder.name) != state.step:
        raise CheckpointError(f"{folder / STATE} is of step {state.step}, but in {folder.name}")
    config = config_of(GPTConfig, read_json(folder / CONFIG), folder / CONFIG)
    for field in fields(Architecture):
        in_config, in_state = getattr(config, field.name), getattr(state.config, field.name)
        # Older fine-tuning runs have the pretrained model's dropout in config.json.
        if in_config != in_state and field.name != "dropout":
            raise CheckpointError(
                f"{folder}: {field.name} is {in_config} in {CONFIG}, but {in_state} in {STATE}"
            )
    return state


def check_files(folder: Path) -> None:
    """Raise CheckpointError unless a checkpoint's files are complete and match their checksums."""
    path = folder / CHECKSUMS
    checksums, present = read_json(path), {each.name for each in folder.iterdir()} - {CHECKSUMS}
    # The files of the tokenizer are not named here, because they depend on its kind.
    if not {CONFIG, MODEL, OPTIMIZER, STATE} | present <= set(checksums):
        raise CheckpointError(f"{path} does not list the files of a checkpoint")
    for name, expected in checksums.items():
        if name not in present:
            raise CheckpointError(f"{path} lists {name!r}, but there is no such file next to it")
        if hashlib.sha256(read_bytes(folder / name)).hexdigest() != expected:
            raise CheckpointError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {CHECKSUMS}"
            )


def state_of(found: dict[str, Any], path: Path) -> State:
    """Return a state from JSON. Raise CheckpointError, which names the wrong value."""
    config = config_of(TrainConfig, found.get("config"), path)
    generators, data = as_object(found.get("generators")), as_object(found.get("data"))
    step, loss = found.get("step"), found.get("val_loss", "missing")
    name, sha256 = data.get("name"), data.get("sha256")
    in_run = type(step) is int and 0 <= step <= config.max_iters
    is_known = loss is None or is_loss(loss)
    is_sha256 = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    checks = [
        ("step", step, in_run, f"a whole number in [0, {config.max_iters}]"),
        ("val_loss", loss, is_known, "null or a loss, finite and zero or more"),
        ("data.name", name, isinstance(name, str), "a string"),
        ("data.sha256", sha256, is_sha256, "a SHA-256"),
    ]
    for purpose in GENERATORS:
        state, wanted = generators.get(purpose), f"the state of a generator of {config.seed}"
        good = is_generator_state(state, config.seed, purpose)
        checks.append((f"generators.{purpose}", state, good, wanted))
    for what, value, holds, wanted in checks:
        if not holds:
            raise CheckpointError(f"{path}: {what} should be {wanted}, but is {value!r:.80}")
    return State(cast(int, step), loss, config, generators, cast(str, name), cast(str, sha256))


def is_loss(value: Any) -> bool:
    """Return whether a value from JSON can be a loss."""
    # JSON has integers that overflow a float.
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def is_generator_state(state: Any, seed: int, purpose: Purpose) -> bool:
    """Return whether a generator with this seed and purpose can have this state."""
    rng = generator(seed, purpose)
    increment: int = rng.bit_generator.state["state"]["inc"]  # Never changes.
    try:
        rng.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError):
        return False
    taken = rng.bit_generator.state
    # NumPy accepts 1.5 and True as 1.
    same = json.dumps(taken, sort_keys=True) == json.dumps(state, sort_keys=True)
    return same and taken["state"]["inc"] == increment and taken["has_uint32"] in (0, 1)


def load_optimizer(folder: Path, first: Tensors, second: Tensors) -> tuple[Tensors, Tensors]:
    """Return an optimizer's first and second moments, with the names and shapes of these."""
    path, moments = folder / OPTIMIZER, {"first": first, "second": second}
    dtype = next(iter(first.values())).dtype.name
    expected = [(f"{m}.{n}", t.shape) for m, tensors in moments.items() for n, t in tensors.items()]
    found = matching(read_safetensors(path), expected, dtype, path)
    for name in second:
        if (found[f"second.{name}"] < 0).any():
            raise CheckpointError(f"{path}: second.{name}, a mean of squares, has negative values")
    return {n: found[f"first.{n}"] for n in first}, {n: found[f"second.{n}"] for n in second}


def steps_in(checkpoints: Path) -> list[Path]:
    """Return the checkpoint folders in the order of their steps."""
    found = (p for p in checkpoints.glob("*") if p.name.isdecimal() and p.is_dir())
    return sorted(found, key=lambda path: int(path.name))


def matching(
    found: Tensors, expected: Iterable[tuple[str, Shape]], dtype: str, path: Path
) -> Tensors:
    """Return the tensors in the expected order. Raise CheckpointError unless they match."""
    shapes = expected_shapes({n: tensor.shape for n, tensor in found.items()}, expected, path)
    for name, shape in shapes.items():
        tensor = found[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise CheckpointError(
                f"{path}: {name} should be {shape} {dtype}, but is {tensor.shape} {tensor.dtype}"
            )
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has values that are not finite")
    return {name: found[name] for name in shapes}


def expected_shapes(
    found: Mapping[str, Shape], expected: Iterable[tuple[str, Shape]], path: Path
) -> dict[str, Shape]:
    """Return the expected shapes by name, or raise CheckpointError at the first missing name."""
    shapes: dict[str, Shape] = {}
    for name, shape in expected:
        if name not in found:
            raise CheckpointError(f"{path} lacks the tensor {name} {shape}")
        shapes[name] = shape
    for name in sorted(found.keys() - shapes.keys()):
        raise CheckpointError(
            f"{path} has the tensor {name} {tuple(found[name])}, which this model does not have"
        )
    return shapes


def to_json(value: Any) -> bytes:
    """Return a value as indented JSON in UTF-8."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_safetensors(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """Return tensors as the content of a safetensors file."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return safetensors.numpy.save(contiguous, metadata)


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file. Raise CheckpointError if it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # Reading a pipe may never end.
            raise CheckpointError(f"{path} should be a file, but is a folder, pipe or device")
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise CheckpointError if it has none."""
    content = read_bytes(path)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return cast(dict[str, Any], found)


def as_object(value: Any) -> dict[str, Any]:
    """Return a value from JSON if it is an object, else {}."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def read_safetensors(path: Path) -> Tensors:
    """Return the tensors in a safetensors file. Raise CheckpointError if it is damaged."""
    content = read_bytes(path)
    try:
        # safetensors returns read-only views.
        return {name: t.copy() for name, t in safetensors.numpy.load(content).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from None
