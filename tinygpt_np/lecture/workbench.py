"""Code that chapters share: the data, a training loop, a gradient check and heat maps.

From chapter 11 on, every model is trained with the same recipe, so that losses can be compared.
"""

from functools import cache

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
LEGEND = "each row spreads 100 % over the columns: · <5 %  ░ <15 %  ▒ <35 %  ▓ <60 %  █ more"


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
    quarters = " ".join(f"{np.mean(part):.3f}" for part in np.array_split(losses, 4))
    size, after = sum(param.size for param in model.params.values()), split_loss(model, val_ids)
    print(f"{title}: {size:,} parameters, {STEPS} steps, loss by quarters {quarters}")
    print(f"  validation loss before {before:.3f}, after {after:.3f}")


def in_the_video(loss: float, how: str = "") -> None:
    """Print the validation loss in the video, and why it differs from the one here."""
    details = f" {how}," if how else ""
    print(f"in the video: {loss:.2f},{details} on tiny Shakespeare, with contexts of 8 characters")
    print(f"  instead of {BLOCK_SIZE}, and 5,000 smaller steps instead of {STEPS:,}")


def check_gradient(model: LanguageModel) -> None:
    """Print the error of the hand-written gradients along random directions."""
    rng, original = np.random.default_rng(1), model.params
    tokens, targets = rng.integers(model.vocab_size, size=(2, 3, 5))  # (B, T)
    model.params = {n: p + 0.1 * rng.normal(size=p.shape) for n, p in original.items()}
    report = gradcheck.check_model(model, tokens, targets, directions=1)
    model.params = original
    worst = max(row.relative for row in report.rows)
    print(f"backward by hand against the complex step: {worst:.1e} (worst parameter)\n")


def heat_maps(maps: dict[str, np.ndarray], text: str) -> str:
    """Draw attention weights (T, T) side by side with titles; masked positions are blank."""
    letters, lines = text.replace(" ", "_"), [""] * (len(text) + 2)
    for title, probs in maps.items():
        cells = np.searchsorted(LIMITS, probs, side="right")  # (T, T)
        rows = ["".join(2 * SHADES[i] for i in cells[t, : t + 1]) for t in range(len(text))]
        block = [f"  {title}", "  " + " ".join(letters)]
        block += [f"{letter} {row}" for letter, row in zip(letters, rows, strict=True)]
        lines = [f"{a}{b:<{2 * len(text) + 4}}" for a, b in zip(lines, block, strict=True)]
    return "\n".join(line.rstrip() for line in [*lines, LEGEND])
