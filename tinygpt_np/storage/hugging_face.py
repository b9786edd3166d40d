"""GPT-2's checkpoints as Hugging Face keeps them: config.json and model.safetensors in a folder.

Our parameters have their names and layout, so a file is only mapped into memory: what is read of it
is read when it is used, and what training changes is changed in memory, never in the file.
"""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from tinygpt_np.config import GPTConfig
from tinygpt_np.ops import layer_norm
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CONFIG, MODEL, CheckpointError
from tinygpt_np.storage.parameters import Tensors

Shapes = Callable[[GPTConfig], Iterable[tuple[str, tuple[int, ...]]]]

NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# Of these names on huggingface.co, what is fetched: the model, and the tokenizer beside it.
NEEDED, BESIDE = (CONFIG, MODEL), ("vocab.json", "merges.txt")
PICKLE, SHARDS = "pytorch_model.bin", "model.safetensors.index.json"
PREFIX, HEAD, TABLE = "transformer.", "lm_head.weight", "wte.weight"
END_OF_TEXT = 50256
GELU = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "exact"}
# What config.json may leave out, and must not say otherwise: the one architecture there is here.
FIXED: dict[str, Any] = {
    "model_type": "gpt2", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False, "tie_word_embeddings": True,
    "layer_norm_epsilon": layer_norm.EPSILON,
}  # fmt: skip
# Values of numbers as safetensors names them; BF16 is the upper half of a float32.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


# Errors of huggingface_hub and its HTTP library for a file that is not cached and not reachable.
OFFLINE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout")


def is_gpt2(folder: Path) -> bool:
    """Whether a folder is a checkpoint of Hugging Face's, of whatever architecture."""
    if (folder / PICKLE).exists():
        return True
    return (folder / CONFIG).exists() and "model_type" in checkpoint.read_json(folder / CONFIG)


def load_saved(folder: Path) -> tuple[GPTConfig, Tensors]:
    """Return the configuration and parameters in a folder of GPT.save, or in a checkpoint.

    Raise CheckpointError, which says what to call, for a model that GPT.load does not read.
    """
    refuse_run(folder)
    if str(folder) in NAMES or is_gpt2(folder):
        raise CheckpointError(
            f"{folder} is a GPT-2 as Hugging Face keeps it: "
            f"GPT.from_pretrained({str(folder)!r}) returns the model"
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}; tinygpt_np.load takes the names of runs and models"
        )
    return checkpoint.load_model(folder)


def refuse_run(folder: Path) -> None:
    """Raise CheckpointError, which says what to call, if a folder is that of a run."""
    if (folder / "checkpoints").is_dir() and not (folder / MODEL).exists():
        raise CheckpointError(
            f"{folder} is a training run: tinygpt_np.load({str(folder)!r}) returns its model and "
            "its tokenizer"
        )


def folder(name: str | Path) -> Path:
    """Where a checkpoint lies: a folder as it is; one of NAMES in the cache of huggingface_hub.

    What is not there yet is downloaded. Raises CheckpointError if it cannot be had.
    """
    if name not in NAMES:
        if not Path(name).is_dir():
            known = ", ".join(NAMES)
            raise CheckpointError(f"there is no folder {name}; a model is a folder, or {known}")
        return Path(name)
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise CheckpointError(
            f"{name} is fetched by huggingface_hub: pip install 'tinygpt-np[hf]', or {remedy(name)}"
        ) from None
    # What is there already is not asked for over the network, where there may be none; without it
    # the model alone will do.
    reasons: list[str] = []
    for wanted, cached in ((NEEDED + BESIDE, True), (NEEDED + BESIDE, False), (NEEDED, True)):
        try:
            with quiet():
                found = [
                    hub.hf_hub_download(f"openai-community/{name}", file, local_files_only=cached)
                    for file in wanted
                ]
            return Path(found[0]).parent
        except Exception as error:  # A broken connection has errors of yet another package.
            reasons.append(reason(error))
    raise CheckpointError(f"{name} cannot be downloaded ({reasons[1]}); {remedy(name)}")


def reason(error: Exception) -> str:
    """Return why a download failed, in a few words."""
    if isinstance(error, ConnectionError) or type(error).__name__ in OFFLINE:
        return "no connection"
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without what huggingface_hub says of each attempt, and of accounts; its progress is shown."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def remedy(name: Any) -> str:
    """Return how a model can be had without a download."""
    files = ", ".join(NEEDED + BESIDE)
    return (
        f"put {files} of huggingface.co/openai-community/{name} into a folder and give that "
        f"folder instead of {name}"
    )


