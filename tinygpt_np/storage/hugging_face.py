"""Read and write GPT-2 checkpoints in Hugging Face's format: config.json and model.safetensors.

Parameters have the same names and layout here, so a weight file is mapped into memory instead of
being read. The mapping is copy-on-write: training never changes the file.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
from safetensors import SafetensorError

from tinygpt_np.config import GPTConfig
from tinygpt_np.ops import layer_norm
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CONFIG, MODEL, CheckpointError
from tinygpt_np.storage.parameters import Tensors, each_param

NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# The files to download: the model and its tokenizer.
MODEL_FILES, TOKENIZER_FILES = (CONFIG, MODEL), ("vocab.json", "merges.txt")
PICKLE, SHARDS = "pytorch_model.bin", "model.safetensors.index.json"
PREFIX, HEAD, TABLE = "transformer.", "lm_head.weight", "wte.weight"
END_OF_TEXT = 50256
GELU = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}
# The architecture supported here. config.json may leave these out but must not differ.
FIXED: dict[str, Any] = {
    "model_type": "gpt2", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False, "tie_word_embeddings": True,
    "layer_norm_epsilon": layer_norm.EPSILON,
}  # fmt: skip
# The dtypes of safetensors; BF16 is the upper half of a float32.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def is_gpt2(folder: Path) -> bool:
    """Return whether a folder is a Hugging Face checkpoint, of any architecture."""
    if (folder / PICKLE).exists():
        return True
    return (folder / CONFIG).exists() and "model_type" in checkpoint.read_json(folder / CONFIG)


def load_saved(folder: Path) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a folder written by GPT.save, or a checkpoint."""
    refuse_run(folder)
    if str(folder) in NAMES or is_gpt2(folder):
        raise CheckpointError(
            f"{folder} is a GPT-2 in Hugging Face's format: "
            f"GPT.from_pretrained({str(folder)!r}) returns the model"
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}; tinygpt_np.load takes the names of runs and models"
        )
    return checkpoint.load_model(folder)


def refuse_run(folder: Path) -> None:
    """Raise CheckpointError if a folder is a training run; the message says how to load it."""
    if (folder / "checkpoints").is_dir() and not (folder / MODEL).exists():
        raise CheckpointError(
            f"{folder} is a training run: tinygpt_np.load({str(folder)!r}) returns its model and "
            "its tokenizer"
        )


def fetch(name: str | Path) -> Path:
    """Return the folder of a checkpoint; one of NAMES is downloaded to huggingface_hub's cache."""
    if name not in NAMES:
        if not Path(name).is_dir():
            known = ", ".join(NAMES)
            raise CheckpointError(f"there is no folder {name}; expected a folder or one of {known}")
        return Path(name)
    remedy = (
        f"put {', '.join(MODEL_FILES + TOKENIZER_FILES)} of huggingface.co/openai-community/{name} "
        f"into a folder and give that folder instead of {name}"
    )
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CheckpointError(
            f"{name} is downloaded by huggingface_hub: pip install 'tinygpt-np[hf]', or {remedy}"
        ) from None
    hub: Any = huggingface_hub
    logger, reasons = logging.getLogger("huggingface_hub"), list[str]()
    # The cache comes first, because there may be no network. If the tokenizer cannot be downloaded,
    # the model alone is enough.
    files = MODEL_FILES + TOKENIZER_FILES
    with warnings.catch_warnings(), contextlib.ExitStack() as restored:
        # Silence the library's log and warnings, but not its progress bar.
        restored.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
        for wanted, cached in ((files, True), (files, False), (MODEL_FILES, True)):
            try:
                found = [
                    hub.hf_hub_download(f"openai-community/{name}", file, local_files_only=cached)
                    for file in wanted
                ]
                return Path(found[0]).parent
            except Exception as error:  # The HTTP library has exceptions of its own.
                reasons.append(f"{type(error).__name__}: {error}".partition("\n")[0])
    raise CheckpointError(f"{name} cannot be downloaded ({reasons[1]}); {remedy}")


