"""GPT-2's folders: read as they are, mapped, written for others, and refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from helpers.errors import relative_error

from tinygpt_np import GPT, CharTokenizer, GPTConfig
from tinygpt_np.storage import hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError

LIBRARY: Any = safetensors.numpy  # Its types are of a NumPy that is less exact.
CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)
TEXT = np.random.default_rng(2).integers(0, 11, (2, 5))


def generic(config: GPTConfig = CONFIG, dtype: str = "float32") -> GPT:
    model, rng = GPT(config, dtype=dtype), np.random.default_rng(1)
    for name, param in model.params.items():
        model.params[name] = rng.standard_normal(param.shape).astype(dtype)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generic().save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return LIBRARY.load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "model.safetensors").unlink()  # Never into a file that a test has mapped.
    LIBRARY.save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | changes))


def assert_same(found: GPT, expected: GPT) -> None:
    assert list(found.params) == list(expected.params)
    for name, param in expected.params.items():
        np.testing.assert_array_equal(found.params[name], param, err_msg=name)


# What is written comes back


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
def test_a_model_comes_back_as_it_was(tmp_path: Path, gelu: Any) -> None:
    model = generic(replace(CONFIG, gelu=gelu))
    model.save_pretrained(tmp_path / "gpt")
    found = GPT.from_pretrained(tmp_path / "gpt")
    assert found.config == model.config
    assert_same(found, model)


def test_a_model_without_biases_comes_back_with_zeros_and_computes_the_same(
    tmp_path: Path,
) -> None:
    model = generic(replace(CONFIG, bias=False))
    model.save_pretrained(tmp_path / "gpt")
    found = GPT.from_pretrained(tmp_path / "gpt")
    assert found.config == CONFIG
    assert relative_error(found.logits(TEXT), model.logits(TEXT)) < 1e-6


def test_dropout_is_written_and_not_taken_over(tmp_path: Path) -> None:
    generic(replace(CONFIG, dropout=0.25)).save_pretrained(tmp_path / "gpt")
    config = json.loads((tmp_path / "gpt" / "config.json").read_text())
    assert {config[f"{place}_pdrop"] for place in ("attn", "embd", "resid")} == {0.25}
    assert GPT.from_pretrained(tmp_path / "gpt").config.dropout == 0


def test_the_files_of_a_tokenizer_go_along(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("abcdefghijk")
    generic().save_pretrained(tmp_path / "gpt", tokenizer)
    for name, content in tokenizer.files_for_transformers().items():
        assert (tmp_path / "gpt" / name).read_bytes() == content


def test_nothing_is_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="exists already, and nothing is overwritten"):
        generic().save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# How it is read


def test_weights_are_mapped_and_writing_to_them_leaves_the_file_be(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = GPT.from_pretrained(folder)
    for param in model.params.values():
        assert isinstance(param, np.ndarray)
        assert param.flags.c_contiguous
        assert param.flags.writeable
        assert not param.flags.owndata
        param += 1
    assert (folder / "model.safetensors").read_bytes() == before
    assert_same(GPT.from_pretrained(folder), generic())


@pytest.mark.parametrize("stored", ["float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_brought_to_the_dtype_asked_for(folder: Path, stored: str, dtype: str) -> None:
    model = generic()
    write_tensors(folder, {n: t.astype(stored) for n, t in tensors_of(folder).items()})
    found = GPT.from_pretrained(folder, dtype=dtype)
    for name, param in model.params.items():
        assert found.params[name].dtype == dtype
        np.testing.assert_array_equal(found.params[name], param.astype(stored).astype(dtype))


def test_bfloat16_is_the_upper_half_of_a_float32(folder: Path) -> None:
    header, data = dict[str, Any](), b""
    for name, tensor in tensors_of(folder).items():
        values = (tensor.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": offsets}
        data += values
    content = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    found = GPT.from_pretrained(folder)
    for name, param in generic().params.items():
        upper = (param.view(np.uint32) & 0xFFFF0000).view(np.float32)
        np.testing.assert_array_equal(found.params[name], upper)


def test_numbers_that_begin_inside_a_word_are_read(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" "
    while len(header) % 4 != 1:
        header += b" "
    moved = len(header).to_bytes(8, "little") + header + content[8 + length :]
    (folder / "model.safetensors").write_bytes(moved)
    found = GPT.from_pretrained(folder)
    assert_same(found, generic())
    assert all(param.flags.aligned for param in found.params.values())


@pytest.mark.parametrize("mask", ["float32", "uint8", "bool"])
def test_older_files_without_prefix_with_masks_and_with_the_head_are_read(
    folder: Path, mask: str
) -> None:
    tensors = {n.removeprefix("transformer."): t for n, t in tensors_of(folder).items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), mask))
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = tensors["wte.weight"].copy()
    write_tensors(folder, tensors)
    assert_same(GPT.from_pretrained(folder), generic())


def test_a_checkpoint_in_several_files_is_read(folder: Path) -> None:
    tensors = list(tensors_of(folder).items())
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, part in enumerate((tensors[:9], tensors[9:])):
        name = f"model-{number}.safetensors"
        LIBRARY.save_file(dict(part), folder / name)
        index |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same(GPT.from_pretrained(folder), generic())


def test_a_shorter_block_keeps_the_first_positions() -> None:
    model = generic()
    cut = model.cropped(5)
    assert (cut.block_size, cut.config) == (5, replace(CONFIG, block_size=5))
    np.testing.assert_array_equal(cut.logits(TEXT), model.logits(TEXT))
    assert model.block_size == 7
    with pytest.raises(ValueError, match="1 ≤ T ≤ block_size = 5"):
        cut.check_tokens(np.zeros((1, 6), np.int64))


@pytest.mark.parametrize("block_size", [0, 8])
def test_a_block_that_is_not_shorter_is_refused(block_size: int) -> None:
    with pytest.raises(ValueError, match=rf"block_size must be in \[1, 7\], not {block_size}"):
        generic().cropped(block_size)


# What is refused


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "llama"}, "model_type should be gpt2, but is llama"),
        ({"activation_function": "relu"}, "activation_function should be one of .*, but is relu"),
        ({"activation_function": ["gelu"]}, r"activation_function should be .*, but is \['gelu'\]"),
        ({"n_inner": 13}, "n_inner should be 4·n_embd = 48, but is 13"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon should be 1e-05, but is 1e-06"),
        ({"scale_attn_weights": False}, "scale_attn_weights should be True, but is False"),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx should be False, but is True",
        ),
        ({"add_cross_attention": True}, "add_cross_attention should be False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings should be True"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_layer": "two"}, "n_layer must be a whole number, not 'two'"),
        ({"n_layer": 3}, r"lacks the tensor h\.2\.ln_1\.weight \(12,\)"),
        ({"n_layer": 10**12}, r"lacks the tensor h\.2\.ln_1\.weight"),
        ({"n_layer": 1}, r"has the tensor h\.1\..*, which this model does not have"),
        ({"vocab_size": 12}, r"wte\.weight should be \(12, 12\) float32, but is \(11, 12\)"),
    ],
)
def test_another_architecture_is_refused_by_name(
    folder: Path, change: dict[str, Any], expected: str
) -> None:
    change_config(folder, **change)
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model_type", "n_embd", "n_positions", "vocab_size"])
def test_a_config_that_lacks_something_is_refused(folder: Path, name: str) -> None:
    found = json.loads((folder / "config.json").read_text())
    del found[name]
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=name):
        GPT.from_pretrained(folder)


def missing(tensors: dict[str, Any]) -> None:
    del tensors["transformer.h.1.mlp.c_fc.bias"]


def extra(tensors: dict[str, Any]) -> None:
    tensors["transformer.h.0.attn.q.weight"] = np.zeros((2, 3), np.float32)


def misshapen(tensors: dict[str, Any]) -> None:
    tensors["transformer.ln_f.weight"] = np.zeros(13, np.float32)


def turned(tensors: dict[str, Any]) -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def not_finite(tensors: dict[str, Any]) -> None:
    tensors["transformer.h.1.ln_2.bias"][3] = np.nan


def too_large(tensors: dict[str, Any]) -> None:
    tensors["transformer.h.0.ln_1.bias"] = np.full(12, 1e300)


def of_integers(tensors: dict[str, Any]) -> None:
    tensors["transformer.ln_f.bias"] = np.zeros(12, np.int32)


def another_head(tensors: dict[str, Any]) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1


def both_names(tensors: dict[str, Any]) -> None:
    tensors["ln_f.bias"] = tensors["transformer.ln_f.bias"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (missing, r"lacks the tensor h\.1\.mlp\.c_fc\.bias \(48,\)"),
        (extra, r"has the tensor h\.0\.attn\.q\.weight \(2, 3\), which this model does not have"),
        (misshapen, r"ln_f\.weight should be \(12,\) float32, but is \(13,\) float32"),
        (turned, r"c_attn\.weight should be \(12, 36\) float32, but is \(36, 12\)"),
        (not_finite, r"h\.1\.ln_2\.bias has values that are not finite"),
        (too_large, r"h\.0\.ln_1\.bias has values that are not finite"),
        (of_integers, r"ln_f\.bias should be one of F64, F32, F16, BF16, but is I32"),
        (another_head, r"lm_head\.weight should be wte\.weight, as in every GPT-2"),
        (both_names, r"tensors both with transformer\. before their names and without"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(folder: Path, change: Any, expected: str) -> None:
    tensors = tensors_of(folder)
    change(tensors)
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_refused(folder: Path, share: float) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or no safetensors"):
        GPT.from_pretrained(folder)


def test_a_header_that_lies_about_its_length_is_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + content[8:])
    with pytest.raises(CheckpointError, match="is damaged or no safetensors"):
        GPT.from_pretrained(folder)


def test_weights_in_a_pickle_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a pickle, which is never read here; save them as"):
        GPT.from_pretrained(folder)


def test_a_folder_that_is_none_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no folder .*; expected a folder or one of gpt2"
    ):
        GPT.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        GPT.from_pretrained(tmp_path / "empty")


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 10**5, ""])
def test_a_config_that_is_no_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: it is not a JSON object"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "should have a weight_map of tensors to files"),
        ([1], "should have a weight_map of tensors to files"),
        ({"wte.weight": "../model.safetensors"}, "should name files in its folder, not '../model"),
        ({"wte.weight": "a\0b"}, r"should name files in its folder, not 'a\\x00b'"),
        ({"wte.weight": "\ud800"}, r"should name files in its folder, not '\\ud800'"),
        ({"wte.weight": "gone.safetensors"}, r"there is no file .*gone\.safetensors"),
        ({"wte.weight": "part.safetensors"}, r"index\.json lacks the tensor wpe\.weight \(7, 12\)"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder: Path, files: Any, expected: str) -> None:
    part = {"wte.weight": tensors_of(folder)["transformer.wte.weight"]}
    (folder / "model.safetensors").unlink()
    LIBRARY.save_file(part, folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"there is no file .*model\.safetensors"):
        GPT.from_pretrained(folder)


def test_numba_has_no_float64(folder: Path) -> None:
    with pytest.raises(ValueError, match="float32 only"):
        GPT.from_pretrained(folder, backend="numba", dtype="float64")


def test_a_folder_is_known_by_its_config(folder: Path, tmp_path: Path) -> None:
    assert hugging_face.is_gpt2(folder)
    generic().save(tmp_path / "own")
    assert not hugging_face.is_gpt2(tmp_path / "own")
    assert not hugging_face.is_gpt2(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "config.json").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    assert hugging_face.is_gpt2(tmp_path / "pickled")
