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
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tinygpt_np.config import Architecture, GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import float_dtype
from tinygpt_np.storage import checkpoint, hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError, State
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset, tokenizers
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.text.tokenizers import GPT2Tokenizer, Tokenizer
from tinygpt_np.training import metrics

CONFIG, CHECKPOINTS, LOCK = "config.json", "checkpoints", ".lock"
RUNS = Path("runs")
# A vocabulary may be padded to a multiple of one of these for speed; nanoGPT uses 64. GPT-2's
# vocabulary may have any padding below the largest.
MULTIPLES = (8, 16, 32, 64, 128)
GPT2_TOKENS = 50257
# Settings that a run takes over from the model of --init-from. Dropout is set for each run.
FROM_MODEL = tuple(field.name for field in fields(Architecture) if field.name != "dropout")


# Find


def find_run(name: str | None) -> Path:
    """Return the folder of a run, given its path or its name in runs/; None is the latest run."""
    saved = with_checkpoints()
    if name is None:
        if not saved:
            raise CheckpointError(f"there is no run in {RUNS}/; tinygpt train makes one")
        return max(saved, key=lambda run: saved[run].stat().st_mtime)
    for path in (Path(name), RUNS / name):
        if (path / checkpoint.STATE).exists():
            run = path.parent.parent
            raise CheckpointError(f"{path} is a checkpoint; expected a run, such as {run}")
        if (path / CONFIG).exists():
            return path
    raise unknown("run", name, (), f"; those in {RUNS}/ are: {known()}")


def find(name: str | Path | None) -> Path:
    """Return the folder of the model with this name.

    name: gpt2, gpt2-medium, gpt2-large or gpt2-xl; the folder of a GPT-2 or Llama, a saved model, a
    training checkpoint or a run; the name of a run in runs/; or None for the latest run. For a
    run, its newest checkpoint is returned. Raise CheckpointError if there is no such model or its
    checkpoint is damaged.
    """
    if name is None:
        return last_checkpoint(find_run(None))[0]
    if str(name) in hugging_face.NAMES:
        return hugging_face.fetch(str(name))
    for path in (Path(name), RUNS / name):
        if hugging_face.is_checkpoint(path):
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
        f"or Llama); or a run in {RUNS}/ ({known()})"
    )
    raise unknown("model", str(name), hugging_face.NAMES, expected)


def unknown(kind: str, name: str, others: Collection[str], expected: str) -> CheckpointError:
    """Return an error that suggests the most similar run or other name, or says what to expect."""
    close = difflib.get_close_matches(name, [*others, *(run.name for run in with_checkpoints())], 1)
    advice = f"; did you mean {close[0]}?" if close else expected
    return CheckpointError(f"there is no {kind} {name if name.strip() else repr(name)}{advice}")


def with_checkpoints() -> dict[Path, Path]:
    """Return the runs in runs/ that have a checkpoint, with the newest one."""
    found = {run: checkpoint.steps_in(run / CHECKPOINTS) for run in RUNS.glob("*")}
    return {run: steps[-1] for run, steps in found.items() if steps}


def known() -> str:
    """Return the names of the runs in runs/, for an error message."""
    return ", ".join(sorted(run.name for run in with_checkpoints())) or "none yet"


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
        or Llama, or gpt2, gpt2-medium, gpt2-large or gpt2-xl; by default the latest run.
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
    """Return folder, model ("" keeps its dtype), and the tokenizer if it has one; see load."""
    folder = find(name)
    try:
        if hugging_face.is_checkpoint(folder):
            model = GPT.from_pretrained(folder, backend, dtype or "float32")
        else:
            model = converted(GPT.load(folder), backend, dtype)
        if not tokenizer_path:
            tokenizer = tokenizers.load(folder) if tokenizers.has_tokenizer(folder) else None
        elif (folder / checkpoint.STATE).exists():
            raise CheckpointError("a run has its own tokenizer; leave out --tokenizer-path")
        else:
            tokenizer = tokenizers.from_path(Path(tokenizer_path))
    except (CheckpointError, tokenizers.TokenizerError):
        if folder.exists():
            raise
        # Training has replaced the checkpoint in the meantime.
        return load_model(name, backend, dtype, tokenizer_path)
    if tokenizer is not None:
        check_vocabulary(folder, model, tokenizer)
    return folder, model, tokenizer


def converted(model: GPT, backend: str, dtype: str) -> GPT:
    """Return a model with another backend and dtype; "" keeps the dtype."""
    dtype = dtype or model.params["wte.weight"].dtype.name
    wanted = float_dtype(dtype)
    params = {name: param.astype(wanted, copy=False) for name, param in model.params.items()}
    return GPT(model.config, dtype=dtype, backend=backend, params=params)


def check_vocabulary(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless model and tokenizer fit; padding, never sampled, may differ."""
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


def inputs(
    config: TrainConfig, typed: Collection[str] = (), run: Path | None = None
) -> tuple[TrainConfig, Dataset, GPT | None]:
    """Return what training starts from: configuration, data, and a model unless it is new or saved.

    With init_from, the model's shape replaces that of config, but a smaller block_size crops it. A
    run to resume has the tokenizer of its last checkpoint. Raise ValueError if the model or data
    cannot be loaded, or a setting in `typed`, the ones given on the command line, differs from the
    model's.
    """
    if run is not None and (saved := checkpoint.steps_in(run / CHECKPOINTS)):
        return config, dataset.load(config, tokenizers.load(saved[-1])), None
    if config.init_from == "scratch":
        return config, dataset.load(config), None
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
    return config, dataset.load(config, tokenizer), model


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
    params = None
    if saved := checkpoint.steps_in(run / CHECKPOINTS):
        path = saved[-1] / checkpoint.CONFIG
        params = param_count(checkpoint.config_of(GPTConfig, checkpoint.read_json(path), path))
    # The last line of a finished run is not a step.
    steps = rows[-1].step + (rows[-1].loss is not None) if rows else 0
    losses = [row.val_loss for row in rows if row.val_loss is not None]
    last, best = (losses[-1], min(losses)) if losses else (None, None)
    age = time.time() - (run / (metrics.METRICS if rows else CONFIG)).stat().st_mtime
    return Summary(run.name, config, params, steps, last, best, age)


def differences(configs: list[TrainConfig]) -> dict[str, list[Any]]:
    """Return the settings that differ between configurations, with the value in each."""
    values = [asdict(config) for config in configs]
    rows = {name: [each[name] for each in values] for name in values[0]}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}
