"""nanoGPT's own words on the command line."""

from pathlib import Path

import pytest
from cli.running import error_of

from tinygpt_np import cli, train
from tinygpt_np.cli.nanogpt import translate, value_of
from tinygpt_np.config import TrainConfig

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
    found = train.read_config(folder / "runs" / "out-shakespeare")
    assert (found.block_size, found.batch_size, found.n_layer, found.n_head) == (8, 2, 1, 2)
    assert (found.n_embd, found.max_iters, found.lr_decay_iters, found.bias) == (8, 3, 3, True)
    out = capsys.readouterr().out
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
    ],
)
def test_what_is_said_otherwise_there_is_put_into_our_words(
    theirs: list[str], ours: list[str]
) -> None:
    assert translate(theirs, TrainConfig()) == (ours, [])


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--device=cuda", "--device=cuda: there is no device here but the cpu"),
        ("--init_from=resume", "--init_from=resume is --resume RUN here"),
    ],
)
def test_what_cannot_be_had_here_is_said(
    flag: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(capsys, "train", "--data", "text.txt", *RECIPE[2:], flag)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "argv", [["--init_from", "a"], ["--init-from", "a"], ["--init_from=a"], ["--init-from=a"]]
)
def test_a_flag_is_found_in_either_spelling(argv: list[str]) -> None:
    assert value_of(["x", *argv, "--y", "z"], "init_from") == "a"
    assert value_of(["--init-from", "b", *argv], "init_from") == "a"
    assert value_of(["init-from", "a"], "init_from") is None
