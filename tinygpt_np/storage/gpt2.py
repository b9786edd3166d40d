"""GPT-2 in Hugging Face's format: its config.json and its tensors.

The tensors have the names and the layout of the parameters here, so nothing is copied.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Shape, Tensors, each_param

CLASS = "GPT2LMHeadModel"
PREFIX, TABLE = "transformer.", "wte.weight"
END_OF_TEXT = 50256
# The fields of config.json that have another name here.
NAMES = {
    "block_size": "n_positions", "norm_epsilon": "layer_norm_epsilon",
    "tied_head": "tie_word_embeddings",
}  # fmt: skip
# transformers has several names for one function; the first of each is written. gelu_fast has ten
# digits of √(2/π), which changes a value by less than 1e-11.
ACTIVATIONS = {
    "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_accurate": "gelu",
    "gelu_pytorch_tanh": "gelu", "gelu_python_tanh": "gelu",
    "gelu": "gelu_exact", "gelu_python": "gelu_exact",
    "relu": "relu", "relu2": "relu_squared", "silu": "silu", "swish": "silu",
}  # fmt: skip
# The architecture supported here. config.json may leave these out but must not differ.
FIXED: dict[str, Any] = {
    "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}  # fmt: skip


def read_config(found: dict[str, Any]) -> GPTConfig:
    """Return the content of a config.json as a GPTConfig, with dropout 0.

    Raise KeyError with the name of a missing field, or ValueError with what is wrong.
    """
    for name, expected in FIXED.items():
        if found.get(name, expected) != expected:
            raise ValueError(f"{name} should be {expected}, but is {found[name]}")
    activation, inner = str(found.get("activation_function", "gelu_new")), found.get("n_inner")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation_function should be one of {known}, but is {activation}")
    if inner == 0:
        raise ValueError(f"n_inner should be positive or null, but is {inner}")
    return GPTConfig(
        vocab_size=found["vocab_size"], block_size=found["n_positions"], n_layer=found["n_layer"],
        n_head=found["n_head"], n_embd=found["n_embd"],
        n_inner=0 if inner is None else inner, dropout=0.0, bias=True,
        norm_epsilon=found.get("layer_norm_epsilon", 1e-5),
        activation=cast(Any, ACTIVATIONS[activation]),
        tied_head=found.get("tie_word_embeddings", True),
    )  # fmt: skip


def lacks(config: GPTConfig) -> list[str]:
    """Return the fields of a configuration whose values no GPT-2 has."""
    has = {
        "n_kv_head": config.kv_heads == config.n_head,
        "norm": config.norm == "layer_norm",
        "positions": config.positions == "learned",
        "qk_norm": not config.qk_norm,
        "activation": config.activation in ACTIVATIONS.values(),
        "logit_soft_cap": config.logit_soft_cap == 0,
    }
    return [name for name, fits in has.items() if not fits]


def describe(config: GPTConfig) -> dict[str, Any]:
    """Return the fields of a config.json."""
    end = END_OF_TEXT if config.vocab_size > END_OF_TEXT else None
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout)
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        **FIXED,
        "activation_function": names[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
        "vocab_size": config.vocab_size, "n_positions": config.block_size,
        "n_ctx": config.block_size, "n_embd": config.n_embd, "n_layer": config.n_layer,
        "n_head": config.n_head, "n_inner": config.n_inner or None, **dropouts,
        "bos_token_id": end, "eos_token_id": end,
    }  # fmt: skip


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor is a causal mask or its fill value instead of a parameter."""
    return name.endswith(".attn.masked_bias") or (name.endswith(".attn.bias") and len(shape) == 4)


def each_tensor(config: GPTConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the name, without PREFIX, and the shape of every tensor."""
    return each_param(config)


def to_params(tensors: Tensors, config: GPTConfig) -> Tensors:
    """Return the parameters, which are the tensors."""
    return tensors


def to_tensors(params: Tensors, config: GPTConfig) -> Tensors:
    """Return the tensors of parameters, with zeros for missing biases."""
    zeros = {
        name.replace(".weight", ".bias"): np.zeros(param.shape[-1:], param.dtype)
        for name, param in params.items()
        if name not in (TABLE, "wpe.weight", config.head_name)
    }
    return {**zeros, **params}
