"""Models with generic parameters, and the contents of nanoGPT's ckpt.pt for them."""

from typing import Any

import numpy as np

from tinygpt_np import GPT, GPTConfig

VOCABULARY = 18  # The characters of tiny_run.TEXT.
CONFIG = GPTConfig(
    vocab_size=VOCABULARY,
    block_size=9,
    n_layer=2,
    n_head=3,
    n_embd=12,
    bias=True,
    activation="gelu_exact",
)


def generic(config: GPTConfig, dtype: str = "float32") -> GPT:
    model, rng = GPT(config, dtype=dtype), np.random.default_rng(1)
    for name, param in model.params.items():
        model.params[name] = rng.standard_normal(param.shape).astype(dtype)
    return model


def contents(model: GPT, prefix: str = "") -> dict[str, Any]:
    """Return what nanoGPT saves for a model: linear layers (out, in), masks, and the head."""
    import torch as library  # pyright: ignore[reportMissingImports]

    torch: Any = library
    tensors: dict[str, Any] = {}
    for name, param in model.params.items():
        turned = param.T if ".c_" in name and param.ndim == 2 else param
        tensors[f"{prefix}transformer.{name}"] = torch.from_numpy(turned.copy())
    for layer in range(model.config.n_layer):
        mask = torch.ones(model.block_size, model.block_size).tril()[None, None]
        tensors[f"{prefix}transformer.h.{layer}.attn.bias"] = mask
    tensors[f"{prefix}lm_head.weight"] = tensors[f"{prefix}transformer.wte.weight"]
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
    return {
        "model": tensors,
        "optimizer": {"state": {}, "param_groups": []},
        "model_args": {name: getattr(model.config, name) for name in names},
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    }
