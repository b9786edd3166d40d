"""Find, load, list and compare runs; find and load other models by name.

runs/<name>/config.json         the configuration (TrainConfig)
           /metrics.jsonl       a line per step; see metrics.py
           /loss.svg            a plot of the losses
           /checkpoints/<step>  the last two and the best; see storage/checkpoint.py
           /checkpoints/best    a link to the one with the lowest validation loss
           /.lock               held by the process that trains the run
"""

import difflib
import shlex
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import float_dtype
from tinygpt_np.storage import checkpoint, files, hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError, State
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset, tokenizers
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.text.tokenizers import GPT2Tokenizer, Tokenizer
from tinygpt_np.training import metrics
from tinygpt_np.training.metrics import Metrics

CONFIG, CHECKPOINTS, LOCK = "config.json", "checkpoints", ".lock"
RUNS = Path("runs")
# A vocabulary may be padded to a multiple of one of these for speed; nanoGPT uses 64. GPT-2's
# vocabulary may have any padding below the largest.
MULTIPLES = (8, 16, 32, 64, 128)
GPT2_TOKENS = 50257
# Settings that a run takes over from the model of --init-from. Dropout is set for each run.
FROM_MODEL = ("block_size", "n_layer", "n_head", "n_embd", "bias", "gelu")


# Find


def find_run(name: str | None) -> Path:
    """Return the folder of a run, given its path or its name in runs/; None is the latest run.

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
    """Return the folder of the model with this name.

    name: gpt2, gpt2-medium, gpt2-large or gpt2-xl; the folder of a GPT-2 checkpoint, a saved model,
    a training checkpoint or a run; the name of a run in runs/; or None for the latest run. For a
    run, its newest checkpoint is returned. Raise CheckpointError if there is no such model or its
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
        f"checkpoint); or a run in {RUNS}/ ({known()})"
    )
    names = [*hugging_face.NAMES, *(run.name for run in with_checkpoints())]
    raise CheckpointError(f"there is no model {shown(name)}{guess(name, names) or expected}")


def shown(name: str | Path) -> str:
    """Return a name for an error message, quoted if it is blank."""
    return str(name) if str(name).strip() else repr(str(name))


def guess(name: str | Path, names: Iterable[str]) -> str:
    """Return a question that suggests the most similar name, or ""."""
    close = difflib.get_close_matches(str(name), names, 1)
    return f"; did you mean {close[0]}?" if close else ""


def with_checkpoints() -> list[Path]:
    """Return the runs in runs/ that have a checkpoint."""
    return [path for path in RUNS.glob("*") if checkpoint.steps_in(path / CHECKPOINTS)]


def known() -> str:
    """Return the names of the runs in runs/, for an error message."""
    return ", ".join(sorted(run.name for run in with_checkpoints())) or "none yet"


def last_saved(run: Path) -> float:
    """Return the time when the newest checkpoint of a run was written, in seconds."""
    return checkpoint.steps_in(run / CHECKPOINTS)[-1].stat().st_mtime


def last_checkpoint(run: Path) -> tuple[Path, State]:
    """Return the newest checkpoint of a run and its state, and check them."""
    found = checkpoint.steps_in(run / CHECKPOINTS)
    if not found:
        raise CheckpointError(f"{run} has no checkpoint yet")
    try:
        return found[-1], checkpoint.load_state(found[-1])
    except CheckpointError as error:
        if not found[-1].exists():  # Training has replaced it in the meantime.
            return last_checkpoint(run)
        advice = f"; remove {found[-1]} to continue from {found[-2]}" if len(found) > 1 else ""
        raise CheckpointError(f"{error}{advice}") from None


def read_config(run: Path) -> TrainConfig:
    """Return the configuration of a run."""
    return checkpoint.config_of(TrainConfig, checkpoint.read_json(run / CONFIG), run / CONFIG)


def is_started(run: Path) -> bool:
    """Return whether a folder has files other than those of a run killed while it was started."""
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
        A run (its folder or its name in ``runs/``), a checkpoint, the folder of a GPT-2
        checkpoint, or gpt2, gpt2-medium, gpt2-large or gpt2-xl; by default the latest run.
    backend : {"numpy", "numba"}
        The implementation of the operations.
    dtype : {"float32", "float64"}
        The dtype of the parameters.
    tokenizer_path : str
        The files of the tokenizer, if the model's folder has none.

    Raises
    ------
    checkpoint.CheckpointError
        If there is no such model, or it is damaged; the message says what was expected.
    tokenizers.TokenizerError
        If its tokenizer is damaged, or needs a package that is not installed.
    ValueError
        If there is no such backend, or it does not support the dtype.
    """
    folder, model, tokenizer = load_model(name, backend, dtype, tokenizer_path)
    if tokenizer is None and model.vocab_size >= GPT2_TOKENS:
        tokenizer = GPT2Tokenizer.from_cache()
        check_vocabulary(folder, model, tokenizer)
    if tokenizer is None:
        raise CheckpointError(
            f"{folder} has a model of {model.vocab_size} tokens, but no tokenizer: "
            "--tokenizer-path (in Python tokenizer_path=) names its files"
        )
    return model, tokenizer


def load_model(
    name: str | Path | None = None,
    backend: str = "numpy",
    dtype: str = "",
    tokenizer_path: str = "",
) -> tuple[Path, GPT, Tokenizer | None]:
    """Return the folder, the model, and the tokenizer if it has one; see load.

    dtype: "" keeps the dtype of a run; a GPT-2 checkpoint is then loaded in float32.
    """
    folder = find(name)
    try:
        model = read_model(folder, backend, dtype)
        tokenizer = read_tokenizer(folder, tokenizer_path)
    except (CheckpointError, tokenizers.TokenizerError):
        if folder.exists():
            raise
        # Training has replaced the checkpoint in the meantime.
        return load_model(name, backend, dtype, tokenizer_path)
    if tokenizer is not None:
        check_vocabulary(folder, model, tokenizer)
    return folder, model, tokenizer


def read_model(folder: Path, backend: str, dtype: str) -> GPT:
    """Return the model in a folder that find() has returned."""
    if hugging_face.is_gpt2(folder):
        return GPT.from_pretrained(folder, backend, dtype or "float32")
    saved = GPT.load(folder)
    dtype = dtype or saved.params["wte.weight"].dtype.name
    converted = float_dtype(dtype)
    params = {n: param.astype(converted, copy=False) for n, param in saved.params.items()}
    return GPT(saved.config, dtype=dtype, backend=backend, params=params)


def read_tokenizer(folder: Path, tokenizer_path: str) -> Tokenizer | None:
    """Return the tokenizer in a model's folder or at a path, or None if there is neither."""
    if tokenizer_path:
        if (folder / checkpoint.STATE).exists():
            raise CheckpointError("a run has its own tokenizer; leave out --tokenizer-path")
        return tokenizers.from_path(Path(tokenizer_path))
    return tokenizers.load(folder) if tokenizers.has_tokenizer(folder) else None


