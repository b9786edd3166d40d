"""Read and write checkpoints in Hugging Face's format: config.json and model.safetensors.

The models are those of FAMILIES. A weight file is mapped into memory instead of being read, and
only what has another layout here is copied. The mapping is copy-on-write: training never changes
the file.
"""

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors import SafetensorError

from tinygpt_np.config import GPTConfig
from tinygpt_np.storage import checkpoint, files, gpt2, llama
from tinygpt_np.storage.checkpoint import CONFIG, MODEL, CheckpointError
from tinygpt_np.storage.parameters import Tensors

NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# The files to download: the model and its tokenizer.
MODEL_FILES, TOKENIZER_FILES = (CONFIG, MODEL), ("vocab.json", "merges.txt")
PICKLE, SHARDS = "pytorch_model.bin", "model.safetensors.index.json"
HEAD = "lm_head.weight"
# The dtypes of safetensors; BF16 is the upper half of a float32.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
# By model_type of config.json.
FAMILIES = {"gpt2": gpt2, "llama": llama}


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a Hugging Face checkpoint, of any architecture."""
    if (folder / PICKLE).exists():
        return True
    return (folder / CONFIG).exists() and "model_type" in checkpoint.read_json(folder / CONFIG)


def load_saved(folder: Path) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a folder written by GPT.save, or a checkpoint."""
    refuse_run(folder)
    if str(folder) in NAMES or is_checkpoint(folder):
        raise CheckpointError(
            f"{folder} is a model in Hugging Face's format: "
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
    kind, config = read_config(folder / CONFIG)
    family = FAMILIES[kind]
    is_split = (folder / SHARDS).exists() and not (folder / MODEL).exists()
    path = folder / (SHARDS if is_split else MODEL)
    if not path.exists() and (folder / PICKLE).exists():
        raise CheckpointError(
            f"{folder} has its weights in {PICKLE}, a pickle, which is never read here; save them "
            f"as {MODEL}, as save_pretrained of transformers does"
        )
    found: Tensors = {}
    for file in shards(path) if is_split else [path]:
        for name, tensor in mapped(file, family.is_buffer):
            if name in found:
                raise CheckpointError(f"{file}: {name} is there twice")
            found[name] = tensor
    found = without_prefix(found, family.PREFIX, path)
    if config.tied_head:
        found = without_head(found, family.TABLE, path)
    with np.errstate(over="ignore"):  # Values that overflow become infinite, which is refused.
        found = {name: tensor.astype(dtype, copy=False) for name, tensor in found.items()}
    found = checkpoint.matching(found, family.each_tensor(config), dtype, path)
    return config, family.to_params(found, config)


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


def read_config(path: Path) -> tuple[str, GPTConfig]:
    """Return the model_type and the configuration in a config.json, with dropout 0."""
    found = checkpoint.read_json(path)
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = " or ".join(FAMILIES)
        raise CheckpointError(f"{path}: model_type should be {known}, but is {kind}")
    if found.get("quantization_config"):
        raise CheckpointError(
            f"{path}: quantization_config should be null, because weights are floats here"
        )
    family = FAMILIES[kind]
    try:
        config = family.read_config(found)
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error.args[0]}") from None
    except ValueError as error:
        theirs = re.sub(r"\w+", lambda name: family.NAMES.get(name[0], name[0]), str(error))
        raise CheckpointError(f"{path}: {theirs}") from None
    # 0 is the default of both fields.
    return kind, replace(
        config,
        n_kv_head=0 if config.kv_heads == config.n_head else config.n_kv_head,
        n_inner=0 if config.inner_width == 4 * config.n_embd else config.n_inner,
    )


def mapped(
    path: Path, is_buffer: Callable[[str, Sequence[int]], bool]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each tensor in a safetensors file but buffers, mapped copy-on-write."""
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
        if name == "__metadata__" or is_buffer(name, entry["shape"]):
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


def without_prefix(found: Tensors, prefix: str, path: Path) -> Tensors:
    """Return tensors without a prefix of their names, which none of them needs to have."""
    params = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    if len(params) < len(found):
        raise CheckpointError(
            f"{path} has tensors both with {prefix} before their names and without"
        )
    return params


def without_head(found: Tensors, table: str, path: Path) -> Tensors:
    """Return tensors without an output head, which must be the token embedding called `table`."""
    params = dict(found)
    head = params.pop(HEAD, None)
    if head is not None and not np.array_equal(head, params.setdefault(table, head)):
        raise CheckpointError(
            f"{path}: {HEAD} should be {table}, to which it is tied, but is another matrix "
            f"of {head.shape}"
        )
    return params


def save(folder: Path, config: GPTConfig, params: Tensors, others: dict[str, bytes]) -> None:
    """Write a new folder that transformers loads as a model of one of FAMILIES."""
    kind = model_type(config)
    family = FAMILIES[kind]
    description = {
        "architectures": [family.CLASS], "model_type": kind,
        "tie_word_embeddings": config.tied_head, **family.describe(config),
        "torch_dtype": params["wte.weight"].dtype.name,
    }  # fmt: skip
    tensors = family.to_tensors(params, config)
    prefixed = {n if n == HEAD else f"{family.PREFIX}{n}": tensor for n, tensor in tensors.items()}
    contents = {
        CONFIG: checkpoint.to_json(description),
        MODEL: checkpoint.to_safetensors(prefixed, {"format": "pt"}),
        **others,
    }
    files.write_folder(folder, contents)


def model_type(config: GPTConfig) -> str:
    """Return the model_type of a configuration. Raise CheckpointError if there is none."""
    reasons: list[str] = []
    for kind, family in FAMILIES.items():
        wrong = [f"{name} {getattr(config, name)}" for name in family.lacks(config)]
        if not wrong:
            return kind
        reasons.append(f"{family.CLASS} cannot have {', '.join(wrong)}")
    raise CheckpointError(f"transformers has no such model: {'; '.join(reasons)}")
