"""GPT-2's folders: read, written, downloaded, refused, and compared with transformers."""

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from helpers.errors import relative_error
from helpers.nanogpt_checkpoints import generic
from helpers.optional import needs

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model.sampling import weights
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


# Saving and loading


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


def test_dropout_is_written_but_not_loaded(tmp_path: Path) -> None:
    generic(replace(CONFIG, dropout=0.25)).save_pretrained(tmp_path / "gpt")
    config = json.loads((tmp_path / "gpt" / "config.json").read_text())
    assert {config[f"{place}_pdrop"] for place in ("attn", "embd", "resid")} == {0.25}
    assert GPT.from_pretrained(tmp_path / "gpt").config.dropout == 0


# Formats of weights


def test_weights_are_mapped_and_changing_them_leaves_the_file_unchanged(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = GPT.from_pretrained(folder)
    for param in model.params.values():
        assert isinstance(param, np.ndarray)
        assert param.flags.c_contiguous
        assert param.flags.writeable
        assert not param.flags.owndata
        param += 1
    assert (folder / "model.safetensors").read_bytes() == before
    assert_same(GPT.from_pretrained(folder), generic(CONFIG))


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float16", "float32"), ("float64", "float32"), ("float32", "float64")],
)
def test_values_are_converted_to_the_requested_dtype(folder: Path, stored: str, dtype: str) -> None:
    model = generic(CONFIG)
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
    for name, param in generic(CONFIG).params.items():
        upper = (param.view(np.uint32) & 0xFFFF0000).view(np.float32)
        np.testing.assert_array_equal(found.params[name], upper)


def test_unaligned_tensors_are_read(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" "
    while len(header) % 4 != 1:
        header += b" "
    moved = len(header).to_bytes(8, "little") + header + content[8 + length :]
    (folder / "model.safetensors").write_bytes(moved)
    found = GPT.from_pretrained(folder)
    assert_same(found, generic(CONFIG))
    assert all(param.flags.aligned for param in found.params.values())


@pytest.mark.parametrize("mask", ["float32", "uint8", "bool"])
def test_files_with_masks_and_head_but_without_prefix_are_read(folder: Path, mask: str) -> None:
    tensors = {n.removeprefix("transformer."): t for n, t in tensors_of(folder).items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), mask))
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = tensors["wte.weight"].copy()
    write_tensors(folder, tensors)
    assert_same(GPT.from_pretrained(folder), generic(CONFIG))


def test_sharded_weights_are_read(folder: Path) -> None:
    tensors = list(tensors_of(folder).items())
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, part in enumerate((tensors[:9], tensors[9:])):
        name = f"model-{number}.safetensors"
        LIBRARY.save_file(dict(part), folder / name)
        index |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same(GPT.from_pretrained(folder), generic(CONFIG))


@pytest.mark.parametrize("block_size", [0, 8])
def test_a_block_that_is_not_shorter_is_refused(block_size: int) -> None:
    with pytest.raises(ValueError, match=rf"block_size must be in \[1, 7\], not {block_size}"):
        generic(CONFIG).cropped(block_size)


