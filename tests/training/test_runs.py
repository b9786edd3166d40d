"""Runs and other models by name: which one is meant, what is loaded, and how runs are listed."""

import inspect
import json
import operator
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import byte_pairs

import tinygpt_np as tg
from tinygpt_np import GPT, CharTokenizer, GPTConfig, TrainConfig
from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.text.tokenizers import TokenizerError
from tinygpt_np.training import metrics, runs, sample, trainer
from tinygpt_np.training.metrics import Metrics

TEXT = "To be, or not to be:\nthat is the question.\n" * 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        block_size=4, n_layer=1, n_head=2, n_embd=8, batch_size=3, max_iters=2, eval_interval=1
    )
    for _ in trainer.Trainer.start(run, config, dataset.from_corpus(Corpus("hamlet", TEXT))):
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
    with pytest.raises(CheckpointError, match="runs/hamlet has no checkpoint yet"):
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
    with pytest.raises(TokenizerError, match=r"tokenizer\.json has no valid vocabulary"):
        runs.load(exported)


def test_a_loaded_run_writes_characters_of_its_text(run: Path) -> None:
    assert set(sample.stream(*runs.load(run), "", 50)) <= set(TEXT)


# Any model


@pytest.mark.parametrize(
    "name", ["hamlet", "runs/hamlet", Path("runs/hamlet"), None, "runs/hamlet/checkpoints/000002"]
)
def test_load_takes_a_run_by_name_or_path_and_a_checkpoint(run: Path, name: str | Path) -> None:
    model, tokenizer = tg.load(name)
    newest = GPT.load(checkpoint_of(run))
    for key, param in newest.params.items():
        np.testing.assert_array_equal(model.params[key], param)
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


def test_load_takes_the_best_checkpoint_of_a_run_by_its_name(run: Path) -> None:
    state = checkpoint.load_state(run / "checkpoints" / "best")
    model, _ = tg.load("hamlet/checkpoints/best")
    best = GPT.load(run / "checkpoints" / f"{state.step:06d}")
    assert (model.params["wte.weight"] == best.params["wte.weight"]).all()


@pytest.mark.parametrize(("dtype", "backend"), [("float64", "numpy"), ("float32", "numba")])
def test_load_takes_the_folder_of_a_gpt2_and_a_saved_model(
    tmp_path: Path, run: Path, dtype: str, backend: str
) -> None:
    ours, tokenizer = tg.load(run)
    ours.save_pretrained(tmp_path / "gpt2", tokenizer)
    ours.save(tmp_path / "saved")
    shutil.copy(checkpoint_of(run) / "tokenizer.json", tmp_path / "saved")
    for name in ("gpt2", "saved"):
        model, theirs = tg.load(tmp_path / name, backend, dtype)
        assert theirs.files() == tokenizer.files()
        assert {param.dtype.name for param in model.params.values()} == {dtype}
        np.testing.assert_array_equal(model.params["wte.weight"], ours.params["wte.weight"])


