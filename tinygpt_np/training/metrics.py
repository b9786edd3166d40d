"""What is known of a run so far: a line of JSON for each step, and a picture of the losses."""

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

METRICS, PICTURE = "metrics.jsonl", "loss.svg"


@dataclass(frozen=True)
class Metrics:
    """A line of metrics.jsonl. The last line of a run has no training loss: no step was taken."""

    step: int
    loss: float | None
    val_loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens_per_second: float | None


def record(run: Path, metrics: Metrics) -> None:
    """Adds a line."""
    with (run / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(metrics), allow_nan=False) + "\n")


def read(run: Path) -> list[Metrics]:
    """All lines. A last line cut short by a crash is left out; any other damage is an error."""
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
            raise CheckpointError(
                f"{path} is damaged: line {number} is no line of metrics"
            ) from None
    return rows


def row_of(found: Any) -> Metrics:
    """Return a line of metrics from JSON.

    Raise KeyError, TypeError or ValueError if it is none: step must be a whole number, everything
    else a finite number or null.
    """
    row = Metrics(**{field.name: found[field.name] for field in fields(Metrics)})
    if type(row.step) is not int or row.step < 0:
        raise ValueError("step is no whole number")
    for value in (row.loss, row.val_loss, row.lr, row.grad_norm, row.tokens_per_second):
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError("a value is no finite number")
    return row


def keep_before(run: Path, step: int) -> None:
    """Drops the lines of a step and all after it; they will come again."""
    kept = [asdict(row) for row in read(run) if row.step < step]
    files.write_file(run / METRICS, "".join(json.dumps(row) + "\n" for row in kept).encode())


def sync(run: Path) -> None:
    """Makes sure that the lines so far are on the disk."""
    if (run / METRICS).exists():
        with (run / METRICS).open("rb+") as file:
            os.fsync(file.fileno())


def draw_losses(run: Path) -> None:
    """Draws loss.svg: the training loss of each step, and over it the validation loss."""
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
    axes.set_title(run.name, parse_math=False)  # A $ in a name is a $.
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    as_text: dict[Any, Any] = {"svg.fonttype": "none"}
    # The fonts here need not have every letter of a name: text stays text, for the viewer to draw.
    with matplotlib.rc_context(as_text), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(picture, format="svg")
    files.write_file(run / PICTURE, picture.getvalue())
