"""GPT-2's folders: read, written, downloaded, refused, and compared with transformers."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.numpy
from helpers.errors import relative_error
from helpers.nanogpt_checkpoints import generic
from helpers.optional import needs
from helpers.small_gpts import assert_same_bits

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.storage import hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError

LIBRARY: Any = safetensors.numpy  # Its types are those of an older NumPy.
CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)
TEXT = np.random.default_rng(2).integers(0, 11, (2, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generic(CONFIG).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors in a folder, without the prefix of their names."""
    found = LIBRARY.load_file(folder / "model.safetensors")
    return {name.removeprefix("transformer."): tensor for name, tensor in found.items()}


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "model.safetensors").unlink()  # Never into a file that a test has mapped.
    LIBRARY.save_file(tensors, folder / "model.safetensors")


# Saving and loading


@pytest.mark.parametrize("gelu", ["gelu", "gelu_exact"])
def test_a_model_comes_back_as_it_was_except_for_dropout(tmp_path: Path, gelu: Any) -> None:
    model = generic(replace(CONFIG, activation=gelu, dropout=0.25))
    model.save_pretrained(tmp_path / "gpt")
    config = json.loads((tmp_path / "gpt" / "config.json").read_text())
    assert {config[f"{place}_pdrop"] for place in ("attn", "embd", "resid")} == {0.25}
    found = GPT.from_pretrained(tmp_path / "gpt")
    assert found.config == replace(model.config, dropout=0)
    assert_same_bits(found.params, model.params)


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


@pytest.mark.parametrize("mask", ["float32", "bool"])
def test_files_with_masks_and_head_but_without_prefix_are_read(folder: Path, mask: str) -> None:
    tensors = tensors_of(folder)
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), mask))
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = tensors["wte.weight"].copy()
    write_tensors(folder, tensors)
    assert_same_bits(GPT.from_pretrained(folder).params, generic(CONFIG).params)


def test_sharded_weights_are_read(folder: Path) -> None:
    tensors = list(tensors_of(folder).items())
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, part in enumerate((tensors[:9], tensors[9:])):
        name = f"model-{number}.safetensors"
        LIBRARY.save_file(dict(part), folder / name)
        index |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same_bits(GPT.from_pretrained(folder).params, generic(CONFIG).params)


# Refused folders


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": None}, "model_type"),
        ({"n_positions": None}, "n_positions"),
        *(
            ({name: value}, f"{name} should be .*, but is {value}")
            for name, value in (
                *(("model_type", "llama"), ("activation_function", "relu"), ("n_inner", 13)),
                *(("layer_norm_epsilon", 1e-6), ("scale_attn_weights", False)),
                *(("scale_attn_by_inverse_layer_idx", True), ("add_cross_attention", True)),
                ("tie_word_embeddings", False),
            )
        ),
        ({"activation_function": ["gelu"]}, r"activation_function should be .*, but is \['gelu'\]"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_layer": "two"}, "n_layer must be an integer, not 'two'"),
        ({"n_layer": 10**12}, r"lacks the tensor h\.2\.ln_1\.weight"),
        ({"vocab_size": 12}, r"wte\.weight should be \(12, 12\) float32, but is \(11, 12\)"),
    ],
)
def test_another_architecture_is_refused_by_name(
    folder: Path, change: dict[str, Any], expected: str
) -> None:
    found = json.loads((folder / "config.json").read_text()) | change
    content = {
        name: value for name, value in found.items() if name == "n_inner" or value is not None
    }
    (folder / "config.json").write_text(json.dumps(content))
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
        ("lm_head.weight", np.zeros((11, 12), "f4"), r"should be wte\.weight, as in every GPT"),
        ("transformer.ln_f.bias", np.zeros(12, "f4"), r"both with transformer\. before their"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, name: str, tensor: np.ndarray, expected: str
) -> None:
    write_tensors(folder, {**tensors_of(folder), name: tensor})
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


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
    found = [hugging_face.is_gpt2(tmp_path / name) for name in ("gpt", "own", "nowhere")]
    assert found == [True, False, False]
    (folder / "config.json").rename(folder / "pytorch_model.bin")
    assert hugging_face.is_gpt2(folder)


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


# Agreement with transformers

# Layers, heads, width, positions, vocabulary, activation: no two alike.
SIZES: dict[str, tuple[Any, ...]] = {
    "exact": (3, 2, 26, 16, 101, "gelu"),
    "wide": (1, 5, 160, 70, 333, "gelu_pytorch_tanh"),
}


@pytest.fixture
def transformers() -> Iterator[Any]:
    """Import the library without its progress bars and warnings."""
    needs("torch")
    library = needs("transformers")
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield library


def peer(transformers: Any, size: tuple[Any, ...], folder: Path) -> Any:
    """Return a GPT-2 of transformers, and save it in a folder."""
    torch: Any = needs("torch")
    layers, heads, width, positions, vocab_size, activation = size
    config = transformers.GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, n_positions=positions,
        vocab_size=vocab_size, activation_function=activation, bos_token_id=None,
        eos_token_id=None, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, param in model.named_parameters():
            fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
            param.copy_(torch.randn(param.shape) / fan_in**0.5)
    model.save_pretrained(folder)
    return model


def compare(model: Any, loaded: GPT, grads_of: Any, bound: float, time: int) -> None:
    """Compare logits, loss and every gradient, each relative to its norm."""
    torch: Any = needs("torch")
    rng = np.random.default_rng(4)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, time))
    targets[0, :2] = -1
    logits = model(torch.from_numpy(tokens)).logits
    assert relative_error(loaded.logits(tokens), logits.detach().numpy()) < bound
    expected_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets.reshape(-1)), ignore_index=-1
    )
    expected_loss.backward()
    loss, grads = grads_of(tokens, targets)
    assert loss == pytest.approx(expected_loss.item(), rel=bound)
    named = {n.removeprefix("transformer."): p.grad.numpy() for n, p in model.named_parameters()}
    assert sorted(grads) == sorted(named)
    for name, grad in named.items():
        # In c_attn.bias, the gradient of the keys is zero except for rounding.
        assert relative_error(grads[name], grad) < bound, name


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_gradients_and_logits_agree(tmp_path: Path, transformers: Any, size: Any) -> None:
    model = peer(transformers, size, tmp_path / "gpt")
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    with CompiledEngine(loaded, 2, 2) as engine:
        compare(model, loaded, engine.loss_and_grads, 1e-4, size[3])
    model.zero_grad()
    loaded = GPT.from_pretrained(tmp_path / "gpt", dtype="float64")
    compare(model.double(), loaded, loaded.loss_and_grads, 1e-10, size[3])
    loaded.save_pretrained(tmp_path / "again")
    again, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(again.eval(), loaded, loaded.loss_and_grads, 1e-10, size[3])


@pytest.mark.slow
def test_the_size_of_the_smallest_gpt2(tmp_path: Path, transformers: Any) -> None:
    torch: Any = needs("torch")
    model = peer(transformers, (12, 12, 768, 1024, 50257, "gelu_new"), tmp_path / "gpt")
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    assert sum(param.size for param in loaded.params.values()) == 124_439_808
    prompt = torch.from_numpy(np.random.default_rng(7).integers(0, 50257, 5))
    greedy = model.generate(
        prompt[None], attention_mask=torch.ones(1, 5), max_new_tokens=50, do_sample=False,
        use_cache=True, pad_token_id=0,
    )  # fmt: skip
    assert list(loaded.generate(prompt.numpy(), 50, temperature=0)) == greedy[0, 5:].tolist()
