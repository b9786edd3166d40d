"""Checkpoints survive a crash and a full disk; damaged and implausible ones are refused."""

import contextlib
import errno
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig, TrainConfig
from tinygpt_np.config import Architecture, generator
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
    checkpoint.load_optimizer(folder, found)
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


def edit(path: Path, **changes: object) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name, strict=True)


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
    assert_same(found, saved)
    for tensor in found.values():
        tensor += 1


def test_a_checkpoint_is_named_after_its_step_and_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 250)
    assert folder == tmp_path / "000250"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert checkpoint.load_state(folder) == state_at(250)
    assert (folder / "tokenizer.json").read_bytes() == TOKENIZER["tokenizer.json"]
    first, second = checkpoint.load_optimizer(folder, params(250))
    assert_same(first, params(251))
    assert_same(second, params(252))


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


def failing(error: BaseException, survived: int = 0) -> Callable[..., None]:
    """Return a function that does nothing for some calls and then raises an error."""
    calls = iter(range(survived))

    def fail(*_: object) -> None:
        if next(calls, None) is None:
            raise error

    return fail


def test_a_full_disk_is_named_and_the_older_checkpoint_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = save(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left"), 2))
    with pytest.raises(CheckpointError, match=r"the disk is full: .*000002 needs 0\.0 MB"):
        save(tmp_path, 2)
    assert_same(load(older), params(1))


def test_a_failed_write_says_why_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for survived in range(6):
        monkeypatch.setattr(os, "fsync", failing(OSError(errno.EIO, "Input/output"), survived))
        with pytest.raises(CheckpointError, match="000002 cannot be written: Input/output"):
            save(tmp_path, 2)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("survived", range(8))
def test_after_a_crash_at_any_sync_every_listed_checkpoint_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    save(tmp_path, 1)
    with monkeypatch.context() as crashing:
        crashing.setattr(os, "fsync", failing(KeyboardInterrupt(), survived))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    # The eighth sync makes the rename durable; the checkpoint has its name by then.
    assert steps(tmp_path) == ([1, 2] if survived == 7 else [1])
    for folder in checkpoint.steps_in(tmp_path):
        assert_same(load(folder), params(int(folder.name)))
    assert_same(load(save(tmp_path, 3)), params(3))


# Damaged, truncated and foreign files


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3) / name
    content = path.read_bytes()
    for offset in range(0, len(content), 41):
        flipped = bytes([content[offset] ^ 1])
        path.write_bytes(content[:offset] + flipped + content[offset + 1 :])
        assert name in refused(path.parent)
    path.write_bytes(content[:-2])
    assert f"{name} is damaged" in refused(path.parent)
    path.unlink()
    assert f"there is no file {path}" in refused(path.parent)


@pytest.mark.parametrize(
    "content", ["", "\xff", '{"n_layers": 2}', json.dumps(dict.fromkeys(FILES[:-1], 5))]
)
@pytest.mark.parametrize("name", ["config.json", "state.json", "sha256.json"])
def test_foreign_json_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = save(tmp_path, 3)
    (folder / name).write_text(content, encoding="latin-1")
    if name != checkpoint.CHECKSUMS:
        seal(folder)
    assert name in refused(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "..", ".", "", "sub/file", "a\\b", "a\0b", "sha256.json"]
)
def test_checksums_name_only_files_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 3)
    edit(folder / checkpoint.CHECKSUMS, **{name: hashlib.sha256(b"x").hexdigest()})
    assert "sha256.json should name files next to it, not" in refused(folder)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_folders_and_pipes_are_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = save(tmp_path, 3)
    (folder / checkpoint.OPTIMIZER).unlink()
    make(folder / checkpoint.OPTIMIZER)
    assert "should be a file, but is a folder, pipe or device" in refused(folder)


# Values that training never writes, with correct checksums

