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
def test_parameters_are_read_exactly(tmp_path: Path, bias: bool, early: bool, prefix: str) -> None:
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


def test_without_pytorch_the_error_names_it(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match="is read by PyTorch: pip install torch"):
        nanogpt.load(ckpt)


# Malicious files


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("ckpt.pt")
    if zipped:
        torch.save(contents(generic(CONFIG)) | {"config": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    refused = "is damaged, or holds more than|is not a PyTorch checkpoint: it is not a zip file"
    with pytest.raises(CheckpointError, match=rf"ckpt\.pt ({refused})") as caught:
        nanogpt.load(path)
    # PyTorch's own message suggests loading the file without weights_only.
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


def test_tensors_that_claim_more_than_the_file_has_are_refused(tmp_path: Path) -> None:
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
BAD: dict[str, Any] = {
    r"h\.1\.mlp\.c_fc\.weight should be a tensor of floats, but is int": 5,
    "a tensor of floats, but is torch.int32": torch.zeros(48, 12).int(),
    "a tensor of floats, but is .*sparse_coo": torch.zeros(48, 12).to_sparse(),
    "a tensor of floats, but is .* on meta": torch.zeros(48, 12, device="meta"),
    r"should be \(12, 48\), but is \(13, 48\)": torch.zeros(48, 13),
    "has values that are not finite": torch.full((48, 12), torch.nan),
}
CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda saved: saved.update(model=5), "should have nanoGPT's model and model_args"),
    (lambda saved: saved.pop("model_args"), "should have nanoGPT's model and model_args"),
    (lambda saved: saved["model_args"].pop("n_head"), "model_args lacks n_head"),
    (lambda saved: saved["model_args"].update(n_head=5), "is not a GPT's: n_embd must be"),
    (lambda saved: saved["model_args"].update(n_layer=10**12), r"lacks the tensor h\.2\.ln_1\.wei"),
    (lambda saved: saved["model"].pop(WEIGHT), r"lacks the tensor h\.1\.mlp\.c_fc\.weight \(12"),
    (lambda saved: saved["model"].update({f"_orig_mod.{WEIGHT}": torch.ones(1)}), "is there twice"),
    (lambda saved: saved["model"].update({HEAD: EXPANDED}), r"be \(18, 12\), but is \(10000000,"),
    (lambda saved: saved["model"].update({TABLE: EXPANDED}), r"be \(18, 12\), but is \(10000000,"),
    *(
        (lambda saved, bad=bad: saved["model"].update({WEIGHT: bad}), what)
        for what, bad in BAD.items()
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_other_contents_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    saved = contents(generic(CONFIG))
    change(saved)
    with pytest.raises(CheckpointError, match=expected):
        load(tmp_path, saved)


# Damaged files


def rezipped(ckpt: Path, compression: int, changes: dict[str, bytes]) -> bytes:
    """Return the content of a zip with another compression or another content of files."""
    with zipfile.ZipFile(ckpt) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(ckpt, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, changes.get(name.rpartition("/")[2], content))
    return ckpt.read_bytes()


def with_a_bit_flipped(ckpt: Path) -> bytes:
    content = bytearray(ckpt.read_bytes())
    content[content.index(generic(CONFIG).params["wte.weight"].tobytes()) + 5] ^= 1
    return bytes(content)


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "is not a PyTorch checkpoint: it is not a zip file": lambda path: path.read_bytes()[:3000],
    r"ckpt\.pt is damaged: the checksum of .*/data/0 in": with_a_bit_flipped,
    r"ckpt\.pt is damaged: no file": lambda path: rezipped(path, zipfile.ZIP_STORED, {"3": b"1"}),
    r"ckpt\.pt is compressed": lambda path: rezipped(path, zipfile.ZIP_DEFLATED, {}),
}


@pytest.mark.parametrize("expected", DAMAGE)
def test_a_damaged_file_is_refused(ckpt: Path, expected: str) -> None:
    ckpt.write_bytes(DAMAGE[expected](ckpt))
    with pytest.raises(CheckpointError, match=expected):
        nanogpt.load(ckpt)