def check_vocabulary(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless the vocabularies have the same size, except for padding.

    Padding is never sampled; see sampling.stream_text.
    """
    size = tokenizer.vocab_size
    sizes = {size, *(-(-size // multiple) * multiple for multiple in MULTIPLES)}
    if tokenizer.kind == "gpt2":
        sizes = range(size, size + max(MULTIPLES))
    if model.vocab_size not in sizes:
        raise CheckpointError(
            f"the tokenizer ({tokenizer.kind}) of {folder} has {size} tokens, "
            f"but the model has {model.vocab_size}"
        )


# Start and resume


class Inputs(NamedTuple):
    """The configuration and data of a run, and its model unless that is created or resumed."""

    config: TrainConfig
    dataset: Dataset
    model: GPT | None


def inputs(config: TrainConfig, typed: Collection[str] = (), run: Path | None = None) -> Inputs:
    """Load what training starts from.

    Parameters
    ----------
    config : TrainConfig
        The configuration. With init_from, the model's shape replaces what it says, but a smaller
        block_size crops the model.
    typed : collection of str
        The settings given on the command line, which must not contradict the model.
    run : Path, optional
        A run to resume: the tokenizer is that of its last checkpoint.

    Raises
    ------
    ValueError
        If the model or the data cannot be loaded, or a setting in typed differs from the model's.
    """
    if run is not None and (saved := checkpoint.steps_in(run / CHECKPOINTS)):
        return Inputs(config, dataset.load(config, tokenizers.load(saved[-1])), None)
    if config.init_from == "scratch":
        return Inputs(config, dataset.load(config), None)
    model, tokenizer = load(config.init_from, config.backend, config.dtype, config.tokenizer_path)
    if model.block_size > config.block_size:
        model = model.cropped(config.block_size)
    shape = {name: getattr(model.config, name) for name in FROM_MODEL}
    fixed = shape | {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
    for name in fixed:
        if name in typed and (asked := getattr(config, name)) != fixed[name]:
            raise ValueError(
                f"{config.init_from} has {as_flag(name, fixed[name])}, which --init-from "
                f"keeps; leave out {as_flag(name, asked)}"
            )
    config = replace(config, **shape)
    model.config = config.gpt(model.vocab_size)  # The dropout is that of this run.
    return Inputs(config, dataset.load(config, tokenizer), model)


def as_flag(name: str, value: Any) -> str:
    """Return a setting as it is typed on the command line."""
    flag = name.replace("_", "-")
    return f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"


# List and compare


@dataclass(frozen=True)
class Summary:
    """Facts about a run.

    params is None before the first checkpoint, a loss before the first evaluation. age: seconds
    since the last step.
    """

    name: str
    config: TrainConfig
    params: int | None
    steps: int
    val_loss: float | None
    best_loss: float | None
    age: float


def summaries() -> tuple[list[Summary], list[str]]:
    """Return the runs in runs/, oldest first, and a message for each that cannot be read."""
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
    """Return facts about a run. Raise CheckpointError if its files are damaged."""
    config, rows = read_config(run), metrics.read(run)
    losses = [row.val_loss for row in rows if row.val_loss is not None]
    written = run / (metrics.METRICS if rows else CONFIG)
    age = time.time() - written.stat().st_mtime
    last, best = (losses[-1], min(losses)) if losses else (None, None)
    return Summary(run.name, config, params_of(run), steps_taken(rows), last, best, age)


def steps_taken(rows: list[Metrics]) -> int:
    """Return the number of steps taken. The last line of a finished run is not a step."""
    return rows[-1].step + (rows[-1].loss is not None) if rows else 0


def params_of(run: Path) -> int | None:
    """Return the number of parameters, or None before the first checkpoint."""
    saved = checkpoint.steps_in(run / CHECKPOINTS)
    if not saved:
        return None
    path = saved[-1] / checkpoint.CONFIG
    return param_count(checkpoint.config_of(GPTConfig, checkpoint.read_json(path), path))


def differences(configs: list[TrainConfig]) -> dict[str, list[Any]]:
    """Return the settings that differ between configurations, with the value in each."""
    values = [asdict(config) for config in configs]
    rows = {name: [each[name] for each in values] for name in values[0]}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}