HUGE = 10**30
VALUES: list[Any] = [
    None, True, "", "x", -1, 1.5, -0.5, HUGE, -HUGE, 10**400, 1e308, [], [1], {}, {"a": 1},
]  # fmt: skip
Place = tuple[str, ...]
MISSING = object()


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the path of every value in nested objects."""
    yield place
    if isinstance(value, dict):
        for name, part in cast(dict[str, Any], value).items():
            yield from places(part, (*place, name))


def changed(value: Any, place: Place, new: Any) -> Any:
    """Return a copy of a JSON value with one part replaced, or removed if `new` is MISSING."""
    if not place:
        return new
    copy = dict(value)
    if len(place) == 1 and new is MISSING:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], new)
    return copy


def is_plausible(place: Place, new: Any) -> bool:
    """Return whether training could have written a value at a place."""
    match place:
        case _ if new is MISSING:
            return place[0] == "config" and place[-1] in checkpoint.ADDED_LATER
        case ("step",):
            return type(new) is int and 0 <= new <= RUN.max_iters
        case ("val_loss",):
            return new is None or (type(new) in (int, float) and 0 <= new <= 1e308)
        case ("data", "name"):
            return isinstance(new, str)
        case ("generators", _, "state", "state"):
            return type(new) is int and 0 <= new < 2**128
        case ("config", name) if name not in {"seed", *(f.name for f in fields(Architecture))}:
            try:
                return replace(RUN, **{name: new}).max_iters >= 3
            except (TypeError, ValueError, OverflowError):
                return False
        case (*_, "dropout"):
            return type(new) in (int, float) and 0 <= new < 1
        case _:
            return False


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.CONFIG, checkpoint.CHECKSUMS])
def test_every_value_of_a_wrong_type_or_out_of_range_is_refused(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 3).rename(tmp_path / "of any step")
    before = json.loads((folder / name).read_text())
    accepted, tried, rng = list[tuple[Place, Any]](), 0, random.Random(2)
    for place in places(before):
        # One check tests the type of every setting and another its range: two values suffice.
        values = rng.sample(VALUES, 2) if "config" in place[:-1] else VALUES
        for new in [MISSING, *values] if place else VALUES:
            content = json.dumps(changed(before, place, new))
            if content == json.dumps(before):
                continue
            (folder / name).write_text(content)
            if name != checkpoint.CHECKSUMS:
                seal(folder)
            tried += 1
            with contextlib.suppress(CheckpointError):
                load(folder)
                if not is_plausible(place, new):
                    accepted.append((place, new))
    assert accepted == []
    assert tried > 90


def test_random_bytes_are_refused_or_load(tmp_path: Path) -> None:
    folder, rng = save(tmp_path, 3), random.Random(1)
    for _ in range(60):
        path = folder / rng.choice([checkpoint.STATE, checkpoint.CONFIG, checkpoint.OPTIMIZER])
        original = path.read_bytes()
        content = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(min(len(content), 1200))] = rng.randrange(256)
        path.write_bytes(content)
        seal(folder)
        with contextlib.suppress(CheckpointError):
            load(folder)
        path.write_bytes(original)


def test_a_checkpoint_in_the_folder_of_another_step_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 4).rename(tmp_path / "000009")
    assert "state.json is of step 4, but in 000009" in refused(folder)


@pytest.mark.parametrize(("name", "value"), [("n_head", 1), ("gelu", "exact")])
def test_a_setting_that_differs_in_config_and_state_is_refused_though_all_tensors_fit(
    tmp_path: Path, name: str, value: object
) -> None:
    folder = save(tmp_path, 4)
    edit(folder / checkpoint.CONFIG, **{name: value})
    seal(folder)
    assert f"{name} is {value} in config.json, but " in refused(folder)


def test_a_billion_layers_are_refused_at_once(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    edit(folder / checkpoint.CONFIG, n_layer=10**9)
    state = json.loads((folder / checkpoint.STATE).read_text())
    edit(folder / checkpoint.STATE, config=state["config"] | {"n_layer": 10**9})
    seal(folder)
    assert "lacks the tensor h.1.ln_1.weight" in refused(folder)


OPTIMIZERS: list[tuple[Callable[[Tensors], object], str]] = [
    (lambda t: t.pop("first.wte.weight"), "lacks the tensor first.wte.weight"),
    (lambda t: t.update({"first.wte.weight": t["first.wte.weight"].T}), "wte.weight should be (5,"),
    (lambda t: t["second.wte.weight"].fill(-1), "second.wte.weight, a mean of squares, has"),
]


@pytest.mark.parametrize(("change", "expected"), OPTIMIZERS)
def test_the_optimizer_of_another_model_is_refused(
    tmp_path: Path, change: Callable[[Tensors], object], expected: str
) -> None:
    path = save(tmp_path, 4) / checkpoint.OPTIMIZER
    found = checkpoint.read_safetensors(path)
    change(found)
    path.write_bytes(checkpoint.to_safetensors(found))
    seal(path.parent)
    assert expected in refused(path.parent)


# Tensors that do not match the expected names, shapes and dtype

BIAS = "h.0.ln_1.bias"
MISMATCHES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({BIAS: None}, {}, f"lacks the tensor {BIAS} (4,)"),
    ({"b": np.zeros(4)}, {}, "has the tensor b (4,), which this model does not have"),
    ({BIAS: np.zeros(4)}, {}, f": {BIAS} should be (4,) float32, but is (4,) float64"),
    ({BIAS: np.full(4, -np.inf, "f4")}, {}, f": {BIAS} has values that are not finite"),
    ({"wte.weight": np.zeros((5, 4), "f2")}, {}, "be (5, 4) float32, but is (5, 4) float16"),
    ({}, {"block_size": 8}, ": wpe.weight should be (8, 4) float32, but is (3, 4) float32"),
    ({}, {"bias": False}, "has the tensor h.0.attn.c_attn.bias (12,), which this model does"),
]


@pytest.mark.parametrize(("change", "settings", "expected"), MISMATCHES)
def test_a_tensor_that_does_not_match_is_named(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    found = {name: tensor for name, tensor in (params() | change).items() if tensor is not None}
    checkpoint.save_model(tmp_path / "model", replace(CONFIG, **settings), found)
    with pytest.raises(CheckpointError) as caught:
        GPT.load(tmp_path / "model")
    assert f"{tmp_path / 'model' / checkpoint.MODEL}" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_truncated_weights_file_is_named(tmp_path: Path, size: int) -> None:
    checkpoint.save_model(tmp_path / "model", CONFIG, params())
    path = tmp_path / "model" / checkpoint.MODEL
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        checkpoint.load_model(tmp_path / "model")
