"""Folders of Hugging Face of any family: read, written, downloaded, refused."""

import json
import logging
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.hugging_face_folders import LIBRARY, change_config, read_tensors, split_weights
from helpers.nanogpt_checkpoints import generic
from helpers.small_gpts import assert_same_bits

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.storage import hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generic(CONFIG).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors in a folder, without the prefix of their names."""
    return {name.removeprefix("transformer."): t for name, t in read_tensors(folder).items()}


# Formats of weights


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
def test_unaligned_tensors_of_any_dtype_are_converted_to_the_requested_one(
    folder: Path, stored: str, dtype: str
) -> None:
    header, data, expected = dict[str, Any](), b"", dict[str, np.ndarray]()
    for name, param in tensors_of(folder).items():
        if stored == "BF16":
            expected[name] = (param.view(np.uint32) & 0xFFFF0000).view(np.float32)
            content = (param.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            expected[name] = param.astype(f"<f{int(stored[1:]) // 8}")
            content = expected[name].tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": stored, "shape": param.shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text = text.ljust(len(text) // 8 * 8 + 9)  # Tensors begin at an odd place.
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    for name, param in GPT.from_pretrained(folder, dtype=dtype).params.items():
        assert param.flags.aligned
        np.testing.assert_array_equal(param, expected[name].astype(dtype), strict=True)


def test_sharded_weights_are_read(folder: Path) -> None:
    split_weights(folder)
    assert_same_bits(GPT.from_pretrained(folder).params, generic(CONFIG).params)


# Refused folders


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({"model_type": kind}, f"model_type should be gpt2 or llama, but is {kind}")
          for kind in ("mistral", None, 3)),
        ({"quantization_config": {"bits": 4}}, "quantization_config should be null, because"),
    ],
)  # fmt: skip
def test_another_architecture_is_refused_by_name(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    change_config(folder, changes)
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"norm": "rms_norm", "n_kv_head": 1},
         "GPT2LMHeadModel cannot have n_kv_head 1, norm rms_norm; "
         "LlamaForCausalLM cannot have positions learned, activation gelu$"),
        ({"qk_norm": True},
         "GPT2LMHeadModel cannot have qk_norm True; "
         "LlamaForCausalLM cannot have norm layer_norm, positions learned, qk_norm True, activ"),
        ({"positions": "rotary_pairs", "norm": "rms_norm", "activation": "swiglu"},
         "GPT2.* norm rms_norm, positions rotary_pairs, activation swiglu; "
         "LlamaForCausalLM cannot have positions rotary_pairs$"),
        ({"logit_soft_cap": 30.0, "positions": "rotary_halves"},
         "GPT2.* positions rotary_halves, logit_soft_cap 30.0; Llama.* gelu, logit_soft_cap 30.0$"),
    ],
)  # fmt: skip
def test_a_model_that_transformers_does_not_have_is_refused_with_its_fields(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    model = generic(replace(CONFIG, n_head=2, **changes))
    with pytest.raises(CheckpointError, match=f"^transformers has no such model: {expected}"):
        model.save_pretrained(tmp_path / "gpt")
    assert not (tmp_path / "gpt").exists()


def test_a_damaged_file_or_a_folder_without_a_config_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for wrong in (b"", content[: len(content) // 2], (2**62).to_bytes(8, "little") + content[8:]):
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or not a saf"):
            GPT.from_pretrained(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors should be a file, but is"):
        GPT.from_pretrained(folder)
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a pickle, which is never read here; save them as"):
        GPT.from_pretrained(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: it is not a JSON object"):
        GPT.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        GPT.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"there is no folder .*; expected a folder or one"):
        GPT.from_pretrained(folder / "nowhere")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "should have a weight_map of tensors to files"),
        ({"wte.weight": "../model.safetensors"}, "should name files in its folder, not '../model"),
        ({"wte.weight": "a\0b"}, r"should name files in its folder, not 'a\\x00b'"),
        ({"wte.weight": "gone.safetensors"}, r"there is no file .*gone\.safetensors"),
        ({"wte.weight": "part.safetensors"}, r"index\.json lacks the tensor wpe\.weight \(7, 12\)"),
    ],
)
def test_a_wrong_index_is_refused(folder: Path, files: Any, expected: str) -> None:
    LIBRARY.save_file({"wte.weight": tensors_of(folder)["wte.weight"]}, folder / "part.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


def test_a_folder_is_recognised_by_its_config_or_pickle(folder: Path, tmp_path: Path) -> None:
    generic(CONFIG).save(tmp_path / "own")
    found = [hugging_face.is_checkpoint(tmp_path / name) for name in ("gpt", "own", "nowhere")]
    assert found == [True, False, False]
    (folder / "config.json").rename(folder / "pytorch_model.bin")
    assert hugging_face.is_checkpoint(folder)


# Downloads


MODEL = hugging_face.MODEL_FILES
ALL = MODEL + hugging_face.TOKENIZER_FILES


@pytest.mark.parametrize(
    ("cached", "online", "expected"),
    [(ALL, False, []), ((), True, list(ALL)), (MODEL, False, ["config.json"]), ((), False, None)],
    ids=["cached", "online", "only the model is cached", "no network"],
)
def test_a_named_model_is_taken_from_the_cache_or_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    cached: tuple[str, ...], online: bool, expected: list[str] | None,
) -> None:  # fmt: skip
    asked: list[str] = []

    def download(repository: str, name: str, local_files_only: bool) -> str:
        assert repository == "openai-community/gpt2-medium"
        if local_files_only and name not in cached:
            raise FileNotFoundError(name)
        if not local_files_only:
            asked.append(name)
            logging.getLogger("huggingface_hub.utils").error("an attempt, and another")
            warnings.warn("an account would be faster", stacklevel=2)
            if not online:
                raise RuntimeError("no network\nand more")
        return str(folder / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Mock(hf_hub_download=download))
    if expected is None:
        message = (
            r"gpt2-medium cannot be downloaded \(RuntimeError: no network\); put config.json, model"
            ".safetensors, vocab.json, merges.txt of huggingface.co/openai-community/gpt2-medium"
        )
        with pytest.raises(CheckpointError, match=message):
            GPT.from_pretrained("gpt2-medium")
    else:
        assert_same_bits(GPT.from_pretrained("gpt2-medium").params, generic(CONFIG).params)
        assert asked == expected
    assert not caplog.records


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'tinygpt-np\[hf\]'"):
        GPT.from_pretrained("gpt2")
