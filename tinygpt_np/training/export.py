"""Convert nanoGPT's checkpoints, and runs, to folders that GPT-2's ecosystem reads.

nanoGPT keeps a checkpoint as a pickle of tensors, `ckpt.pt`. It is read by PyTorch, which must be
installed, and which takes nothing out of it but tensors and plain values (weights_only).
"""

import contextlib
import importlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import checkpoint, files, hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import each_param
from tinygpt_np.text import corpus as data
from tinygpt_np.text import tokenizers
from tinygpt_np.text.reading import BYTE_ORDER_MARK
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer
from tinygpt_np.training import runs

# Prefixes that distributed training and torch.compile add to each name, in any order.
WRAPPERS = re.compile(r"(module\.|_orig_mod\.)*")


def convert(
    source: str, out: Path, text: str | None = None, tokenizer_path: str = ""
) -> tuple[GPT, Tokenizer | None]:
    """Write the folder `out`, which must not exist, from a ckpt.pt, a run or another model.

    Parameters
    ----------
    source : str
        A ckpt.pt, or a model as runs.find finds it.
    out : Path
        The new folder.
    text : str, optional
        For a model of characters without a tokenizer, as in every ckpt.pt: the text that it was
        trained on (see data.load), for the vocabulary.
    tokenizer_path : str
        For another model without a tokenizer: the files of its tokenizer.

    Returns
    -------
    tuple of GPT and Tokenizer or None
        What was written. Only a model with as many tokens as GPT-2 may have no tokenizer.

    Raises
    ------
    CheckpointError
        If the source is no such model, or its tokenizer is missing or does not fit.
    """
    files.refuse_existing(out)
    if Path(source).is_file():
        model, tokenizer = from_nanogpt(Path(source)), None
    else:
        model, tokenizer = runs.read(runs.find(source))
    if tokenizer is None:
        tokenizer = tokenizer_for(model, source, text, tokenizer_path)
    elif text is not None or tokenizer_path:
        raise ValueError(
            f"--text and --tokenizer-path are for a model without a tokenizer; {source} has its own"
        )
    model.save_pretrained(out, tokenizer)
    return model, tokenizer


def tokenizer_for(
    model: GPT, source: str, text: str | None, tokenizer_path: str
) -> Tokenizer | None:
    """Return the tokenizer that a text or its files make; None for GPT-2's, which is known."""
    if text is not None:
        return characters(text, model.vocab_size)
    if tokenizer_path:
        tokenizer = tokenizers.at(Path(tokenizer_path))
        runs.check_vocabulary(Path(source), model, tokenizer)
        return tokenizer
    if model.vocab_size < runs.GPT2_TOKENS:
        raise CheckpointError(
            f"{source} has a model of {model.vocab_size} tokens, but no tokenizer, and could not "
            "be sampled: add --text FILE, the text that a model of characters was trained on, or "
            "--tokenizer-path PATH, the files of its tokenizer"
        )
    return None


def from_nanogpt(path: Path) -> GPT:
    """Return the model in a ckpt.pt of nanoGPT. Raise CheckpointError for anything else."""
    contents = read(path)
    tensors = named(contents["model"], path)
    config = config_of(contents["model_args"], tensors, path)
    head = tensors.pop(hugging_face.HEAD, None)
    check_sizes(tensors, head, config, path)
    # Only now, when their sizes are known, are they converted, and copied if need be.
    arrays = {name: array(tensor, name) for name, tensor in tensors.items()}
    if head is not None:
        arrays[hugging_face.HEAD] = array(head, hugging_face.HEAD)
    params = checkpoint.matching(
        hugging_face.ours(arrays, path), each_param(config), "float32", path
    )
    return GPT(config, params={n: np.ascontiguousarray(param) for n, param in params.items()})


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the model and model_args in a ckpt.pt; its tensors are mapped, not read."""
    check_zip(path)
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise CheckpointError(
            f"{path} is read by PyTorch: pip install torch, which is needed for this alone"
        ) from None
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Whatever a damaged or malicious pickle makes of it.
        # PyTorch's own words are long, and advise to open it all the same.
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and plain values, and is not opened "
            f"({reason})"
        ) from None
    check_records(found, path)
    contents = cast(dict[str, Any], found if isinstance(found, dict) else {})
    parts = {name: contents.get(name) for name in ("model", "model_args")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise CheckpointError(f"{path} should have nanoGPT's model and model_args")
    return cast(dict[str, dict[str, Any]], parts)


def check_zip(path: Path) -> None:
    """Raise CheckpointError unless a file is a zip of uncompressed files, as PyTorch writes it.

    Their checksums are compared, because PyTorch does not, and a changed weight is still a weight.
    """
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


def check_records(contents: Any, path: Path) -> None:
    """Raise CheckpointError unless the zip has a file of the right size for every storage.

    PyTorch maps a storage by where its file begins, and would read on into the next one.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = Counter(entry.file_size for entry in archive.infolist())
    found = {storage.data_ptr(): storage.nbytes() for storage in storages(contents)}
    for size in Counter(found.values()) - sizes:
        raise CheckpointError(
            f"{path} is damaged: no file in it has the {size:,} bytes of a tensor"
        )


