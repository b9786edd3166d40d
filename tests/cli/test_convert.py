"""tinygpt convert, and tinygpt sample --model, as a person uses them."""

import re
from pathlib import Path

import pytest
from cli.running import error_of, said, train_tiny
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, CharTokenizer, GPTConfig


def test_a_run_is_converted_and_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny("--name", "mine")
    capsys.readouterr()
    out = said(capsys, "convert", "mine", "gpt")
    assert re.search(r"model +\d[\d,]+ parameters, 1 layer, 2 heads, 8 channels, block 8", out)
    assert "config.json, model.safetensors, tokenizer.json" in out
    assert "tinygpt sample --model gpt" in out
    flags = ["--prompt", "To be", "--tokens", "30", "--seed", "5"]
    ours = said(capsys, "sample", "mine", *flags)
    assert said(capsys, "sample", "--model", "gpt", *flags) == ours
    assert ours.startswith("To be")
    assert len(ours) == len("To be") + 30 + 1


def test_without_a_tokenizer_it_is_said_how_to_get_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    GPT(GPTConfig(vocab_size=18, block_size=8, n_layer=1, n_head=2, n_embd=8)).save(folder / "own")
    message = error_of(capsys, "convert", "own", "bare")
    assert "own has a model of 18 tokens, but no tokenizer, and could not be sampled" in message
    assert "add --text FILE" in message
    assert not Path("bare").exists()
    out = said(capsys, "convert", "own", "gpt", "--text", "text.txt")
    assert "tinygpt sample --model gpt" in out
    assert said(capsys, "sample", "--model", "gpt", "--prompt", "be", "--tokens", "3")


def test_sampling_from_gpt2s_tokens_prints_whole_characters(
    folder: Path, gpt2_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GPTConfig(vocab_size=50304, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True)
    model = GPT(config)
    # nanoGPT's vocabulary is padded, here with what is likeliest by far: it is never drawn.
    model.params["ln_f.weight"][:], model.params["ln_f.bias"][:] = 0, 1
    model.params["wte.weight"][50257:] = 5
    model.save_pretrained(folder / "gpt")
    for name in ("encoder.json", "vocab.bpe"):
        (folder / "gpt" / name).write_bytes((gpt2_files / name).read_bytes())
    out = said(capsys, "sample", "--model", "gpt", "--prompt", "naïve 🙂", "--tokens", "60")
    assert out.startswith("naïve 🙂")
    out.encode()


def test_a_tokenizer_may_lie_elsewhere(
    folder: Path, gpt2_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GPTConfig(vocab_size=50257, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True)
    GPT(config).save_pretrained(folder / "gpt")
    files = ["--tokenizer-path", str(gpt2_files)]
    out = said(capsys, "sample", "--model", "gpt", *files, "--prompt", "hii", "--tokens", "3")
    assert out.startswith("hii")
    out = said(
        capsys, "train", "--data", "text.txt", "--init-from", "gpt", "--eval-only", *files,
        "--block-size", "16",
    )  # fmt: skip
    assert "bits per character, over the whole split" in " ".join(out.split())
    train_tiny("--name", "mine")
    capsys.readouterr()
    assert "a run has its own tokenizer" in error_of(capsys, "sample", "mine", *files)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["convert"], "convert takes two arguments: SOURCE, and OUT"),
        (["convert", "nothing", "out"], "there is no model nothing"),
        (["convert", "text.txt", "out"], "text.txt is not a PyTorch checkpoint: it is not a zip"),
        (["sample", "--model", "nowhere"], "there is no model nowhere"),
        (["sample", "a", "--model", "b"], "leave out the run a, or leave out --model b"),
        (["sample", "--model", "plain"], "plain has a model of 18 tokens, but no tokenizer"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    folder: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GPTConfig(vocab_size=18, block_size=8, n_layer=1, n_head=2, n_embd=8)
    GPT(config).save_pretrained(folder / "plain")
    assert expected in error_of(capsys, *flags)
    assert not Path("out").exists()


def test_a_tokenizer_of_another_size_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GPTConfig(vocab_size=17, block_size=8, n_layer=1, n_head=2, n_embd=8)
    GPT(config).save_pretrained(folder / "gpt", CharTokenizer.from_text(TEXT))
    message = error_of(capsys, "sample", "--model", "gpt")
    assert "the tokenizer (char) of gpt has 18 tokens, but the model has 17" in message


def test_commands_that_are_suggested_are_quoted_for_the_shell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_tiny("--name", "my run")
    assert "tinygpt sample 'runs/my run' --endless" in capsys.readouterr().out
    out = said(capsys, "convert", "my run", "my gpt")
    assert "sample from it:  tinygpt sample --model 'my gpt'\n" in out
    flags = ["--data", "text.txt", "--tokenizer", "char", "--out", "my data"]
    assert "train on it:  tinygpt train --data 'my data'\n" in said(capsys, "prepare", *flags)
