"""Runs that are called by a wrong name, or asked for what they cannot do."""

from pathlib import Path
from random import Random

from campaign import bases
from campaign.case import Case, refused

NAMES = (
    *("nosuch", "../nosuch", "/nosuch", "", " ", "mine/nosuch", "\ud800", "x" * 300, "a\nb"),
    *("runs", ".", "..", "text.txt", "mine/config.json", "/dev/null", "/dev/zero", "~"),
    *("[bold]mine[/bold]", "runs/mine/checkpoints", "\x1b[31mmine", "mine/../mine/.."),
)


def wrong_name(rng: Random, folder: Path) -> Case:
    name = rng.choice(NAMES)
    command = rng.choice(
        [
            ["sample", name, *bases.SAMPLING],
            ["train", "--resume", name],
            ["train", "--resume", name, "--eval-only"],
            ["convert", name, "out"],
            ["train", "--init-from", name, "--data", "text.txt", *bases.TINY],
        ]
    )
    shown = name.encode(errors="backslashreplace").decode().split("\n")[0]
    return refused(
        f"a run called {name[:20]!a}",
        command,
        shown[:50] or "run",
        ascii(name)[1:-1][:50],
        "SOURCE",
    )


def new_name(rng: Random, folder: Path) -> Case:
    name = rng.choice(
        ("", ".", "..", "a/b", "/tmp/x", "mine", "x" * 300, "\ud800", "../x", "mine/")
    )
    command = ["train", "--data", "text.txt", *bases.TINY, "--name", name]
    return refused(f"a new run called {name[:20]!a}", command, "--name", "runs/")


def contradiction(rng: Random, folder: Path) -> Case:
    flags, names = rng.choice(
        [
            (["--n-layer", "3"], ["--n-layer"]),
            (["--dropout", "0.5"], ["--dropout"]),
            (["--seed", "7"], ["--seed"]),
            (["--tokenizer", "gpt2"], ["--tokenizer"]),
            (["--name", "other"], ["--name"]),
            (["--preset", "smoke"], ["--preset"]),
            (["--max-iters", "1"], ["max-iters", "max_iters"]),
            (["--data", "shakespeare"], ["shakespeare"]),
            (["--data", "nosuch.txt"], ["nosuch.txt"]),
            (["--backend", "numba"], ["--backend"]),
            (["--block-size", "4"], ["--block-size"]),
            (["--learning-rate", "0.1"], ["--learning-rate"]),
            (["--dtype", "float64"], ["--dtype"]),
            (["--init-from", "gpt2"], ["--init-from"]),
        ]
    )
    return refused(
        f"--resume with {' '.join(flags)}", ["train", "--resume", "mine", *flags], *names
    )


def finished(rng: Random, folder: Path) -> Case:
    return refused("a run that has taken its steps", ["train", "--resume", "mine"], "steps")


def existing_out(rng: Random, folder: Path) -> Case:
    out = rng.choice(("runs", "text.txt", ".", "text.txt/x", "link", "nowhere", "runs"))
    (folder / "link").symlink_to("runs")
    (folder / "nowhere").symlink_to("nothing")
    return refused(f"converting to {out!a}", ["convert", "mine", out], out[:8])
