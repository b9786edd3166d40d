"""The checks of `tinygpt gradcheck`: every operation, a block, both models, the compiled step.

Each is checked at several sets of weights. Generic values of order one hide nothing. At GPT-2's
initialisation weights are small, scales are 1 and biases 0; after a short training, weights are
like a user's. Gradients must be right there too, where rounding errors have other sizes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.compiled import settings
from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.gradcheck.cases import VARIANTS, check_operation, variants_of
from tinygpt_np.gradcheck.check import check, check_model
from tinygpt_np.gradcheck.compiled_step import ReferenceCheck, check_step, distinct_masks
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.gradcheck.model_check import ModelCheck
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.model.bigram import Bigram
from tinygpt_np.model.gpt import GPT, Gradients
from tinygpt_np.model.language_model import LanguageModel, Saved
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.storage.parameters import Tensors

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=2, n_embd=6, bias=True)
# Two groups of two queries; heads of four channels, which are two pairs.
GROUPED = replace(CONFIG, n_head=4, n_kv_head=2, n_embd=16, n_inner=5, n_layer=1, dropout=0.3)
NEWER = {
    "RMSNorm, rotary halves, grouped queries, SwiGLU": replace(
        GROUPED, norm="rms_norm", norm_epsilon=1e-2, positions="rotary_halves",
        activation="swiglu", bias=False,
    ),
    "rotary pairs, QK-norm, squared ReLU, untied head, soft cap": replace(
        GROUPED, positions="rotary_pairs", rope_theta=7.0, qk_norm=True,
        activation="relu_squared", tied_head=False, logit_soft_cap=5.0,
    ),
}  # fmt: skip
# In float32, larger weights make attention so sharp that its gradients are rounding errors.
NEWER_SCALE = 0.4
BATCH, TIME = 4, 5
# Enough sequences for several micro-batches, for which weights are packed.
STEP_SEQUENCES = 75
# Some matrices are wider than one packed part; no width is a multiple of a panel or a vector.
WIDE = replace(CONFIG, vocab_size=83, block_size=513, n_layer=1, n_embd=134)
# (B, T): several micro-batches, and a single long sequence that all threads work on.
WIDE_BATCHES = {"wide": (8, 65), "one sequence": (1, WIDE.block_size)}
# Larger weights would make attention choose a single token.
WIDE_SCALE = 0.2
TRAINING_STEPS, LEARNING_RATE = 60, 1e-2
Reports = Iterator[tuple[str, Report]]
Model = TypeVar("Model", bound=LanguageModel)


def batch(vocab_size: int, size: int, time: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (B, T) with repeats and without the highest; targets (B, T), one ignored."""
    rng = generator(seed, "data")
    tokens = rng.integers(0, vocab_size - 1, (size, time))
    targets = rng.integers(0, vocab_size, (size, time))
    if targets.size > 1:
        tokens[0, -1], targets[-1, 0] = tokens[0, 0], -1
    return tokens, targets


def generic_gpt(
    config: GPTConfig = CONFIG,
    seed: int = 0,
    dtype: str = "float64",
    backend: str = "numpy",
    scale: float = 1.0,
) -> GPT:
    """Return a GPT whose every parameter is normal, with this standard deviation."""
    model, rng = GPT(config, dtype=dtype, backend=backend), generator(seed, "init")
    for name, param in model.params.items():
        model.params[name] = (scale * rng.standard_normal(param.shape)).astype(dtype)
    return model


def training_losses(
    model: LanguageModel, data: np.ndarray, rng: np.random.Generator, learning_rate: float
) -> Iterator[float]:
    """Train a model on random sequences of periodic data; yield the loss of each step."""
    optimizer = AdamW(model.params, beta1=0.9, beta2=0.99, weight_decay=0.1)
    while True:
        starts = rng.integers(0, len(data), (4, 1))
        tokens = data[(starts + np.arange(TIME + 1, dtype=np.int64)) % len(data)]  # (B, T+1)
        masks = model.draw_masks(4, TIME, rng) if isinstance(model, GPT) else None
        loss, grads = model.loss_and_grads(tokens[:, :-1], tokens[:, 1:], masks)
        optimizer.update(model.params, grads, learning_rate)
        yield loss


def trained(model: Model, seed: int) -> Model:
    """Train a model for a few steps on a periodic sequence, and return it."""
    data = generator(seed, "data").integers(0, model.vocab_size, 20)
    losses = training_losses(model, data, generator(seed, "data"), LEARNING_RATE)
    for _ in range(TRAINING_STEPS):
        next(losses)
    return model


def usable() -> list[str]:
    """Return the backends that can be checked: only NumPy if Numba's compiler is off."""
    return ["numpy"] if settings.compiler_is_off() else list(backends.BACKENDS)


def operation(name: str, method: Method, seed: int) -> Reports:
    """Check an operation in each backend, at generic values and with each size at 1."""
    for variant in variants_of(name):
        points: list[tuple[str, dict[str, Any]]] = [(f"{name}, generic values", {})]
        points += [
            (f"{name}, generic values, float32", {"dtype": "float32", "backend": backend})
            for backend in usable()
        ]
        letters = VARIANTS[variant].letters
        points += [(f"{name}, sizes of 1", {"sizes": {letter: 1}}) for letter in letters]
        for point, options in points:
            for report in check_operation(variant, method=method, seed=seed, **options):
                yield point, report


