"""Sampling from a trained model: which one, with what prompt, and the characters it makes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_np import checkpoint, train
from tinygpt_np.checkpoint import CheckpointError
from tinygpt_np.model import GPT
from tinygpt_np.tokenizer import CharTokenizer

RUNS = Path("runs")


def find_run(name: str | None) -> Path:
    """The folder of a run: a path, a name under runs/, or (None) the run that was saved last."""
    runs = [path for path in RUNS.glob("*") if checkpoint.steps_in(path / train.CHECKPOINTS)]
    if name is None:
        if not runs:
            raise CheckpointError(f"there is no run in {RUNS}/; tinygpt train makes one")
        return max(runs, key=last_saved)
    for path in (Path(name), RUNS / name):
        if (path / train.CONFIG).exists():
            return path
    known = ", ".join(sorted(run.name for run in runs)) or "none yet"
    raise CheckpointError(f"there is no run {name}; those in {RUNS}/ are: {known}")


def last_saved(run: Path) -> float:
    """When the newest checkpoint of a run was written, in seconds."""
    return checkpoint.steps_in(run / train.CHECKPOINTS)[-1].stat().st_mtime


def load(run: Path, backend: str = "numpy") -> tuple[GPT, CharTokenizer]:
    """The model and tokenizer in the newest checkpoint of a run, or in a checkpoint's folder."""
    folder = run
    if not (run / checkpoint.MODEL).exists():
        folder, _ = train.last_checkpoint(run)
    elif (run / checkpoint.STATE).exists() or (run / checkpoint.CHECKSUMS).exists():
        checkpoint.load_state(run)
    path = folder / checkpoint.TOKENIZER
    try:
        tokenizer = CharTokenizer(checkpoint.read_json(path)["vocabulary"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no vocabulary: {error}") from None
    model = GPT.load(folder, backend)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{path} has {tokenizer.vocab_size} characters, "
            f"but the model has {model.config.vocab_size}"
        )
    return model, tokenizer


def warm_up(model: GPT) -> None:
    """Compiles what sampling needs, if anything, before the first character is waited for."""
    read_on = model.decoder(1)
    for length in (min(2, model.block_size), 1):
        read_on(np.zeros((1, length), np.int64))


def stream(
    model: GPT,
    tokenizer: CharTokenizer,
    prompt: str,
    tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """The characters that follow the prompt, as they are made; an empty prompt is a new line."""
    newline_or_first = "\n" if "\n" in tokenizer.vocabulary else tokenizer.vocabulary[0]
    ids = tokenizer.encode(prompt or newline_or_first)
    made = model.generate(ids, tokens, temperature, top_k, seed)
    return (tokenizer.vocabulary[int(token)] for token in made)