def storages(contents: Any) -> Iterator[Any]:
    """Yield the memory of all tensors in a checkpoint that are in memory."""
    if isinstance(contents, dict | list | tuple):
        found = cast(Any, contents)
        parts: Iterable[Any] = found.values() if isinstance(contents, dict) else found
        for part in parts:
            yield from storages(part)
    elif getattr(contents, "device", None) is not None and contents.device.type == "cpu":
        with contextlib.suppress(NotImplementedError):  # A sparse tensor has none.
            yield contents.untyped_storage()


def named(tensors: dict[Any, Any], path: Path) -> dict[str, Any]:
    """Return the tensors by their names in a GPT-2, without masks."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        plain = WRAPPERS.sub("", str(name), count=1).removeprefix(hugging_face.PREFIX)
        if hugging_face.is_mask(plain, getattr(tensor, "shape", ())):
            continue
        if plain in found:
            raise CheckpointError(f"{path}: {plain} is there twice")
        check_tensor(tensor, plain, path)
        found[plain] = tensor
    return found


def check_tensor(tensor: Any, name: str, path: Path) -> None:
    """Raise CheckpointError unless it is a tensor whose values are there, and are floats."""
    try:
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        good = tensor.is_floating_point() and kind.endswith("torch.strided, on cpu")
    except AttributeError:
        kind, good = "None" if tensor is None else type(tensor).__name__, False
    if not good:
        raise CheckpointError(f"{path}: {name} should be a tensor of floats, but is {kind}")


def check_sizes(tensors: Mapping[str, Any], head: Any, config: GPTConfig, path: Path) -> None:
    """Raise CheckpointError unless all tensors are as large as the configuration says, and no
    larger together than the file: expanded ones (of stride 0) may claim any size.
    """
    found = {name: shape_of(tensor, name) for name, tensor in tensors.items()}
    shapes = checkpoint.expected_shapes(found, each_param(config), path)
    table = hugging_face.TABLE
    checked = [(name, found[name], shape) for name, shape in shapes.items()]
    if head is not None:
        checked.append((hugging_face.HEAD, tuple(head.shape), shapes[table]))
    for name, shape, expected in checked:
        if shape != expected:
            raise CheckpointError(f"{path}: {name} should be {expected}, but is {shape}")
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    has = path.stat().st_size
    if needed > has:
        raise CheckpointError(
            f"{path} claims tensors of {needed:,} bytes in all, but has only {has:,} bytes"
        )


def shape_of(tensor: Any, name: str) -> tuple[int, ...]:
    """Return a tensor's shape here: a linear layer is (out, in) in PyTorch, and (in, out) here."""
    shape = tuple(tensor.shape)
    return shape[::-1] if is_turned(name, shape) else shape


def array(tensor: Any, name: str) -> np.ndarray:
    """Return a tensor as an array of float32, in our layout."""
    found: np.ndarray = tensor.detach().float().numpy()
    return found.T if is_turned(name, found.shape) else found


def is_turned(name: str, shape: tuple[int, ...]) -> bool:
    return ".c_" in name and len(shape) == 2


def config_of(found: dict[str, Any], tensors: Mapping[str, Any], path: Path) -> GPTConfig:
    """Return nanoGPT's model_args as our configuration; its GELU is the exact one.

    Early in 2023 there was no `bias` in it, and before that no `dropout`.
    """
    values: dict[str, Any] = {"bias": "ln_f.bias" in tensors, "dropout": 0.0, **found}
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
    try:
        return GPTConfig(**{name: values[name] for name in names}, gelu="exact")
    except KeyError as error:
        raise CheckpointError(f"{path}: model_args lacks {error.args[0]}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: model_args is not that of a GPT: {error}") from None


def characters(text: str, vocab_size: int) -> CharTokenizer:
    """Return nanoGPT's characters: those of the text, sorted; it keeps them in a pickle.

    A byte order mark is one of them, if the file was prepared by nanoGPT.
    """
    corpus = data.load(text, keep_mark=True)
    plain = CharTokenizer.from_text(corpus.text.removeprefix(BYTE_ORDER_MARK))
    for found in (plain, CharTokenizer.from_text(corpus.text)):
        if found.vocab_size == vocab_size:
            return found
    raise CheckpointError(
        f"{corpus.name} has {plain.vocab_size} characters, but the model was trained on "
        f"{vocab_size}: it is another text"
    )