# Refused folders


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "llama"}, "model_type should be gpt2, but is llama"),
        ({"activation_function": "relu"}, "activation_function should be one of .*, but is relu"),
        ({"activation_function": ["gelu"]}, r"activation_function should be .*, but is \['gelu'\]"),
        ({"n_inner": 13}, "n_inner should be 4·n_embd = 48, but is 13"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon should be 1e-05, but is 1e-06"),
        ({"scale_attn_weights": False}, "scale_attn_weights should be True, but is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "layer_idx should be False, but is True"),
        ({"add_cross_attention": True}, "add_cross_attention should be False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings should be True"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_layer": "two"}, "n_layer must be an integer, not 'two'"),
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


@pytest.mark.parametrize("name", ["model_type", "n_positions"])
def test_a_config_that_lacks_something_is_refused(folder: Path, name: str) -> None:
    found = json.loads((folder / "config.json").read_text())
    del found[name]
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=name):
        GPT.from_pretrained(folder)


BIAS = "h.1.ln_2.bias"
WRONG_TENSORS: list[tuple[str, Callable[[Any], Any], str]] = [
    (BIAS, lambda t: np.zeros(13, t.dtype), r"ln_2\.bias should be \(12,\) float32, but is \(13,"),
    (BIAS, lambda t: np.full(12, 1e300), r"h\.1\.ln_2\.bias has values that are not finite"),
    (BIAS, lambda t: t.astype(np.int32), r"should be one of F64, F32, F16, BF16, but is I32"),
    (
        "lm_head.weight",
        lambda t: np.zeros((11, 12), "f4"),
        r"should be wte\.weight, as in every GPT",
    ),
]


@pytest.mark.parametrize(("name", "change", "expected"), WRONG_TENSORS)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, name: str, change: Callable[[Any], Any], expected: str
) -> None:
    tensors = {n.removeprefix("transformer."): t for n, t in tensors_of(folder).items()}
    write_tensors(folder, {**tensors, name: change(tensors.get(name))})
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


def test_names_with_and_without_prefix_are_refused(folder: Path) -> None:
    tensors = tensors_of(folder)
    write_tensors(folder, tensors | {"ln_f.bias": tensors["transformer.ln_f.bias"]})
    with pytest.raises(CheckpointError, match=r"both with transformer\. before their names"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.9999, None])
def test_a_truncated_file_or_a_header_with_a_wrong_length_is_refused(
    folder: Path, share: float | None
) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    wrong = (2**62).to_bytes(8, "little") + content[8:]
    path.write_bytes(wrong if share is None else content[: int(share * len(content))])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is damaged or not a safetensors"
    ):
        GPT.from_pretrained(folder)


def test_weights_in_a_pickle_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a pickle, which is never read here; save them as"):
        GPT.from_pretrained(folder)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no folder .*; expected a folder or one of gpt2"
    ):
        GPT.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        GPT.from_pretrained(tmp_path / "empty")


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 10**5])
def test_a_config_that_is_not_an_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: it is not a JSON object"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "should have a weight_map of tensors to files"),
        ({"wte.weight": "../model.safetensors"}, "should name files in its folder, not '../model"),
        ({"wte.weight": "a\0b"}, r"should name files in its folder, not 'a\\x00b'"),
        ({"wte.weight": "\ud800"}, r"should name files in its folder, not '\\ud800'"),
        ({"wte.weight": "gone.safetensors"}, r"there is no file .*gone\.safetensors"),
        ({"wte.weight": "part.safetensors"}, r"index\.json lacks the tensor wpe\.weight \(7, 12\)"),
    ],
)
def test_a_wrong_index_is_refused(folder: Path, files: Any, expected: str) -> None:
    part = {"wte.weight": tensors_of(folder)["transformer.wte.weight"]}
    (folder / "model.safetensors").unlink()
    LIBRARY.save_file(part, folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(CheckpointError, match=expected):
        GPT.from_pretrained(folder)


def test_a_folder_is_recognised_by_its_config(folder: Path, tmp_path: Path) -> None:
    assert hugging_face.is_gpt2(folder)
    generic(CONFIG).save(tmp_path / "own")
    assert not hugging_face.is_gpt2(tmp_path / "own")
    assert not hugging_face.is_gpt2(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "config.json").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    assert hugging_face.is_gpt2(tmp_path / "pickled")


# Downloads


class Hub:
    """A fake huggingface_hub, with a cache folder and files that are cached or downloaded."""

    def __init__(self, folder: Path, cached: tuple[str, ...], online: bool) -> None:
        self.folder, self.cached, self.online = folder, cached, online
        self.asked = list[str]()

    def hf_hub_download(self, repository: str, name: str, local_files_only: bool) -> str:
        assert repository == "openai-community/gpt2-medium"
        if local_files_only and name not in self.cached:
            raise FileNotFoundError(name)
        if not local_files_only:
            self.asked.append(name)
            logging.getLogger("huggingface_hub.utils").error("an attempt, and another")
            warnings.warn("an account would be faster", stacklevel=2)
            if not self.online:
                raise BrokenError("no network")
        return str(self.folder / name)


class BrokenError(Exception):
    """An error of the HTTP library, which is not an OSError."""


ALL = hugging_face.MODEL_FILES + hugging_face.TOKENIZER_FILES


@pytest.mark.parametrize(
    ("cached", "online", "asked"),
    [(ALL, False, []), ((), True, list(ALL)), (hugging_face.MODEL_FILES, False, ["config.json"])],
    ids=["cached", "online", "only the model is cached"],
)
def test_a_named_model_is_taken_from_the_cache_or_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    cached: tuple[str, ...], online: bool, asked: list[str],
) -> None:  # fmt: skip
    hub: Any = Hub(folder, cached, online)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_same(GPT.from_pretrained("gpt2-medium"), generic(CONFIG))
    assert hub.asked == asked
    assert not caplog.records


