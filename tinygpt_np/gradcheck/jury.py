"""Who might notice a bug in a backward: the oracles, and the habits that they replace.

Each judge is asked the same of every mutant, while it is planted: is something wrong? What a judge
measures of the forward, it measures once.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import VARIANTS, case
from tinygpt_np.gradcheck.check import ModelTrial
from tinygpt_np.gradcheck.measure import METHODS, Method
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.gradcheck.trial import Run, Trial
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.storage.parameters import Tensors

Backward = Callable[..., Any]
HABITS = {
    "loss": "the loss falls by half in training",
    "sum": "y.sum() as the loss, so that the upstream gradient is all ones",
    "absolute": "an absolute tolerance of 1e-4, on a whole model as GPT-2 initialises it",
    "float32": "differences in float32, at best: twice the tolerance the right gradient needs",
    "init": "a whole model as GPT-2 initialises it, by the complex step",
}
ABSOLUTE, FLOAT32_STEP = 1e-4, 1e-2
DROPOUT = replace(suite.CONFIG, dropout=0.3)
# So short that hundreds fit into a minute; with the right gradient the loss halves in 25 steps.
TRAINED = replace(suite.CONFIG, block_size=suite.TIME, n_layer=1, n_embd=8, dropout=0.05)
STEPS, LEARNING_RATE, TEXT, SEED = 40, 4e-2, 10, 0


@dataclass(frozen=True)
class Pair:
    """A forward at generic values. right: its backward as it is; planted: with a mutant in it."""

    forward: Callable[..., Any]
    args: dict[str, Any]
    wrt: tuple[str, ...]
    right: Backward
    planted: Callable[[Backward], Backward]

    def trial(self, seed: int, **options: Any) -> Trial:
        return Trial(self.forward, self.args, self.wrt, seed=seed, **options)


def operation_pairs(operation: str, seed: int, sizes: dict[str, int] | None = None) -> list[Pair]:
    """Every variant of an operation."""
    names = [name for name, variant in VARIANTS.items() if variant.operation == operation]
    return [
        Pair(c.module.forward, c.args, c.differentiable, c.module.backward, as_it_is)
        for c in (case(name, seed, sizes) for name in names)
    ]


def as_it_is(mutant: Backward) -> Backward:
    return mutant


def model_pair(seed: int) -> Pair:
    """The whole GPT, parameters to logits; a mutant that is planted in its class is in it."""
    model = suite.generic_gpt(DROPOUT, seed)
    tokens, _ = suite.batch(DROPOUT.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    params = model.params

    def forward(**params: np.ndarray) -> tuple[np.ndarray, Any]:
        model.params = params
        dtype = next(iter(params.values())).dtype
        # In float32 the masks are too; a complex parameter among real ones leaves them real.
        exact = dtype == np.float32
        return model.forward(tokens, {n: m.astype(dtype) if exact else m for n, m in masks.items()})

    return Pair(forward, params, tuple(params), model.backward, lambda mutant: model.backward)


class Jury:
    """The judges of the mutants of one room. gelu: the form that the whole models have."""

    def __init__(self, room: str, seed: int = 0) -> None:
        self.room, self.seed = room, seed
        self.gelu = "exact" if room == "gelu_exact" else "tanh"
        is_model = room == "gpt"
        self.pairs = [model_pair(seed)] if is_model else operation_pairs(room, seed)
        # Of a whole model, only the complex step looks at every element; it is the one that must.
        self.directions = 2 if is_model else None
        self.initial = initial(self.gelu, seed)
        self.right = self.initial_gradients()

    def judges(self, mutant: Backward) -> dict[str, Callable[[], bool]]:
        """Each judge by name; asked while the mutant is planted, it says whether it notices."""
        runs = cache(lambda: self.runs(mutant))
        oracles: dict[str, Callable[[], bool]] = {
            method: lambda method=method: wrong(self.verdicts(method, runs())) for method in METHODS
        }
        return oracles | {
            "loss": lambda: not loss_halves(replace(TRAINED, gelu=self.gelu)),
            "sum": lambda: wrong(t.report(p.planted(mutant)) for p, t in self.sums),
            "absolute": lambda: not self.within_absolute(),
            "float32": lambda: not all(f.near(f.pair.planted(mutant)) for f in self.float32),
            "init": lambda: wrong([self.initial.report()]),
        }

    def runs(self, mutant: Backward) -> list[Run]:
        """What a mutant does at generic values, for the oracles to judge."""
        pairs = zip(self.pairs, self.trials["complex"], strict=True)
        return [Run(trial, pair.planted(mutant)) for pair, trial in pairs]

    def verdicts(self, method: Method, runs: list[Run]) -> list[Report]:
        """What an oracle says of it."""
        pairs = zip(self.trials[method], runs, strict=True)
        return [trial.verdict(run) for trial, run in pairs]

    def problem(self, mutant: Backward) -> str:
        """What the complex step says of a mutant, of the first tensor that is wrong."""
        reports = self.verdicts("complex", self.runs(mutant))
        rows = [row for report in reports for row in report.rows if not row.ok]
        return f"{rows[0].name}: {rows[0].problems[0]}; {rows[0].cause}".strip("; ") if rows else ""

    def notices_elsewhere(self, mutant: Backward) -> bool:
        """Whether a mutant of an operation shows at other values, or where a size is 1."""
        return any(wrong([trial.report(mutant)]) for trial in self.elsewhere)

    @cached_property
    def elsewhere(self) -> list[Trial]:
        letters = next(v.letters for v in VARIANTS.values() if v.operation == self.room)
        places = [dict[str, int](), *({letter: 1} for letter in letters)]
        return [
            pair.trial(self.seed + 1)
            for sizes in places
            for pair in operation_pairs(self.room, self.seed + 1, sizes)
        ]

    @cached_property
    def trials(self) -> dict[Method, list[Trial]]:
        return {
            method: [
                pair.trial(
                    self.seed,
                    method=method,
                    directions=None if method == "complex" else self.directions,
                )
                for pair in self.pairs
            ]
            for method in METHODS
        }

    @cached_property
    def sums(self) -> list[tuple[Pair, Trial]]:
        """Trials with nothing but ones for an upstream gradient."""
        pairs = zip(self.pairs, self.trials["complex"], strict=True)
        return [
            (p, p.trial(self.seed, doutput=np.ones(t.out.shape), directions=self.directions))
            for p, t in pairs
        ]

    @cached_property
    def float32(self) -> "list[Float32]":
        return [Float32(pair, self.seed) for pair in self.pairs]

    def initial_gradients(self) -> Tensors:
        trial = self.initial
        return trial.model.loss_and_grads(trial.tokens, trial.targets, trial.masks)[1]

    def within_absolute(self) -> bool:
        found = self.initial_gradients()
        errors = (np.abs(found[name] - right).max() for name, right in self.right.items())
        return all(error <= ABSOLUTE for error in errors)


@cache
def initial(gelu: Any, seed: int) -> ModelTrial:
    """A whole model at GPT-2's initialisation."""
    model = GPT(replace(DROPOUT, gelu=gelu), seed, "float64")
    tokens, targets = suite.batch(model.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    return ModelTrial(model, tokens, targets, masks, "complex", 4, seed, "initialisation")


def wrong(reports: Iterable[Report]) -> bool:
    return not all(report.ok for report in reports)


class Float32:
    """The habit of differences in float32: they are rough, so a tolerance is found that passes.

    Here it is twice what the right gradient needs, so it could hardly be tighter.
    """

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair = pair
        as_float32 = {
            name: np.asarray(arg, "float32") if name in pair.wrt else arg
            for name, arg in pair.args.items()
        }
        self.trial = replace(pair, args=as_float32).trial(seed)
        self.numeric = {name: self.differences(name) for name in pair.wrt}
        right = self.gradients(pair.right)
        self.tolerance = {name: 2 * self.error(name, right[name]) for name in pair.wrt}

    def gradients(self, backward: Backward) -> dict[str, np.ndarray]:
        # Copies, because a mutant may write to what it is given.
        args = copy.deepcopy(self.trial.args)
        return self.trial.gradients(backward, args, self.trial.doutput.copy())

    def differences(self, name: str) -> np.ndarray:
        trial, value = self.trial, self.trial.args[name]
        found = np.empty(value.shape, np.float32)

        def loss(place: tuple[int, ...], step: float) -> np.float32:
            moved = value.copy()
            moved[place] += np.float32(step)
            out, _ = trial.call(trial.forward, {**trial.args, name: moved})
            return np.sum(trial.doutput * out, dtype=np.float32)

        for place in np.ndindex(value.shape):
            ahead, behind = loss(place, FLOAT32_STEP), loss(place, -FLOAT32_STEP)
            found[place] = (ahead - behind) / np.float32(2 * FLOAT32_STEP)
        return found

    def error(self, name: str, gradient: np.ndarray) -> float:
        return float(np.abs(gradient - self.numeric[name]).max())

    def near(self, backward: Backward) -> bool:
        found = self.gradients(backward)
        return all(self.error(n, found[n]) <= self.tolerance[n] for n in self.pair.wrt)


def loss_halves(config: GPTConfig) -> bool:
    """Whether a short training on a text that repeats itself halves the loss."""
    model, rng = GPT(config, SEED), generator(SEED, "data")
    optimizer = AdamW(model.params, beta1=0.9, beta2=0.99, weight_decay=0.1)
    text = rng.integers(0, config.vocab_size, TEXT)
    first, recent = 0.0, 0.0
    for step in range(STEPS):
        starts = rng.integers(0, TEXT, (4, 1))
        window = text[(starts + np.arange(suite.TIME + 1, dtype=np.int64)) % TEXT]  # (B, T+1)
        masks = model.draw_masks(4, suite.TIME, rng)
        loss, grads = model.loss_and_grads(window[:, :-1], window[:, 1:], masks)
        optimizer.update(model.params, grads, LEARNING_RATE)
        first = first or loss
        # The mean of about the last ten.
        recent = loss if step == 0 else 0.9 * recent + 0.1 * loss
        if recent <= first / 2:
            return True
    return False
