"""tinygpt train from a model, and --eval-only."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from cli.running import error_of, said, train_tiny
from helpers.tiny_run import TEXT, TINY

from tinygpt_np import GPT, CharTokenizer, GPTConfig, cli
from tinygpt_np.training import runs
from tinygpt_np.training import trainer as train
from tinygpt_np.training.metrics import Metrics

TOKENIZER = CharTokenizer.from_text(TEXT)
SHAPE = GPTConfig(vocab_size=18, block_size=12, n_layer=2, n_head=2, n_embd=8, bias=True)

# The tiny training for a model that has a shape of its own.
FROM_MODEL = [
    *("--block-size", "8", "--batch-size", "2", "--eval-interval", "10", "--max-iters", "20"),
]


@pytest.fixture
def checkpoint_folder(folder: Path) -> Path:
    """A GPT-2 of another shape than the tiny runs have, with characters."""
    GPT(SHAPE, seed=4).save_pretrained(folder / "gpt", TOKENIZER)
    return folder / "gpt"


def loss_in(out: str, split: str) -> float:
    found = re.search(rf"{split} +(\d+\.\d+) nats", out)
    assert found, out
    return float(found[1])


def test_a_run_from_a_model_keeps_its_shape_and_starts_from_its_weights(
    folder: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--data",
        "text.txt",
        *FROM_MODEL,
        "--init_from=gpt",
        "--max-iters",
        "1",
        "--name",
        "on",
    ]
    out = said(capsys, "train", *flags, "--learning-rate", "1e-9", "--min-lr", "0")
    assert re.search(r"from +gpt", out)
    assert "2 layers, 2 heads, 8 channels, block 8" in out  # block_size is as asked: cut.
    config = runs.read_config(folder / "runs" / "on")
    assert (config.n_layer, config.block_size, config.bias) == (2, 8, True)
    model = GPT.load(runs.last_checkpoint(folder / "runs" / "on")[0])
    for name, param in GPT(SHAPE, seed=4).cropped(8).params.items():
        np.testing.assert_allclose(model.params[name], param, atol=1e-7)
    out = said(capsys, "train", "--resume", "on", "--max-iters", "2")
    assert re.search(r"resumed +at step 1", out)


@pytest.mark.parametrize(
    ("flags", "has", "asked"),
    [
        (["--n-layer", "3"], "--n-layer 2", "--n-layer 3"),
        (["--n_layer=6"], "--n-layer 2", "--n-layer 6"),  # The default of the preset, but typed.
        (["--block-size", "13"], "--block-size 12", "--block-size 13"),
        (["--no-bias"], "--bias", "--no-bias"),
        (["--tokenizer", "gpt2"], "--tokenizer char", "--tokenizer gpt2"),
        (["--tokenizer", "sentencepiece"], "--tokenizer char", "--tokenizer sentencepiece"),
        (["--vocab-size", "19"], "--vocab-size 18", "--vocab-size 19"),
    ],
)
def test_a_flag_that_contradicts_the_model_is_refused(
    flags: list[str],
    has: str,
    asked: str,
    checkpoint_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [*FROM_MODEL, "--init-from", "gpt", *flags]
    message = error_of(capsys, "train", "--data", "text.txt", *given)
    assert f"gpt has {has}, which --init-from keeps; leave out {asked}" in message
    assert not Path("runs").exists()


def test_flags_that_agree_with_the_model_are_accepted(checkpoint_folder: Path) -> None:
    flags = ["--data", "text.txt", *FROM_MODEL, "--init-from", "gpt", "--eval-only"]
    cli.main(["train", *flags, "--n-layer", "2", "--bias", "--tokenizer", "char"])


def test_a_run_from_a_model_has_its_own_dropout(
    folder: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    advance = train.Trainer.advance

    def watched(trainer: train.Trainer) -> Metrics:
        masks = trainer.engine.masks((2, 8), trainer.engine.draw(np.random.default_rng(1)))
        seen.append(float((masks["drop"] == 0).mean()))
        return advance(trainer)

    monkeypatch.setattr(train.Trainer, "advance", watched)
    flags = ["--data", "text.txt", *FROM_MODEL, "--init-from", "gpt", "--name", "on"]
    cli.main(["train", *flags, "--max-iters", "1", "--dropout", "0.5"])
    assert 0.3 < seen[0] < 0.7
    cli.main(["train", "--resume", "on", "--max-iters", "2"])
    assert 0.3 < seen[1] < 0.7


def test_the_files_of_the_model_are_not_changed_by_training_on_from_it(
    checkpoint_folder: Path,
) -> None:
    before = (checkpoint_folder / "model.safetensors").read_bytes()
    cli.main(["train", "--data", "text.txt", *FROM_MODEL, "--init-from", "gpt"])
    assert (checkpoint_folder / "model.safetensors").read_bytes() == before


def test_a_run_goes_on_from_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny("--name", "first")
    val_loss = loss_in(capsys.readouterr().out, "validation")
    out = said(
        capsys, "train", "--data", "text.txt", *FROM_MODEL, "--init-from", "first", "--eval-only"
    )
    assert loss_in(out, "validation") == val_loss


def test_eval_only_says_both_losses_and_writes_nothing(
    folder: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", "text.txt", *FROM_MODEL, "--init-from", "gpt", "--eval_only=True"]
    out = said(capsys, "train", *flags)
    model = GPT(SHAPE, seed=4).cropped(8)
    for split, text in (("validation", TEXT[1548:]), ("training", TEXT[:172])):
        ids = TOKENIZER.encode(text)
        total = sum(
            model.loss(ids[None, start : start + 8][:, : len(ids) - 1 - start],
                       ids[None, start + 1 : start + 9])
            * min(8, len(ids) - 1 - start)
            for start in range(0, len(ids) - 1, 8)
        )  # fmt: skip
        assert loss_in(out, split) == pytest.approx(total / (len(ids) - 1), abs=1e-4)
    assert not (folder / "runs").exists()
    assert re.search(r"from +gpt *\nevaluation +nothing is trained or written *\n", out)
    assert "steps" not in out
    assert "first loss" not in out
    assert re.search(r"block 8 *\n", out)  # Without the memory that training would take.


def test_a_character_models_loss_is_also_given_in_bits(
    folder: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", "text.txt", *FROM_MODEL, "--init-from", "gpt"]
    for more in (["--eval-only"], []):
        out = " ".join(said(capsys, "train", *flags, *more).split())
        found = re.search(r"validation (\S+) nats per character, (\S+) bits per character", out)
        assert found, out
        assert float(found[2]) == pytest.approx(float(found[1]) / math.log(2), abs=2e-4)


def test_eval_only_of_a_run_says_its_loss(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    val_loss = loss_in(capsys.readouterr().out, "validation")
    out = said(capsys, "train", "--resume", "cpu", "--eval-only")
    assert re.search(r"from +runs/cpu, at step 20 *\n", out)
    assert "steps" not in out
    files = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    assert (
        loss_in(said(capsys, "train", "--resume", "cpu", "--eval-only"), "validation") == val_loss
    )
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")} == files


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--init-from", "nowhere"], "there is no model nowhere"),
        (["--dtype", "float64"], "dtype must be float32 with the numba backend, not 'float64'"),
        (["--tokenizer-path", "text.txt"], "characters need no files, but text.txt was given"),
        (["--tokenizer", "gpt2", "--tokenizer-path", "."], ". is not a GPT-2 tokenizer"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "text.txt", *TINY, *flags])
    assert expected in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not Path("runs").exists()


def test_text_that_the_model_has_no_characters_for_is_refused(
    folder: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other.txt").write_text(TEXT + "Q" * 200, encoding="utf-8")
    flags = ["--data", "other.txt", *FROM_MODEL, "--init-from", "gpt"]
    assert "character 'Q' (U+0051)" in error_of(capsys, "train", *flags)
