"""nanoGPT's checkpoints are read exactly, and refused if they are damaged or unsafe."""

import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nanogpt_checkpoints import CONFIG, VOCABULARY, contents, generic
from helpers.optional import needs

from tinygpt_np import GPTConfig
from tinygpt_np.storage import nanogpt
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import Tensors, param_shapes

torch: Any = needs("torch")


def load(folder: Path, saved: Any) -> tuple[GPTConfig, Tensors]:
    """Save contents as PyTorch does, and load them."""
    torch.save(saved, folder / "ckpt.pt")
    return nanogpt.load(folder / "ckpt.pt")


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """Write a checkpoint of nanoGPT."""
    torch.save(contents(generic(CONFIG)), tmp_path / "ckpt.pt")
    return tmp_path / "ckpt.pt"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_configuration_and_parameters_are_read_exactly(
    tmp_path: Path, bias: bool, early: bool, prefix: str
) -> None:
    model = generic(replace(CONFIG, bias=bias))
    saved = contents(model, prefix)
    if early:  # As in the beginning of 2023.
        del saved["model_args"]["bias"], saved["model_args"]["dropout"]
    config, params = load(tmp_path, saved)
    assert config == model.config
    assert list(params) == list(model.params)
    for name, param in model.params.items():
        assert params[name].flags.c_contiguous
        np.testing.assert_array_equal(params[name], param, err_msg=name)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model = generic(CONFIG)
    saved = contents(model)
    saved["model"] = {n: t.to(torch.bfloat16) for n, t in saved["model"].items()}
    for name, param in load(tmp_path, saved)[1].items():
        np.testing.assert_allclose(param, model.params[name], rtol=2**-8)


def test_changing_parameters_leaves_the_file_unchanged(ckpt: Path) -> None:
    before = ckpt.read_bytes()
    for param in nanogpt.load(ckpt)[1].values():
        param += 1
    assert ckpt.read_bytes() == before


def test_without_pytorch_the_error_says_how_to_install_it(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match="is read by PyTorch: pip install torch"):
        nanogpt.load(ckpt)


# Malicious files


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("kind", ["code", "module", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("ckpt.pt")
    if kind == "code":
        torch.save(contents(generic(CONFIG)) | {"config": Evil()}, path)
    elif kind == "module":
        torch.save({"model": torch.nn.Linear(2, 3)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    refused = "is damaged, or holds more than|is not a PyTorch checkpoint: it is not a zip file"
    with pytest.raises(CheckpointError, match=rf"ckpt\.pt ({refused})") as caught:
        nanogpt.load(path)
    # PyTorch's own message suggests loading the file without weights_only.
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


def test_tensors_that_claim_more_than_the_file_has_are_refused_before_they_are_read(
    tmp_path: Path,
) -> None:
    # Every shape agrees with model_args, but each tensor is one expanded value: 40 TB in all.
    width = 10**6
    shapes = param_shapes(replace(CONFIG, n_embd=width, n_head=1, n_layer=1))
    model = {
        f"transformer.{name}": torch.zeros(1).expand(shape[::-1] if ".c_" in name else shape)
        for name, shape in shapes.items()
    }
    args = {"n_layer": 1, "n_head": 1, "n_embd": width, "block_size": 9, "vocab_size": VOCABULARY}
    with pytest.raises(CheckpointError, match=r"claims tensors of [\d,]+ bytes in all, but has"):
        load(tmp_path, {"model": model, "model_args": args})


# Files that are not a checkpoint of nanoGPT

WEIGHT, HEAD, TABLE = "transformer.h.1.mlp.c_fc.weight", "lm_head.weight", "transformer.wte.weight"
EXPANDED = torch.zeros(1, 1, dtype=torch.float16).expand(10**7, 10**7)
TENSORS: list[tuple[dict[str, Any], str]] = [
    ({WEIGHT: 5}, r"h\.1\.mlp\.c_fc\.weight should be a tensor of floats, but is int"),
    ({WEIGHT: torch.zeros(48, 12).int()}, "a tensor of floats, but is torch.int32"),
    ({WEIGHT: torch.zeros(48, 12).to_sparse()}, "a tensor of floats, but is .*sparse_coo"),
    ({WEIGHT: torch.zeros(48, 12, device="meta")}, "a tensor of floats, but is .* on meta"),
    ({WEIGHT: torch.zeros(48, 13)}, r"should be \(12, 48\), but is \(13, 48\)"),
    ({WEIGHT: torch.full((48, 12), torch.nan)}, "has values that are not finite"),
    ({f"_orig_mod.{WEIGHT}": torch.zeros(1)}, r"h\.1\.mlp\.c_fc\.weight is there twice"),
    *(({n: EXPANDED}, r"be \(18, 12\), but is \(10000000, 10000000\)") for n in (HEAD, TABLE)),
]


@pytest.mark.parametrize(("change", "expected"), TENSORS)
def test_a_wrong_tensor_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    saved = contents(generic(CONFIG))
    saved["model"] |= change
    with pytest.raises(CheckpointError, match=expected):
        load(tmp_path, saved)


CONTENTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda saved: saved.update(model=5), "should have nanoGPT's model and model_args"),
    (lambda saved: saved.pop("model_args"), "should have nanoGPT's model and model_args"),
    (lambda saved: saved["model_args"].pop("n_head"), "model_args lacks n_head"),
    (lambda saved: saved["model_args"].update(n_head=5), "is not a GPT's: n_embd must be"),
    (lambda saved: saved["model_args"].update(n_layer=10**12), r"lacks the tensor h\.2\.ln_1\.wei"),
    (lambda saved: saved["model"].pop(WEIGHT), r"lacks the tensor h\.1\.mlp\.c_fc\.weight \(12"),
]


@pytest.mark.parametrize(("change", "expected"), CONTENTS)
def test_other_contents_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    saved = contents(generic(CONFIG))
    change(saved)
    with pytest.raises(CheckpointError, match=expected):
        load(tmp_path, saved)


# Damaged files


def rewrite(ckpt: Path, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Rewrite a zip with the files whose names have these ends changed."""
    with zipfile.ZipFile(ckpt) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(ckpt, "w", compression) as archive:
        for name, content in files.items():
            end = next((end for end in changes if name.endswith(end)), "")
            archive.writestr(name, changes[end] if end else content)


def test_a_truncated_file_is_refused(ckpt: Path) -> None:
    content = ckpt.read_bytes()
    ckpt.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint: it is not a zip file"):
        nanogpt.load(ckpt)


def test_a_changed_bit_in_a_weight_is_noticed(ckpt: Path) -> None:
    content = bytearray(ckpt.read_bytes())
    content[content.index(generic(CONFIG).params["wte.weight"].tobytes()) + 5] ^= 1
    ckpt.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is damaged: the checksum of .*/data/0 in"):
        nanogpt.load(ckpt)


@pytest.mark.parametrize("content", [b"", b"1234"])
def test_a_tensor_whose_file_in_the_zip_is_too_short_is_noticed(ckpt: Path, content: bytes) -> None:
    rewrite(ckpt, {"/data/3": content})
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is damaged"):
        nanogpt.load(ckpt)


def test_a_compressed_zip_is_refused(ckpt: Path) -> None:
    rewrite(ckpt, {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt is compressed"):
        nanogpt.load(ckpt)
