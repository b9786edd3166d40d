"""tinygpt train, as a person uses it."""

import itertools
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from cli.running import error_of, start, train_tiny
from helpers import processes
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND, TEXT, TINY, TINY_FIELDS

from tinygpt_np import cli, config
from tinygpt_np.storage import checkpoint
from tinygpt_np.text import dataset
from tinygpt_np.training import metrics, runs
from tinygpt_np.training import trainer as train


def test_training_says_what_comes_and_then_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    out = capsys.readouterr().out
    for expected in (
        r"text\.txt: 1,720 characters, 18 distinct",
        r"parameters, 1 layer, 2 heads, 8 channels, block 8; about \d+ MB",
        r"20 steps of 16 tokens: 0\.2 passes over",
        r"about ln 18 = 2\.89",
        r"step 10 .*loss \d\.\d+  val \d\.\d+  [\d,]+ tokens/s  0:00:\d\d left",
        r"validation  \d\.\d{4} nats per character, \d\.\d{4} bits per character, over the whole",
        r"written     runs/cpu/ with config.json, metrics.jsonl, loss.svg, checkpoints/",
        r"tinygpt sample runs/cpu --endless",
    ):
        assert re.search(expected.replace("     ", " +"), out), expected


@pytest.mark.parametrize(("measured", "verdict"), [(2.9, "within"), (2.0, "outside")])
def test_the_end_says_whether_the_loss_was_to_be_expected(
    measured: float,
    verdict: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = (measured - 0.1, measured, measured + 0.1)
    monkeypatch.setitem(
        config.PRESETS, "tiny", config.TrainConfig(**TINY_FIELDS, lr_decay_iters=20)
    )
    monkeypatch.setattr(config, "MEASURED", {("tiny", str(Path("text.txt").resolve())): losses})
    train_tiny()
    assert f"{verdict} the expected band" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--no-keep-best"]])
def test_the_end_names_the_best_checkpoint_if_it_is_not_the_last(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.25, 2.5])

    def evaluate(_: train.Trainer) -> float:
        return next(losses)

    monkeypatch.setattr(train.Trainer, "evaluate", evaluate)
    train_tiny(*flags)
    shown = "best 2.2500 at step 10, kept in runs/cpu/checkpoints/best"
    assert (shown in " ".join(capsys.readouterr().out.split())) == (not flags)


def test_the_end_names_no_other_checkpoint_if_the_last_is_the_best(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.5, 2.25])

    def evaluate(_: train.Trainer) -> float:
        return next(losses)

    monkeypatch.setattr(train.Trainer, "evaluate", evaluate)
    train_tiny()
    assert "kept in" not in capsys.readouterr().out


def test_the_end_shows_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    sample = re.split("─{20,}.*\n", capsys.readouterr().out)[1]
    assert len(sample) == 300 + 1
    assert set(sample) <= set(TEXT)


def test_a_picture_or_a_sample_that_fails_is_noted_and_the_run_is_complete(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("libfreetype.so.6: cannot open shared object file")

    monkeypatch.setattr("tinygpt_np.training.metrics.draw_losses", fail)
    monkeypatch.setattr("tinygpt_np.training.sample.stream", fail)
    train_tiny()
    out = capsys.readouterr().out
    assert out.count("note  loss.svg was not drawn: ImportError: libfreetype") == 1
    assert out.count("note  no sample was written: ImportError: libfreetype") == 1
    assert "tinygpt sample runs/cpu --endless" in out
    assert int(runs.last_checkpoint(folder / "runs" / "cpu")[0].name) == 20


def test_a_bad_fit_is_noted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.txt").write_text(TEXT + "Q", encoding="utf-8")
    train_tiny()
    assert re.search(
        r"note +characters that occur only in the validation split.*'Q'", capsys.readouterr().out
    )


def test_a_run_folder_holds_what_was_promised(folder: Path) -> None:
    train_tiny("--name", "mine")
    run = folder / "runs" / "mine"
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "loss.svg", "checkpoints", ".lock"}
    assert json.loads((run / "config.json").read_text())["n_embd"] == 8