def load(place: Path, dtype: str, shapes: Shapes) -> tuple[GPTConfig, Tensors]:
    """Configuration and parameters in a folder, mapped from its file where dtype is its own.

    shapes: of all parameters, by a configuration. Raises CheckpointError, which names what was
    expected and what was found.
    """
    refuse_run(place)
    if not (place / CONFIG).exists():
        raise CheckpointError(f"{place} has no {CONFIG}, and is no checkpoint")
    config = read_config(place / CONFIG)
    path = place / MODEL
    if not path.exists() and (place / SHARDS).exists():
        path = place / SHARDS
    elif not path.exists() and (place / PICKLE).exists():
        raise CheckpointError(
            f"{place} has its weights in {PICKLE}, a pickle, which is never read here; save them "
            f"as {MODEL}, as save_pretrained of transformers does"
        )
    found: Tensors = {}
    for file in shards(path) if path.name == SHARDS else [path]:
        for name, tensor in mapped(file):
            if name in found:
                raise CheckpointError(f"{file}: {name} is there twice")
            found[name] = tensor
    params = {name: astype(tensor, dtype) for name, tensor in ours(found, path).items()}
    return config, checkpoint.matching(params, shapes(config), dtype, path)


def shards(index: Path) -> list[Path]:
    """The files that an index says the weights are in; they lie beside it."""
    files: Any = checkpoint.read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{index} should have a weight_map of tensors to files")
    names = sorted({str(name) for name in cast(dict[str, Any], files).values()})
    for name in names:
        if Path(name).name != name or not name.isprintable():
            raise CheckpointError(f"{index} should name files in its folder, not {name!r}")
    return [index.parent / name for name in names]


def read_config(path: Path) -> GPTConfig:
    """A GPT-2's config.json as ours. Dropout is left out: it is for whoever trains to set."""
    found = checkpoint.read_json(path)
    if "model_type" not in found:
        raise CheckpointError(f"{path} has no model_type; expected that of a GPT-2, gpt2")
    for name, expected in FIXED.items():
        if found.get(name, expected) != expected:
            raise CheckpointError(f"{path}: {name} should be {expected}, but is {found[name]}")
    activation: Any = found.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in GELU:
        known = ", ".join(GELU)
        raise CheckpointError(
            f"{path}: activation_function should be one of {known}, but is {activation}"
        )
    try:
        config = GPTConfig(
            vocab_size=found["vocab_size"], block_size=found["n_positions"],
            n_layer=found["n_layer"], n_head=found["n_head"], n_embd=found["n_embd"],
            dropout=0.0, bias=True, gelu=cast(Any, GELU[activation]),
        )  # fmt: skip
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error.args[0]}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not that of a GPT-2: {error}") from None
    inner = found.get("n_inner")
    if inner not in (None, 4 * config.n_embd):
        raise CheckpointError(
            f"{path}: n_inner should be 4·n_embd = {4 * config.n_embd}, but is {inner}"
        )
    return config


def mapped(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor in a file of safetensors, mapped: writing to it leaves the file as it is.

    Masks are passed over: many files have them, of any dtype.
    """
    try:
        # The library holds the header against the file: lengths, offsets, that they do not overlap.
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None
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
            values = values.copy()  # A number across two words cannot be read where it lies.
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values


def is_mask(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is no parameter, but that which hides what is to come, and how."""
    return name.endswith(".attn.masked_bias") or (name.endswith(".attn.bias") and len(shape) == 4)


def ours(found: Tensors, path: Path) -> Tensors:
    """Tensors by our names: without the prefix, and without the head, which is the table."""
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


def astype(tensor: np.ndarray, dtype: str) -> np.ndarray:
    if tensor.dtype == dtype:
        return tensor
    with np.errstate(over="ignore"):  # What is too large is no longer finite, which is refused.
        return tensor.astype(dtype)


def save(place: Path, config: GPTConfig, params: Tensors, beside: dict[str, bytes]) -> None:
    """Writes a new folder that transformers loads as a GPT-2. beside: more files for it.

    A GPT-2 has biases; of a model without, they are zeros.
    """
    whole = params if config.bias else {**zero_biases(params), **params}
    tensors = {f"{PREFIX}{n}": np.ascontiguousarray(t) for n, t in whole.items()}
    contents = {
        CONFIG: checkpoint.to_json(description(config, params[TABLE].dtype.name)),
        MODEL: safetensors.numpy.save(tensors, {"format": "pt"}),
        **beside,
    }
    files.write_folder(place, contents)


def zero_biases(params: Tensors) -> Tensors:
    """A bias of zeros for each layer that has a weight; embeddings have none."""
    layers = [name for name in params if name not in (TABLE, "wpe.weight")]
    return {
        name.replace(".weight", ".bias"): np.zeros(params[name].shape[-1:], params[name].dtype)
        for name in layers
    }


def description(config: GPTConfig, dtype: str) -> dict[str, Any]:
    """The config.json of transformers' GPT2LMHeadModel."""
    end = END_OF_TEXT if config.vocab_size > END_OF_TEXT else None
    return {
        "architectures": ["GPT2LMHeadModel"],
        **FIXED,
        "activation_function": "gelu_new" if config.gelu == "tanh" else "gelu",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": dtype,
    }
