"""nanoGPT's command lines run unchanged."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commands import Captured, output_of

from tinygpt_np import cli
from tinygpt_np.cli.nanogpt import translate, value_of
from tinygpt_np.config import PRESETS, TrainConfig
from tinygpt_np.training import runs

# A shorter version of the recipe for a CPU in nanoGPT's README.
RECIPE = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=8 --batch_size=2 "
    "--n_layer=1 --n_head=2 --n_embd=8 --max_iters=3 --lr_decay_iters=3 --dropout=0.0 --bias=True"
)


def test_recipes_for_training_and_sampling_run(folder: Path, capsys: Captured) -> None:
    cli.main(["train", "--data", "text.txt", *RECIPE.split(), "--out_dir=out-char"])
    found = runs.read_config(folder / "runs" / "out-char")
    assert (found.block_size, found.batch_size, found.n_layer, found.n_head) == (8, 2, 1, 2)
    assert (found.n_embd, found.max_iters, found.lr_decay_iters, found.bias) == (8, 3, 3, True)
    notes = capsys.readouterr().err
    for flag in ("--compile=False", "--eval_iters=20", "--log_interval=1"):
        assert f"{flag} is ignored: " in notes
    assert "--device" not in notes

    (folder / "prompt.txt").write_text("that is", encoding="utf-8")
    flags = ["--out_dir=out-char", "--compile=False", "--num_samples=2", "--max_new_tokens=5"]
    out = output_of(capsys, "sample", *flags, "--start=FILE:prompt.txt", "--seed=1337")
    first, separator, second = re.split("(\n-+\n)", out)
    assert separator == "\n---------------\n"
    assert len(first) == len(second.rstrip("\n")) == len("that is") + 5
    assert first.startswith("that is")


def test_a_recipe_of_nanogpts_starts_from_its_settings_whatever_the_default_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tinygpt_np.cli.train.DEFAULT_PRESET", "smoke")
    for line, preset in {
        "--max_iters=5": "smoke", "--max_iters=5 --device=cpu": "cpu", "--dataset x": "cpu",
        "--device=cpu --preset lecture": "lecture",
    }.items():  # fmt: skip
        job, _ = cli.parse(["train", *line.split()])
        assert job.preset == preset
        assert job.block_size == PRESETS[preset].block_size


# Command lines of nanoGPT, and what they are translated to.
TRANSLATIONS = {
    "train --bias=True": "train --bias",
    "train --eval_only=True": "train --eval-only",
    "train --eval_only=False": "train",
    "train --dataset=shakespeare_char": "train --data tinyshakespeare",
    "train --dataset=shakespeare": "train --data tinyshakespeare --tokenizer gpt2",
    "train --dataset=openwebtext": "train --data data/openwebtext",
    "train --decay_lr=False": "train --min-lr 0.001 --warmup-iters 0",
    "train --decay_lr=False --learning_rate=3e-5": (
        "train --min-lr 3e-5 --warmup-iters 0 --learning_rate=3e-5"
    ),
    "train --bias True --bias False": "train --bias --no-bias",
    "train --device cpu --out_dir a": "train --name a",
    "train --bias --device cpu": "train --bias",
    "sample --start=ROMEO:": "sample --prompt=ROMEO:",
    "sample --start=--x=1": "sample --prompt=--x=1",
    "sample --start 'FILE:a b.txt'": "sample '--prompt-file=a b.txt'",
    "sample --num_samples=5 --max_new_tokens=9": "sample --num_samples=5 --tokens=9",
    "sample --max-new-tokens 9": "sample --tokens=9",
    "sample --init_from=resume --out_dir out": "sample out",
    "sample --init_from=gpt2-xl": "sample --model=gpt2-xl",
    "sample --device=cpu --dtype=float32": "sample",
    "sample mine --prompt -- x": "sample mine --prompt -- x",
}


@pytest.mark.parametrize("nanogpt", TRANSLATIONS)
def test_flags_of_nanogpt_are_translated(nanogpt: str) -> None:
    found, notes = translate(shlex.split(nanogpt), TrainConfig())
    assert found == shlex.split(TRANSLATIONS[nanogpt])
    assert notes == []


def test_ignored_flags_of_sample_are_noted() -> None:
    flags = ["--compile=True", "--dtype", "bfloat16", "--init_from=gpt2", "--out_dir=out"]
    found, notes = translate(["sample", *flags], None)
    assert found == ["sample", "--model=gpt2"]
    names = [note.split(" is ignored")[0] for note in notes]
    assert names == ["--compile=True", "--dtype=bfloat16", "--out_dir=out"]


def test_the_last_value_of_a_flag_counts_in_either_spelling() -> None:
    for argv in (["--init_from", "a"], ["--init-from", "a"], ["--init_from=a"], ["--init-from=a"]):
        assert value_of(["--init-from", "b", *argv, "--y", "z"], "init_from") == "a"
    assert value_of(["init-from", "a"], "init_from") is None
