"""Checkpoints from elsewhere, and runs of our own, to the folders that GPT-2's world reads.

nanoGPT keeps a checkpoint as a pickle of tensors, `ckpt.pt`. It is read by PyTorch, which must be
installed, and which takes nothing out of it but tensors and plain values (weights_only).
"""

import contextlib
import importlib
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np import checkpoint, data, pretrained, sample, tokenizers
from tinygpt_np.checkpoint import CheckpointError, Tensors
from tinygpt_np.config import GPTConfig
from tinygpt_np.model import GPT, each_param
from tinygpt_np.tokenizers import CharTokenizer, Tokenizer

# What torch.compile puts before each name.
COMPILED = "_orig_mod."


def convert(source: str, out: Path, text: str | None) -> tuple[GPT, Tokenizer | None]:
    """Writes the folder `out`, which must not exist, from a ckpt.pt, a run or a saved model.

    text: where characters are the tokens and no tokenizer lies beside the model, as with every
    ckpt.pt, the text that it was trained on (see data.load). Returns what was written.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already, and nothing is overwritten")
    if Path(source).is_file():
        model, tokenizer = from_nanogpt(Path(source)), None
    else:
        model, tokenizer = from_folder(source)
    if text is not None:
        if tokenizer is not None:
            raise ValueError(f"--text is for a model without a tokenizer; {source} has its own")
        tokenizer = characters(text, model.vocab_size)
    model.save_pretrained(out, tokenizer)
    return model, tokenizer


def from_folder(source: str) -> tuple[GPT, Tokenizer | None]:
    """A run, a saved model or a GPT-2 (see pretrained.folder), and its tokenizer, if it has one."""
    if source in pretrained.NAMES or pretrained.is_gpt2(Path(source)):
        folder = pretrained.folder(source)
        model = GPT.from_pretrained(folder)
    else:
        folder = sample.whole(sample.find_run(source))
        model = GPT.load(folder)
    if not tokenizers.lies_in(folder):
        return model, None
    tokenizer = tokenizers.load(folder)
    sample.check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def from_nanogpt(path: Path) -> GPT:
    """The model in a ckpt.pt of nanoGPT's. Raises CheckpointError for anything else."""
    contents = read(path)
    config = config_of(contents["model_args"], path)
    tensors = Tensors()
    for name, tensor in contents["model"].items():
        if not pretrained.is_mask(str(name), getattr(tensor, "shape", ())):
            plain = str(name).removeprefix(COMPILED)
            if plain in tensors:
                raise CheckpointError(f"{path}: {plain} is there twice")
            tensors[plain] = array(tensor, plain, path)
    params = pretrained.ours(tensors, path)
    params = checkpoint.matching(params, each_param(config), "float32", path)
    # Only now, that all are known to be of the size they should be, is any of them copied.
    return GPT(config, params={n: np.ascontiguousarray(param) for n, param in params.items()})


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The model and model_args in a ckpt.pt; of its tensors, what is used is read when it is."""
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise CheckpointError(
            f"{path} is read by PyTorch: pip install torch, which is needed for this alone"
        ) from None
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is no checkpoint of PyTorch's: expected a zip file")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Whatever a damaged or malicious pickle makes of it.
        # PyTorch's own words are long, and advise to open it all the same.
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and plain values, and is not opened "
            f"({reason})"
        ) from None
    contents = cast(dict[str, Any], found if isinstance(found, dict) else {})
    parts = {name: contents.get(name) for name in ("model", "model_args")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise CheckpointError(f"{path} should have nanoGPT's model and model_args")
    return cast(dict[str, dict[str, Any]], parts)


def config_of(found: Any, path: Path) -> GPTConfig:
    """nanoGPT's model_args as our configuration; its GELU is the exact one."""
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
    try:
        return GPTConfig(**{name: found[name] for name in names}, gelu="exact")
    except KeyError as error:
        raise CheckpointError(f"{path}: model_args lacks {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: model_args is not that of a GPT: {error}") from None


def array(tensor: Any, name: str, path: Path) -> np.ndarray:
    """A tensor as it lies; a linear layer there is (out, in), here (in, out)."""
    kind, found = type(tensor).__name__, None
    with contextlib.suppress(AttributeError, TypeError):  # Sparse ones, and those without values.
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        found = tensor.detach().float().numpy() if tensor.is_floating_point() else None
    if found is None:
        raise CheckpointError(f"{path}: {name} should be a tensor of floats, but is {kind}")
    return found.T if ".c_" in name and found.ndim == 2 else found


def characters(text: str, vocab_size: int) -> CharTokenizer:
    """nanoGPT's characters: those of the text, sorted; what it keeps them in is a pickle."""
    corpus = data.load(text)
    found = CharTokenizer.from_text(corpus.text)
    if found.vocab_size != vocab_size:
        raise CheckpointError(
            f"{corpus.name} has {found.vocab_size} characters, but the model was trained on "
            f"{vocab_size}: it is another text"
        )
    return found
