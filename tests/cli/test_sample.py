"""tinygpt sample, as a person uses it."""

import os
import subprocess
from pathlib import Path

import pytest
from cli.running import error_of, start, train_tiny
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND

from tinygpt_np import cli


def test_sampling_writes_the_prompt_and_as_many_characters_as_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny()
    capsys.readouterr()
    cli.main(["sample", "--prompt", "To be", "--tokens", "30", "--seed", "1"])
    out = capsys.readouterr().out
    assert out.startswith("To be")
    assert len(out) == len("To be") + 30 + 1


def test_nothing_is_written_before_a_prompt_is_found_to_be_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["sample", "--prompt", "é"])
    assert capsys.readouterr().out == ""


def test_the_same_seed_writes_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    texts: list[str] = []
    for seed in ("1", "1", "2"):
        capsys.readouterr()
        cli.main(["sample", "cpu", "--seed", seed, "--tokens", "40"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_that_looks_like_a_flag_of_another_command_is_a_prompt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny()
    capsys.readouterr()
    cli.main(["sample", "--prompt=--resume", "--skip-unknown", "--tokens", "1"])
    assert len(capsys.readouterr().out) > 2


def test_greedy_needs_no_seed(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    texts: list[str] = []
    for flags in (["--greedy"], ["--temperature", "0"], ["--top-k", "1"]):
        capsys.readouterr()
        cli.main(["sample", "--tokens", "40", *flags])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]


def test_an_unknown_character_is_named_or_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    capsys.readouterr()
    message = error_of(capsys, "sample", "--prompt", "To bé")
    assert "character 'é' (U+00E9) at position 4" in message
    assert "the nearest are 'e'" in message
    cli.main(["sample", "--prompt", "To bé", "--skip-unknown", "--tokens", "1"])
    assert capsys.readouterr().out.startswith("To b")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--temperature", "-1"], "--temperature must be zero or more, not -1.0"),
        (["--top-k", "0"], "--top-k must be positive, not 0"),
        (["--tokens", "-3"], "--tokens must be zero or more, not -3"),
        (["--greedy", "--temperature", "0.5"], "--greedy"),
        (["--top-p", "0"], "--top-p must be in (0, 1], not 0.0"),
        (["--num-samples", "0"], "--num-samples must be positive, not 0"),
        (["--seed", str(2**32 - 1), "--num-samples", "2"], "the last sample would have seed 42949"),
        (["--endless", "--num-samples", "2"], "--endless never ends its first text"),
        (["--prompt", "a", "--prompt-file", "text.txt"], "leave out one of them"),
        (["--prompt-file", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--prompt-file", "."], ". is a folder; expected a file"),
        (["--prompt-file", "fifo"], "fifo is a pipe; expected a regular file"),
        (["--prompt-file", "latin.txt"], "iconv -f LATIN1 -t UTF-8 latin.txt"),
    ],
)
def test_bad_sampling_rules_are_refused(
    folder: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "latin.txt").write_bytes("To bé".encode("latin-1"))
    os.mkfifo(folder / "fifo")
    train_tiny()
    capsys.readouterr()
    assert expected in error_of(capsys, "sample", *flags)


def test_a_prompt_is_read_from_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "prompt.txt").write_bytes(b"\xef\xbb\xbfTo be,\r\nor not")
    train_tiny()
    capsys.readouterr()
    cli.main(["sample", "--prompt-file", "prompt.txt", "--tokens", "3", "--seed", "1"])
    from_file = capsys.readouterr().out
    cli.main(["sample", "--prompt", "To be,\nor not", "--tokens", "3", "--seed", "1"])
    assert capsys.readouterr().out == from_file
    assert from_file.startswith("To be,\nor not")


def test_several_samples_are_those_of_the_seeds_that_follow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny()
    capsys.readouterr()
    flags = ["--tokens", "20", "--top-p", "0.9"]
    cli.main(["sample", *flags, "--num-samples", "3", "--seed", "4"])
    together = capsys.readouterr().out
    alone: list[str] = []
    for seed in ("4", "5", "6"):
        cli.main(["sample", *flags, "--seed", seed])
        alone.append(capsys.readouterr().out)
    assert together == "---------------\n".join(alone)
    assert len(set(alone)) == 3


def test_a_small_top_p_is_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny()
    texts: list[str] = []
    for flags in (["--greedy"], ["--top-p", "1e-6", "--temperature", "3"]):
        capsys.readouterr()
        cli.main(["sample", "--tokens", "40", *flags])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_without_a_run_sampling_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tinygpt train makes one" in error_of(capsys, "sample")


# In processes of their own


def test_text_is_written_as_utf8_whatever_the_system_says(folder: Path) -> None:
    (folder / "text.txt").write_text("Où est-ce? Là-bas. " * 40, encoding="utf-8")
    train_tiny()
    process = subprocess.run(
        [*COMMAND, "sample", "--prompt", "Là", "--tokens", "1"],
        capture_output=True,
        check=True,
        timeout=LIMIT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert process.stdout.decode("utf-8").startswith("Là")


def test_a_reader_that_goes_away_is_no_error() -> None:
    train_tiny()
    process = start("sample", "--endless")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(20)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(LIMIT) == 0
