"""GPT-2's folders: read, written, refused, and compared with transformers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.hugging_face_folders import change_config, read_tensors, write_tensors
from helpers.nanogpt_checkpoints import generic
from helpers.optional import needs
from helpers.small_gpts import assert_same_bits
from helpers.transformers_models import assert_same_greedy_tokens, compare, randomized, reloaded

from tinygpt_np import GPT, GPTConfig, ops
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.storage import gpt2
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import Tensors

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)
TEXT = np.random.default_rng(2).integers(0, 11, (2, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generic(CONFIG).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors in a folder, without the prefix of their names."""
    return {name.removeprefix("transformer."): t for name, t in read_tensors(folder).items()}


# Saving and loading


@pytest.mark.parametrize(
    "changes",
    [
        *({"activation": name} for name in sorted({*gpt2.ACTIVATIONS.values()})),
        {"n_inner": 17, "norm_epsilon": 1e-3, "tied_head": False},
    ],
)
def test_a_model_comes_back_as_it_was_except_for_dropout(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = generic(replace(CONFIG, dropout=0.25, **changes))
    model.save_pretrained(tmp_path / "gpt")
    config = json.loads((tmp_path / "gpt" / "config.json").read_text())
    assert {config[f"{place}_pdrop"] for place in ("attn", "embd", "resid")} == {0.25}
    found = GPT.from_pretrained(tmp_path / "gpt")
    assert found.config == replace(model.config, dropout=0)
    assert_same_bits(found.params, model.params)
    assert ("lm_head.weight" in read_tensors(tmp_path / "gpt")) != model.config.tied_head


def test_a_model_without_biases_computes_the_same(tmp_path: Path) -> None:
    model = generic(replace(CONFIG, bias=False))
    model.save_pretrained(tmp_path / "gpt")
    found = GPT.from_pretrained(tmp_path / "gpt")
    assert found.config == CONFIG
    assert relative_error(found.logits(TEXT), model.logits(TEXT)) < 1e-6


# Formats of weights


def test_weights_are_mapped_and_changing_them_leaves_the_file_unchanged(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    for param in GPT.from_pretrained(folder).params.values():
        assert param.flags.c_contiguous
        assert param.flags.writeable
        assert not param.flags.owndata
        param += 1
    assert (folder / "model.safetensors").read_bytes() == before
    assert_same_bits(GPT.from_pretrained(folder).params, generic(CONFIG).params)


@pytest.mark.parametrize("mask", ["float32", "bool"])
def test_files_with_masks_and_head_but_without_prefix_are_read(folder: Path, mask: str) -> None:
    tensors = tensors_of(folder)
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), mask))
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = tensors["wte.weight"].copy()
    write_tensors(folder, tensors)
    assert_same_bits(GPT.from_pretrained(folder).params, generic(CONFIG).params)