def test_a_second_run_gets_a_folder_of_its_own(folder: Path) -> None:
    train_tiny()
    train_tiny()
    assert {path.name for path in (folder / "runs").iterdir()} == {"cpu", "cpu-2"}


def test_a_name_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny("--name", "mine")
    capsys.readouterr()
    message = error_of(capsys, "train", "--data", "text.txt", *TINY, "--name", "mine")
    assert "runs/mine exists already, and nothing is overwritten" in message


def test_flags_override_the_preset(folder: Path) -> None:
    cli.main(["train", "--preset", "smoke", "--max-iters", "1", "--n_layer=1"])
    found = runs.read_config(folder / "runs" / "smoke")
    assert (found.max_iters, found.n_layer, found.n_embd) == (1, 1, 32)


def test_resuming_needs_no_other_flag_and_says_how_many_steps_are_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny()
    capsys.readouterr()
    cli.main(["train", "--resume", "cpu", "--max-iters", "25"])
    out = capsys.readouterr().out
    assert re.search(r"resumed +at step 20 *\n", out)
    assert re.search(r"training +5 more steps of 16 tokens, to step 25: 0\.3 passes .* in all", out)
    assert metrics.read(folder / "runs" / "cpu")[-1].step == 25


def test_little_of_a_text_is_not_said_to_be_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.txt").write_text(TEXT * 2, encoding="utf-8")
    train_tiny("--max-iters", "2")
    assert "2 steps of 16 tokens: less than 0.1 passes over the text" in capsys.readouterr().out


def test_a_run_that_lacks_only_its_last_evaluation_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dataset.load(config.TrainConfig(data="text.txt"))
    trainer = train.Trainer.start(
        folder / "runs" / "mine", config.TrainConfig(data="text.txt", **TINY_FIELDS), found
    )
    for _ in itertools.islice(trainer, 20):
        pass
    trainer.save()
    trainer.lock.release()
    cli.main(["train", "--resume", "mine"])
    assert re.search(r"training +no steps left, only the last evaluation", capsys.readouterr().out)


def decay(run: str) -> tuple[int, int]:
    found = runs.read_config(Path("runs") / run)
    return found.max_iters, found.lr_decay_iters


def test_max_iters_alone_moves_the_end_of_the_decay(capsys: pytest.CaptureFixture[str]) -> None:
    # A preset with an end of decay of its own, and the defaults; each in either spelling.
    cli.main(["train", "--preset", "smoke", "--data", "text.txt", "--max-iters", "3"])
    assert decay("smoke") == (3, 3)
    train_tiny("--name", "other", "--max_iters=4")
    assert decay("other") == (4, 4)
    assert "lr_decay_iters" not in capsys.readouterr().out


def test_an_end_of_the_decay_that_is_given_is_kept_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny("--name", "mine", "--max-iters", "4", "--lr_decay_iters=2000")
    assert decay("mine") == (4, 2000)
    out = " ".join(capsys.readouterr().out.split())
    assert "note training ends at step 4, before the learning rate has decayed" in out


def test_a_resumed_run_keeps_its_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny("--name", "mine")
    capsys.readouterr()
    cli.main(["train", "--resume", "mine", "--max-iters", "25"])
    assert decay("mine") == (25, 20)
    out = " ".join(capsys.readouterr().out.split())
    assert "decayed to --min-lr (at --lr-decay-iters 20) and stays there until step 25" in out


def test_max_iters_that_is_no_number_is_refused_by_its_own_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for value in ("many", "-5"):
        with pytest.raises(SystemExit):
            cli.main(["train", "--data", "text.txt", f"--max-iters={value}"])
        message = capsys.readouterr().err
        assert re.search("max.iters", message)
        assert "decay" not in message


def test_help_shows_the_end_of_the_decay_that_goes_with_max_iters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--max-iters", "77", "--help"])
    text = capsys.readouterr().out
    assert "(default: 77)" in " ".join(text[text.index("--lr-decay-iters") :].split())[:200]


