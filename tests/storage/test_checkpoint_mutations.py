"""Checkpoints that are whole, but say what no training writes: each is refused, by one sentence.

Every value in the JSON files of a checkpoint, and every tensor of its optimizer, is changed in
turn, with the checksums made anew, so that only what is written can tell.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from training.test_trainer import CONFIG, DATA

from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text.tokenizers import TokenizerError
from tinygpt_np.training import runs
from tinygpt_np.training.trainer import MAY_CHANGE, Trainer

RUN = replace(CONFIG, backend="numpy", n_layer=1, max_iters=4)
HUGE = 10**30
VALUES: list[Any] = [
    None, True, "", "x", -1, 1.5, -0.5, HUGE, -HUGE, 10**400, 1e308, [], [1], {}, {"a": 1},
]  # fmt: skip
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    list(Trainer.start(run, RUN, DATA))
    return run


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The last checkpoint in a copy of that run."""
    shutil.copytree(whole, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "run" / runs.CHECKPOINTS / "000004"


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every object, and every value in one."""
    yield place
    if isinstance(value, dict):
        for name, part in cast(dict[str, Any], value).items():
            yield from places(part, (*place, name))


def at(value: Any, place: Place) -> Any:
    for name in place:
        value = value[name]
    return value


def changed(value: Any, place: Place, new: Any) -> Any:
    """A copy of a JSON value with another part at a place; LEFT_OUT removes it."""
    if not place:
        return new
    copy = dict(value)
    if len(place) == 1 and new is LEFT_OUT:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], new)
    return copy


LEFT_OUT = object()


def seal(folder: Path) -> None:
    """Make the checksums those of the files."""
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != checkpoint.CHECKSUMS
    }
    (folder / checkpoint.CHECKSUMS).write_text(json.dumps(sums))


def refused(run: Path) -> str:
    """Return the error for a run that can be neither resumed nor sampled."""
    with pytest.raises((CheckpointError, TokenizerError)) as resumed:
        Trainer.resume(run, replace(RUN, max_iters=6), DATA)
    with pytest.raises((CheckpointError, TokenizerError)) as loaded:
        runs.load(run)
    for message in (str(resumed.value), str(loaded.value)):
        assert "\n" not in message
    return str(resumed.value)


def is_refused(run: Path) -> bool:
    """Whether a run cannot be resumed; loading it ends in one sentence too, or in a model."""
    with contextlib.suppress(CheckpointError, TokenizerError):
        runs.load(run)
    try:
        trainer = Trainer.resume(run, replace(RUN, max_iters=6), DATA)
    except (CheckpointError, TokenizerError) as error:
        return "\n" not in str(error)
    trainer.lock.release()
    return False


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.CONFIG, checkpoint.CHECKSUMS])
def test_every_value_of_another_type_or_out_of_range_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    before = json.loads(path.read_text())
    tried, accepted = 0, list[tuple[Place, Any]]()
    rng = random.Random(2)
    for place in places(before):
        # A few values are enough for a setting: one check tests its type, another its range.
        some = rng.sample(VALUES, 4) if "config" in place[:-1] else VALUES
        for new in [LEFT_OUT, *some] if place else VALUES:
            path.write_text(json.dumps(changed(before, place, new)))
            if name != checkpoint.CHECKSUMS:
                seal(folder)
            tried += 1
            if not is_refused(folder.parent.parent) and not may_be(place, at(before, place), new):
                accepted.append((place, new))
    assert accepted == []
    assert tried > 90


def may_be(place: Place, old: Any, new: Any) -> bool:
    """Whether a change could have been written by a training, as far as a reader can tell."""
    if new is LEFT_OUT:
        return place[-1] in checkpoint.ADDED_LATER
    if type(new) is type(old) and new == old:
        return True
    if place == ("val_loss",):
        return new is None or (type(new) in (int, float) and 0 <= new <= 1e308)
    if place == ("data", "name"):
        return isinstance(new, str)
    if place[0] == "generators" and place[2:] == ("state", "state"):
        return type(new) is int and 0 <= new < 2**128
    if place[0] == "config" and place[-1] in MAY_CHANGE:
        with contextlib.suppress(ValueError):
            replace(RUN, **{place[-1]: new})
            return True
    return False


def test_random_bytes_end_in_a_refusal_or_a_run(folder: Path) -> None:
    rng = random.Random(1)
    for _ in range(60):
        path = folder / rng.choice([checkpoint.STATE, checkpoint.CONFIG, checkpoint.OPTIMIZER])
        content = bytearray(path.read_bytes())
        original = bytes(content)
        header = min(len(content), 1200)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(header)] = rng.randrange(256)
        path.write_bytes(content)
        seal(folder)
        try:
            trainer = Trainer.resume(folder.parent.parent, replace(RUN, max_iters=6), DATA)
            trainer.lock.release()
        except ValueError:
            pass
        path.write_bytes(original)


OPTIMIZERS: list[tuple[Callable[[checkpoint.Tensors], object], str]] = [
    (lambda t: t.pop("first.wte.weight"), r"lacks the tensor first\.wte\.weight"),
    (lambda t: t.update({"third.x": np.zeros(3, np.float32)}), r"has the tensor third\.x"),
    (
        lambda t: t.update({"first.wte.weight": t["first.wte.weight"].T}),
        r"first\.wte\.weight should be",
    ),
    (
        lambda t: t.update({"first.wte.weight": t["first.wte.weight"].astype(np.float64)}),
        r"first\.wte\.weight should be .*float32, but is .*float64",
    ),
    (lambda t: t["first.wte.weight"].fill(np.nan), "has values that are not finite"),
    (lambda t: t["second.wte.weight"].fill(-1), r"second\.wte\.weight, a mean of squares, has"),
]


@pytest.mark.parametrize(("change", "expected"), OPTIMIZERS)
def test_an_optimizer_that_is_not_the_models_is_refused(
    folder: Path, change: Callable[[checkpoint.Tensors], object], expected: str
) -> None:
    path = folder / checkpoint.OPTIMIZER
    tensors = checkpoint.read_safetensors(path)
    change(tensors)
    path.write_bytes(checkpoint.to_safetensors(tensors))
    seal(folder)
    with pytest.raises(CheckpointError, match=expected):
        Trainer.resume(folder.parent.parent, replace(RUN, max_iters=6), DATA)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "..", ".", "", "sub/file", "a\\b", "sha256.json"]
)
def test_checksums_name_files_in_their_folder_only(folder: Path, name: str) -> None:
    path = folder / checkpoint.CHECKSUMS
    (folder.parent / "outside").write_text("x")
    sums = json.loads(path.read_text()) | {name: hashlib.sha256(b"x").hexdigest()}
    path.write_text(json.dumps(sums))
    assert "sha256.json should name files next to it, not" in refused(folder.parent.parent)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_read(folder: Path, kind: str) -> None:
    path = folder / checkpoint.OPTIMIZER
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    message = refused(folder.parent.parent)
    assert "optimizer.safetensors should be a file, but is a folder, pipe or device" in message


@pytest.mark.parametrize("step", [-1, True, 5, 10**9, 1.5, "4", None, [4]])
def test_a_step_out_of_range_is_refused_whatever_the_folder_is_called(
    folder: Path, step: object
) -> None:
    path = folder / checkpoint.STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": step}))
    seal(folder)
    best = folder.rename(folder.parent / "mine")
    with pytest.raises(CheckpointError, match=r"step should be a whole number in \[0, 4\], but is"):
        runs.load(best)


@pytest.mark.parametrize(("name", "value"), [("n_head", 3), ("gelu", "exact")])
def test_a_shape_that_is_not_the_runs_is_refused_though_all_tensors_fit(
    folder: Path, name: str, value: object
) -> None:
    path = folder / checkpoint.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    seal(folder)
    assert f"{name} is {value} in config.json, but " in refused(folder.parent.parent)


def test_a_billion_layers_are_refused_at_once(folder: Path) -> None:
    path = folder / checkpoint.CONFIG
    for name in (checkpoint.CONFIG, checkpoint.STATE):
        content = json.loads((folder / name).read_text())
        (content if name == checkpoint.CONFIG else content["config"])["n_layer"] = 10**9
        (folder / name).write_text(json.dumps(content))
    seal(folder)
    with pytest.raises(CheckpointError, match=r"lacks the tensor h\.1\.ln_1\.weight"):
        runs.load(folder)
    assert path.exists()


def test_a_checkpoint_under_the_number_of_another_step_is_refused(folder: Path) -> None:
    folder.rename(folder.parent / "000009")
    assert "state.json is of step 4, but in 000009" in refused(folder.parent.parent)
