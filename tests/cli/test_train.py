"""`tinygpt train`: what it prints and writes, resuming, --init-from and --eval-only."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import Captured, error_of, output_of, train_tiny
from helpers.small_gpts import assert_same_bits
from helpers.tiny_run import TEXT, TINY_FIELDS

from tinygpt_np import GPT, CharTokenizer, GPTConfig, TrainConfig, cli, config
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.trainer import Trainer

TRAIN = ["train", "--preset", "cpu", "--data", "text.txt"]


def test_training_prints_a_summary_the_progress_a_sample_and_what_was_written(
    folder: Path, capsys: Captured
) -> None:
    text = f"{TEXT[:-1]}Q"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    train_tiny("--name", "mine")
    out = capsys.readouterr().out
    for expected in (
        r"text\.txt: 1,720 characters, 19 distinct",
        r"parameters, 1 layer, 2 heads, 8 channels, block 8; about \d+ MB",
        r"20 steps of 16 tokens: 0\.2 passes over",
        r"about ln 19 = 2\.94",
        r"step 10 .*loss \d\.\d+  val \d\.\d+  [\d,]+ tokens/s  0:00:\d\d left",
        r"validation +\d\.\d{4} nats per character, \d\.\d{4} bits per character, over the whole",
        r"written +runs/mine/ with config.json, metrics.jsonl, loss.svg, checkpoints/",
        r"tinygpt sample runs/mine --endless",
        r"note +characters that occur only in the validation split.*'Q'",
    ):
        assert re.search(expected, out), expected
    sample = re.split("─{20,}.*\n", out)[1]
    assert len(sample) == 300 + 1
    assert set(sample) <= set(text)
    found = {path.name for path in (folder / "runs" / "mine").iterdir()}
    assert found == {"config.json", "metrics.jsonl", "checkpoints", ".lock"}  # No plot in tests.
    assert json.loads((folder / "runs" / "mine" / "config.json").read_text())["n_embd"] == 8


@pytest.mark.parametrize(("losses", "shown"), [([3.0, 2.25, 2.5], True), ([3.0, 2.5, 1.0], False)])
def test_the_loss_is_compared_with_the_best_and_the_expected_band(
    losses: list[float], shown: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(losses)
    monkeypatch.setattr(Trainer, "evaluate", lambda self: next(given))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setitem(config.PRESETS, "tiny", TrainConfig(**TINY_FIELDS, lr_decay_iters=20))
    key = ("tiny", str(Path("text.txt").resolve()))
    monkeypatch.setattr(config, "MEASURED", {key: (2.4, 2.5, 2.6)})
    train_tiny()
    out = " ".join(capsys.readouterr().out.split())
    assert f"{'within' if shown else 'outside'} the expected band" in out
    best = "best 2.2500 at step 10, kept in runs/cpu/checkpoints/best"
    assert (best in out) == ("kept in" in out) == shown


def test_a_plot_or_a_sample_that_fails_is_noted_and_the_run_is_complete(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("libfreetype.so.6: cannot open shared object file")

    monkeypatch.setattr(metrics, "plot_losses", fail)
    monkeypatch.setattr("tinygpt_np.cli.train.stream_text", fail)
    train_tiny()
    out = capsys.readouterr().out
    assert out.count("note  loss.svg was not drawn: ImportError: libfreetype") == 1
    assert out.count("note  no sample was written: ImportError: libfreetype") == 1
    assert "tinygpt sample runs/cpu --endless" in out
    assert int(runs.last_checkpoint(folder / "runs" / "cpu")[0].name) == 20


def test_a_run_gets_a_new_folder_and_flags_override_the_preset(
    run: Path, folder: Path, capsys: Captured
) -> None:
    train_tiny("--max-iters", "1")
    assert {path.name for path in run.parent.iterdir()} == {"cpu", "cpu-2"}
    cli.main([*TRAIN, "--preset", "smoke", "--max-iters", "1", "--n_layer=1"])
    found = runs.read_config(folder / "runs" / "smoke")
    assert (found.max_iters, found.n_layer, found.n_embd) == (1, 1, 32)
    assert found.lr_decay_iters == 1  # --max-iters sets it, too.
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["train", "--max-iters", "77", "--help"])
    text = capsys.readouterr().out
    assert "(default: 77)" in " ".join(text[text.index("--lr-decay-iters") :].split())[:200]


def test_resuming_needs_no_other_flag_and_keeps_the_schedule(run: Path, capsys: Captured) -> None:
    out = output_of(capsys, "train", "--resume", "cpu", "--max-iters", "25")
    assert re.search(r"resumed +at step 20 *\n", out)
    expected = r"training +5 more steps of 16 tokens, to step 25: 0\.3 passes .* in total"
    assert re.search(expected, out)
    decayed = "decayed to --min-lr (at --lr-decay-iters 20) and stays there until step 25"
    assert decayed in " ".join(out.split())
    assert metrics.read(run)[-1].step == 25
    assert runs.read_config(run).lr_decay_iters == 20


def test_resuming_with_a_time_limit_again_and_again_ends_when_the_run_is_finished(
    run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygpt_np.machine.minutes_running", lambda: 60.04)
    resume = ["train", "--resume", "cpu", "--max-iters", "22"]
    out = output_of(capsys, *resume, "--max-minutes", "50")
    stopped = r"stopped before step 21 after 60\.0 minutes and saved; resume with\n  tinygpt train "
    assert re.search(stopped, out)
    assert "validation" not in out
    assert "stopped before step 22 " in output_of(capsys, *resume, "--max-minutes", "60.03")
    assert "sample" in output_of(capsys, *resume, "--max-minutes", "0.5")  # It was only evaluated.
    assert "runs/cpu has already taken 22 steps" in error_of(capsys, *resume, "--max-minutes", "50")
    assert [row.step for row in metrics.read(run)] == list(range(23))


TOKENIZER = CharTokenizer.from_text(TEXT)
SHAPE = GPTConfig(vocab_size=18, block_size=12, n_layer=2, n_head=2, n_embd=8, bias=True)
LLAMA = GPTConfig(
    vocab_size=18, block_size=12, n_layer=2, n_head=4, n_kv_head=2, n_embd=24, n_inner=20,
    norm="rms_norm", positions="rotary_halves", activation="swiglu", tied_head=False,
)  # fmt: skip
SIZES = "--block-size 8 --batch-size 2 --eval-interval 10 --max-iters 2 --init-from gpt"
FROM_GPT = [*TRAIN, *SIZES.split()]


@pytest.fixture
def gpt(folder: Path) -> Path:
    """Return the folder of a character-level GPT-2 with another shape than the tiny runs."""
    GPT(SHAPE, seed=4).save_pretrained(folder / "gpt", TOKENIZER)
    return folder / "gpt"


def loss_in(out: str, split: str) -> float:
    found = re.search(rf"{split} +(\d+\.\d+) nats", out)
    assert found, out
    return float(found[1])


def test_a_run_from_a_model_has_its_shape_and_weights_and_can_be_resumed(
    folder: Path, gpt: Path, capsys: Captured
) -> None:
    before = (gpt / "model.safetensors").read_bytes()
    flags = [*FROM_GPT, "--max-iters", "1", "--name", "on"]
    settings = ["--learning-rate", "1e-9", "--min-lr", "0", "--dropout", "0.5"]
    out = output_of(capsys, *flags, *settings)
    assert re.search(r"from +gpt", out)
    assert "2 layers, 2 heads, 8 channels, block 8" in out  # Cropped to --block-size.
    config = runs.read_config(folder / "runs" / "on")
    assert (config.n_layer, config.block_size, config.bias) == (2, 8, True)
    model = GPT.load(runs.last_checkpoint(folder / "runs" / "on")[0])
    assert model.config == config.gpt(18)  # The dropout is that of the run.
    for name, param in GPT(SHAPE, seed=4).cropped(8).params.items():
        np.testing.assert_allclose(model.params[name], param, atol=1e-7)
    out = output_of(capsys, "train", "--resume", "on", "--max-iters", "2")
    assert re.search(r"resumed +at step 1", out)
    assert (gpt / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.slow)])
def test_a_llama_is_fine_tuned_converted_and_sampled(
    folder: Path, backend: str, capsys: Captured
) -> None:
    GPT(LLAMA, seed=4).save_pretrained(folder / "llama", TOKENIZER)
    flags = ["--init-from", "llama", "--max-iters", "5", "--backend", backend, "--name", "on"]
    output_of(capsys, *FROM_GPT, *flags)
    losses = [row.loss for row in metrics.read(folder / "runs" / "on") if row.loss is not None]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    trained = GPT.load(runs.last_checkpoint(folder / "runs" / "on")[0])
    assert trained.config == replace(LLAMA, block_size=8)
    output_of(capsys, "convert", "on", "out")
    found, written = GPT.from_pretrained("out"), TOKENIZER.files_for_transformers()
    assert found.config == trained.config
    assert_same_bits(found.params, trained.params)
    assert {path.name for path in Path("out").iterdir()} > {*written, "config.json"}
    flags = ["--prompt", "To be", "--tokens", "30", "--seed", "5", "--backend", backend]
    samples = [output_of(capsys, "sample", "--model", name, *flags) for name in ("on", "out")]
    assert samples[0] == samples[1]


def test_eval_only_prints_both_losses_and_writes_nothing(
    folder: Path, gpt: Path, capsys: Captured
) -> None:
    text = TEXT[171::-1] + TEXT[172:]  # The splits start differently.
    (folder / "text.txt").write_text(text, encoding="utf-8")
    out = output_of(capsys, *FROM_GPT, "--eval_only=True")
    model = GPT(SHAPE, seed=4).cropped(8)
    for split, part in (("validation", text[1548:]), ("training", text[:172])):
        ids, total = TOKENIZER.encode(part), 0.0
        for start in range(0, len(ids) - 1, 8):
            targets = ids[None, start + 1 : start + 9]
            sequence = ids[None, start : start + targets.size]
            total += model.loss(sequence, targets) * targets.size
        assert loss_in(out, split) == pytest.approx(total / (len(ids) - 1), abs=1e-4)
    bits = re.search(r"nats per character, (\S+) bits per character", out)
    assert bits
    nats = loss_in(out, "validation")
    assert float(bits[1]) == pytest.approx(nats / math.log(2), abs=2e-4)
    assert not (folder / "runs").exists()
    assert re.search(r"from +gpt *\nevaluation +nothing is trained or written *\n", out)
    assert "steps" not in out
    assert "first loss" not in out
    assert re.search(r"block 8 *\n", out)  # Without the memory that training would take.


def test_eval_only_of_a_run_prints_its_last_loss(run: Path, capsys: Captured) -> None:
    expected: Any = metrics.read(run)[-1].val_loss
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    out = output_of(capsys, "train", "--resume", "cpu", "--eval-only", "--data", "text.txt")
    assert re.search(r"from +runs/cpu, at step 20 *\n", out)
    assert "steps" not in out
    assert loss_in(out, "validation") == pytest.approx(expected, abs=1e-4)
    flags = [*TRAIN, "--init-from", "cpu", "--eval-only", "--block-size", "8"]
    assert loss_in(output_of(capsys, *flags), "validation") == pytest.approx(expected, abs=1e-4)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files


def test_eval_only_evaluates_another_part_of_the_split_than_training_did(
    run: Path, capsys: Captured
) -> None:
    whole = output_of(capsys, "train", "--resume", "cpu", "--eval-only")
    out = output_of(capsys, "train", "--resume", "cpu", "--eval-only", "--eval-tokens", "30")
    assert re.search(r"validation .*, over the first 30 of 172 tokens of the split *\n", out)
    assert re.search(r"training .*, over the first 30 tokens of the training split *\n", out)
    assert loss_in(out, "validation") != loss_in(whole, "validation")
    assert runs.read_config(run).eval_tokens == 0