def test_load_names_what_it_takes(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model hamlt; do you mean hamlet\?$"):
        tg.load("hamlt")
    with pytest.raises(CheckpointError, match="there is no model '': expected gpt2"):
        tg.load("")
    with pytest.raises(
        CheckpointError,
        match=r"there is no model othello: expected gpt2, gpt2-medium, gpt2-large, gpt2-xl; "
        r"a folder \(.*GPT-2 checkpoint\); or a run in runs/, which has: hamlet",
    ):
        tg.load("othello")


def test_a_run_that_does_not_exist_is_refused_with_a_close_match(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no run hamlt; do you mean hamlet\?$"):
        runs.find_run("hamlt")
    with pytest.raises(CheckpointError, match=r"there is no run othello; those in runs/ are: ham"):
        runs.find_run("othello")


def test_a_file_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "my ckpt.pt").write_bytes(b"PK")
    path = tmp_path / "my ckpt.pt"
    with pytest.raises(CheckpointError) as caught:
        tg.load(path)
    assert str(caught.value) == (
        f"{path} is a file; to use a nanoGPT checkpoint, convert it first: "
        f"tinygpt convert '{path}' FOLDER"
    )


@pytest.mark.parametrize("name", ["000002", "best"])
def test_a_checkpoint_in_place_of_a_run_is_refused_with_its_run(run: Path, name: str) -> None:
    folder = run / "checkpoints" / name
    with pytest.raises(CheckpointError) as caught:
        runs.find_run(str(folder))
    assert str(caught.value) == f"{folder} is a checkpoint; expected a run, such as {run}"


@pytest.mark.parametrize("name", ["checkpoint.CheckpointError", "tokenizers.TokenizerError"])
def test_an_exception_that_load_documents_can_be_imported(name: str) -> None:
    assert f"\n{name}\n" in inspect.cleandoc(tg.load.__doc__ or "")
    assert issubclass(operator.attrgetter(name)(runs), ValueError)


def test_from_pretrained_refuses_a_run_with_what_to_call(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a training run: tinygpt_np\.load\("):
        tg.GPT.from_pretrained(run)


def test_a_model_without_a_tokenizer_is_loaded_with_the_files_of_one(
    tmp_path: Path, run: Path
) -> None:
    tg.load(run)[0].save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"18 tokens, but no tokenizer: --tokenizer-path"):
        tg.load(tmp_path / "saved")
    _, tokenizer = tg.load(tmp_path / "saved", tokenizer_path=str(checkpoint_of(run)))
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()
    with pytest.raises(CheckpointError, match="a run has its own tokenizer"):
        tg.load(run, tokenizer_path=str(checkpoint_of(run)))


def test_gpt_load_says_what_to_call_for_what_it_does_not_read(tmp_path: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tinygpt_np\.load\('runs/hamlet'\)"):
        GPT.load(run)
    tg.load(run)[0].save_pretrained(tmp_path / "gpt")
    for name in (tmp_path / "gpt", "gpt2"):
        with pytest.raises(CheckpointError, match=rf"GPT\.from_pretrained\('{name}'\)"):
            GPT.load(name)
    with pytest.raises(CheckpointError, match="there is no folder nosuch"):
        GPT.load("nosuch")


def test_a_checkpoint_pruned_while_it_is_read_gives_way_to_the_newest(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, pruned = GPT.load, list[Path]()

    def prune_first(path: Path, backend: str = "numpy") -> GPT:
        if not pruned:
            pruned.append(path)
            shutil.rmtree(path)
        return load(path, backend)

    monkeypatch.setattr(GPT, "load", prune_first)
    model, _ = tg.load(run)
    assert pruned == [checkpoint_of(run)]
    older = load(run / "checkpoints" / "000001").params["wte.weight"]
    assert (model.params["wte.weight"] == older).all()


# Facts about a run


def test_a_summary_has_the_last_and_the_lowest_validation_loss(run: Path) -> None:
    for step, val_loss in ((3, 0.5), (4, 9.0)):
        metrics.record(run, Metrics(step, 1.0, val_loss, 1e-3, 1.0, 10.0))
    metrics.record(run, Metrics(5, 1.0, None, 1e-3, 1.0, 10.0))
    found = runs.summary(run)
    assert (found.val_loss, found.best_loss) == (9.0, 0.5)
    assert found.steps == 6
    assert found.params == sum(param.size for param in tg.load(run)[0].params.values())


def test_a_finished_run_has_taken_as_many_steps_as_its_last_line_says(run: Path) -> None:
    assert runs.summary(run).steps == 2


def test_the_settings_that_differ_are_those_with_more_than_one_value(run: Path) -> None:
    config = runs.read_config(run)
    others = [replace(config, seed=1), replace(config, seed=2, n_layer=3)]
    assert runs.differences([config, *others]) == {
        "n_layer": [1, 1, 3],
        "seed": [config.seed, 1, 2],
    }
    assert runs.differences([config]) == {}


# Padded vocabularies


def padded_model(tmp_path: Path, tokens: int) -> Path:
    """A saved model of the characters of TEXT, whose padding is likeliest by far."""
    config = GPTConfig(vocab_size=tokens, block_size=4, n_layer=1, n_head=2, n_embd=6, bias=True)
    model, tokenizer = GPT(config), CharTokenizer.from_text(TEXT)
    model.params["ln_f.weight"][:], model.params["ln_f.bias"][:] = 0, 1
    model.params["wte.weight"][tokenizer.vocab_size :] = 5
    model.save_pretrained(tmp_path / "padded", tokenizer)
    return tmp_path / "padded"


@pytest.mark.parametrize("tokens", [18, 24, 32, 64, 128])
def test_padding_to_any_usual_multiple_is_accepted_and_never_drawn(
    tmp_path: Path, tokens: int
) -> None:
    made = "".join(sample.stream(*tg.load(padded_model(tmp_path, tokens)), "be", 50, seed=1))
    assert set(made) <= set(TEXT)


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex128", "foo"])
def test_a_dtype_that_models_cannot_have_is_refused_for_a_run(trained: Path, dtype: str) -> None:
    with pytest.raises(ValueError, match=f'dtype must be "float32" or "float64", not \'{dtype}\''):
        tg.load(trained, dtype=dtype)


def test_a_run_is_loaded_in_the_dtype_asked_for(trained: Path) -> None:
    for dtype in ("float32", "float64"):
        model, _ = tg.load(trained, dtype=dtype)
        assert {param.dtype.name for param in model.params.values()} == {dtype}
    with pytest.raises(ValueError, match="float32 only, not in float64"):
        tg.load(trained, "numba", "float64")


@pytest.mark.parametrize("extra", [1, 5, 57, 127])
def test_a_byte_pair_vocabulary_may_have_any_padding_which_is_never_drawn(
    tmp_path: Path, extra: int
) -> None:
    has = byte_pairs.small().vocab_size
    model, tokenizer = tg.load(padded_byte_pairs(tmp_path, has + extra))
    assert model.vocab_size == has + extra
    assert tokenizer.decode(tokenizer.encode("hi there")) == "hi there"
    # A padding row that is drawn has no text, and would raise an error.
    assert "".join(sample.stream(model, tokenizer, "hi", 50, seed=1))


@pytest.mark.parametrize("extra", [-1, 128])
def test_a_byte_pair_vocabulary_of_another_size_is_refused(tmp_path: Path, extra: int) -> None:
    has = byte_pairs.small().vocab_size
    with pytest.raises(CheckpointError, match=f"has {has} tokens, but the model has {has + extra}"):
        tg.load(padded_byte_pairs(tmp_path, has + extra))


def padded_byte_pairs(tmp_path: Path, tokens: int) -> Path:
    """Save a model of so many tokens with a small byte-pair tokenizer; padding is likeliest."""
    config = GPTConfig(vocab_size=tokens, block_size=4, n_layer=1, n_head=2, n_embd=6, bias=True)
    model, tokenizer = GPT(config), byte_pairs.small()
    model.params["ln_f.weight"][:], model.params["ln_f.bias"][:] = 0, 1
    model.params["wte.weight"][tokenizer.vocab_size :] = 5
    model.save_pretrained(tmp_path / "padded", tokenizer)
    return tmp_path / "padded"


@pytest.mark.parametrize("tokens", [17, 19, 20, 40, 72, 192])
def test_more_tokens_than_padding_explains_are_refused(tmp_path: Path, tokens: int) -> None:
    with pytest.raises(CheckpointError, match=f"has 18 tokens, but the model has {tokens}"):
        tg.load(padded_model(tmp_path, tokens))
