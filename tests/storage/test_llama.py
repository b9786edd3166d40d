"""Llama's folders: read, written, refused, and compared with transformers."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hugging_face_folders import change_config, read_tensors, split_weights, write_tensors
from helpers.nanogpt_checkpoints import generic
from helpers.optional import needs
from helpers.small_gpts import assert_same_bits
from helpers.transformers_models import assert_same_greedy_tokens, compare, randomized, reloaded

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.storage import hugging_face, llama
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import param_count

CONFIG = GPTConfig(
    vocab_size=11, block_size=7, n_layer=2, n_head=6, n_kv_head=2, n_embd=24, n_inner=13,
    norm="rms_norm", norm_epsilon=1e-4, positions="rotary_halves", rope_theta=700.0,
    activation="swiglu", tied_head=False,
)  # fmt: skip
VARIANTS = {
    "grouped, untied": CONFIG,
    "as many keys, tied": replace(CONFIG, n_kv_head=0, tied_head=True),
    "one key, biases": replace(CONFIG, n_kv_head=1, bias=True, n_inner=0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generic(CONFIG).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


# Saving and loading


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_a_model_comes_back_as_it_was_except_for_dropout(tmp_path: Path, config: Any) -> None:
    model = generic(replace(config, dropout=0.25))
    model.save_pretrained(tmp_path / "llama")
    found = GPT.from_pretrained(tmp_path / "llama")
    assert found.config == config
    assert_same_bits(found.params, model.params)


def test_columns_are_layers_of_their_own_and_turned(folder: Path) -> None:
    tensors, params = read_tensors(folder), generic(CONFIG).params
    attn, mlp = "model.layers.1.self_attn", "model.layers.1.mlp"
    qkv, both = params["h.1.attn.c_attn.weight"], params["h.1.mlp.c_fc.weight"]
    for name, expected in {
        f"{attn}.q_proj": qkv[:, :24], f"{attn}.k_proj": qkv[:, 24:32],
        f"{attn}.v_proj": qkv[:, 32:], f"{attn}.o_proj": params["h.1.attn.c_proj.weight"],
        f"{mlp}.gate_proj": both[:, :13], f"{mlp}.up_proj": both[:, 13:],
        f"{mlp}.down_proj": params["h.1.mlp.c_proj.weight"],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(tensors[f"{name}.weight"], expected.T, strict=True)
    np.testing.assert_array_equal(tensors["lm_head.weight"], params["lm_head.weight"])


def test_matrices_are_contiguous_copies_and_the_others_are_mapped(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    for name, param in GPT.from_pretrained(folder).params.items():
        assert param.flags.c_contiguous
        assert param.flags.owndata == (".c_" in name)
        param += 1
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("stored", ["float16", "float64"])
def test_split_weights_of_another_dtype_with_frequencies_are_read(
    folder: Path, stored: str
) -> None:
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, "f4")}
    tensors = {name: tensor.astype(stored) for name, tensor in read_tensors(folder).items()}
    write_tensors(folder, tensors | frequencies)
    split_weights(folder)
    model = GPT.from_pretrained(folder)
    for name, param in generic(CONFIG).params.items():
        expected = param.astype(stored).astype("f4")
        np.testing.assert_array_equal(model.params[name], expected, strict=True)


@pytest.mark.parametrize(
    ("rope", "theta"),
    [
        ({"rope_parameters": ...}, 700.0),
        ({"rope_theta": 500_000.0, "rope_parameters": ..., "rope_scaling": None}, 500_000.0),
        ({"rope_theta": ..., "rope_parameters": {"rope_theta": 9.5}}, 9.5),
        ({"rope_theta": 3.0, "rope_scaling": {"type": "default"}, "rope_parameters": None}, 3.0),
        ({"rope_theta": ..., "rope_parameters": ...}, 10_000.0),
    ],
)
def test_the_base_of_the_wavelengths_is_found_where_transformers_writes_it(
    folder: Path, rope: dict[str, Any], theta: float
) -> None:
    change_config(folder, rope)
    assert GPT.from_pretrained(folder).config == replace(CONFIG, rope_theta=theta)


def test_old_and_new_versions_of_transformers_find_the_base(folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 700.0


@pytest.mark.slow
def test_fields_that_files_leave_out_have_the_defaults_of_transformers(
    tmp_path: Path, transformers: Any
) -> None:
    folder = tmp_path / "llama"
    generic(replace(CONFIG, n_kv_head=0)).save_pretrained(folder)
    optional = (
        *("rms_norm_eps", "rope_theta", "rope_parameters", "hidden_act", "head_dim"),
        *("attention_bias", "mlp_bias", "tie_word_embeddings", "num_key_value_heads"),
    )
    change_config(folder, dict.fromkeys(optional, ...))
    theirs = transformers.LlamaConfig.from_pretrained(folder).to_dict()
    written = llama.describe(GPT.from_pretrained(folder).config)
    for name in set(optional) & set(theirs) & set(written):
        assert written[name] == theirs[name], name


# Sizes, in the order of FIELDS, with the number of parameters that each model is known by.
FIELDS = (
    *("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)
KNOWN: dict[str, tuple[tuple[int | None, ...], int]] = {
    "Llama 2 7B": ((32000, 4096, 4096, 11008, 32, 32, None, False), 6_738_415_616),
    "Llama 3 8B": ((128256, 8192, 4096, 14336, 32, 32, 8, False), 8_030_261_248),
    "TinyLlama 1.1B": ((32000, 2048, 2048, 5632, 22, 32, 4, False), 1_100_048_384),
    "SmolLM 135M": ((49152, 2048, 576, 1536, 30, 9, 3, True), 134_515_008),
}


@pytest.mark.parametrize(("sizes", "count"), KNOWN.values(), ids=KNOWN)
def test_known_models_have_their_number_of_parameters(
    folder: Path, sizes: tuple[Any, ...], count: int
) -> None:
    fields = dict(zip(FIELDS, sizes, strict=True))
    change_config(folder, fields | {"head_dim": None, "rms_norm_eps": 1e-5})
    kind, config = hugging_face.read_config(folder / "config.json")
    assert kind == "llama"
    assert param_count(config) == count


# Refused folders


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_act": "gelu"}, "hidden_act should be silu or swish, but is gelu"),
        ({"head_dim": 5}, r"head_dim should be hidden_size / num_att\w+ = 4, but is 5"),
        ({"mlp_bias": True}, "mlp_bias should be attention_bias = False, but is True"),
        ({"attention_bias": 1, "mlp_bias": 1}, "attention_bias must be true or false, not 1"),
        ({"num_key_value_heads": 4},
         "num_key_value_heads must be .* a divisor of num_attention_heads = 6, not 4"),
        ({"num_key_value_heads": 0}, "num_key_value_heads should be positive, but is 0"),
        ({"intermediate_size": 0}, "intermediate_size should be positive, but is 0"),
        ({"intermediate_size": 2.5}, "intermediate_size must be an integer, not 2.5"),
        ({"num_hidden_layers": ...}, r"config\.json lacks num_hidden_layers"),
        ({"max_position_embeddings": "7"}, "max_position_embeddings must be an integer, not '7'"),
        ({"hidden_size": 25}, "hidden_size must be a multiple of num_attention_heads, but 25"),
        ({"hidden_size": 18, "head_dim": 3}, "the odd size hidden_size / num_attention_heads = 3"),
        ({"rms_norm_eps": None}, "rms_norm_eps must be a finite number, not None"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, not 'no'"),
        ({"rope_theta": -1, "rope_parameters": None}, "rope_theta must be positive, not -1"),
        *(
            ({name: {key: "llama3", "factor": 8.0}},
             f"{name} should be null or of rope_type default, but is .*llama3.*8.0")
            for name in ("rope_scaling", "rope_parameters") for key in ("type", "rope_type")
        ),
        *(({"rope_scaling": value}, f"rope_scaling should be null or .*, but is {re.escape(shown)}")
          for value, shown in (("linear", "linear"), ([1], "[1]"), (2.0, "2.0"))),
        ({"num_hidden_layers": 10**12}, r"lacks the tensor model\.layers\.2\.input_layernorm\.w"),
        ({"vocab_size": 12}, r"embed_tokens\.weight should be \(12, 24\) .* is \(11, 24\)"),
    ],
)  # fmt: skip
def test_a_field_that_is_not_supported_is_named(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    change_config(folder, changes)
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


KEYS = "model.layers.1.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        (KEYS, np.zeros((24, 8), "f4"), r"k_proj\.weight should be \(8, 24\) .* is \(24, 8\)"),
        (KEYS, np.full((8, 24), np.nan, "f4"), r"k_proj\.weight has values that are not finite"),
        (KEYS, np.zeros((8, 24), "i1"), r"k_proj\.weight should be one of F64, .*, but is I8"),
        (KEYS.replace("weight", "bias"), np.zeros(8, "f4"), r"k_proj\.bias \(8,\), which this mod"),
        ("model.norm.bias", np.zeros(24, "f4"), r"has the tensor model\.norm\.bias \(24,\), which"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, name: str, tensor: np.ndarray, expected: str
) -> None:
    write_tensors(folder, {**read_tensors(folder), name: tensor})
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


def test_a_head_that_is_not_tied_is_needed_and_one_that_is_must_be_the_embedding(
    folder: Path,
) -> None:
    tensors = read_tensors(folder)
    change_config(folder, {"tie_word_embeddings": True})
    with pytest.raises(CheckpointError, match=r"should be model\.embed_tokens\.weight, to which"):
        GPT.from_pretrained(folder)
    write_tensors(folder, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert "lm_head.weight" not in GPT.from_pretrained(folder).params
    del tensors["lm_head.weight"]
    write_tensors(folder, tensors)
    change_config(folder, {"tie_word_embeddings": False})
    with pytest.raises(CheckpointError, match=r"lacks the tensor lm_head\.weight \(11, 24\)"):
        GPT.from_pretrained(folder)


# Agreement with transformers

# No two sizes alike: as many heads of keys as of queries, a group of them, one.
SIZES: dict[str, dict[str, Any]] = {
    "as many, tied": {
        "vocab_size": 31, "hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 29, "max_position_embeddings": 61,
        "tie_word_embeddings": True,
    },
    "grouped, untied": {
        "vocab_size": 53, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 67,
        "rms_norm_eps": 1e-3, "rope_theta": 500.0,
    },
    "one, biases": {
        "vocab_size": 97, "hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 5,
        "num_key_value_heads": 1, "intermediate_size": 160, "max_position_embeddings": 71,
        "attention_bias": True, "mlp_bias": True,
    },
}  # fmt: skip
TIME = 13
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def peer(transformers: Any, size: dict[str, Any], folder: Path) -> Any:
    """Return a Llama of transformers, and save it in a folder."""
    config = transformers.LlamaConfig(**size, bos_token_id=None, eos_token_id=None)
    model = randomized(transformers.LlamaForCausalLM(config))
    model.save_pretrained(folder)
    return model


def in_float64(model: Any, theta: float) -> Any:
    """Return the model in float64, with norms and angles that transformers has in float32."""
    torch: Any = needs("torch")

    class Rotary(torch.nn.Module):
        def forward(self, x: Any, position_ids: Any) -> tuple[Any, Any]:
            size = model.config.head_dim
            frequencies = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
            angles = (position_ids[..., None] * frequencies).repeat(1, 1, 2)
            return angles.cos(), angles.sin()

    model = model.double()
    model.model.rotary_emb = Rotary()
    for parent in [model.model, *model.model.layers]:
        for name, norm in list(parent.named_children()):
            if name.endswith("norm"):
                exact = torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return model


@pytest.mark.slow
@every_size
def test_gradients_and_logits_agree(
    tmp_path: Path, transformers: Any, size: dict[str, Any]
) -> None:
    model = peer(transformers, size, tmp_path / "llama")
    loaded = GPT.from_pretrained(tmp_path / "llama")
    to_params = partial(llama.to_params, config=loaded.config)
    compare(model, loaded, to_params, loaded.loss_and_grads, 1e-4, TIME)
    compiled = GPT.from_pretrained(tmp_path / "llama", backend="numba")
    with CompiledEngine(compiled, 2, 2) as engine:
        compare(model, compiled, to_params, engine.loss_and_grads, 1e-4, TIME)
    exact = GPT.from_pretrained(tmp_path / "llama", dtype="float64")
    model = in_float64(model, loaded.config.rope_theta)
    compare(model, exact, to_params, exact.loss_and_grads, 1e-10, TIME)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@every_size
def test_greedy_tokens_are_the_same(
    tmp_path: Path, transformers: Any, size: dict[str, Any], backend: str
) -> None:
    model = peer(transformers, size, tmp_path / "llama")
    assert_same_greedy_tokens(model, GPT.from_pretrained(tmp_path / "llama", backend))


@pytest.mark.slow
@every_size
def test_ours_and_theirs_save_the_same_weights(
    tmp_path: Path, transformers: Any, size: dict[str, Any]
) -> None:
    model = peer(transformers, size, tmp_path / "theirs")
    ours = GPT.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = reloaded(transformers.LlamaForCausalLM, tmp_path / "ours")
    tensors, expected = again.state_dict(), model.state_dict()
    assert list(tensors) == list(expected)
    assert all(bool((tensors[name] == expected[name]).all()) for name in expected)
    assert again.config.eos_token_id is None  # Else sampling would end at a token of the text.
    again.save_pretrained(tmp_path / "again")
    found = GPT.from_pretrained(tmp_path / "again")
    assert found.config == ours.config
    assert_same_bits(found.params, ours.params)