def block(method: Method, seed: int) -> Reports:
    """Check one transformer block: its input and every parameter, element by element."""
    for size, time, point in ((BATCH, TIME, "generic values"), (BATCH, 1, "T=1"), (1, TIME, "B=1")):
        title = f"block, {point}"
        yield title, check_block(size, time, method, seed, title)


def check_block(size: int, time: int, method: Method, seed: int, title: str) -> Report:
    """Check a block on sequences of this size (B, T)."""
    model = generic_gpt(replace(CONFIG, n_layer=1, dropout=0.3), seed)
    all_params = model.params
    own = {name: param for name, param in all_params.items() if name.startswith("h.0")}
    masks = model.draw_masks(size, time, generator(seed, "dropout"))
    x = generator(seed, "data").standard_normal((size * time, CONFIG.n_embd))  # (N, C)

    def forward(x: np.ndarray, **params: np.ndarray) -> tuple[np.ndarray, Saved]:
        model.params = {**all_params, **params}
        return model.block_forward(x, "h.0", size, masks)

    def backward(dy: np.ndarray, saved: Saved) -> Tensors:
        grads = Gradients()
        return {"x": model.block_backward(dy, "h.0", saved, grads), **grads}

    return check(forward, backward, {"x": x, **own}, None, method, seed=seed, title=title)


def bigram(method: Method, seed: int) -> Reports:
    """Check the bigram model."""
    tokens, targets = batch(CONFIG.vocab_size, BATCH, TIME, seed)
    model = Bigram(CONFIG.vocab_size, seed, "float64")
    for point in ("generic values", "briefly trained"):
        title = f"bigram, {point}"
        yield title, check_model(model, tokens, targets, None, method, seed=seed, title=title)
        trained(model, seed)


def gpt(method: Method, seed: int) -> Reports:
    """Check the GPT: every element at generic values, random directions at the other points."""
    config = replace(CONFIG, dropout=0.3)
    small = GPT(CONFIG, seed, "float64")
    exact = replace(CONFIG, activation="gelu_exact", bias=False)
    points = {
        "generic values, every element": (generic_gpt(config, seed), BATCH, TIME, None),
        "generic values, directions": (generic_gpt(config, seed), BATCH, TIME, 4),
        "exact GELU, no bias": (generic_gpt(exact, seed), BATCH, TIME, 4),
        **{name: (generic_gpt(each, seed), BATCH, TIME, None) for name, each in NEWER.items()},
        "float32": (generic_gpt(config, seed, "float32"), BATCH, TIME, 4),
        "T=1": (generic_gpt(config, seed), BATCH, 1, 4),
        "B=1": (generic_gpt(config, seed), 1, TIME, 4),
        "GPT-2's initialisation": (small, BATCH, TIME, 4),
        "briefly trained": (trained(GPT(CONFIG, seed, "float64"), seed), BATCH, TIME, 4),
    }
    for backend in usable()[1:]:
        compiled = generic_gpt(config, seed, "float32", backend)
        points[f"float32, {backend}"] = (compiled, BATCH, TIME, 4)
        for name, each in NEWER.items():
            compiled = generic_gpt(each, seed, "float32", backend, NEWER_SCALE)
            points[f"{name}, float32, {backend}"] = (compiled, BATCH, TIME, 4)
    for point, (model, size, time, directions) in points.items():
        tokens, targets = batch(CONFIG.vocab_size, size, time, seed)
        rng = generator(seed, "dropout")
        masks = model.draw_masks(size, time, rng)
        title = f"gpt, {point}"
        report = check_model(
            model, tokens, targets, masks, method, directions=directions, seed=seed, title=title
        )
        if masks:
            row = distinct_masks(masks, model.draw_masks(size, time, rng))
            report = replace(report, rows=(*report.rows, row))
        yield title, report


def step(method: Method, seed: int) -> Reports:
    """Check the compiled training step on two threads; the wide model by NumPy's gradients."""
    settings.check()
    title = "training step, float32, numba"
    model = generic_gpt(replace(CONFIG, dropout=0.3), seed, "float32", "numba")
    tokens, targets = batch(CONFIG.vocab_size, STEP_SEQUENCES, CONFIG.block_size, seed)
    yield title, check_step(model, tokens, targets, ModelCheck, method, seed, title)
    for name, newer in NEWER.items():
        title = f"training step, {name}, float32, numba"
        model = generic_gpt(newer, seed, "float32", "numba", NEWER_SCALE)
        yield title, check_step(model, tokens, targets, ModelCheck, method, seed, title)
    for point in WIDE_BATCHES:
        yield f"training step, {point}, float32, numba", wide_step(point, method, seed)


def wide_step(point: str, method: Method = "complex", seed: int = 0) -> Report:
    """Check the training step of the wide model on one of its batches."""
    model = generic_gpt(replace(WIDE, dropout=0.3), seed, "float32", "numba", WIDE_SCALE)
    tokens, targets = batch(WIDE.vocab_size, *WIDE_BATCHES[point], seed)
    title = f"training step, {point}, float32, numba"
    return check_step(model, tokens, targets, ReferenceCheck, method, seed, title)


MODELS = {check.__name__: check for check in (block, bigram, gpt, step)}
NAMES = (*dict.fromkeys(variant.operation for variant in VARIANTS.values()), *MODELS)


def checkable() -> list[str]:
    """Return all names that can be checked; the compiled step needs Numba's compiler."""
    return [name for name in NAMES if name != "step" or "numba" in usable()]


def run(name: str, method: Method, seed: int) -> Reports:
    """Yield the reports of one name, each with the heading it has in a summary."""
    return MODELS[name](method, seed) if name in MODELS else operation(name, method, seed)