def load(folder: Path, dtype: str) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a folder, mapped into memory if possible."""
    refuse_run(folder)
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} has no {CONFIG}, and is not a checkpoint")
    config = read_config(folder / CONFIG)
    is_split = (folder / SHARDS).exists() and not (folder / MODEL).exists()
    path = folder / (SHARDS if is_split else MODEL)
    if not path.exists() and (folder / PICKLE).exists():
        raise CheckpointError(
            f"{folder} has its weights in {PICKLE}, a pickle, which is never read here; save them "
            f"as {MODEL}, as save_pretrained of transformers does"
        )
    found: Tensors = {}
    for file in shards(path) if is_split else [path]:
        for name, tensor in mapped(file):
            if name in found:
                raise CheckpointError(f"{file}: {name} is there twice")
            found[name] = tensor
    with np.errstate(over="ignore"):  # Values that overflow become infinite, which is refused.
        params = {n: t.astype(dtype, copy=False) for n, t in without_head(found, path).items()}
    return config, checkpoint.matching(params, each_param(config), dtype, path)


def shards(index: Path) -> list[Path]:
    """Return the files that an index lists, which are in its folder."""
    found = checkpoint.as_object(checkpoint.read_json(index).get("weight_map"))
    if not found:
        raise CheckpointError(f"{index} should have a weight_map of tensors to files")
    names = sorted(set(map(str, found.values())))
    for name in names:
        if Path(name).name != name or not name.isprintable():
            raise CheckpointError(f"{index} should name files in its folder, not {name!r}")
    return [index.parent / name for name in names]


def read_config(path: Path) -> GPTConfig:
    """Return a GPT-2's config.json as a GPTConfig, with dropout 0."""
    found = checkpoint.read_json(path)
    for name, expected in FIXED.items():
        value = found.get(name, None if name == "model_type" else expected)
        if value != expected:
            raise CheckpointError(f"{path}: {name} should be {expected}, but is {value}")
    activation = str(found.get("activation_function", "gelu_new"))
    if activation not in GELU:
        known = ", ".join(GELU)
        raise CheckpointError(
            f"{path}: activation_function should be one of {known}, but is {activation}"
        )
    try:
        config = GPTConfig(
            vocab_size=found["vocab_size"], block_size=found["n_positions"],
            n_layer=found["n_layer"], n_head=found["n_head"], n_embd=found["n_embd"],
            dropout=0.0, bias=True, activation=cast(Any, GELU[activation]),
        )  # fmt: skip
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error.args[0]}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a GPT-2's: {error}") from None
    inner = found.get("n_inner")
    if inner not in (None, 4 * config.n_embd):
        raise CheckpointError(
            f"{path}: n_inner should be 4·n_embd = {4 * config.n_embd}, but is {inner}"
        )
    return config


def mapped(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each tensor in a safetensors file but attention masks, mapped copy-on-write."""
    if path.exists() and not path.is_file():  # Opening a pipe may never end.
        raise CheckpointError(f"{path} should be a file, but is a folder, pipe or device")
    try:
        # The library checks the header: lengths, offsets, and that tensors do not overlap.
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    content = np.memmap(path, np.uint8, mode="c")
    for name, entry in header.items():
        if name == "__metadata__" or is_mask(name, entry["shape"]):
            continue
        if entry["dtype"] not in DTYPES:
            known = ", ".join(DTYPES)
            raise CheckpointError(
                f"{path}: {name} should be one of {known}, but is {entry['dtype']}"
            )
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.asarray(content[start:end]).view(dtype).reshape(shape)
        if start % dtype.itemsize:
            values = values.copy()  # Aligned, as NumPy and Numba expect.
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values


def is_mask(name: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor is a causal mask or its fill value instead of a parameter."""
    return name.endswith(".attn.masked_bias") or (name.endswith(".attn.bias") and len(shape) == 4)


def without_head(found: Tensors, path: Path) -> Tensors:
    """Return the tensors without the prefix of their names and without the tied output head."""
    params = {name.removeprefix(PREFIX): tensor for name, tensor in found.items()}
    if len(params) < len(found):
        raise CheckpointError(
            f"{path} has tensors both with {PREFIX} before their names and without"
        )
    head = params.pop(HEAD, None)
    if head is not None and not np.array_equal(head, params.setdefault(TABLE, head)):
        raise CheckpointError(
            f"{path}: {HEAD} should be {TABLE}, as in every GPT-2, but is another matrix "
            f"of {head.shape}"
        )
    return params


def save(folder: Path, config: GPTConfig, params: Tensors, others: dict[str, bytes]) -> None:
    """Write a new folder that transformers loads as a GPT-2, with zeros for missing biases."""
    zeros = {
        name.replace(".weight", ".bias"): np.zeros(param.shape[-1:], param.dtype)
        for name, param in params.items()
        if name not in (TABLE, "wpe.weight")
    }
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in {**zeros, **params}.items()}
    contents = {
        CONFIG: checkpoint.to_json(description(config, params[TABLE].dtype.name)),
        MODEL: checkpoint.to_safetensors(tensors, {"format": "pt"}),
        **others,
    }
    files.write_folder(folder, contents)


def description(config: GPTConfig, dtype: str) -> dict[str, Any]:
    """Return the config.json of transformers' GPT2LMHeadModel."""
    end = END_OF_TEXT if config.vocab_size > END_OF_TEXT else None
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout)
    return {
        "architectures": ["GPT2LMHeadModel"],
        **FIXED,
        "activation_function": "gelu_new" if config.activation == "gelu" else "gelu",
        "vocab_size": config.vocab_size, "n_positions": config.block_size,
        "n_ctx": config.block_size, "n_embd": config.n_embd, "n_layer": config.n_layer,
        "n_head": config.n_head, "n_inner": None, **dropouts,
        "bos_token_id": end, "eos_token_id": end, "torch_dtype": dtype,
    }  # fmt: skip
