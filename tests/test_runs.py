"""Runs and other models by name: which one is meant, what is loaded, and how runs are listed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tinygpt_np import GPT, CharTokenizer, TrainConfig, dataset, runs, sample, train
from tinygpt_np.checkpoint import CheckpointError
from tinygpt_np.data import Corpus
from tinygpt_np.tokenizers import TokenizerError

TEXT = "To be, or not to be:\nthat is the question.\n" * 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        block_size=4, n_layer=1, n_head=2, n_embd=8, batch_size=3, max_iters=2, eval_interval=1
    )
    for _ in train.Trainer.start(run, config, dataset.from_corpus(Corpus("hamlet", TEXT))):
        pass
    return run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Path:
    """A copy of that run, runs/hamlet in the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, Path("runs/hamlet")))


def checkpoint_of(run: Path) -> Path:
    return run / "checkpoints" / "000002"


def saved_at(run: Path, seconds: int) -> None:
    for folder in (run / "checkpoints").iterdir():
        os.utime(folder, (seconds, seconds))


# Which run


def test_the_default_is_the_run_that_was_saved_last(run: Path) -> None:
    saved_at(run, 1000)
    for name, seconds in (("ado", 3000), ("lear", 2000)):
        saved_at(Path(shutil.copytree(run, Path("runs") / name)), seconds)
    assert runs.find_run(None) == Path("runs/ado")


def test_a_folder_without_checkpoints_is_not_the_default(run: Path) -> None:
    (run.parent / "empty" / "checkpoints").mkdir(parents=True)
    assert runs.find_run(None) == run


def test_without_any_run_the_default_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="there is no run in runs/; tinygpt train makes one"):
        runs.find_run(None)


def test_a_run_is_found_by_its_name(run: Path) -> None:
    assert runs.find_run("hamlet") == run


def test_a_run_is_found_by_its_path(run: Path) -> None:
    elsewhere = shutil.copytree(run, "elsewhere")
    assert runs.find_run(str(elsewhere)) == Path("elsewhere")


def test_a_folder_that_is_no_run_does_not_hide_the_run_of_its_name(run: Path) -> None:
    Path("hamlet").mkdir()
    assert runs.find_run("hamlet") == run


def test_an_unknown_run_lists_those_there_are(run: Path) -> None:
    shutil.copytree(run, "runs/ado")
    with pytest.raises(CheckpointError, match="no run othello; those in runs/ are: ado, hamlet"):
        runs.find_run("othello")


def test_an_unknown_run_where_there_are_none_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no run othello; those in runs/ are: none yet"):
        runs.find_run("othello")


# Which checkpoint


def test_a_run_is_loaded_from_its_newest_checkpoint(run: Path) -> None:
    model, _ = runs.load(run)
    tokens = np.array([[1, 5, 2]])
    newest = GPT.load(checkpoint_of(run)).logits(tokens)
    np.testing.assert_array_equal(model.logits(tokens), newest)
    assert (GPT.load(run / "checkpoints" / "000001").logits(tokens) != newest).any()


def test_a_checkpoint_is_loaded_by_its_own_folder(run: Path) -> None:
    older = run / "checkpoints" / "000001"
    model, _ = runs.load(older)
    tokens = np.array([[1, 5, 2]])
    np.testing.assert_array_equal(model.logits(tokens), GPT.load(older).logits(tokens))


def test_the_tokenizer_is_the_one_of_the_text(run: Path) -> None:
    assert runs.load(run)[1].files() == CharTokenizer.from_text(TEXT).files()


def test_a_run_without_checkpoints_says_so(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="runs/hamlet holds no checkpoint"):
        runs.load(run)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_checkpoint_is_refused_and_its_file_named(run: Path, name: str) -> None:
    path = checkpoint_of(run) / name
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    for place in (run, path.parent):
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            runs.load(place)


def test_a_vocabulary_of_another_size_than_the_models_is_refused(tmp_path: Path, run: Path) -> None:
    exported = tmp_path / "exported"
    runs.load(run)[0].save(exported)
    (exported / "tokenizer.json").write_text(json.dumps({"vocabulary": ["a", "b", "c"]}))
    with pytest.raises(CheckpointError, match="has 3 tokens, but the model has 18"):
        runs.load(exported)


@pytest.mark.parametrize(
    "content",
    ['{"type": "char"}', '{"vocabulary": 5}', '{"vocabulary": [1, 2]}', '{"vocabulary": "aa"}'],
)
def test_a_file_without_a_vocabulary_is_named(tmp_path: Path, run: Path, content: str) -> None:
    exported = tmp_path / "exported"
    runs.load(run)[0].save(exported)
    (exported / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json holds no vocabulary"):
        runs.load(exported)


def test_a_loaded_run_writes_characters_of_its_text(run: Path) -> None:
    assert set(sample.stream(*runs.load(run), "", 50)) <= set(TEXT)
