"""Files that survive a crash, a full disk and a flipped byte, or say what is wrong with them."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig, TrainConfig
from tinygpt_np.config import generator
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError

CONFIG = GPTConfig(vocab_size=5, block_size=3, n_layer=1, n_head=2, n_embd=4, bias=True)
RUN = TrainConfig(
    block_size=3, n_layer=1, n_head=2, n_embd=4, bias=True, max_iters=2_000_000, seed=7
)
TOKENIZER = {"tokenizer.json": '{"vocabulary": ["é"]}'.encode()}
FILES = [
    *("config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"),
    *("state.json", "sha256.json"),
]
TOKENS = np.array([[4, 0, 2], [1, 3, 3]])


def params(seed: int = 1, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (5, 4), "ln_f.bias": (4,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def state_at(step: int, val_loss: float | None = 1.5) -> checkpoint.State:
    generators = {
        purpose: generator(RUN.seed, purpose).bit_generator.state
        for purpose in checkpoint.GENERATORS
    }
    return checkpoint.State(step, val_loss, RUN, generators, "letters", "0" * 64)


def save(
    checkpoints: Path, step: int, val_loss: float | None = 1.5, keep_best: bool = False
) -> Path:
    """A small checkpoint whose weights are those of params(step)."""
    optimizer = {f"first.{name}": tensor for name, tensor in params(step + 1).items()}
    folder = checkpoint.save_checkpoint(
        checkpoints, CONFIG, params(step), TOKENIZER, optimizer, state_at(step, val_loss)
    )
    checkpoint.prune(checkpoints, keep_best)
    return folder


def load(folder: Path) -> dict[str, np.ndarray]:
    checkpoint.load_state(folder)
    return checkpoint.load_model(folder)[1]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name], tensor, err_msg=name, strict=True)


def steps(checkpoints: Path) -> list[int]:
    return [int(folder.name) for folder in checkpoint.steps_in(checkpoints)]


def edit(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


# There and back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    checkpoint.save_model(tmp_path / "model", CONFIG, params(dtype=dtype))
    config, found = checkpoint.load_model(tmp_path / "model")
    assert config == CONFIG
    assert_same(found, params(dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_gpt_has_the_same_logits(tmp_path: Path, dtype: str) -> None:
    model = GPT(CONFIG, seed=3, dtype=dtype)
    model.save(tmp_path / "model")
    found = GPT.load(tmp_path / "model").logits(TOKENS)
    np.testing.assert_array_equal(found, model.logits(TOKENS), strict=True)


def test_a_transposed_tensor_comes_back_as_it_was(tmp_path: Path) -> None:
    tensors = {"wte.weight": np.arange(6.0).reshape(2, 3).T}
    checkpoint.save_model(tmp_path / "model", CONFIG, tensors)
    assert_same(checkpoint.load_model(tmp_path / "model")[1], tensors)


def test_loaded_tensors_can_be_written_to(tmp_path: Path) -> None:
    checkpoint.save_model(tmp_path / "model", CONFIG, params())
    for tensor in checkpoint.load_model(tmp_path / "model")[1].values():
        tensor += 1


def test_a_checkpoint_has_its_six_files_and_is_named_after_its_step(tmp_path: Path) -> None:
    folder = save(tmp_path, 250)
    assert folder == tmp_path / "000250"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_the_state_comes_back_with_its_step(tmp_path: Path) -> None:
    assert checkpoint.load_state(save(tmp_path, 7)) == state_at(7)


def test_the_files_of_the_tokenizer_lie_there_as_they_are(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    for name, content in TOKENIZER.items():
        assert (folder / name).read_bytes() == content


# Which are kept


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (0, 3, 20, 100):
        save(tmp_path, step)
    assert steps(tmp_path) == [20, 100]


def test_older_checkpoints_go_only_after_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    monkeypatch.setattr(files, "write_folder", failing(OSError(errno.EIO, "gone")))
    with pytest.raises(OSError, match="gone"):
        save(tmp_path, 3)
    assert steps(tmp_path) == [1, 2]


def test_what_a_crash_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    for step in (1, 2):
        stale = tmp_path / f"{files.TEMPORARY}{step:06d}"
        stale.mkdir()
        (stale / "junk").write_text("half")
    folder = save(tmp_path, 2)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


def test_new_folders_and_their_contents_are_synced_from_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.write_file(tmp_path / "runs" / "mine" / "file", b"content")
    assert synced == [tmp_path, tmp_path / "runs", tmp_path / "runs" / "mine"]


def test_the_newest_checkpoint_is_last_also_past_six_digits(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save(tmp_path, step)
    assert steps(tmp_path) == [999_999, 1_000_000]


def test_files_and_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "notes").mkdir()
    (tmp_path / "000009").write_text("a file")
    assert steps(tmp_path) == [5]


def test_an_existing_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    with pytest.raises(CheckpointError, match="000004 exists already, and nothing is overwritten"):
        checkpoint.save_model(folder, CONFIG, params(9))
    assert_same(load(folder), params(4))


def test_an_existing_empty_folder_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        checkpoint.save_model(tmp_path, CONFIG, params())
    assert not list(tmp_path.iterdir())


# What a failed write leaves behind


def failing(error: BaseException, survived: int = 0) -> Callable[..., None]:
    """A stand-in for a function: it does nothing that many times, then raises."""
    calls = iter(range(survived))

    def fail(*_: object) -> None:
        if next(calls, None) is None:
            raise error

    return fail


def test_a_full_disk_is_called_full_and_the_older_checkpoint_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = save(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left"), 2))
    with pytest.raises(CheckpointError, match=r"the disk is full: .*000002 needs 0\.0 MB"):
        save(tmp_path, 2)
    assert_same(load(older), params(1))


def test_a_failed_write_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(CheckpointError, match="000002 cannot be written: Input/output error"):
        save(tmp_path, 2)


@pytest.mark.parametrize("survived", range(6))
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left"), survived))
    with pytest.raises(CheckpointError):
        save(tmp_path, 2)
    assert not list(tmp_path.iterdir())


def test_a_crash_before_the_rename_leaves_no_checkpoint_that_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(Path, "rename", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("survived", range(8))
def test_after_a_crash_at_any_sync_every_listed_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", failing(KeyboardInterrupt(), survived))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    # The eighth sync makes the rename last, so the checkpoint is there by then.
    assert steps(tmp_path) == ([1, 2] if survived == 7 else [1])
    for folder in checkpoint.steps_in(tmp_path):
        assert_same(load(folder), params(int(folder.name)))


def test_what_a_crash_left_is_no_obstacle_to_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crashing:
        crashing.setattr(Path, "rename", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert_same(load(save(tmp_path, 2)), params(2))
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


def test_a_file_that_cannot_be_written_keeps_its_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_file(tmp_path / "config.json", b"old")
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(CheckpointError, match="the disk is full"):
        files.write_file(tmp_path / "config.json", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("config.json", b"old")]


# Damaged, truncated, foreign


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_anywhere_is_found_and_its_file_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3) / name
    whole = path.read_bytes()
    for offset in range(0, len(whole), 7):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(CheckpointError, match=name):
            checkpoint.load_state(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3) / name
    edit(path, lambda content: content.pop())
    edit(path, lambda content: content.pop())
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        checkpoint.load_state(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3) / name
    path.unlink()
    with pytest.raises(CheckpointError, match=f"there is no file .*{name}"):
        checkpoint.load_state(path.parent)


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_truncated_weights_file_is_named(tmp_path: Path, size: int) -> None:
    GPT(CONFIG).save(tmp_path / "model")
    path = tmp_path / "model" / checkpoint.MODEL
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        GPT.load(tmp_path / "model")


FOREIGN = ["[1, 2]", '"text"', "null", "17", "{}", "[]", '{"n_layers": 2}', "\xff", ""]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_config_is_named(tmp_path: Path, content: str) -> None:
    GPT(CONFIG).save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json is"):
        GPT.load(tmp_path / "model")


@pytest.mark.parametrize("field", ["n_layer", "vocab_size"])
@pytest.mark.parametrize("value", [0, "4", None, 1.5])
def test_a_config_with_a_bad_value_is_named(tmp_path: Path, field: str, value: object) -> None:
    GPT(CONFIG).save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=r"config\.json is"):
        GPT.load(tmp_path / "model")


NO_DIGESTS = json.dumps(dict.fromkeys(FILES[:-1], 5))


@pytest.mark.parametrize("content", [*FOREIGN, json.dumps(FILES), NO_DIGESTS])
@pytest.mark.parametrize("name", ["state.json", "sha256.json"])
def test_a_foreign_state_or_list_of_checksums_is_named(
    tmp_path: Path, name: str, content: str
) -> None:
    folder = save(tmp_path, 3)
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load_state(folder)
