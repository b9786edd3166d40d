"""Files that survive: weights in safetensors, the rest in JSON, every folder whole or not there.

A model is a folder with config.json and model.safetensors. A training checkpoint is such a folder
with the tokenizer, the optimizer, and the state of the run added. A folder is written under a
temporary name, synced to disk, and renamed, so a crash at any moment leaves the last one intact.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from tinygpt_np.config import GPTConfig

CONFIG, MODEL = "config.json", "model.safetensors"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
CHECKSUMS = "sha256.json"
TEMPORARY = ".writing-"
KEPT = 2

Tensors = dict[str, np.ndarray]


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or is not what it should be."""


def save_model(folder: Path, config: GPTConfig, params: Tensors) -> None:
    """Writes config.json and model.safetensors into a new folder."""
    write_folder(folder, {CONFIG: to_json(asdict(config)), MODEL: to_safetensors(params)})


def load_model(folder: Path) -> tuple[GPTConfig, Tensors]:
    """The configuration and parameters in a folder."""
    found = read_json(folder / CONFIG)
    try:
        config = GPTConfig(**found)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} is not a GPT's configuration: {error}") from None
    params = read_safetensors(folder / MODEL)
    for name, param in params.items():
        if param.dtype.name not in ("float32", "float64"):
            raise CheckpointError(
                f"{folder / MODEL}: {name} should be float32 or float64, but is {param.dtype}"
            )
    return config, params


def save_checkpoint(
    checkpoints: Path,
    step: int,
    config: GPTConfig,
    params: Tensors,
    tokenizer: Mapping[str, bytes],
    optimizer: Tensors,
    state: dict[str, Any],
) -> Path:
    """Writes checkpoints/<step> and removes all but the last two. tokenizer: its files."""
    contents = {
        CONFIG: to_json(asdict(config)),
        MODEL: to_safetensors(params),
        **tokenizer,
        OPTIMIZER: to_safetensors(optimizer),
        STATE: to_json({"step": step, **state}),
    }
    # The checksums tell a damaged file from a whole one even where its format still parses.
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[CHECKSUMS] = to_json(checksums)
    for unfinished in checkpoints.glob(f"{TEMPORARY}*"):
        shutil.rmtree(unfinished)
    folder = checkpoints / f"{step:06d}"
    write_folder(folder, contents)
    for old in steps_in(checkpoints)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def load_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after all of its files were found to be whole."""
    checksums = read_json(folder / CHECKSUMS)
    # Beside these lie the files of the tokenizer, whichever it is.
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    if not {CONFIG, MODEL, OPTIMIZER, STATE} | present <= set(checksums):
        raise CheckpointError(f"{folder / CHECKSUMS} is not that of a training run")
    for name, expected in checksums.items():
        found = hashlib.sha256(read_bytes(folder / name)).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {CHECKSUMS}"
            )
    return read_json(folder / STATE)


def steps_in(checkpoints: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    found = (p for p in checkpoints.glob("*") if p.name.isdecimal() and p.is_dir())
    return sorted(found, key=lambda path: int(path.name))


def matching(
    found: Tensors, expected: Iterable[tuple[str, tuple[int, ...]]], dtype: str, path: Path
) -> Tensors:
    """The found tensors in the order of those expected, each a name and its shape.

    Raises unless names, shapes and dtype agree. The first that is missing ends it, however many
    layers a configuration claims.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in expected:
        if name not in found:
            raise CheckpointError(f"{path} lacks the tensor {name} {shape}")
        shapes[name] = shape
    for name, tensor in found.items():
        if name not in shapes:
            raise CheckpointError(
                f"{path} has the tensor {name} {tensor.shape}, which this model does not have"
            )
    ordered = {name: found[name] for name in shapes}
    for name, tensor in ordered.items():
        if tensor.shape != shapes[name] or tensor.dtype != dtype:
            raise CheckpointError(
                f"{path}: {name} should be {shapes[name]} {dtype}, "
                f"but is {tensor.shape} {tensor.dtype}"
            )
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has values that are not finite")
    return ordered


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_safetensors(tensors: Tensors) -> bytes:
    return safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()})


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return cast(dict[str, Any], found)


def read_safetensors(path: Path) -> Tensors:
    content = read_bytes(path)
    try:
        # Copied, because the arrays safetensors hands out are views of read-only bytes.
        return {name: t.copy() for name, t in safetensors.numpy.load(content).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Creates a folder with these files, in one step. Never overwrites."""
    if folder.exists():
        raise CheckpointError(f"{folder} exists already, and nothing is overwritten")
    temporary = folder.parent / f"{TEMPORARY}{folder.name}"
    make_folder(folder.parent)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in contents.items():
            write_synced(temporary / name, content)
        sync_folder(temporary)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(describe_write_error(folder, contents, error)) from None


def make_folder(folder: Path) -> None:
    """Creates a folder, and those above it, so that they last."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be created: {error.strerror}") from None


def write_file(path: Path, content: bytes) -> None:
    """Writes a file in one step: whoever reads it sees the old content or the new."""
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    make_folder(path.parent)
    try:
        write_synced(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(describe_write_error(path, {path.name: content}, error)) from None


def write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def describe_write_error(folder: Path, contents: Mapping[str, bytes], error: OSError) -> str:
    size = sum(len(content) for content in contents.values()) / 1e6
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {folder} needs {size:.1f} MB; what was saved before is intact"
    return f"{folder} cannot be written: {error.strerror}"


def sync_folder(folder: Path) -> None:
    """Makes a rename last, where the system can do so (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
