"""nanoGPT's command lines run unchanged."""

import re
from pathlib import Path

import pytest
from helpers.commands import Captured

from tinygpt_np import cli
from tinygpt_np.cli.nanogpt import translate, value_of
from tinygpt_np.config import TrainConfig
from tinygpt_np.training import runs

# A shorter version of the recipe for a CPU in nanoGPT's README.
RECIPE = [
    *("--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1", "--block_size=8"),
    *("--batch_size=2", "--n_layer=1", "--n_head=2", "--n_embd=8", "--max_iters=3"),
    *("--lr_decay_iters=3", "--dropout=0.0"),
]


def test_recipes_for_training_and_sampling_run(folder: Path, capsys: Captured) -> None:
    cli.main(["train", "--data", "text.txt", *RECIPE, "--bias=True", "--out_dir=out-char"])
    found = runs.read_config(folder / "runs" / "out-char")
    assert (found.block_size, found.batch_size, found.n_layer, found.n_head) == (8, 2, 1, 2)
    assert (found.n_embd, found.max_iters, found.lr_decay_iters, found.bias) == (8, 3, 3, True)
    notes = capsys.readouterr().err
    for flag in ("--compile=False", "--eval_iters=20", "--log_interval=1"):
        assert f"{flag} is ignored: " in notes
    assert "--device" not in notes

    (folder / "prompt.txt").write_text("that is", encoding="utf-8")
    flags = ["--out_dir=out-char", "--device=cpu", "--compile=False", "--num_samples=2"]
    cli.main(["sample", *flags, "--max_new_tokens=5", "--start=FILE:prompt.txt", "--seed=1337"])
    captured = capsys.readouterr()
    first, separator, second = re.split("(\n-+\n)", captured.out)
    assert separator == "\n---------------\n"
    assert len(first) == len(second.rstrip("\n")) == len("that is") + 5
    assert first.startswith("that is")
    assert "--compile=False is ignored: " in captured.err


@pytest.mark.parametrize(
    ("nanogpt", "expected"),
    [
        (["--bias=True"], ["--bias"]),
        (["--bias=False"], ["--no-bias"]),
        (["--eval_only=True"], ["--eval-only"]),
        (["--eval_only=False"], []),
        (["--dataset=shakespeare_char"], ["--data", "tinyshakespeare"]),
        (["--dataset=shakespeare"], ["--data", "tinyshakespeare", "--tokenizer", "gpt2"]),
        (["--dataset=openwebtext"], ["--data", "data/openwebtext"]),
        (["--decay_lr=True"], []),
        (["--decay_lr=False"], ["--min-lr", "0.001", "--warmup-iters", "0"]),
        (
            ["--decay_lr=False", "--learning_rate=3e-5"],
            ["--min-lr", "3e-5", "--warmup-iters", "0", "--learning_rate=3e-5"],
        ),
        (["--init_from=gpt2-xl"], ["--init_from=gpt2-xl"]),
        (["--n_layer=4", "--bias"], ["--n_layer=4", "--bias"]),
        (["--bias", "True", "--bias", "False"], ["--bias", "--no-bias"]),
        (["--device", "cpu", "--out_dir", "a"], ["--name", "a"]),
        (["--bias", "--device", "cpu"], ["--bias"]),
    ],
)
def test_flags_of_train_are_translated(nanogpt: list[str], expected: list[str]) -> None:
    assert translate(["train", *nanogpt], TrainConfig()) == (["train", *expected], [])


@pytest.mark.parametrize(
    ("nanogpt", "expected"),
    [
        (["--start=ROMEO:"], ["--prompt=ROMEO:"]),
        (["--start", "ROMEO:"], ["--prompt=ROMEO:"]),
        (["--start=--x=1"], ["--prompt=--x=1"]),
        (["--start", "FILE:a b.txt"], ["--prompt-file=a b.txt"]),
        (["--num_samples=5", "--max_new_tokens=9"], ["--num_samples=5", "--tokens=9"]),
        (["--max-new-tokens", "9"], ["--tokens=9"]),
        (["--seed=1", "--out_dir=out"], ["--seed=1", "out"]),
        (["--init_from=resume", "--out_dir", "out"], ["out"]),
        (["--init_from=gpt2-xl"], ["--model=gpt2-xl"]),
        (["--device=cpu", "--dtype=float32"], []),
        (["mine", "--prompt", "--", "x"], ["mine", "--prompt", "--", "x"]),
        (["--top_k=200", "--temperature=0.8"], ["--top_k=200", "--temperature=0.8"]),
    ],
)
def test_flags_of_sample_are_translated(nanogpt: list[str], expected: list[str]) -> None:
    assert translate(["sample", *nanogpt], None) == (["sample", *expected], [])


def test_ignored_flags_of_sample_are_noted() -> None:
    flags = ["--compile=True", "--dtype", "bfloat16", "--init_from=gpt2", "--out_dir=out"]
    found, notes = translate(["sample", *flags], None)
    assert found == ["sample", "--model=gpt2"]
    assert [note.split(" is ignored")[0] for note in notes] == [
        "--compile=True", "--dtype=bfloat16", "--out_dir=out",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "argv", [["--init_from", "a"], ["--init-from", "a"], ["--init_from=a"], ["--init-from=a"]]
)
def test_the_value_of_a_flag_is_found_in_either_spelling(argv: list[str]) -> None:
    assert value_of(["x", *argv, "--y", "z"], "init_from") == "a"
    assert value_of(["--init-from", "b", *argv], "init_from") == "a"
    assert value_of(["init-from", "a"], "init_from") is None
