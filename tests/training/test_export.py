"""nanoGPT's checkpoints and our runs, as folders of GPT-2's kind."""

import pickle
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.optional import needs
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, CharTokenizer, GPTConfig, TrainConfig
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import param_shapes
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import runs, sample, trainer
from tinygpt_np.training.export import convert

torch: Any = needs("torch")

VOCABULARY = 18  # Of TEXT.
CONFIG = GPTConfig(
    vocab_size=VOCABULARY, block_size=9, n_layer=2, n_head=3, n_embd=12, bias=True, gelu="exact"
)
every_bias = pytest.mark.parametrize("bias", [True, False])


def generic(config: GPTConfig, dtype: str = "float32") -> GPT:
    model, rng = GPT(config, dtype=dtype), np.random.default_rng(1)
    for name, param in model.params.items():
        model.params[name] = rng.standard_normal(param.shape).astype(dtype)
    return model


def nanogpt(model: GPT, prefix: str = "") -> dict[str, Any]:
    """The contents of a ckpt.pt that holds this model: linear layers (out, in), the head apart."""
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


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The text that the models here were trained on."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "text.txt")


@every_bias
@pytest.mark.parametrize(
    "prefix", ["", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_a_checkpoint_of_nanogpts_computes_what_it_computed(
    tmp_path: Path, bias: bool, prefix: str
) -> None:
    model = generic(replace(CONFIG, bias=bias))
    torch.save(nanogpt(model, prefix), tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", str(tmp_path / "text.txt"))
    found, tokenizer = runs.load(str(tmp_path / "out"))
    assert found.config == CONFIG  # A GPT-2 has biases; without, they are zeros.
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, (2, 9))
    assert relative_error(found.logits(tokens), model.logits(tokens)) < 1e-6
    for name, param in model.params.items():
        np.testing.assert_array_equal(found.params[name], param, err_msg=name)
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


def test_weights_in_half_precision_are_widened(tmp_path: Path, text: str) -> None:
    model = generic(CONFIG)
    contents = nanogpt(model)
    contents["model"] = {n: t.to(torch.bfloat16) for n, t in contents["model"].items()}
    torch.save(contents, tmp_path / "ckpt.pt")
    found, _ = convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", text)
    for name, param in model.params.items():
        np.testing.assert_allclose(found.params[name], param, rtol=2**-8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(block_size=8, n_layer=1, n_head=2, n_embd=8, batch_size=2, max_iters=3)
    list(trainer.Trainer.start(run, config, dataset.from_corpus(Corpus("text", TEXT))))
    return run


def test_a_run_becomes_a_folder_that_writes_the_same_text(tmp_path: Path, run: Path) -> None:
    convert(str(run), tmp_path / "out", None)
    made = ["".join(sample.stream(*loaded, "be", 40, seed=3))
            for loaded in (runs.load(run), runs.load(str(tmp_path / "out")))]  # fmt: skip
    assert made[0] == made[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_is_taken_as_it_is(tmp_path: Path, text: str, dtype: str) -> None:
    model = generic(CONFIG, dtype)
    model.save(tmp_path / "saved")
    convert(str(tmp_path / "saved"), tmp_path / "out", text)
    found = GPT.from_pretrained(tmp_path / "out", dtype=dtype)
    for name, param in model.params.items():
        np.testing.assert_array_equal(found.params[name], param, err_msg=name)


def test_a_saved_model_takes_the_text_that_it_was_trained_on(tmp_path: Path) -> None:
    generic(CONFIG).save(tmp_path / "saved")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    convert(str(tmp_path / "saved"), tmp_path / "out", str(tmp_path / "text.txt"))
    _, tokenizer = runs.load(str(tmp_path / "out"))
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


def test_a_folder_of_gpt2s_kind_is_written_anew(tmp_path: Path) -> None:
    generic(CONFIG).save_pretrained(tmp_path / "gpt", CharTokenizer.from_text(TEXT))
    convert(str(tmp_path / "gpt"), tmp_path / "out", None)
    for path in (tmp_path / "gpt").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_the_source_stays_as_it_was(tmp_path: Path, text: str) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "ckpt.pt")
    before = (tmp_path / "ckpt.pt").read_bytes()
    model, _ = convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", text)
    for param in model.params.values():
        param += 1
    assert (tmp_path / "ckpt.pt").read_bytes() == before


def test_a_damaged_checkpoint_of_a_run_is_refused(tmp_path: Path, run: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run" / runs.CHECKPOINTS).glob("*/model.safetensors"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 64
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        convert(str(tmp_path / "run"), tmp_path / "out", None)


# What is refused


REFUSED = "(damaged, or holds more than|not a PyTorch checkpoint: it is not a zip file)"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nanogpt(generic(CONFIG)) | {"config": Evil()}, tmp_path / "ckpt.pt")
    torch.save({"model": torch.nn.Linear(2, 3)}, tmp_path / "module.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("ckpt.pt", "module.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=f"{name} is {REFUSED}") as caught:
            convert(name, tmp_path / "out", None)
        # PyTorch advises to open it all the same.
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "out").exists()


def changed(**changes: Any) -> dict[str, Any]:
    contents = nanogpt(generic(CONFIG))
    tensors, name = contents["model"], "transformer.h.1.mlp.c_fc.weight"
    if "tensor" in changes:
        tensors[name] = changes["tensor"]
        if changes["tensor"] is None:
            del tensors[name]
    if "twice" in changes:
        tensors[f"_orig_mod.{name}"] = tensors[name]
    contents["model"] = changes.get("model", tensors)
    contents["model_args"] |= changes.get("model_args", {})
    return {n: value for n, value in contents.items() if n != changes.get("without")}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"without": "model"}, "should have nanoGPT's model and model_args"),
        ({"model": 5}, "should have nanoGPT's model and model_args"),
        ({"without": "model_args"}, "should have nanoGPT's model and model_args"),
        ({"tensor": None}, r"lacks the tensor h\.1\.mlp\.c_fc\.weight \(12, 48\)"),
        ({"tensor": 5}, r"h\.1\.mlp\.c_fc\.weight should be a tensor of floats, but is int"),
        ({"tensor": torch.zeros(48, 12).int()}, "a tensor of floats, but is torch.int32"),
        ({"tensor": torch.zeros(48, 12).to_sparse()}, "a tensor of floats, but is .*sparse_coo"),
        ({"tensor": torch.zeros(48, 12, device="meta")}, "a tensor of floats, but is .* on meta"),
        # So little of a file claims so much.
        (
            {"tensor": torch.zeros(1, 1).expand(10**6, 10**6)},
            r"should be \(12, 48\), but is \(1000000, 1000000\)",
        ),
        ({"twice": True}, r"h\.1\.mlp\.c_fc\.weight is there twice"),
        ({"tensor": torch.zeros(48, 13)}, r"should be \(12, 48\), but is \(13, 48\)"),
        ({"tensor": torch.full((48, 12), torch.nan)}, "has values that are not finite"),
        ({"model_args": {"n_head": 5}}, "model_args is not that of a GPT: n_embd must be"),
        ({"model_args": {"n_layer": 3}}, r"lacks the tensor h\.2\.ln_1\.weight"),
        ({"model_args": {"n_layer": 10**12}}, r"lacks the tensor h\.2\.ln_1\.weight"),
    ],
)
def test_what_is_no_checkpoint_of_nanogpts_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    torch.save(changed(**changes), tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=expected):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "ckpt.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint: it is not a zip file"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)


