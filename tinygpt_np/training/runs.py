"""Runs and other models by name: find, load, list and compare them.

runs/<name>/config.json         what was asked for (TrainConfig)
           /metrics.jsonl       a line for each step; see metrics.py
           /loss.svg            the same as a picture
           /checkpoints/<step>  the last two and the best; see checkpoint.py
           /checkpoints/best    a link to the one with the lowest validation loss
           /.lock               held by the process that trains it
"""

import difflib
import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import float_dtype
from tinygpt_np.storage import checkpoint, files, hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError, State
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import GPT2Tokenizer, Tokenizer
from tinygpt_np.training import metrics
from tinygpt_np.training.metrics import Metrics

CONFIG, CHECKPOINTS, LOCK = "config.json", "checkpoints", ".lock"
RUNS = Path("runs")
# A vocabulary may be padded to a multiple of one of these, for speed: nanoGPT takes 64. A byte-pair
# vocabulary, which can encode every text, may have any padding below the largest.
MULTIPLES = (8, 16, 32, 64, 128)
GPT2_TOKENS = 50257


# Find


def find_run(name: str | None) -> Path:
    """Return the folder of a run: a path, a name under runs/, or (None) the run saved last.

    Raise CheckpointError if there is no such run.
    """
    if name is None:
        saved = with_checkpoints()
        if not saved:
            raise CheckpointError(f"there is no run in {RUNS}/; tinygpt train makes one")
        return max(saved, key=last_saved)
    for path in (Path(name), RUNS / name):
        if (path / checkpoint.STATE).exists():
            run = path.parent.parent
            raise CheckpointError(f"{path} is a checkpoint; expected a run, such as {run}")
        if (path / CONFIG).exists():
            return path
    runs = [run.name for run in with_checkpoints()]
    raise CheckpointError(
        f"there is no run {shown(name)}{guess(name, runs) or f'; those in {RUNS}/ are: {known()}'}"
    )


def find(name: str | Path | None) -> Path:
    """Return the folder of the model that a name means.

    name: gpt2, gpt2-medium, gpt2-large or gpt2-xl; the folder of a GPT-2 checkpoint, of a saved
    model, of a checkpoint or of a run; the name of a run under runs/; None for the run saved last.
    A run means its newest checkpoint. Raise CheckpointError if there is no such model, or if a
    checkpoint is damaged.
    """
    if name is None:
        return last_checkpoint(find_run(None))[0]
    if str(name) in hugging_face.NAMES:
        return hugging_face.fetch(str(name))
    for path in (Path(name), RUNS / name):
        if hugging_face.is_gpt2(path):
            return path
        if (path / checkpoint.MODEL).exists():
            if (path / checkpoint.STATE).exists() or (path / checkpoint.CHECKSUMS).exists():
                checkpoint.load_state(path)
            return path
        if (path / CONFIG).exists():
            return last_checkpoint(path)[0]
    if Path(name).is_file():
        raise CheckpointError(
            f"{name} is a file; to use a nanoGPT checkpoint, convert it first: "
            f"tinygpt convert {shlex.quote(str(name))} FOLDER"
        )
    expected = (
        f": expected {', '.join(hugging_face.NAMES)}; a folder (a run, a checkpoint, or a GPT-2 "
        f"checkpoint); or a run in {RUNS}/, which has: {known()}"
    )
    names = [*hugging_face.NAMES, *(run.name for run in with_checkpoints())]
    raise CheckpointError(f"there is no model {shown(name)}{guess(name, names) or expected}")


def shown(name: str | Path) -> str:
    """Return a name as an error shows it: quoted if it would not be seen otherwise."""
    return str(name) if str(name).strip() else repr(str(name))


def guess(name: str | Path, names: Iterable[str]) -> str:
    """Return a question that proposes the name most like a wrong one, or ""."""
    close = difflib.get_close_matches(str(name), names, 1)
    return f"; do you mean {close[0]}?" if close else ""


def with_checkpoints() -> list[Path]:
    """Return the runs under runs/ that have a checkpoint."""
    return [path for path in RUNS.glob("*") if checkpoint.steps_in(path / CHECKPOINTS)]


def known() -> str:
    return ", ".join(sorted(run.name for run in with_checkpoints())) or "none yet"


def last_saved(run: Path) -> float:
    """Return when the newest checkpoint of a run was written, in seconds."""
    return checkpoint.steps_in(run / CHECKPOINTS)[-1].stat().st_mtime


def last_checkpoint(run: Path) -> tuple[Path, State]:
    """Return the newest checkpoint of a run and its state, both checked."""
    found = checkpoint.steps_in(run / CHECKPOINTS)
    if not found:
        raise CheckpointError(f"{run} has no checkpoint yet")
    try:
        return found[-1], checkpoint.load_state(found[-1])
    except CheckpointError as error:
        if not found[-1].exists():  # The process that trains it has gone on.
            return last_checkpoint(run)
        way_out = f"; remove {found[-1]} to go on from {found[-2]}" if len(found) > 1 else ""
        raise CheckpointError(f"{error}{way_out}") from None


def read_config(run: Path) -> TrainConfig:
    """Return the configuration that a run was started with."""
    return checkpoint.config_of(TrainConfig, checkpoint.read_json(run / CONFIG), run / CONFIG)


def is_started(run: Path) -> bool:
    """Return whether a folder holds more than a killed process left of starting a run there."""
    return any(path.name != LOCK and not files.is_temporary(path) for path in run.iterdir())


