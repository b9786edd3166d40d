"""nanoGPT's own words on the command line."""

import re
from pathlib import Path

import pytest
from cli.running import error_of

from tinygpt_np import cli
from tinygpt_np.cli.nanogpt import translate_sample, translate_train, value_of
from tinygpt_np.config import TrainConfig
from tinygpt_np.training import runs

# As it stands in nanoGPT's README, for a CPU; only shorter.
RECIPE = [
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=8",
    "--batch_size=2",
    "--n_layer=1",
    "--n_head=2",
    "--n_embd=8",
    "--max_iters=3",
    "--lr_decay_iters=3",
    "--dropout=0.0",
]


def test_a_recipe_runs_as_it_stands_and_says_what_has_no_meaning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["train", "--data", "text.txt", *RECIPE, "--bias=True", "--out_dir=out-shakespeare"])
    found = runs.read_config(folder / "runs" / "out-shakespeare")
    assert (found.block_size, found.batch_size, found.n_layer, found.n_head) == (8, 2, 1, 2)
    assert (found.n_embd, found.max_iters, found.lr_decay_iters, found.bias) == (8, 3, 3, True)
    out = capsys.readouterr().err
    for flag in ("--compile=False", "--eval_iters=20", "--log_interval=1"):
        assert f"{flag} has no meaning here" in out
    assert "--device" not in out


@pytest.mark.parametrize(
    ("theirs", "ours"),
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
        (["--gradient_accumulation_steps=5"], ["--gradient_accumulation_steps=5"]),
        (["--bias", "True", "--bias", "False"], ["--bias", "--no-bias"]),
        (["--device", "cpu", "--out_dir", "a"], ["--name", "a"]),
        (["--bias", "--device", "cpu"], ["--bias"]),
    ],
)
def test_what_is_said_otherwise_there_is_put_into_our_words(
    theirs: list[str], ours: list[str]
) -> None:
    assert translate_train(theirs, TrainConfig()) == (ours, [])


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--device=cuda", "--device=cuda: only --device=cpu is supported"),
        ("--init_from=resume", "--init_from=resume: use --resume RUN instead"),
        ("--decay_lr=false", "--decay_lr must be True or False, not 'false'"),
        ("--decay-lr=", "--decay-lr must be True or False, not ''"),
        ("--eval_iters", "--eval_iters needs a value"),
        ("--dataset", "--dataset needs a value"),
    ],
)
def test_what_cannot_be_had_here_is_said(
    flag: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "train", "--data", "text.txt", *RECIPE[2:], flag)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["--start=ROMEO:"], ["--prompt=ROMEO:"]),
        (["--start", "ROMEO:"], ["--prompt=ROMEO:"]),
        (["--start=--x=1"], ["--prompt=--x=1"]),
        (["--start=FILE:prompt.txt"], ["--prompt-file=prompt.txt"]),
        (["--start", "FILE:a b.txt"], ["--prompt-file=a b.txt"]),
        (["--num_samples=5", "--max_new_tokens=9"], ["--num_samples=5", "--tokens=9"]),
        (["--max-new-tokens", "9"], ["--tokens=9"]),
        (["--seed=1", "--out_dir=out"], ["out", "--seed=1"]),
        (["--init_from=resume", "--out_dir", "out"], ["out"]),
        (["--init_from=gpt2-xl"], ["--model=gpt2-xl"]),
        (["--device=cpu", "--dtype=float32"], []),
        (["mine", "--prompt", "--", "x"], ["mine", "--prompt", "--", "x"]),
        (["--top_k=200", "--temperature=0.8"], ["--top_k=200", "--temperature=0.8"]),
    ],
)
def test_the_flags_of_its_sample_script_are_put_into_our_words(
    theirs: list[str], ours: list[str]
) -> None:
    assert translate_sample(["sample", *theirs]) == (["sample", *ours], [])


def test_flags_of_its_sample_script_without_a_meaning_are_named() -> None:
    flags = ["--compile=True", "--dtype", "bfloat16", "--init_from=gpt2", "--out_dir=out"]
    found, notes = translate_sample(["sample", *flags])
    assert found == ["sample", "--model=gpt2"]
    assert [note.split(" has no meaning")[0] for note in notes] == [
        "--compile=True", "--dtype=bfloat16", "--out_dir=out",
    ]  # fmt: skip


def test_its_sample_command_runs_as_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["train", "--data", "text.txt", *RECIPE, "--out_dir=out-char"])
    capsys.readouterr()
    (folder / "prompt.txt").write_text("that is", encoding="utf-8")
    flags = ["--out_dir=out-char", "--device=cpu", "--compile=False", "--num_samples=2"]
    cli.main(["sample", *flags, "--max_new_tokens=5", "--start=FILE:prompt.txt", "--seed=1337"])
    found = capsys.readouterr()
    first, separator, second = re.split("(\n-+\n)", found.out)
    assert separator == "\n---------------\n"
    assert len(first) == len(second.rstrip("\n")) == len("that is") + 5
    assert first.startswith("that is")
    assert "--compile=False has no meaning here" in found.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--start"], "--start needs a value (see tinygpt sample --help)"),
        (["--start", "--seed", "1"], "--start needs a value"),
        (["--max_new_tokens"], "--max_new_tokens needs a value"),
        (["--start=FILE:"], "--start=FILE: must name a file after FILE:"),
        (["--start", "FILE:"], "--start=FILE: must name a file after FILE:"),
    ],
)
def test_a_flag_of_its_sample_script_without_a_value_is_refused_by_its_name(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "sample", *flags)


def test_its_sample_script_has_no_device_but_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, "sample", "--device=cuda:0")
    assert "--device=cuda:0: only --device=cpu is supported" in message


@pytest.mark.parametrize(
    "argv", [["--init_from", "a"], ["--init-from", "a"], ["--init_from=a"], ["--init-from=a"]]
)
def test_a_flag_is_found_in_either_spelling(argv: list[str]) -> None:
    assert value_of(["x", *argv, "--y", "z"], "init_from") == "a"
    assert value_of(["--init-from", "b", *argv], "init_from") == "a"
    assert value_of(["init-from", "a"], "init_from") is None