def test_another_text_than_the_models_is_refused(tmp_path: Path) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text("abc" * 99, encoding="utf-8")
    with pytest.raises(CheckpointError, match="has 3 characters, but the model was trained on 18"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", str(tmp_path / "text.txt"))


@pytest.mark.parametrize("characters", [VOCABULARY, VOCABULARY + 1])
def test_a_byte_order_mark_is_a_character_if_the_model_has_one_more(
    tmp_path: Path, characters: int
) -> None:
    torch.save(nanogpt(generic(replace(CONFIG, vocab_size=characters))), tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text("\ufeff" + TEXT, encoding="utf-8")
    _, tokenizer = convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", str(tmp_path / "text.txt"))
    assert isinstance(tokenizer, CharTokenizer)
    assert tokenizer.vocab_size == characters
    assert ("\ufeff" in tokenizer.vocabulary) == (characters > VOCABULARY)


def test_a_run_takes_no_text(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ValueError, match=r"a model without a tokenizer; .*/run has its own"):
        convert(str(run), tmp_path / "out", "shakespeare")


def test_nothing_is_overwritten(tmp_path: Path, run: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists already, and nothing is overwritten"):
        convert(str(run), tmp_path / "out", None)


def test_without_pytorch_it_is_said_that_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({}, tmp_path / "ckpt.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match="is read by PyTorch: pip install torch"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)


@pytest.mark.parametrize("bias", [True, False])
def test_model_args_of_early_2023_have_neither_bias_nor_dropout(
    tmp_path: Path, text: str, bias: bool
) -> None:
    model = generic(replace(CONFIG, bias=bias))
    contents = nanogpt(model)
    del contents["model_args"]["bias"], contents["model_args"]["dropout"]
    torch.save(contents, tmp_path / "ckpt.pt")
    found, _ = convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", text)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, (2, 9))
    assert relative_error(found.logits(tokens), model.logits(tokens)) < 1e-6
    assert found.config.bias == bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_that_claim_more_than_the_file_has_are_refused_before_they_are_read(
    tmp_path: Path, dtype: Any
) -> None:
    # Each of its shapes agrees with model_args, and none of its values is there: 40 TB.
    width = 10**6
    shapes = param_shapes(replace(CONFIG, n_embd=width, n_head=1, n_layer=1))
    value = torch.zeros(1, dtype=dtype)
    model = {
        f"transformer.{name}": value.expand(shape[::-1] if ".c_" in name else shape)
        for name, shape in shapes.items()
    }
    args = {"n_layer": 1, "n_head": 1, "n_embd": width, "block_size": 9, "vocab_size": VOCABULARY}
    torch.save({"model": model, "model_args": args}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=r"claims tensors of [\d,]+ bytes in all, but has"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)


@pytest.mark.parametrize("name", ["lm_head.weight", "wte.weight"])
def test_an_expanded_table_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    contents = nanogpt(generic(CONFIG))
    contents["model"][f"{'transformer.' * (name != 'lm_head.weight')}{name}"] = torch.zeros(
        1, 1, dtype=torch.float16
    ).expand(10**7, 10**7)
    torch.save(contents, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=rf"{name} should be \(18, 12\), but is \(10000000"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)


def test_a_bit_that_was_changed_in_a_weight_is_noticed(tmp_path: Path, text: str) -> None:
    model = generic(CONFIG)
    torch.save(nanogpt(model), tmp_path / "ckpt.pt")
    content = bytearray((tmp_path / "ckpt.pt").read_bytes())
    content[content.index(model.params["wte.weight"].tobytes()) + 5] ^= 1
    (tmp_path / "ckpt.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is damaged: the checksum of .*/data/0 in"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", text)


@pytest.mark.parametrize("content", [b"", b"1234"])
def test_a_tensor_whose_file_in_the_zip_is_too_short_is_noticed(
    tmp_path: Path, text: str, content: bytes
) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "ckpt.pt", "w") as short,
    ):
        for name in whole.namelist():
            short.writestr(name, content if name.endswith("/data/3") else whole.read(name))
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is damaged"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", text)


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "ckpt.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is compressed"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None)


def test_a_model_without_a_tokenizer_is_converted_only_with_one(
    tmp_path: Path, text: str, run: Path
) -> None:
    torch.save(nanogpt(generic(CONFIG)), tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=r"18 tokens, but no tokenizer.*add --text FILE"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = runs.last_checkpoint(run)[0]
    ways = ({"text": text}, {"tokenizer_path": str(folder)})
    for number, way in enumerate(ways):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / f"out-{number}", **way)
        # The converted folder can be sampled, and converted again.
        convert(str(tmp_path / f"out-{number}"), tmp_path / f"again-{number}")
        _, tokenizer = runs.load(tmp_path / f"again-{number}")
        assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


def test_a_ckpt_with_gpt2s_tokens_needs_no_tokenizer(tmp_path: Path) -> None:
    config = GPTConfig(vocab_size=50304, block_size=4, n_layer=1, n_head=1, n_embd=2, bias=True)
    torch.save(nanogpt(GPT(config)), tmp_path / "ckpt.pt")
    for source, out in (("ckpt.pt", "out"), ("out", "again")):
        model, tokenizer = convert(str(tmp_path / source), tmp_path / out)
        assert (model.vocab_size, tokenizer) == (50304, None)