# Load


def load(
    name: str | Path | None = None,
    backend: str = "numpy",
    dtype: str = "float32",
    tokenizer_path: str = "",
) -> tuple[GPT, Tokenizer]:
    """Return a model and its tokenizer.

    Parameters
    ----------
    name : str or Path, optional
        A run (its folder, or its name under ``runs/``), a checkpoint, the folder of a GPT-2
        checkpoint, or gpt2, gpt2-medium, gpt2-large or gpt2-xl; by default the run saved last.
    backend : {"numpy", "numba"}
        What computes.
    dtype : {"float32", "float64"}
        What it computes in.
    tokenizer_path : str
        The files of the tokenizer, if the model's folder has none.

    Raises
    ------
    checkpoint.CheckpointError
        If there is no such model, or if it is damaged; the message says what was expected.
    tokenizers.TokenizerError
        If its tokenizer is damaged, or needs a package that is not installed.
    ValueError
        If the backend does not exist, or cannot compute in this dtype.
    """
    folder = find(name)
    try:
        model, tokenizer = read(folder, backend, dtype, tokenizer_path)
    except (CheckpointError, tokenizers.TokenizerError):
        if folder.exists():
            raise
        return load(name, backend, dtype, tokenizer_path)  # Training has gone on meanwhile.
    if tokenizer is None and model.vocab_size >= GPT2_TOKENS:
        tokenizer = GPT2Tokenizer.from_cache()
        check_vocabulary(folder, model, tokenizer)
    if tokenizer is None:
        raise CheckpointError(
            f"{folder} has a model of {model.vocab_size} tokens, but no tokenizer: "
            "--tokenizer-path (in Python tokenizer_path=) names its files"
        )
    return model, tokenizer


def read(
    folder: Path, backend: str = "numpy", dtype: str = "", tokenizer_path: str = ""
) -> tuple[GPT, Tokenizer | None]:
    """Return the model in a folder of find(), and its tokenizer if it has one.

    dtype: of the parameters; "" for those of a run as they are, and float32 for a GPT-2's.
    """
    if hugging_face.is_gpt2(folder):
        model = GPT.from_pretrained(folder, backend, dtype or "float32")
    else:
        saved = GPT.load(folder)
        dtype = dtype or saved.params["wte.weight"].dtype.name
        found = float_dtype(dtype)
        params = {n: param.astype(found, copy=False) for n, param in saved.params.items()}
        model = GPT(saved.config, dtype=dtype, backend=backend, params=params)
    if tokenizer_path:
        if (folder / checkpoint.STATE).exists():
            raise CheckpointError(f"a run has its own tokenizer; leave out {tokenizer_path}")
        tokenizer = tokenizers.from_path(Path(tokenizer_path))
    elif tokenizers.has_tokenizer(folder):
        tokenizer = tokenizers.load(folder)
    else:
        return model, None
    check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def check_vocabulary(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless the model knows every token, and has no more than padding.

    Padding is never drawn; see sample.stream.
    """
    has = tokenizer.vocab_size
    sizes = {has, *(-(-has // multiple) * multiple for multiple in MULTIPLES)}
    if tokenizer.kind == "gpt2":
        sizes = range(has, has + max(MULTIPLES))
    if model.vocab_size not in sizes:
        raise CheckpointError(
            f"the tokenizer ({tokenizer.kind}) of {folder} has {has} tokens, "
            f"but the model has {model.vocab_size}"
        )


# List and compare


@dataclass(frozen=True)
class Summary:
    """Facts about a run. params and the losses are None as long as there are none."""

    name: str
    config: TrainConfig
    params: int | None
    steps: int
    val_loss: float | None
    best_loss: float | None
    age: float


def summaries() -> tuple[list[Summary], list[str]]:
    """Return the runs under runs/, the one written last at the end, and what cannot be read."""
    found: list[Summary] = []
    problems: list[str] = []
    for run in RUNS.glob("*"):
        if (run / CONFIG).exists():
            try:
                found.append(summary(run))
            except CheckpointError as error:
                problems.append(str(error))
    return sorted(found, key=lambda each: -each.age), problems


def summary(run: Path) -> Summary:
    """Return what is known of a run. Raise CheckpointError if its files are damaged."""
    config, rows = read_config(run), metrics.read(run)
    losses = [row.val_loss for row in rows if row.val_loss is not None]
    written = run / (metrics.METRICS if rows else CONFIG)
    age = time.time() - written.stat().st_mtime
    last, best = (losses[-1], min(losses)) if losses else (None, None)
    return Summary(run.name, config, params_of(run), steps_taken(rows), last, best, age)


def steps_taken(rows: list[Metrics]) -> int:
    """Return how many steps the lines of metrics are of; the last line of a run is of none."""
    return rows[-1].step + (rows[-1].loss is not None) if rows else 0


def params_of(run: Path) -> int | None:
    """Return the number of parameters, or None before the first checkpoint."""
    saved = checkpoint.steps_in(run / CHECKPOINTS)
    if not saved:
        return None
    path = saved[-1] / checkpoint.CONFIG
    return param_count(checkpoint.config_of(GPTConfig, checkpoint.read_json(path), path))


def differences(configs: list[TrainConfig]) -> dict[str, list[Any]]:
    """Return the settings in which some of these configurations differ, with all their values."""
    values = [asdict(config) for config in configs]
    rows = {name: [each[name] for each in values] for name in values[0]}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}