def test_without_network_the_error_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Any = Hub(tmp_path, cached=(), online=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(CheckpointError) as caught:
        GPT.from_pretrained("gpt2-medium")
    message = str(caught.value)
    assert "gpt2-medium cannot be downloaded (no network)" in message
    assert "put config.json, model.safetensors, vocab.json, merges.txt" in message
    assert "of huggingface.co/openai-community/gpt2-medium into a folder and give that" in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (type("LocalEntryNotFoundError", (Exception,), {})("Cannot find"), "no connection"),
        (ConnectionResetError(104, "reset"), "no connection"),
        (BrokenError("disk full\nmore"), "disk full"),
        (BrokenError(), "BrokenError"),
    ],
)
def test_the_reason_of_a_failed_download_is_short(error: Exception, reason: str) -> None:
    assert hugging_face.reason(error) == reason


def test_without_huggingface_hub_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'tinygpt-np\[hf\]'"):
        GPT.from_pretrained("gpt2")


# Agreement with transformers

# Layers, heads, width, positions, vocabulary, activation: no two alike.
SIZES: dict[str, tuple[Any, ...]] = {
    "small": (2, 3, 12, 9, 17, "gelu_new"),
    "exact": (3, 2, 26, 16, 101, "gelu"),
    "wide": (1, 5, 160, 70, 333, "gelu_pytorch_tanh"),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture
def torch() -> Any:
    return needs("torch")


@pytest.fixture
def transformers(torch: Any) -> Iterator[Any]:
    """Import the library without its progress bars and warnings."""
    library = needs("transformers")
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield library


@pytest.fixture
def peer(torch: Any, transformers: Any) -> Callable[..., Any]:
    """Return a function that makes a GPT-2 of transformers."""

    def make(size: tuple[Any, ...], generic: bool = True) -> Any:
        layers, heads, width, positions, vocab_size, activation = size
        config = transformers.GPT2Config(
            n_layer=layers, n_head=heads, n_embd=width, n_positions=positions,
            vocab_size=vocab_size, activation_function=activation, bos_token_id=None,
            eos_token_id=None, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        )  # fmt: skip
        torch.manual_seed(3)
        model = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for name, param in model.named_parameters() if generic else ():
                fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
                param.copy_(torch.randn(param.shape) / fan_in**0.5)
        return model

    return make


def compare(
    torch: Any, model: Any, loaded: GPT, grads_of: Any, bound: float, time: int, count: int = 2
) -> None:
    """Compare logits, loss and every gradient, each relative to its norm."""
    rng = np.random.default_rng(4)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, count, time))
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
        if name.endswith("c_attn.bias"):
            # The gradient of a key's bias is zero except for rounding: adding a constant to all
            # scores of a row changes none of its probabilities.
            query, key, value = np.split(grads[name], 3)
            expected_query, _, expected_value = np.split(grad, 3)
            assert relative_error(query, expected_query) < bound, name
            assert relative_error(value, expected_value) < bound, name
            assert np.abs(key).max() < bound * np.linalg.norm(grad), name
        else:
            assert relative_error(grads[name], grad) < bound, name