def test_resuming_with_other_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    capsys.readouterr()
    message = error_of(capsys, "train", "--resume", "cpu", "--n-layer", "3")
    assert (
        "trained with --n-layer 1, which cannot be changed; "
        "to train with --n-layer 3, start a new run" in message
    )


def test_resuming_a_finished_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    capsys.readouterr()
    assert "runs/cpu has already taken 20 steps; to train further" in error_of(
        capsys, "train", "--resume", "cpu"
    )


def test_resuming_on_another_text_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny()
    (folder / "text.txt").write_text(TEXT[::-1], encoding="utf-8")
    capsys.readouterr()
    message = error_of(capsys, "train", "--resume", "cpu", "--max-iters", "30")
    assert "another text" in message


def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny()
    weights = runs.last_checkpoint(folder / "runs" / "cpu")[0] / checkpoint.MODEL
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    capsys.readouterr()
    message = error_of(capsys, "train", "--resume", "cpu", "--max-iters", "30")
    assert "model.safetensors is damaged" in message
    assert weights.read_bytes() == damaged


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data", "nowhere.txt"], "there is no file nowhere.txt"),
        (
            ["--data", "."],
            "train.bin; --data is a text file or a folder with train.bin and val.bin",
        ),
        (["--data", "text.txt", "--block-size", "999"], "the text is too short"),
        (["--resume", "nothing"], "there is no run nothing"),
        (
            ["--data", "text.txt", "--name", "../outside"],
            "the name of a new folder in runs/",
        ),
        (["--data", "text.txt", "--name", ""], "the name of a new folder in runs/"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "train", *flags)
    assert not Path("runs").exists()


def test_a_diverging_run_names_the_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--learning-rate", "1e30", "--warmup-iters", "0", "--grad-clip", "0"]
    message = error_of(capsys, "train", "--data", "text.txt", *TINY, *flags)
    assert "The first tensor that is not finite is an activation of" in message


# In processes of their own


def wait_for_steps(run: Path, steps: int) -> None:
    """Until the run has recorded that many steps."""
    deadline = time.monotonic() + LIMIT
    while len(metrics.read(run)) < steps:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


LONG = ["train", "--data", "text.txt", *TINY[:-2], "--max-iters", "3000", "--name", "long"]


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row.step, row.loss) for row in metrics.read(run) if row.loss]


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(folder: Path, number: signal.Signals) -> None:
    process = start(*LONG)
    wait_for_steps(folder / "runs" / "long", 15)
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "finishing this step and saving" in err
    assert "tinygpt train --resume runs/long" in out
    stopped = int(re.search(r"stopped before step (\d+)", out).group(1))  # type: ignore[union-attr]
    last, _ = runs.last_checkpoint(folder / "runs" / "long")
    assert int(last.name) == stopped == len(losses(folder / "runs" / "long"))


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_in_the_background_ctrl_c_is_left_to_the_foreground_and_sigterm_saves(folder: Path) -> None:
    """A shell starts background jobs with SIGINT ignored."""
    process = processes.start(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, *LONG])
    wait_for_steps(folder / "runs" / "long", 5)
    process.send_signal(signal.SIGINT)
    wait_for_steps(folder / "runs" / "long", len(losses(folder / "runs" / "long")) + 10)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "tinygpt train --resume runs/long" in out


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_after_kill_9_the_losses_are_those_of_a_run_never_stopped(folder: Path) -> None:
    process = start(*LONG)
    wait_for_steps(folder / "runs" / "long", 25)
    process.kill()
    process.communicate(timeout=LIMIT)
    for run, flags in (("long", ["--resume", "long"]), ("whole", [*LONG[:-1], "whole"])):
        process = start(*(["train", *flags] if run == "long" else flags))
        wait_for_steps(folder / "runs" / run, 60)
        process.kill()
        process.communicate(timeout=LIMIT)
    resumed, whole = losses(folder / "runs" / "long")[:60], losses(folder / "runs" / "whole")[:60]
    assert resumed == whole
