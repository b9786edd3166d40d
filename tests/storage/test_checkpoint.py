"""Checkpoints survive a crash and a full disk; damaged and implausible ones are refused."""

import errno
import hashlib
import json
import math
import os
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.small_gpts import assert_same_bits

from tinygpt_np import GPTConfig, TrainConfig
from tinygpt_np.config import generator
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.storage.parameters import Tensors, param_shapes

CONFIG = GPTConfig(vocab_size=5, block_size=3, n_layer=1, n_head=2, n_embd=4, bias=True)
RUN = TrainConfig(
    block_size=3, n_layer=1, n_head=2, n_embd=4, bias=True, max_iters=2_000_000, seed=7
)
TOKENIZER = {"tokenizer.json": '{"vocabulary": ["é"]}'.encode()}
FILES = [
    *("config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"),
    *("state.json", "sha256.json"),
]


def params(seed: int = 1, dtype: str = "float32") -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape).astype(dtype) for name, shape in param_shapes(CONFIG).items()}


def state_at(step: int, val_loss: float | None = 1.5) -> checkpoint.State:
    generators = {
        purpose: generator(RUN.seed, purpose).bit_generator.state
        for purpose in checkpoint.GENERATORS
    }
    return checkpoint.State(step, val_loss, RUN, generators, "letters", "0" * 64)


def save(
    checkpoints: Path, step: int, val_loss: float | None = 1.5, keep_best: bool = False
) -> Path:
    """Save a small checkpoint with params(step)."""
    moments = {"first": params(step + 1), "second": params(step + 2)}
    optimizer = {f"{m}.{name}": t for m, found in moments.items() for name, t in found.items()}
    folder = checkpoint.save_checkpoint(
        checkpoints, CONFIG, params(step), TOKENIZER, optimizer, state_at(step, val_loss)
    )
    checkpoint.prune(checkpoints, keep_best)
    return folder


def load(folder: Path) -> Tensors:
    checkpoint.load_state(folder)
    found = checkpoint.load_model(folder)[1]
    checkpoint.load_optimizer(folder, found, found)
    return found