def greedy(torch: Any, model: Any, prompt: np.ndarray, count: int) -> list[int]:
    given = torch.from_numpy(prompt)[None]
    made = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False,
        use_cache=True, pad_token_id=0,
    )  # fmt: skip
    return made[0, len(prompt) :].tolist()


@pytest.mark.slow
@every_size
def test_float64_agrees_to_ten_digits_and_compiled_float32_to_four(
    tmp_path: Path, torch: Any, peer: Any, size: Any
) -> None:
    model = peer(size)
    model.save_pretrained(tmp_path / "gpt")
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    with CompiledEngine(loaded, 2, 2) as engine:
        compare(torch, model, loaded, engine.loss_and_grads, 1e-4, size[3])
    model.zero_grad()
    loaded = GPT.from_pretrained(tmp_path / "gpt", dtype="float64")
    compare(torch, model.double(), loaded, loaded.loss_and_grads, 1e-10, size[3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 50, 0.9), (0.7, 7, 0.5), (1.6, 100, 0.99)]
)
def test_sampling_probabilities_are_the_same(
    torch: Any, transformers: Any, temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(8).standard_normal((5, 101))
    scores: Any = torch.from_numpy(logits)
    for warper in (
        transformers.TemperatureLogitsWarper(temperature),
        transformers.TopKLogitsWarper(top_k),
        transformers.TopPLogitsWarper(top_p),
    ):
        scores = warper(None, scores)
    found = weights(logits, temperature, top_k, top_p)
    expected = torch.softmax(scores, dim=-1).numpy()
    np.testing.assert_allclose(found / found.sum(axis=-1, keepdims=True), expected, rtol=1e-12)
    assert (expected > 0).any(axis=-1).all()
    assert not (expected > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype"), [("small", "float32"), ("exact", "float64"), ("wide", "float32")]
)
def test_transformers_loads_a_saved_model_unchanged(
    tmp_path: Path, torch: Any, transformers: Any, size: str, dtype: str
) -> None:
    layers, heads, width, positions, vocab_size, activation = SIZES[size]
    config = GPTConfig(
        n_layer=layers, n_head=heads, n_embd=width, block_size=positions, vocab_size=vocab_size,
        bias=layers != 1, gelu="exact" if activation == "gelu" else "tanh",
    )  # fmt: skip
    saved = generic(config, dtype)
    saved.save_pretrained(tmp_path / "gpt")
    model, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "gpt", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = np.random.default_rng(4).integers(0, vocab_size, (2, positions))
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(tokens)).logits.numpy()
    assert found.dtype == dtype
    assert relative_error(saved.logits(tokens), found) < (1e-4 if dtype == "float32" else 1e-10)


@pytest.mark.slow
def test_the_size_of_the_smallest_gpt2(tmp_path: Path, torch: Any, peer: Any) -> None:
    model = peer((12, 12, 768, 1024, 50257, "gelu_new"), generic=False)
    model.save_pretrained(tmp_path / "gpt")
    loaded = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    assert sum(param.size for param in loaded.params.values()) == 124_439_808
    prompt = np.random.default_rng(7).integers(0, 50257, 5)
    made = [int(token) for token in loaded.generate(prompt, 50, temperature=0)]
    assert made == greedy(torch, model, prompt, 50)
    with CompiledEngine(loaded, 1, 2) as engine:
        compare(torch, model, loaded, engine.loss_and_grads, 1e-4, 33, 1)
