"""Runs and other models are found, loaded, listed and compared by name."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import byte_pairs
from helpers.small_gpts import assert_same_bits
from helpers.tiny_run import CONFIG, DATA, TEXT

import tinygpt_np as tg
from tinygpt_np import GPT, CharTokenizer, GPTConfig
from tinygpt_np.model.sampling import stream_text
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text.tokenizers import Tokenizer, TokenizerError
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.metrics import Metrics


@pytest.fixture
def run(folder: Path, trained: Path) -> Path:
    """Return a copy of that run, runs/hamlet in the working folder."""
    return Path(shutil.copytree(trained, Path("runs/hamlet")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint_of(run: Path) -> Path:
    return run / "checkpoints" / "000002"


# Find a run


def test_a_run_is_found_by_name_or_path_and_by_default_the_latest_with_a_checkpoint(
    folder: Path, trained: Path
) -> None:
    with pytest.raises(CheckpointError, match="there is no run in runs/; tinygpt train makes one"):
        runs.find_run(None)
    (folder / "runs" / "empty" / "checkpoints").mkdir(parents=True)
    copies = [Path(shutil.copytree(trained, f"runs/{name}")) for name in ("hamlet", "ado", "lear")]
    for latest in copies:
        for each in copies:
            os.utime(checkpoint_of(each), (1000, 2000 if each == latest else 1000))
        assert runs.find_run(None) == latest
    Path("hamlet").mkdir()  # It is not a run, so it does not hide runs/hamlet.
    assert runs.find_run("hamlet") == copies[0]
    elsewhere = copies[1].rename("elsewhere")
    assert runs.find_run("elsewhere") == elsewhere


# Load


@pytest.mark.parametrize(
    "name", ["hamlet", "runs/hamlet", Path("runs/hamlet"), None, "runs/hamlet/checkpoints/000002"]
)
def test_a_run_is_loaded_from_its_newest_checkpoint(run: Path, name: str | Path) -> None:
    model, tokenizer = tg.load(name)
    newest = GPT.load(checkpoint_of(run))
    assert_same_bits(model.params, newest.params)
    older, _ = tg.load("hamlet/checkpoints/000001")
    assert (older.params["wte.weight"] != newest.params["wte.weight"]).any()
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


@pytest.mark.parametrize(("dtype", "backend"), [("float64", "numpy"), ("float32", "numba")])
def test_a_run_a_gpt2_folder_and_a_saved_model_are_loaded(
    tmp_path: Path, run: Path, dtype: str, backend: str
) -> None:
    original, tokenizer = tg.load(run)
    original.save_pretrained(tmp_path / "gpt2", tokenizer)
    original.save(tmp_path / "saved")
    shutil.copy(checkpoint_of(run) / "tokenizer.json", tmp_path / "saved")
    for place in (run, tmp_path / "gpt2", tmp_path / "saved"):
        model, found = tg.load(place, backend, dtype)
        assert found.files() == tokenizer.files()
        assert {param.dtype.name for param in model.params.values()} == {dtype}
        np.testing.assert_array_equal(model.params["wte.weight"], original.params["wte.weight"])


# A function, a name that it refuses, and the message.
REFUSED: list[tuple[Callable[[str], object], str, str]] = [
    (runs.find_run, "hamlt", r"there is no run hamlt; did you mean hamlet\?$"),
    (runs.find_run, "othello", "there is no run othello; those in runs/ are: ado, hamlet$"),
    (runs.find_run, "runs/hamlet/checkpoints/best",
     "best is a checkpoint; expected a run, such as runs/hamlet$"),
    (tg.load, "hamlt", r"there is no model hamlt; did you mean hamlet\?$"),
    (tg.load, "", "there is no model '': expected gpt2"),
    (tg.load, "othello",
     r"there is no model othello: expected gpt2, gpt2-medium, gpt2-large, gpt2-xl; "
     r"a folder \(.*GPT-2 or Llama\); or a run in runs/ \(ado, hamlet\)$"),
    (tg.load, "my ckpt.pt",
     "^my ckpt.pt is a file; .* convert it first: tinygpt convert 'my ckpt.pt' FOLDER$"),
    (GPT.from_pretrained, "runs/hamlet", r"is a training run: tinygpt_np\.load\("),
    (GPT.load, "runs/hamlet", r"tinygpt_np\.load\('runs/hamlet'\)"),
    (GPT.load, "gpt", r"GPT\.from_pretrained\('gpt'\)"),
    (GPT.load, "gpt2", r"GPT\.from_pretrained\('gpt2'\)"),
    (GPT.load, "nosuch", "there is no folder nosuch"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "name", "message"), REFUSED)
def test_a_name_is_refused_with_what_was_meant_or_is_accepted(
    run: Path, function: Callable[[str], object], name: str, message: str
) -> None:
    shutil.copytree(run, "runs/ado")
    tg.load(run)[0].save_pretrained("gpt")
    Path("my ckpt.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=message):
        function(name)


def test_a_missing_or_damaged_checkpoint_is_refused_with_its_file(run: Path) -> None:
    path = checkpoint_of(run) / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    for place in (run, path.parent):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
            tg.load(place)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="runs/hamlet has no checkpoint yet"):
        tg.load(run)


def test_a_checkpoint_removed_while_it_is_read_is_replaced_by_the_newest(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, removed = GPT.load, list[Path]()

    def remove_first(path: Path, backend: str = "numpy") -> GPT:
        if not removed:
            removed.append(path)
            shutil.rmtree(path)
        return load(path, backend)

    monkeypatch.setattr(GPT, "load", remove_first)
    model, _ = tg.load(run)
    assert removed == [checkpoint_of(run)]
    older = load(run / "checkpoints" / "000001").params["wte.weight"]
    assert (model.params["wte.weight"] == older).all()


# Tokenizers


def test_a_tokenizer_is_in_the_folder_of_a_model_or_named_with_it(
    tmp_path: Path, run: Path
) -> None:
    tg.load(run)[0].save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"18 tokens, but no tokenizer: --tokenizer-path"):
        tg.load(tmp_path / "saved")
    _, tokenizer = tg.load(tmp_path / "saved", tokenizer_path=str(checkpoint_of(run)))
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()
    with pytest.raises(CheckpointError, match="a run has its own tokenizer"):
        tg.load(run, tokenizer_path=str(checkpoint_of(run)))
    for content, error, message in (
        ('{"vocabulary": [1, 2]}', TokenizerError, r"tokenizer\.json has no valid vocabulary"),
        ('{"vocabulary": ["a", "b"]}', CheckpointError, "has 2 tokens, but the model has 18"),
    ):
        (tmp_path / "saved" / "tokenizer.json").write_text(content)
        with pytest.raises(error, match=message):
            tg.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("tokenizer", "extra", "fits"),
    [
        *((CharTokenizer.from_text(TEXT), extra, fits)
          for extra, fits in ((-1, False), (1, False), (6, True), (22, False), (110, True))),
        *((byte_pairs.small(), extra, fits)
          for extra, fits in ((-1, False), (1, True), (127, True), (128, False))),
    ],
)  # fmt: skip
def test_padding_to_a_usual_multiple_is_accepted_and_never_sampled(
    tmp_path: Path, tokenizer: Tokenizer, extra: int, fits: bool
) -> None:
    size = tokenizer.vocab_size
    config = GPTConfig(
        vocab_size=size + extra, block_size=4, n_layer=1, n_head=2, n_embd=6, bias=True
    )
    model = GPT(config)
    model.params["ln_f.weight"][:], model.params["ln_f.bias"][:] = 0, 1
    model.params["wte.weight"][size:] = 5  # The padding has the largest logits by far.
    model.save_pretrained(tmp_path / "padded", tokenizer)
    if fits:
        model, found = tg.load(tmp_path / "padded")
        # Decoding padding would raise an error.
        assert "".join(stream_text(model.decoder(1), found, "be", 50, seed=1))
    else:
        message = f"has {size} tokens, but the model has {size + extra}"
        with pytest.raises(CheckpointError, match=message):
            tg.load(tmp_path / "padded")


# Configurations and facts


# The settings in the config.json of the first runs.
FIRST = {
    *("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias", "activation", "data", "seed"),
    *("backend", "batch_size", "max_iters", "learning_rate", "min_lr", "warmup_iters"),
    *("lr_decay_iters", "weight_decay", "beta1", "beta2", "grad_clip", "eval_interval"),
}


def test_settings_that_an_older_run_lacks_have_their_defaults(tmp_path: Path) -> None:
    for content in ("{}", '{"n_layers": 3}', "nonsense"):
        (tmp_path / runs.CONFIG).write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            runs.read_config(tmp_path)
    found = {name: value for name, value in asdict(CONFIG).items() if name in FIRST}
    assert len(found) == len(FIRST)
    (tmp_path / runs.CONFIG).write_text(json.dumps(found))
    assert runs.read_config(tmp_path) == CONFIG


def test_a_summary_has_the_last_and_the_lowest_validation_loss(run: Path) -> None:
    assert runs.summary(run).steps == 2
    for step, val_loss in ((3, 0.5), (4, 9.0)):
        metrics.record(run, Metrics(step, 1.0, val_loss, 1e-3, 1.0, 10.0))
    metrics.record(run, Metrics(5, 1.0, None, 1e-3, 1.0, 10.0))
    found = runs.summary(run)
    assert (found.val_loss, found.best_loss) == (9.0, 0.5)
    assert found.steps == 6
    assert found.params == sum(param.size for param in tg.load(run)[0].params.values())


# The inputs of a run


def test_a_run_that_is_resumed_has_the_tokenizer_of_its_checkpoint(run: Path) -> None:
    Path("text.txt").write_text(DATA.tokenizer.decode(DATA.train))  # Other characters.
    config = replace(runs.read_config(run), data="text.txt")
    with pytest.raises(ValueError, match=r"text\.txt does not fit this model"):
        runs.inputs(config, run=run)
    assert runs.inputs(config)[2] is None
    shutil.rmtree(run / "checkpoints")
    assert runs.inputs(config, run=run)[1].tokenizer.vocab_size < 18
