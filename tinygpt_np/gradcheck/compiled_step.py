"""The compiled training step as a model that `check_model` takes, and what else it must keep to."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.check import Call, ModelTrial
from tinygpt_np.gradcheck.measure import TOLERANCE, Measured, Method, Probes
from tinygpt_np.gradcheck.oracles import EPS
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.storage.parameters import Tensors

DIRECTIONS = 2
# So often is a step repeated on two threads; a race shows in some of the repetitions only.
REPETITIONS = 40
# Two dropout masks drawn independently never agree in so many values; shorter ones may.
COMPARED = 64


def check_step(
    model: GPT, tokens: np.ndarray, targets: np.ndarray, trial: type[ModelTrial],
    method: Method, seed: int, title: str,
) -> Report:  # fmt: skip
    """Check the training step of a model in float32, on two threads, for a batch (B, T).

    trial: ModelTrial, or ReferenceTrial. Its report has two rows more: that the dropout masks
    differ, and that two threads give the bits of one.
    """
    make = backends.engine().CompiledEngine
    rng = generator(seed, "dropout")
    with (
        make(model, len(tokens), threads=2) as engine,
        make(model, len(tokens), threads=1) as alone,
    ):
        step = CompiledStep(model, engine, engine.draw(rng))
        masks = engine.masks(tokens.shape, step.noise)
        report = trial(step, tokens, targets, masks, method, DIRECTIONS, seed, title).report()
        rows = (
            distinct_masks(masks, engine.masks(tokens.shape, engine.draw(rng))),
            same_on_threads(engine, alone, tokens, targets, step.noise),
        )
    return replace(report, rows=(*report.rows, *rows))


class CompiledStep(GPT):
    """A GPT whose gradients are those of an engine, with the dropout masks of its noise."""

    def __init__(self, model: GPT, engine: Any, noise: Any) -> None:
        vars(self).update(vars(model))
        self.engine, self.noise = engine, noise

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
    ) -> tuple[float, Tensors]:
        return self.engine.loss_and_grads(tokens, targets, self.noise)


class ReferenceTrial(ModelTrial):
    """A trial whose oracle is NumPy's backward in float64, which is proven at other points.

    It takes one backward where the complex step takes some twenty forwards for each parameter.
    """

    def measure(
        self, method: Method, directions: int | None, rng: np.random.Generator
    ) -> Iterator[Measured]:
        model = copy.copy(self.model)
        model.params, model.ops = self.subject.values, backends.reference_of(self.model.ops)
        _, grads = LanguageModel.loss_and_grads(model, self.tokens, self.targets, self.masks)
        tolerance = TOLERANCE["complex"] * self.subject.eps / EPS
        for name, grad in grads.items():
            values, none = grad.reshape(-1), np.zeros(grad.size)
            # Rounding is judged beside the largest element of a tensor.
            floor = tolerance * float(np.abs(values).max())
            yield Measured(
                name, Probes(grad.shape), method, values, none, none > 0, floor, 0.0, tolerance
            )

    def loss_rounding(self) -> float:
        """Return 0: at generic values the tolerance is more, and a measurement takes long."""
        return 0.0

    def rows(self, call: Call, sizes: Sequence[int] = ()) -> list[Row]:
        *rows, loss = super().rows(call, sizes)
        return [*(replace(row, oracle="NumPy") for row in rows), loss]


def distinct_masks(masks: Tensors, others: Tensors) -> Row:
    """Return a row that is wrong if two places, or two steps, have the same dropout mask.

    masks, others: of two steps, by place. The gradients cannot tell, because the same masks are
    replayed to find what they should be.
    """
    named = [(name, mask) for name, mask in masks.items()]
    named += [(f"{name} of the next step", mask) for name, mask in others.items()]
    pairs = [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(named, 2)
        if min(one.size, other.size) >= COMPARED
        and np.array_equal(one.reshape(-1)[:COMPARED], other.reshape(-1)[:COMPARED])
    ]
    problems = tuple(f"{a} and {b} have the same mask" for a, b in pairs)
    return claim("dropout masks", "comparison", len(named), problems)


def same_on_threads(
    engine: Any, alone: Any, tokens: np.ndarray, targets: np.ndarray, noise: Any
) -> Row:
    """Return a row that is wrong if a step has other bits on several threads than on one.

    engine, alone: of the same model, on several threads and on one.
    """
    loss, grads = alone.loss_and_grads(tokens, targets, noise)
    problems: list[str] = []
    for number in range(1, REPETITIONS + 1):
        found_loss, found = engine.loss_and_grads(tokens, targets, noise)
        wrong = [name for name in grads if not np.array_equal(found[name], grads[name])]
        wrong += ["the loss"] if found_loss != loss else []
        if wrong:
            problems.append(
                f"step {number} of {REPETITIONS} has other bits on {engine.threads} threads than "
                f"on one, first in {wrong[0]}: do threads share memory?"
            )
            break
    return claim("threads", "one thread", REPETITIONS, tuple(problems))


def claim(name: str, oracle: str, checked: int, problems: tuple[str, ...]) -> Row:
    """Return a row about no single tensor, which has problems but no figures."""
    none = math.nan
    return Row(
        name, (checked,), oracle, True, checked, 0, (), none, none, none, none, none, math.inf,
        problems=problems,
    )  # fmt: skip
