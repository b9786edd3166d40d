"""Check the compiled training step: its gradients, its dropout masks, and its threads."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.measure import Measurement, Method
from tinygpt_np.gradcheck.model_check import ModelCheck
from tinygpt_np.gradcheck.probes import Probes
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import Tensors

DIRECTIONS = 2
# A step is repeated this many times on two threads, because a race shows only in some of them.
REPETITIONS = 40
# Independent dropout masks never agree in this many elements; shorter ones may.
COMPARED = 64


def check_step(
    model: GPT, tokens: np.ndarray, targets: np.ndarray, kind: type[ModelCheck],
    method: Method, seed: int, title: str,
) -> Report:  # fmt: skip
    """Check the training step of a float32 model on two threads, its dropout and its threads."""
    make = backends.engine().CompiledEngine
    rng = generator(seed, "dropout")
    with (
        make(model, len(tokens), threads=2) as engine,
        make(model, len(tokens), threads=1) as alone,
    ):
        step = CompiledStep(model, engine, engine.draw(rng))
        masks = engine.masks(tokens.shape, step.dropout_key)
        report = kind(step, tokens, targets, masks, method, DIRECTIONS, seed, title).report()
        rows = (
            distinct_masks(masks, engine.masks(tokens.shape, engine.draw(rng))),
            same_on_threads(engine, alone, tokens, targets, step.dropout_key),
        )
    return replace(report, rows=(*report.rows, *rows))


class CompiledStep(GPT):
    """A GPT whose loss and gradients come from an engine, always with the same dropout masks."""

    def __init__(self, model: GPT, engine: Any, dropout_key: Any) -> None:
        vars(self).update(vars(model))
        self.engine, self.dropout_key = engine, dropout_key

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
    ) -> tuple[float, Tensors]:
        """Return the loss and the gradients of one training step."""
        return self.engine.loss_and_grads(tokens, targets, self.dropout_key)


class ReferenceCheck(ModelCheck):
    """A check by NumPy's float64 backward: one backward instead of twenty forwards a parameter."""

    def measure(
        self, method: Method, directions: int | None, rng: np.random.Generator
    ) -> Iterator[Measurement]:
        """Take NumPy's gradients in float64 as the measurements."""
        _, grads = self.reference(self.subject.values)
        for name, grad in grads.items():
            probes = Probes(grad.shape)
            size = self.subject.size_of(name)
            yield Measurement.exact(name, probes, "NumPy", grad.ravel(), self.subject.eps, size)


def distinct_masks(masks: Tensors, others: Tensors) -> Row:
    """Return a row that is wrong if two layers, or two steps, have the same dropout mask."""
    # Gradients cannot reveal this, because the oracle replays the same masks.
    next_step = {f"{name} of the next step": mask for name, mask in others.items()}
    both = masks | next_step
    starts = {n: mask.reshape(-1)[:COMPARED] for n, mask in both.items() if mask.size >= COMPARED}
    pairs = itertools.combinations(starts, 2)
    problems = [
        f"{a} and {b} have the same mask" for a, b in pairs if np.array_equal(starts[a], starts[b])
    ]
    return row_without_figures("dropout masks", "comparison", len(both), problems)


def same_on_threads(
    engine: Any, alone: Any, tokens: np.ndarray, targets: np.ndarray, dropout_key: Any
) -> Row:
    """Return a row that is wrong if an engine on several threads has other bits than one alone."""
    loss, grads = alone.loss_and_grads(tokens, targets, dropout_key)
    problems: list[str] = []
    for number in range(1, REPETITIONS + 1):
        found_loss, found = engine.loss_and_grads(tokens, targets, dropout_key)
        wrong = [name for name in grads if not np.array_equal(found[name], grads[name])]
        wrong += ["the loss"] if found_loss != loss else []
        if wrong:
            problems.append(
                f"step {number} of {REPETITIONS} has other bits on {engine.threads} threads than "
                f"on one, first in {wrong[0]}: do threads share memory?"
            )
            break
    return row_without_figures("threads", "one thread", REPETITIONS, problems)


def row_without_figures(name: str, oracle: str, checked: int, problems: list[str]) -> Row:
    """Return a row that is not about one tensor: it has problems but no numbers."""
    none = math.nan
    return Row(
        name, (checked,), oracle, True, checked, 0, (), none, none, none, none, none, math.inf,
        problems=tuple(problems),
    )  # fmt: skip
