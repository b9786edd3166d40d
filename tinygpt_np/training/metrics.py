"""Metrics of a run: metrics.jsonl, with a line of JSON per step, and a plot of the losses."""

import io
import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError

METRICS, PLOT = "metrics.jsonl", "loss.svg"


@dataclass(frozen=True)
class Metrics:
    """A line of metrics.jsonl.

    The last line of a finished run has only the validation loss: after it, no step was taken.
    """

    step: int
    loss: float | None
    val_loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens_per_second: float | None


def record(run: Path, metrics: Metrics) -> None:
    """Append a line to metrics.jsonl."""
    with (run / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(metrics), allow_nan=False) + "\n")


def read(run: Path) -> list[Metrics]:
    """Return all lines but an incomplete last one, as a crash leaves it; refuse other damage."""
    path = run / METRICS
    if not path.exists():
        return []
    rows: list[Metrics] = []
    lines = checkpoint.read_bytes(path).splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(row_of(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise CheckpointError(f"{path} is damaged: line {number} is not valid") from None
    return rows


def row_of(found: Any) -> Metrics:
    """Return a line of metrics from JSON; raise KeyError, TypeError or ValueError if invalid."""
    row = Metrics(**{field.name: found[field.name] for field in fields(Metrics)})
    if type(row.step) is not int or row.step < 0:
        raise ValueError("step must be an integer of zero or more")
    for value in (row.loss, row.val_loss, row.lr, row.grad_norm, row.tokens_per_second):
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError("every value must be a finite number or null")
    return row


def keep_before(run: Path, step: int) -> None:
    """Remove the lines from this step on, before a resumed run writes them again."""
    kept = [asdict(row) for row in read(run) if row.step < step]
    files.write_file(run / METRICS, "".join(json.dumps(row) + "\n" for row in kept).encode())


def sync(run: Path) -> None:
    """Flush metrics.jsonl to disk."""
    if (run / METRICS).exists():
        with (run / METRICS).open("rb+") as file:
            os.fsync(file.fileno())


def plot_losses(run: Path) -> None:
    """Draw loss.svg: the training loss of each step and the validation losses."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = read(run)
    if not rows:
        return
    figure: Any = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    training = [(row.step, row.loss) for row in rows if row.loss is not None]
    validation = [(row.step, row.val_loss) for row in rows if row.val_loss is not None]
    for points, label, style in ((training, "training", "-"), (validation, "validation", "o-")):
        steps, losses = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, losses, style, label=label, linewidth=1, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats per character)")
    axes.set_title(run.name, parse_math=False)  # A run may have a $ in its name.
    axes.grid(alpha=0.3)
    axes.legend()
    svg = io.BytesIO()
    # Text is not converted to outlines, because fonts here may lack the letters of a run's name.
    as_text: dict[Any, Any] = {"svg.fonttype": "none"}
    with matplotlib.rc_context(as_text), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(svg, format="svg")
    files.write_file(run / PLOT, svg.getvalue())
