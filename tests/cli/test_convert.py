"""`tinygpt convert`: from a run or a saved model to a folder that `tinygpt sample` reads."""

import re
from pathlib import Path

from helpers.commands import Captured, error_of, output_of

from tinygpt_np import GPT, GPTConfig


def test_a_run_is_converted_and_generates_the_same_text(run: Path, capsys: Captured) -> None:
    run.rename(run.with_name("my run"))
    out = output_of(capsys, "convert", "my run", "my gpt")
    assert re.search(r"model +\d[\d,]+ parameters, 1 layer, 2 heads, 8 channels, block 8", out)
    assert "config.json, model.safetensors, tokenizer.json" in out
    # Commands that are suggested are quoted for the shell.
    assert "sample from it:  tinygpt sample --model 'my gpt'\n" in out
    flags = ["--prompt", "To be", "--tokens", "30", "--seed", "5"]
    expected = output_of(capsys, "sample", "my run", *flags)
    assert output_of(capsys, "sample", "--model", "my gpt", *flags) == expected


def test_a_model_without_a_tokenizer_needs_a_text(folder: Path, capsys: Captured) -> None:
    GPT(GPTConfig(vocab_size=18, block_size=8, n_layer=1, n_head=2, n_embd=8)).save(folder / "own")
    assert "no tokenizer to sample with: add --text" in error_of(capsys, "convert", "own", "bare")
    output_of(capsys, "convert", "own", "gpt", "--text", "text.txt")
    assert output_of(capsys, "sample", "--model", "gpt", "--prompt", "be", "--tokens", "3")


def test_a_model_that_transformers_does_not_have_is_refused(folder: Path, capsys: Captured) -> None:
    config = GPTConfig(vocab_size=18, block_size=8, n_layer=1, n_head=2, n_embd=8, qk_norm=True)
    GPT(config).save(folder / "own")
    error = error_of(capsys, "convert", "own", "gpt", "--text", "text.txt")
    assert (
        "transformers has no such model: GPT2LMHeadModel cannot have qk_norm True; Llama" in error
    )
    assert not (folder / "gpt").exists()