def refused(folder: Path) -> str:
    """Return the error for a checkpoint that cannot be loaded, which is one line."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seal(folder: Path) -> None:
    """Make the checksums agree with the files, so that only their content can be refused."""
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name != checkpoint.CHECKSUMS
    }
    (folder / checkpoint.CHECKSUMS).write_text(json.dumps(sums))


def steps(checkpoints: Path) -> list[int]:
    return [int(folder.name) for folder in checkpoint.steps_in(checkpoints)]


# Saving and loading


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_bit_for_bit_and_can_be_written_to(tmp_path: Path, dtype: str) -> None:
    saved = params(dtype=dtype)
    saved["wpe.weight"] = np.asfortranarray(saved["wpe.weight"])
    checkpoint.save_model(tmp_path / "model", CONFIG, saved)
    config, found = checkpoint.load_model(tmp_path / "model")
    assert config == CONFIG
    assert_same_bits(found, saved)
    for tensor in found.values():
        tensor += 1


def test_a_checkpoint_is_named_after_its_step_and_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 250)
    assert folder == tmp_path / "000250"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert checkpoint.load_state(folder) == state_at(250)
    assert (folder / "tokenizer.json").read_bytes() == TOKENIZER["tokenizer.json"]
    first, second = checkpoint.load_optimizer(folder, params(250), params(250))
    assert_same_bits(first, params(251))
    assert_same_bits(second, params(252))


# Pruning


def test_only_the_two_newest_checkpoints_are_kept_also_past_six_digits(tmp_path: Path) -> None:
    (tmp_path / f"{files.TEMPORARY}000001").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "000009").write_text("a file")
    for step in (3, 999_998, 999_999, 1_000_000):
        save(tmp_path, step)
    assert steps(tmp_path) == [999_999, 1_000_000]
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"999999", "1000000", "notes", "000009"}


def test_the_best_checkpoint_is_kept_and_linked(tmp_path: Path) -> None:
    for step, loss in ((1, 1.5), (2, 1.2), (3, 1.2), (4, None), (5, 1.9)):
        save(tmp_path, step, loss, keep_best=True)
    assert steps(tmp_path) == [2, 4, 5]
    assert (tmp_path / checkpoint.BEST).readlink() == Path("000002")


# Failed writes and crashes


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), "^"),
        (OSError(errno.EIO, "Input/output"), "000002 cannot be written: Input/output"),
        (OSError(errno.ENOSPC, "No space"), "the disk is full: .*000002 needs 0.0 MB; what was"),
    ],
)
def test_after_a_failure_at_any_sync_every_listed_checkpoint_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    for survived in range(8):
        checkpoints = tmp_path / str(survived)
        save(checkpoints, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", Mock(side_effect=[None] * survived + [error]))
            with pytest.raises((KeyboardInterrupt, CheckpointError), match=expected):
                save(checkpoints, 2)
        # The eighth sync makes the rename durable; the checkpoint has its name by then.
        assert steps(checkpoints) == ([1, 2] if survived == 7 else [1])
        for folder in checkpoints.iterdir():
            assert_same_bits(load(folder), params(int(folder.name)))


# Damaged and foreign files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path, 4)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_foreign_or_missing_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for offset in range(0, len(content), 41):
        flipped = bytes([content[offset] ^ 1])
        path.write_bytes(content[:offset] + flipped + content[offset + 1 :])
        assert name in refused(folder)
    if name != "tokenizer.json":
        for foreign in (content[:60], content[:-2], b"", b"\xff", b"[1]", b'{"n_layers": 2}'):
            path.write_bytes(foreign)
            if name != checkpoint.CHECKSUMS:
                seal(folder)
            assert name in refused(folder)
    path.unlink()
    assert name in refused(folder)
    for make in (os.mkfifo, os.mkdir):
        make(path)
        assert f"{path} should be a file, but is a folder, pipe or device" in refused(folder)
        path.unlink() if make is os.mkfifo else path.rmdir()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", "a\0b", "sha256.json"])
def test_checksums_name_only_files_in_their_folder(folder: Path, name: str) -> None:
    path = folder / checkpoint.CHECKSUMS
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "0" * 64}))
    assert f"sha256.json lists {name!r}, but there is no such file next to it" in refused(folder)


def test_a_checkpoint_in_the_folder_of_another_step_is_refused(folder: Path) -> None:
    moved = folder.rename(folder.parent / "000009")
    assert "state.json is of step 4, but in 000009" in refused(moved)


# Values that training never writes, with correct checksums

MISSING = object()
STATE, CONFIG_FILE, GENERATOR = "state.json", "config.json", "generators.dropout"
WRONG: dict[tuple[str, str], list[Any]] = {
    (STATE, "step"): [-1, True, 2_000_001, 1.5, "4", None, [4], MISSING],
    (STATE, "val_loss"): [-1, True, "x", 10**400, math.nan, math.inf, MISSING],
    (STATE, "config"): [None, {}, [1], MISSING],
    (STATE, "config.n_head"): ["x", 1.5, 3, None, MISSING, 1],
    (STATE, "config.unknown"): [5],
    (STATE, "data"): [None, "x", {}, MISSING],
    (STATE, "data.name"): [None, 5, MISSING],
    (STATE, "data.sha256"): [None, 5, "0" * 63, "x" * 64],
    (STATE, "generators"): [None, {}, "x", MISSING],
    (STATE, GENERATOR): [None, {}, "x", 5, MISSING],
    (STATE, f"{GENERATOR}.bit_generator"): ["MT19937", None, MISSING],
    (STATE, f"{GENERATOR}.state.state"): [1.5, True, -1, 2**128, "x", None, MISSING],
    (STATE, f"{GENERATOR}.state.inc"): [1, 3, 1.5, True, MISSING],
    (STATE, f"{GENERATOR}.has_uint32"): [2, -1, True, 0.5, None, MISSING],
    (STATE, f"{GENERATOR}.uinteger"): [-1, 1.5, True, 2**32, MISSING],
    (CONFIG_FILE, "n_head"): [1, "x", 1.5, True, 3, None, MISSING],
    (CONFIG_FILE, "activation"): ["exact", 5],
    (CONFIG_FILE, "n_layer"): [10**9, 0, 10**400],
}


@pytest.mark.parametrize(("name", "place"), WRONG)
def test_a_value_of_a_wrong_type_or_range_is_refused(folder: Path, name: str, place: str) -> None:
    folder = folder.rename(folder.parent / "of any step")
    before = (folder / name).read_text()
    *parents, last = place.split(".")
    for value in WRONG[name, place]:
        content = json.loads(before)
        parent = reduce(getitem, parents, content)
        if value is MISSING:
            del parent[last]
        else:
            parent[last] = value
        (folder / name).write_text(json.dumps(content))
        seal(folder)
        assert name in refused(folder), value


def test_a_billion_layers_are_refused_at_once(folder: Path) -> None:
    for name in (STATE, CONFIG_FILE):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"n_layer": 1', '"n_layer": 1000000000'))
    seal(folder)
    assert "lacks the tensor h.1.ln_1.weight" in refused(folder)


# Tensors that do not match the expected names, shapes and dtype

BIAS = "h.0.ln_1.bias"
MISMATCHES: list[tuple[str, dict[str, Any], str]] = [
    (checkpoint.MODEL, {BIAS: None}, f"lacks the tensor {BIAS} (4,)"),
    (checkpoint.MODEL, {"b": np.zeros(4)}, "has the tensor b (4,), which this model does not have"),
    (checkpoint.MODEL, {BIAS: np.zeros(4)}, f"{BIAS} should be (4,) float32, but is (4,) float64"),
    (checkpoint.MODEL, {BIAS: np.zeros(3, "f4")}, f"{BIAS} should be (4,) float32, but is (3,)"),
    (checkpoint.MODEL, {BIAS: np.full(4, -np.inf, "f4")}, f"{BIAS} has values that are not finite"),
    (checkpoint.OPTIMIZER, {f"first.{BIAS}": None}, f"lacks the tensor first.{BIAS}"),
    (checkpoint.OPTIMIZER, {f"second.{BIAS}": np.full(4, -1, "f4")}, "has negative values"),
]


@pytest.mark.parametrize(("name", "change", "expected"), MISMATCHES)
def test_a_tensor_that_does_not_match_is_named(
    folder: Path, name: str, change: dict[str, Any], expected: str
) -> None:
    found = checkpoint.read_safetensors(folder / name) | change
    kept = {name: tensor for name, tensor in found.items() if tensor is not None}
    (folder / name).write_bytes(checkpoint.to_safetensors(kept))
    seal(folder)
    message = refused(folder)
    assert str(folder / name) in message
    assert expected in message


# The configurations that were written before a GPT had other parts than GPT-2's.
OLD_SHAPE: dict[str, Any] = {
    "block_size": 5, "n_layer": 1, "n_head": 2, "n_embd": 4, "dropout": 0.1, "bias": True,
    "gelu": "exact",
}  # fmt: skip
OLD_RUN: dict[str, Any] = {
    "data": "shakespeare", "tokenizer": "char", "tokenizer_path": "", "vocab_size": 1024,
    "init_from": "scratch", "seed": 5, "backend": "numpy", "threads": 0, "matmul": "numba",
    "dtype": "float32", "batch_size": 3, "gradient_accumulation_steps": 2, "max_iters": 7,
    "learning_rate": 1e-3, "min_lr": 1e-4, "warmup_iters": 2, "lr_decay_iters": 7,
    "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.95, "grad_clip": 0.5, "eval_interval": 3,
    "keep_best": False,
}  # fmt: skip


def test_older_configurations_are_those_of_a_gpt2_trained_by_adamw() -> None:
    path = Path("config.json")
    shape: dict[str, Any] = {**OLD_SHAPE, "activation": "gelu_exact"}
    del shape["gelu"]
    config = checkpoint.config_of(GPTConfig, {**OLD_SHAPE, "vocab_size": 9}, path)
    assert config == GPTConfig(vocab_size=9, **shape)
    run = checkpoint.config_of(TrainConfig, OLD_SHAPE | OLD_RUN, path)
    assert run == TrainConfig(**shape, **OLD_RUN)
    without_beta1 = {name: value for name, value in OLD_RUN.items() if name != "beta1"}
    with pytest.raises(CheckpointError, match="it lacks beta1"):
        checkpoint.config_of(TrainConfig, OLD_SHAPE | without_beta1, path)