# Refused folders


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_positions": ...}, "lacks n_positions"),
        *(
            ({name: value}, f"{name} should be .*, but is {value}")
            for name, value in (
                *(("activation_function", "quick_gelu"), ("n_inner", 0)),
                *(("scale_attn_weights", False), ("scale_attn_by_inverse_layer_idx", True)),
                ("add_cross_attention", True),
            )
        ),
        ({"activation_function": ["gelu"]}, r"activation_function should be .*, but is \['gelu'\]"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_layer": "two"}, "n_layer must be an integer, not 'two'"),
        ({"n_positions": 0}, "n_positions must be positive, not 0"),
        ({"n_inner": []}, r"n_inner must be an integer, not \[\]"),
        ({"n_inner": -3}, "n_inner must be zero or more, not -3"),
        ({"layer_norm_epsilon": None}, "layer_norm_epsilon must be a finite number, not None"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings must be true or false, not 0"),
        ({"tie_word_embeddings": False}, r"lacks the tensor lm_head\.weight \(11, 12\)"),
        ({"n_layer": 10**12}, r"lacks the tensor h\.2\.ln_1\.weight"),
        ({"n_inner": 13}, r"c_fc\.weight should be \(12, 13\) float32, but is \(12, 48\)"),
        ({"vocab_size": 12}, r"wte\.weight should be \(12, 12\) float32, but is \(11, 12\)"),
    ],
)
def test_a_field_that_is_not_supported_is_named(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    change_config(folder, changes)
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


BIAS = "h.1.ln_2.bias"


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        (BIAS, np.zeros(13, "f4"), r"ln_2\.bias should be \(12,\) float32, but is \(13,"),
        (BIAS, np.full(12, 1e300), r"h\.1\.ln_2\.bias has values that are not finite"),
        (BIAS, np.zeros(12, "i4"), r"should be one of F64, F32, F16, BF16, but is I32"),
        ("h.2.b", np.zeros(12, "f4"), r"has the tensor h\.2\.b \(12,\), which this model does not"),
        ("lm_head.weight", np.zeros((11, 12), "f4"), r"should be wte\.weight, to which it is tied"),
        ("transformer.ln_f.bias", np.zeros(12, "f4"), r"both with transformer\. before their"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, name: str, tensor: np.ndarray, expected: str
) -> None:
    write_tensors(folder, {**tensors_of(folder), name: tensor})
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


# Agreement with transformers

# No two sizes alike.
SIZES: dict[str, dict[str, Any]] = {
    "variant": {
        "n_layer": 3, "n_head": 2, "n_embd": 26, "n_positions": 16, "vocab_size": 101,
        "activation_function": "gelu", "n_inner": 31, "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": False,
    },
    "wide": {
        "n_layer": 1, "n_head": 5, "n_embd": 160, "n_positions": 70, "vocab_size": 333,
        "activation_function": "gelu_pytorch_tanh",
    },
}  # fmt: skip
SMALLEST = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}


def peer(transformers: Any, size: dict[str, Any], folder: Path) -> Any:
    """Return a GPT-2 of transformers, and save it in a folder."""
    config = transformers.GPT2Config(
        **size, bos_token_id=None, eos_token_id=None, attn_pdrop=0.0, embd_pdrop=0.0,
        resid_pdrop=0.0,
    )  # fmt: skip
    model = randomized(transformers.GPT2LMHeadModel(config))
    model.save_pretrained(folder)
    return model


def to_params(tensors: Tensors) -> Tensors:
    return {name.removeprefix(gpt2.PREFIX): tensor for name, tensor in tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", gpt2.ACTIVATIONS)
def test_a_function_of_any_name_is_the_operation(transformers: Any, name: str) -> None:
    torch: Any = needs("torch")
    x = np.random.default_rng(5).standard_normal((7, 11)) * 3
    operation: Any = getattr(ops, gpt2.ACTIVATIONS[name])
    expected = transformers.activations.ACT2FN[name](torch.from_numpy(x)).numpy()
    assert relative_error(operation.forward(x)[0], expected) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_gradients_and_logits_agree(tmp_path: Path, transformers: Any, size: Any) -> None:
    model, time = peer(transformers, size, tmp_path / "gpt"), size["n_positions"]
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    with CompiledEngine(loaded, 2, 2) as engine:
        compare(model, loaded, to_params, engine.loss_and_grads, 1e-4, time)
    loaded = GPT.from_pretrained(tmp_path / "gpt", dtype="float64")
    compare(model.double(), loaded, to_params, loaded.loss_and_grads, 1e-10, time)
    loaded.save_pretrained(tmp_path / "again")
    again = reloaded(transformers.GPT2LMHeadModel, tmp_path / "again")
    compare(again, loaded, to_params, loaded.loss_and_grads, 1e-10, time)


@pytest.mark.slow
def test_the_size_of_the_smallest_gpt2(tmp_path: Path, transformers: Any) -> None:
    model = peer(transformers, SMALLEST, tmp_path / "gpt")
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    assert sum(param.size for param in loaded.params.values()) == 124_439_808
    assert_same_greedy_tokens(model, loaded)
