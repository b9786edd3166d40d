"""Read nanoGPT's checkpoints.

A ckpt.pt is a zip file with a pickle of tensors. PyTorch reads it, and has to be installed; with
``weights_only`` it loads only tensors and plain values, so no code in the pickle is run.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.storage import checkpoint, gpt2, hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import Tensors, each_param

# Prefixes that distributed training and torch.compile add to each name, in any order.
WRAPPERS = re.compile(r"(module\.|_orig_mod\.)*")


def load(path: Path) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a ckpt.pt."""
    model, model_args = read(path)
    tensors = rename(model, path)
    check_records(tensors, path)
    config = read_config(model_args, tensors, path)
    # Converting may copy a tensor, so it is done only after the sizes have been checked.
    check_sizes(tensors, config, path)
    arrays = {name: to_array(tensor, name) for name, tensor in tensors.items()}
    params = hugging_face.without_head(arrays, gpt2.TABLE, path)
    params = checkpoint.matching(params, each_param(config), "float32", path)
    return config, {name: np.ascontiguousarray(param) for name, param in params.items()}


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``model`` and ``model_args`` of a ckpt.pt, with the tensors mapped into memory."""
    check_zip(path)
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CheckpointError(
            f"{path} is read by PyTorch: pip install torch, which is needed for this alone"
        ) from None
    library: Any = torch
    try:
        found: Any = library.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # A damaged or malicious pickle can raise anything.
        # PyTorch's own message is long and suggests loading without weights_only.
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and plain values, and is not opened "
            f"({type(error).__name__})"
        ) from None
    contents = checkpoint.as_object(found)
    model, model_args = (checkpoint.as_object(contents.get(n)) for n in ("model", "model_args"))
    if not model or not model_args:
        raise CheckpointError(f"{path} should have nanoGPT's model and model_args")
    return model, model_args


def check_zip(path: Path) -> None:
    """Raise CheckpointError unless a file is an uncompressed zip with correct checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            plain = all(e.compress_type == zipfile.ZIP_STORED for e in archive.infolist())
            damaged = archive.testzip() if plain else None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise CheckpointError(f"{path} is not a PyTorch checkpoint: it is not a zip file") from None
    if not plain:
        raise CheckpointError(f"{path} is compressed, which PyTorch's checkpoints are not")
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it is wrong")


def check_records(tensors: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError unless the zip has a file of the right size for every storage."""
    # PyTorch maps a storage from the offset of its file and reads past a file that is too short.
    with zipfile.ZipFile(path) as archive:
        sizes = Counter(entry.file_size for entry in archive.infolist())
    storages = (tensor.untyped_storage() for tensor in tensors.values())
    found = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for size in Counter(found.values()) - sizes:
        raise CheckpointError(
            f"{path} is damaged: no file in it has the {size:,} bytes of a tensor"
        )


def rename(tensors: dict[Any, Any], path: Path) -> dict[str, Any]:
    """Return the tensors by their names in GPT-2, without attention masks."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        plain = WRAPPERS.sub("", str(name), count=1).removeprefix(gpt2.PREFIX)
        if gpt2.is_buffer(plain, getattr(tensor, "shape", ())):
            continue
        if plain in found:
            raise CheckpointError(f"{path}: {plain} is there twice")
        check_tensor(tensor, plain, path)
        found[plain] = tensor
    return found


def check_tensor(tensor: Any, name: str, path: Path) -> None:
    """Raise CheckpointError unless a value is a dense tensor of floats on the CPU."""
    try:
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        good = tensor.is_floating_point() and kind.endswith("torch.strided, on cpu")
    except AttributeError:
        kind, good = "None" if tensor is None else type(tensor).__name__, False
    if not good:
        raise CheckpointError(f"{path}: {name} should be a tensor of floats, but is {kind}")


def read_config(found: dict[str, Any], tensors: Mapping[str, Any], path: Path) -> GPTConfig:
    """Return nanoGPT's ``model_args`` as a GPTConfig. nanoGPT uses the exact GELU."""
    # Checkpoints from early 2023 have no bias, and older ones no dropout.
    values: dict[str, Any] = {"bias": "ln_f.bias" in tensors, "dropout": 0.0, **found}
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
    try:
        return GPTConfig(**{name: values[name] for name in names}, activation="gelu_exact")
    except KeyError as error:
        raise CheckpointError(f"{path}: model_args lacks {error.args[0]}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: model_args is not a GPT's: {error}") from None


def check_sizes(tensors: Mapping[str, Any], config: GPTConfig, path: Path) -> None:
    """Raise CheckpointError unless shapes match the configuration and fit into the file."""
    params = {name: tensor for name, tensor in tensors.items() if name != hugging_face.HEAD}
    found = {name: shape_of(tensor, name) for name, tensor in params.items()}
    shapes = checkpoint.expected_shapes(found, each_param(config), path)
    if hugging_face.HEAD in tensors:
        shapes[hugging_face.HEAD] = shapes[gpt2.TABLE]
    for name, expected in shapes.items():
        shape = shape_of(tensors[name], name)
        if shape != expected:
            raise CheckpointError(f"{path}: {name} should be {expected}, but is {shape}")
    # An expanded tensor, of stride 0, can claim any size.
    needed = sum(tensor.numel() * tensor.element_size() for tensor in params.values())
    size = path.stat().st_size
    if needed > size:
        raise CheckpointError(
            f"{path} claims tensors of {needed:,} bytes in all, but has only {size:,} bytes"
        )


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is the matrix of a linear layer, which PyTorch stores (out, in)."""
    return ".c_" in name and len(shape) == 2


def shape_of(tensor: Any, name: str) -> tuple[int, ...]:
    """Return the shape that a tensor will have as an array."""
    shape = tuple(tensor.shape)
    return shape[::-1] if is_linear(name, shape) else shape


def to_array(tensor: Any, name: str) -> np.ndarray:
    """Return a tensor as a float32 array; linear layers are (in, out)."""
    found: np.ndarray = tensor.detach().float().numpy()
    return found.T if is_linear(name, found.shape) else found
