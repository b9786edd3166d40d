"""`tinygpt sample`: prompts, sampling rules, seeds, and models that are not runs."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of, output_of, start, train_tiny
from helpers.processes import LIMIT
from helpers.tiny_run import COMMAND

from tinygpt_np import GPT, GPTConfig


@pytest.mark.usefixtures("run")
def test_prompts_rules_and_seeds(folder: Path, capsys: Captured) -> None:
    def sample(*flags: str) -> str:
        return output_of(capsys, "sample", *flags)

    out = sample("--prompt", "To be", "--tokens", "30", "--seed", "1")
    assert out.startswith("To be")
    assert len(out) == len("To be") + 30 + 1
    # A prompt may look like a flag of another command.
    assert len(sample("--prompt=--resume", "--skip-unknown", "--tokens", "1")) > 2

    (folder / "prompt.txt").write_bytes(b"\xef\xbb\xbfTo be,\r\nor not")
    flags = ["--tokens", "3", "--seed", "1"]
    from_file = sample("--prompt-file", "prompt.txt", *flags)
    assert from_file == sample("--prompt", "To be,\nor not", *flags)
    assert from_file.startswith("To be,\nor not")

    rules = ["--greedy", "--temperature=0", "--top-k=1", "--top-p=1e-6"]
    assert len({sample("--tokens", "40", rule) for rule in rules}) == 1

    flags = ["--tokens", "20", "--top-p", "0.9"]
    together = sample(*flags, "--num-samples", "3", "--seed", "4")
    alone = [sample(*flags, "--seed", seed) for seed in ("4", "5", "6")]
    assert together == "---------------\n".join(alone)
    assert len({*alone}) == 3

    assert "character 'é' (U+00E9) at position 4" in error_of(capsys, "sample", "--prompt", "To bé")
    assert sample("--prompt", "To bé", "--skip-unknown", "--tokens", "1").startswith("To b")


def test_gpt2s_tokens_are_printed_as_whole_characters(
    folder: Path, gpt2_files: Path, capsys: Captured
) -> None:
    config = GPTConfig(vocab_size=50304, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True)
    model = GPT(config)
    # The padding of nanoGPT's vocabulary has the largest logits by far, but is never sampled.
    model.params["ln_f.weight"][:], model.params["ln_f.bias"][:] = 0, 1
    model.params["wte.weight"][50257:] = 5
    model.save_pretrained(folder / "gpt")
    files = ["--tokenizer-path", str(gpt2_files)]  # The model's folder has no tokenizer.
    flags = ["--prompt", "naïve 🙂", "--tokens", "60"]
    out = output_of(capsys, "sample", "--model", "gpt", *files, *flags)
    assert out.startswith("naïve 🙂")
    out.encode()


def test_text_is_written_as_utf8_in_any_locale(folder: Path) -> None:
    (folder / "text.txt").write_text("Où est-ce? Là-bas. " * 40, encoding="utf-8")
    train_tiny("--max-iters", "1")
    command = [*COMMAND, "sample", "--prompt", "Là", "--tokens", "1", "--backend", "numpy"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    out = subprocess.check_output(command, timeout=LIMIT, env=environment)
    assert out.decode("utf-8").startswith("Là")


@pytest.mark.usefixtures("run")
def test_a_reader_that_has_gone_is_not_an_error() -> None:
    process = start("sample", "--endless", "--backend", "numpy")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(20)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=LIMIT) == 0
