"""Code that chapters share: the data, a training loop, a gradient check and pictures.

From chapter 11 on, every model is trained with the same recipe, so that losses can be compared.
"""

import io
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tinygpt_np import gradcheck
from tinygpt_np.config import generator
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.text import batches, corpus
from tinygpt_np.text.tokenizers import CharTokenizer

BLOCK_SIZE, BATCH_SIZE, N_EMBD, N_HEAD = 16, 32, 32, 4
STEPS, LEARNING_RATE = 1000, 1e-2
Shapes = dict[str, tuple[int, ...]]
SHADES, LIMITS = "·░▒▓█", (0.05, 0.15, 0.35, 0.6)
LEGEND = "each row adds up to 100 %: · <5 %  ░ <15 %  ▒ <35 %  ▓ <60 %  █ more"
BARS, COLUMNS = "▁▂▃▄▅▆▇█", 80


@cache
def load_data() -> tuple[CharTokenizer, np.ndarray, np.ndarray]:
    """Return the tokenizer, and the tokens (M,) of the training and validation splits."""
    text = corpus.load("shakespeare").text
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer, *corpus.split(tokenizer.encode(text), BLOCK_SIZE)


def initial(shapes: Shapes) -> Tensors:
    """Return initial parameters: biases 0, layer-norm weights 1, matrices as in PyTorch."""
    rng, params = generator(1337, "init"), Tensors()
    for name, shape in shapes.items():
        if len(shape) == 1:
            params[name] = np.full(shape, 0 if name.endswith("bias") else 1, np.float32)
        else:
            spread = 0.3 if name in ("wte", "wpe") else (3 * shape[0]) ** -0.5
            params[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    return params


def split_loss(model: LanguageModel, ids: np.ndarray) -> float:
    """Return the mean loss over all tokens of a split (M,)."""
    parts = list(batches.sequences(ids, BLOCK_SIZE))
    losses = [model.loss(tokens, targets) for tokens, targets in parts]
    return float(np.average(losses, weights=[targets.size for _, targets in parts]))


def train(model: LanguageModel, title: str) -> None:
    """Train with the shared recipe and print the losses."""
    _, train_ids, val_ids = load_data()
    optimizer = AdamW(model.params, beta1=0.9, beta2=0.99, weight_decay=0.0)
    rng, before, losses = generator(1337, "data"), split_loss(model, val_ids), list[float]()
    for step in range(STEPS):
        tokens, targets = batches.random_batch(train_ids, BATCH_SIZE, BLOCK_SIZE, rng)  # (B, T)
        loss, grads = model.loss_and_grads(tokens, targets)
        optimizer.update(model.params, grads, LEARNING_RATE * (1 - step / STEPS))
        losses.append(loss)
    size, after = sum(param.size for param in model.params.values()), split_loss(model, val_ids)
    quarters = " ".join(f"{np.mean(part):.3f}" for part in np.array_split(losses, 4))
    print(f"{title}: {size:,} parameters, {STEPS} steps")
    show_losses(losses)
    print(f"  loss by quarters {quarters}")
    print(f"  validation loss before {before:.3f}, after {after:.3f}")


def in_the_video(loss: float, how: str = "") -> None:
    """Print the validation loss in the video, and why it differs from the one here."""
    details = f", {how}" if how else ""
    print(f"in the video: {loss:.2f}{details}, on tiny Shakespeare")
    print(f"  with contexts of 8 characters instead of {BLOCK_SIZE}, and 5,000 smaller steps")


def check_gradient(model: LanguageModel) -> None:
    """Print the error of the hand-written gradients along random directions."""
    rng, original = np.random.default_rng(1), model.params
    tokens, targets = rng.integers(model.vocab_size, size=(2, 3, 5))  # (B, T)
    model.params = {n: p + 0.1 * rng.normal(size=p.shape) for n, p in original.items()}
    report = gradcheck.check_model(model, tokens, targets, directions=1)
    model.params = original
    worst = max(row.relative for row in report.rows)
    print(f"backward by hand against the complex step: {worst:.1e} (worst parameter)")


def try_it(command: str, look: str) -> None:
    """Print a command to try, and what to look for."""
    print(f"  {command}\n")
    print(textwrap.fill(look, COLUMNS))


def show_losses(losses: Sequence[float]) -> None:
    """Show the losses of a training: as a line of blocks, or in a notebook as a plot."""
    if not in_notebook():
        print(loss_bars(losses))
        return
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(6.5, 2.8), layout="constrained")
    axes: Any = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(losses, linewidth=0.6, alpha=0.4)
    width = max(len(losses) // 50, 1)
    means = np.convolve(losses, np.ones(width) / width, "valid")
    axes.plot(np.arange(len(means)) + width // 2, means, color="tab:blue")
    axes.grid(alpha=0.3)
    display(figure)


def loss_bars(losses: Sequence[float]) -> str:
    """Draw losses as a line of blocks: each is the mean of a part, relative to the largest one."""
    parts = np.array_split(losses, min(len(losses), 48))
    means = np.array([part.mean() for part in parts])
    low, high = means.min(), means.max()
    heights = (means - low) / max(high - low, 1e-12) * (len(BARS) - 1)
    line = "".join(BARS[round(height)] for height in heights)
    return f"loss {line}  from {means[0]:.2f} to {means[-1]:.2f}"


def show_maps(maps: dict[str, np.ndarray], text: str) -> None:
    """Show attention weights (T, T) with titles: as shades, or in a notebook as a picture."""
    if not in_notebook():
        print(heat_maps(maps, text))
        return
    from matplotlib.figure import Figure

    rows, columns = -(-len(maps) // 2), min(len(maps), 2)
    figure: Any = Figure(figsize=(1 + 3.2 * columns, 3.3 * rows), layout="constrained")
    letters, future = text.replace(" ", "␣"), ~np.tri(len(text), dtype=bool)  # (T, T)
    for place, (title, probs) in enumerate(maps.items(), start=1):
        axes = figure.add_subplot(rows, columns, place, title=title)
        past = np.ma.array(probs, mask=future)  # (T, T)
        image = axes.imshow(past, cmap="viridis", vmin=0, vmax=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(len(text)), letters, family="monospace")
        if place == len(maps):
            figure.colorbar(image, ax=figure.axes, shrink=0.8, label="weight")
    display(figure)


def in_notebook() -> bool:
    """Return whether this code runs in a notebook, which shows pictures."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def display(figure: Any) -> None:
    """Show a figure in a notebook."""
    png, shown = io.BytesIO(), sys.modules["IPython"].display
    figure.savefig(png, format="png", dpi=110)
    shown.display(shown.Image(data=png.getvalue()))


def heat_maps(maps: dict[str, np.ndarray], text: str) -> str:
    """Draw attention weights (T, T) with titles; masked positions are blank."""
    letters, width = text.replace(" ", "_"), 2 * len(text) + 4
    blocks: list[list[str]] = []
    for title, probs in maps.items():
        cells = np.searchsorted(LIMITS, probs, side="right")  # (T, T)
        rows = ["".join(2 * SHADES[i] for i in cells[t, : t + 1]) for t in range(len(text))]
        block = [f"  {title}", "  " + " ".join(letters)]
        blocks.append(block + [f"{a} {row}" for a, row in zip(letters, rows, strict=True)])
    lines: list[str] = []
    count = max(COLUMNS // width, 1)
    for start in range(0, len(blocks), count):
        rows = zip(*blocks[start : start + count], strict=True)
        lines += ["".join(f"{part:<{width}}" for part in row).rstrip() for row in rows] + [""]
    return "\n".join([*lines[:-1], LEGEND])
