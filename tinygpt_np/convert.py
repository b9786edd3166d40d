"""Checkpoints from elsewhere, and runs of our own, to the folders that GPT-2's world reads.

nanoGPT keeps a checkpoint as a pickle of tensors, `ckpt.pt`. It is read by PyTorch, which must be
installed, and which takes nothing out of it but tensors and plain values (weights_only).
"""

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinygpt_np import checkpoint, data, pretrained, sample
from tinygpt_np.checkpoint import CheckpointError, Tensors
from tinygpt_np.config import GPTConfig
from tinygpt_np.model import GPT, param_shapes
from tinygpt_np.tokenizers import CharTokenizer, Tokenizer

# What torch.compile puts before each name.
COMPILED = "_orig_mod."


def convert(source: str, out: Path, text: str | None) -> GPT:
    """Writes the folder `out`, which must not exist, from a ckpt.pt, a run or a saved model.

    text: of a ckpt.pt of characters, the text that it was trained on (see data.load); a run has
    its tokenizer. Returns the model that was written.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already, and nothing is overwritten")
    tokenizer: Tokenizer | None
    if Path(source).is_file():
        model = from_nanogpt(Path(source))
        tokenizer = None if text is None else characters(text, model.vocab_size)
    else:
        if text is not None:
            raise ValueError(f"--text is for a ckpt.pt; {source} has its own tokenizer")
        model, tokenizer = sample.load_any(source)
    model.save_pretrained(out, tokenizer)
    return model


def from_nanogpt(path: Path) -> GPT:
    """The model in a ckpt.pt of nanoGPT's. Raises CheckpointError for anything else."""
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise CheckpointError(
            f"{path} is read by PyTorch: pip install torch, which is needed for this alone"
        ) from None
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever a damaged or malicious pickle makes of it.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is no checkpoint of tensors alone: {reason}") from None
    if not isinstance(found, dict) or not {"model", "model_args"} <= set(cast(Any, found)):
        raise CheckpointError(f"{path} should have nanoGPT's model and model_args")
    contents = cast(dict[str, Any], found)
    config = config_of(contents["model_args"], path)
    tensors = {name: array(tensor, name, path) for name, tensor in contents["model"].items()}
    params = pretrained.ours(named(tensors, config), path)
    return GPT(config, params=checkpoint.matching(params, param_shapes(config), "float32", path))


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
    if not hasattr(tensor, "detach"):
        raise CheckpointError(f"{path}: {name} should be a tensor, but is {type(tensor).__name__}")
    return tensor.detach().float().numpy()


def named(tensors: Tensors, config: GPTConfig) -> Tensors:
    """nanoGPT's tensors by their plain names; a linear layer there is (out, in), here (in, out)."""
    shapes, found = param_shapes(config), Tensors()
    for name, tensor in tensors.items():
        plain = name.removeprefix(COMPILED)
        ours = plain.removeprefix(pretrained.PREFIX)
        is_linear = ".c_" in ours and len(shapes.get(ours, ())) == 2 == tensor.ndim
        found[plain] = np.ascontiguousarray(tensor.T) if is_linear else tensor
    return found


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
