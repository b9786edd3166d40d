"""Sampling from a trained model: which one, with what prompt, and the text it makes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_np import checkpoint, pretrained, tokenizers, train
from tinygpt_np.checkpoint import CheckpointError
from tinygpt_np.generate import generate
from tinygpt_np.model import GPT
from tinygpt_np.tokenizers import GPT2Tokenizer, Tokenizer

RUNS = Path("runs")
# nanoGPT rounds the size of a vocabulary up to a multiple of this.
PADDING = 64
GPT2_TOKENS = 50257


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


def load_any(
    name: str | None, backend: str = "numpy", dtype: str = "float32", tokenizer_path: str = ""
) -> tuple[GPT, Tokenizer]:
    """A model and its tokenizer: of a GPT-2 (its name, or the folder of its checkpoint), or a run.

    name: see pretrained.folder and find_run. tokenizer_path: where its tokenizer lies, if that is
    not beside a GPT-2. Raises CheckpointError.
    """
    if name is None or not (name in pretrained.NAMES or pretrained.is_gpt2(Path(name))):
        if tokenizer_path:
            raise CheckpointError(f"a run has its own tokenizer; leave out {tokenizer_path}")
        model, tokenizer = load(find_run(name), backend)
        if any(param.dtype != dtype for param in model.params.values()):
            model.params = {n: param.astype(dtype) for n, param in model.params.items()}
        return model, tokenizer
    folder = pretrained.folder(name)
    model = GPT.from_pretrained(folder, backend, dtype)
    tokenizer = (
        tokenizers.at(Path(tokenizer_path)) if tokenizer_path else tokenizer_of(folder, model)
    )
    check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def tokenizer_of(folder: Path, model: GPT) -> Tokenizer:
    """What lies beside a checkpoint; where nothing does, GPT-2's own, if it has as many tokens."""
    if tokenizers.lies_in(folder) or model.vocab_size < GPT2_TOKENS:
        return tokenizers.load(folder)
    return GPT2Tokenizer.from_cache()


def load(run: Path, backend: str = "numpy") -> tuple[GPT, Tokenizer]:
    """The model and tokenizer in the newest checkpoint of a run, or in a checkpoint's folder."""
    folder = whole(run)
    tokenizer, model = tokenizers.load(folder), GPT.load(folder, backend)
    check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def whole(run: Path) -> Path:
    """The newest checkpoint of a run, or the folder of a checkpoint or a model: what is undamaged.

    Raises CheckpointError.
    """
    if not (run / checkpoint.MODEL).exists():
        folder, _ = train.last_checkpoint(run)
        return folder
    if (run / checkpoint.STATE).exists() or (run / checkpoint.CHECKSUMS).exists():
        checkpoint.load_state(run)
    return run


def check_vocabulary(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Raises CheckpointError unless the model knows every token, and no more than are padding.

    nanoGPT rounds GPT-2's 50257 tokens up to 50304, for speed.
    """
    padded = -(-tokenizer.vocab_size // PADDING) * PADDING
    sizes = (tokenizer.vocab_size, padded if tokenizer.kind == "gpt2" else tokenizer.vocab_size)
    if model.vocab_size not in sizes:
        raise CheckpointError(
            f"the tokenizer ({tokenizer.kind}) in {folder} has {tokenizer.vocab_size} tokens, "
            f"but the model has {model.vocab_size}"
        )


def read_prompt(path: Path) -> str:
    """Return the text of a UTF-8 file, with line ends as \\n and without a byte order mark.

    Raises ValueError if it is not a regular file or not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"a prompt is read from a text file, and {path} is not one")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        ) from None


def warm_up(model: GPT) -> None:
    """Compiles what sampling needs, if anything, before the first character is waited for."""
    read_on = model.decoder(1)
    for length in (min(2, model.block_size), 1):
        read_on(np.zeros((1, length), np.int64))


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    top_p: float | None = None,
) -> Iterator[str]:
    """Yield the text that follows the prompt, as it is made.

    An empty prompt is tokenizer.start(); the rules are those of generate.generate.
    """
    ids = tokenizer.encode(prompt) if prompt else tokenizer.start()
    read_on = model.decoder(1)

    def next_logits(fresh: np.ndarray) -> np.ndarray:
        # What pads the vocabulary is no token.
        return read_on(fresh)[:, : tokenizer.vocab_size]

    made = generate(next_logits, ids, tokens, temperature, top_k, seed, top_p)
    return tokenizer.stream(int(token) for token in made)
