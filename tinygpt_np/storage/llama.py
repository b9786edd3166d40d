"""Llama in Hugging Face's format: its config.json and its tensors.

PyTorch stores the matrix of a linear layer (out, in), and queries, keys, values, and the two halves
of SwiGLU are layers of their own. Here a matrix is (in, out), and these are columns of c_attn and
c_fc. So matrices are copied, one parameter at a time; embedding, head and norms are not.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.parameters import Shape, Tensors, each_param

CLASS = "LlamaForCausalLM"
PREFIX, TABLE = "", "model.embed_tokens.weight"
# The fields of config.json that have another name here.
NAMES = {
    "block_size": "max_position_embeddings", "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads", "n_embd": "hidden_size",
    "n_inner": "intermediate_size", "bias": "attention_bias", "norm_epsilon": "rms_norm_eps",
    "tied_head": "tie_word_embeddings",
}  # fmt: skip
# Two names of the gate's activation in SwiGLU; the first is written.
ACTIVATIONS = ("silu", "swish")
# The tensors outside of blocks, and the layers of a block, by their names here.
OUTSIDE = {
    "wte.weight": TABLE, "ln_f.weight": "model.norm.weight", "lm_head.weight": "lm_head.weight",
}  # fmt: skip
LAYERS = {
    "ln_1": ("input_layernorm",),
    "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.c_proj": ("self_attn.o_proj",),
    "ln_2": ("post_attention_layernorm",),
    "mlp.c_fc": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.c_proj": ("mlp.down_proj",),
}


def read_config(found: dict[str, Any]) -> GPTConfig:
    """Return the content of a config.json as a GPTConfig, with dropout 0.

    Raise KeyError with the name of a missing field, or ValueError with what is wrong.
    """
    activation, heads = str(found.get("hidden_act", "silu")), found.get("num_key_value_heads")
    bias, other = found.get("attention_bias", False), found.get("mlp_bias", False)
    if activation not in ACTIVATIONS:
        known = " or ".join(ACTIVATIONS)
        raise ValueError(f"hidden_act should be {known}, but is {activation}")
    if other != bias:
        raise ValueError(f"mlp_bias should be attention_bias = {bias}, but is {other}")
    for name in ("num_key_value_heads", "intermediate_size"):
        if found.get(name) == 0:
            raise ValueError(f"{name} should be positive, but is {found[name]}")
    config = GPTConfig(
        vocab_size=found["vocab_size"], block_size=found["max_position_embeddings"],
        n_layer=found["num_hidden_layers"], n_head=found["num_attention_heads"],
        n_kv_head=0 if heads is None else heads, n_embd=found["hidden_size"],
        n_inner=found["intermediate_size"], dropout=0.0, bias=bias, norm="rms_norm",
        norm_epsilon=found.get("rms_norm_eps", 1e-6), positions="rotary_halves",
        rope_theta=read_theta(found), activation="swiglu",
        tied_head=found.get("tie_word_embeddings", False),
    )  # fmt: skip
    head_size = found.get("head_dim")
    if head_size not in (None, config.head_size):
        raise ValueError(
            f"head_dim should be hidden_size / num_attention_heads = {config.head_size}, "
            f"but is {head_size}"
        )
    return config


def read_theta(found: dict[str, Any]) -> Any:
    """Return rope_theta. Raise ValueError if the angles are scaled."""
    theta = found.get("rope_theta", 10_000.0)
    # transformers 5 writes rope_theta in rope_parameters; before, scaling was in rope_scaling.
    for name in ("rope_parameters", "rope_scaling"):
        value: Any = found.get(name)
        rope = checkpoint.as_object(value)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or not (value is None or isinstance(value, dict)):
            raise ValueError(f"{name} should be null or of rope_type default, but is {value}")
        theta = rope.get("rope_theta", theta)
    return theta


def lacks(config: GPTConfig) -> list[str]:
    """Return the fields of a configuration whose values no Llama has."""
    has = {
        "norm": config.norm == "rms_norm",
        "positions": config.positions == "rotary_halves",
        "qk_norm": not config.qk_norm,
        "activation": config.activation == "swiglu",
        "logit_soft_cap": config.logit_soft_cap == 0,
    }
    return [name for name, fits in has.items() if not fits]


def describe(config: GPTConfig) -> dict[str, Any]:
    """Return the fields of a config.json."""
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "vocab_size": config.vocab_size, "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd, "intermediate_size": config.inner_width,
        "num_hidden_layers": config.n_layer, "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_size,
        "hidden_act": ACTIVATIONS[0], "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.bias, "mlp_bias": config.bias,
        "attention_dropout": config.dropout,
        # The second is for versions before 5.
        "rope_parameters": rope, "rope_theta": config.rope_theta,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor is the frequencies of the rotary positions, not a parameter."""
    return name.endswith(".rotary_emb.inv_freq")


def pieces(name: str, width: int, config: GPTConfig) -> list[tuple[str, int]]:
    """Return the tensors whose outputs are the columns of a parameter, and their widths."""
    if name in OUTSIDE:
        return [(OUTSIDE[name], width)]
    layer, _, rest = name.removeprefix("h.").partition(".")
    here, _, kind = rest.rpartition(".")
    heads, inner = config.kv_heads * config.head_size, config.inner_width
    columns = {"attn.c_attn": (config.n_embd, heads, heads), "mlp.c_fc": (inner, inner)}
    names = (f"model.layers.{layer}.{each}.{kind}" for each in LAYERS[here])
    return list(zip(names, columns.get(here, (width,)), strict=True))


def each_tensor(config: GPTConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of every tensor."""
    for name, shape in each_param(config):
        for theirs, width in pieces(name, shape[-1], config):
            yield theirs, shape if name in OUTSIDE else (width, *shape[:-1])


def to_params(tensors: Tensors, config: GPTConfig) -> Tensors:
    """Return the parameters, and empty the dict of tensors on the way."""
    params: Tensors = {}
    for name, shape in each_param(config):
        found = [tensors.pop(theirs) for theirs, _ in pieces(name, shape[-1], config)]
        if len(found) == 1 and (name in OUTSIDE or len(shape) == 1):
            params[name] = found[0]
        else:
            turned = [tensor.T for tensor in found]
            params[name] = np.concatenate(turned, -1, np.empty(shape, found[0].dtype))
    return params


def to_tensors(params: Tensors, config: GPTConfig) -> Tensors:
    """Return the tensors of parameters."""
    tensors: Tensors = {}
    for name, param in params.items():
        start = 0
        for theirs, width in pieces(name, param.shape[-1], config):
            piece = param[..., start : start + width]
            tensors[theirs] = piece if name in OUTSIDE else piece.T
            start += width
    return tensors
