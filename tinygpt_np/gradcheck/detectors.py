"""Which checks detect which planted bugs: the four oracles, and the weaker checks they replace.

Every bug of mutations.py is planted, one at a time, and each detector reports whether something is
wrong. Measurements that depend on the forward alone are made once per operation.
"""

import copy
import multiprocessing
import queue
import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import VARIANTS, case
from tinygpt_np.gradcheck.function_check import BackwardRun, FunctionCheck
from tinygpt_np.gradcheck.measure import METHODS, Method
from tinygpt_np.gradcheck.model_check import ModelCheck
from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, Site, count, sites
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.gradcheck.workers import POLL_INTERVAL, WorkerProcesses
from tinygpt_np.machine import usable_cores
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.storage.parameters import Tensors

Backward = Callable[..., Any]
WEAK_CHECKS = {
    "loss": "the loss falls by half in training",
    "sum": "y.sum() as the loss, so the upstream gradient is all ones",
    "absolute": "an absolute tolerance of 1e-4, on a whole model at GPT-2's initialisation",
    "float32": "differences in float32, at best: twice the tolerance the right gradient needs",
    "init": "a whole model at GPT-2's initialisation, by the complex step",
}
ABSOLUTE, FLOAT32_STEP = 1e-4, 1e-2
DROPOUT = replace(suite.CONFIG, dropout=0.3)
# Small enough for hundreds of trainings a minute; a right gradient halves the loss in 25 steps.
TRAINED = replace(suite.CONFIG, block_size=suite.TIME, n_layer=1, n_embd=8, dropout=0.05)
STEPS, LEARNING_RATE, PERIOD, SEED = 40, 4e-2, 10, 0


@dataclass(frozen=True)
class FunctionPair:
    """A forward at generic values. right: its backward; planted: the backward with a mutant."""

    forward: Callable[..., Any]
    args: dict[str, Any]
    wrt: tuple[str, ...]
    right: Backward
    planted: Callable[[Backward], Backward]

    def check(self, seed: int, **options: Any) -> FunctionCheck:
        """Return the check of the forward."""
        return FunctionCheck(self.forward, self.args, self.wrt, seed=seed, **options)


def operation_pairs(
    operation: str, seed: int, sizes: dict[str, int] | None = None
) -> list[FunctionPair]:
    """Return a pair for every variant of an operation."""
    names = [name for name, variant in VARIANTS.items() if variant.operation == operation]
    return [
        FunctionPair(c.module.forward, c.args, c.differentiable, c.module.backward, unchanged)
        for c in (case(name, seed, sizes) for name in names)
    ]


def unchanged(mutant: Backward) -> Backward:
    """Return the mutant: it is the whole backward of an operation."""
    return mutant


def model_pair(seed: int) -> FunctionPair:
    """Return the whole GPT, from parameters to logits; a mutant is planted in its class."""
    model = suite.generic_gpt(DROPOUT, seed)
    tokens, _ = suite.batch(DROPOUT.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    params = model.params

    def forward(**params: np.ndarray) -> tuple[np.ndarray, Any]:
        model.params = params
        dtype = next(iter(params.values())).dtype
        # Masks are float32 with float32 parameters; a complex parameter leaves them real.
        single = dtype == np.float32
        cast = {name: mask.astype(dtype) if single else mask for name, mask in masks.items()}
        return model.forward(tokens, cast)

    return FunctionPair(
        forward, params, tuple(params), model.backward, lambda mutant: model.backward
    )


class Detectors:
    """All detectors for the mutants of one operation, or of "gpt"."""

    def __init__(self, operation: str, seed: int = 0) -> None:
        self.operation, self.seed = operation, seed
        self.gelu = "exact" if operation == "gelu_exact" else "tanh"
        is_model = operation == "gpt"
        self.pairs = [model_pair(seed)] if is_model else operation_pairs(operation, seed)
        # On the whole model, only the complex step looks at every element.
        self.directions = 2 if is_model else None
        self.initial = initial_check(self.gelu, seed)
        self.right = self.initial_gradients()

    def named(self, mutant: Backward) -> dict[str, Callable[[], bool]]:
        """Return the detectors by name; each returns whether it detects the planted mutant."""
        runs = cache(lambda: self.runs(mutant))
        oracles: dict[str, Callable[[], bool]] = {
            method: lambda method=method: wrong(self.reports(method, runs())) for method in METHODS
        }
        return oracles | {
            "loss": lambda: not loss_halves(replace(TRAINED, gelu=self.gelu)),
            "sum": lambda: wrong(check.report(p.planted(mutant)) for p, check in self.sums),
            "absolute": lambda: not self.within_absolute(),
            "float32": lambda: not all(f.passes(f.pair.planted(mutant)) for f in self.float32),
            "init": lambda: wrong([self.initial.report()]),
        }

    def runs(self, mutant: Backward) -> list[BackwardRun]:
        """Run a mutant at generic values, once for all oracles."""
        pairs = zip(self.pairs, self.checks["complex"], strict=True)
        return [BackwardRun(check, pair.planted(mutant)) for pair, check in pairs]

    def reports(self, method: Method, runs: list[BackwardRun]) -> list[Report]:
        """Return the reports of an oracle."""
        pairs = zip(self.checks[method], runs, strict=True)
        return [check.report_of(run) for check, run in pairs]

    def problem(self, mutant: Backward) -> str:
        """Return the first problem that the complex step finds, with its likely cause."""
        reports = self.reports("complex", self.runs(mutant))
        rows = [row for report in reports for row in report.rows if not row.ok]
        return f"{rows[0].name}: {rows[0].problems[0]}; {rows[0].cause}".strip("; ") if rows else ""

    def detect_elsewhere(self, mutant: Backward) -> bool:
        """Return whether a mutant of an operation is detected at other values, or sizes of 1."""
        return any(wrong([check.report(mutant)]) for check in self.elsewhere)

    @cached_property
    def elsewhere(self) -> list[FunctionCheck]:
        """Checks with another seed, and with each size at 1."""
        letters = next(v.letters for v in VARIANTS.values() if v.operation == self.operation)
        points = [dict[str, int](), *({letter: 1} for letter in letters)]
        return [
            pair.check(self.seed + 1)
            for sizes in points
            for pair in operation_pairs(self.operation, self.seed + 1, sizes)
        ]

    @cached_property
    def checks(self) -> dict[Method, list[FunctionCheck]]:
        """The checks by each oracle."""
        return {
            method: [
                pair.check(
                    self.seed,
                    method=method,
                    directions=None if method == "complex" else self.directions,
                )
                for pair in self.pairs
            ]
            for method in METHODS
        }

    @cached_property
    def sums(self) -> list[tuple[FunctionPair, FunctionCheck]]:
        """Checks whose upstream gradient is all ones."""
        pairs = zip(self.pairs, self.checks["complex"], strict=True)
        return [
            (p, p.check(self.seed, doutput=np.ones(c.out.shape), directions=self.directions))
            for p, c in pairs
        ]

    @cached_property
    def float32(self) -> "list[Float32Differences]":
        """The checks by differences in float32."""
        return [Float32Differences(pair, self.seed) for pair in self.pairs]

    def initial_gradients(self) -> Tensors:
        """Return the gradients of the model at GPT-2's initialisation."""
        check = self.initial
        return check.model.loss_and_grads(check.tokens, check.targets, check.masks)[1]

    def within_absolute(self) -> bool:
        """Return whether those gradients are within the absolute tolerance."""
        found = self.initial_gradients()
        errors = (np.abs(found[name] - right).max() for name, right in self.right.items())
        return all(error <= ABSOLUTE for error in errors)


@cache
def initial_check(gelu: Any, seed: int) -> ModelCheck:
    """Return the check of a whole model at GPT-2's initialisation."""
    model = GPT(replace(DROPOUT, gelu=gelu), seed, "float64")
    tokens, targets = suite.batch(model.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    return ModelCheck(model, tokens, targets, masks, "complex", 4, seed, "initialisation")


def wrong(reports: Iterable[Report]) -> bool:
    """Return whether any report is wrong."""
    return not all(report.ok for report in reports)


class Float32Differences:
    """A weak check: central differences in float32, with a tolerance that the right gradient meets.

    The tolerance is twice what the right gradient needs, so it could hardly be tighter.
    """

    def __init__(self, pair: FunctionPair, seed: int) -> None:
        self.pair = pair
        as_float32 = {
            name: np.asarray(arg, "float32") if name in pair.wrt else arg
            for name, arg in pair.args.items()
        }
        self.check = replace(pair, args=as_float32).check(seed)
        self.numeric = {name: self.differences(name) for name in pair.wrt}
        right = self.gradients(pair.right)
        self.tolerance = {name: 2 * self.error(name, right[name]) for name in pair.wrt}

    def gradients(self, backward: Backward) -> dict[str, np.ndarray]:
        """Run a backward on copies, because a mutant may change its inputs."""
        args = copy.deepcopy(self.check.args)
        return self.check.gradients(backward, args, self.check.doutput.copy())

    def differences(self, name: str) -> np.ndarray:
        """Return the numerical gradient of an argument."""
        check, value = self.check, self.check.args[name]
        found = np.empty(value.shape, np.float32)

        def loss(place: tuple[int, ...], step: float) -> np.float32:
            moved = value.copy()
            moved[place] += np.float32(step)
            out, _ = check.call(check.forward, {**check.args, name: moved})
            return np.sum(check.doutput * out, dtype=np.float32)

        for place in np.ndindex(value.shape):
            ahead, behind = loss(place, FLOAT32_STEP), loss(place, -FLOAT32_STEP)
            found[place] = (ahead - behind) / np.float32(2 * FLOAT32_STEP)
        return found

    def error(self, name: str, gradient: np.ndarray) -> float:
        """Return the largest difference between a gradient and the numerical one."""
        return float(np.abs(gradient - self.numeric[name]).max())

    def passes(self, backward: Backward) -> bool:
        """Return whether every gradient is within its tolerance."""
        found = self.gradients(backward)
        return all(self.error(n, found[n]) <= self.tolerance[n] for n in self.pair.wrt)


def loss_halves(config: GPTConfig) -> bool:
    """Return whether a short training on a periodic sequence halves the loss."""
    model, rng = GPT(config, SEED), generator(SEED, "data")
    optimizer = AdamW(model.params, beta1=0.9, beta2=0.99, weight_decay=0.1)
    data = rng.integers(0, config.vocab_size, PERIOD)
    first, recent = 0.0, 0.0
    for step in range(STEPS):
        starts = rng.integers(0, PERIOD, (4, 1))
        tokens = data[(starts + np.arange(suite.TIME + 1, dtype=np.int64)) % PERIOD]  # (B, T+1)
        masks = model.draw_masks(4, suite.TIME, rng)
        loss, grads = model.loss_and_grads(tokens[:, :-1], tokens[:, 1:], masks)
        optimizer.update(model.params, grads, LEARNING_RATE)
        first = first or loss
        # A running mean of about ten steps.
        recent = loss if step == 0 else 0.9 * recent + 0.1 * loss
        if recent <= first / 2:
            return True
    return False


# Running all mutants


@dataclass(frozen=True)
class MutantResult:
    """A mutant, and which detectors detected it.

    detected: by detector. raised: the error it raised instead of returning a gradient, or "".
    problem: what the complex step reports. reason: why it is listed in EQUIVALENT, or "".
    """

    operation: str
    function: str
    kind: str
    line: int
    before: str
    after: str
    detected: dict[str, bool]
    raised: str
    problem: str
    reason: str

    @property
    def killed(self) -> bool:
        """Whether the default check, the complex step at generic values, detected it."""
        return self.detected["complex"]

    @property
    def error(self) -> str:
        """A bug that survived, or a detected mutant that is listed as equivalent, in words."""
        if self.killed and self.reason:
            return "listed as changing nothing, but it changes a gradient"
        if not self.killed and not self.reason:
            return "survived, and is not listed as changing nothing"
        return ""


detectors_of = cache(Detectors)


def plant(site: Site, mutation: Mutation, seed: int) -> MutantResult:
    """Plant a mutant and ask every detector."""
    mutant, detectors = site.compiled(mutation), detectors_of(site.operation, seed)
    reason = EQUIVALENT.get((site.operation, site.function, mutation.before, mutation.after), "")
    detected, raised = dict[str, bool](), ""
    # A mutant may divide by zero, which is for the detectors to find.
    with site.planted(mutant), np.errstate(all="ignore"):
        for name, detects in detectors.named(mutant).items():
            try:
                detected[name] = detects()
            except Exception as error:  # An error is a detection.
                detected[name] = True
                if name == "complex":
                    raised = f"{type(error).__name__}: {error}"
        problem = f"raises {raised}" if raised else detectors.problem(mutant)
        if reason and not raised:
            detected["complex"] |= detectors.detect_elsewhere(mutant)
    return MutantResult(
        site.operation, site.function, mutation.kind, mutation.line, mutation.before,
        mutation.after, detected, raised, problem, reason,
    )  # fmt: skip


def work(job: tuple[str, int]) -> None:
    """Plant all mutants of an operation, in a worker process; then check the right backward.

    Raises RuntimeError if a detector reports the right backward as wrong.
    """
    operation, seed = job
    for site in (site for site in sites() if site.operation == operation):
        for mutation in site.mutations():
            RESULTS[0].put(plant(site, mutation, seed))
        right = getattr(site.owner, site.function)
        with site.planted(right):
            detectors = detectors_of(site.operation, seed).named(right)
            false_alarms = [name for name, detects in detectors.items() if detects()]
        if false_alarms:
            raise RuntimeError(
                f"{site.operation}.{site.function} is right, but these detectors report an error: "
                + ", ".join(false_alarms)
            )


# The queue for the results of a worker process, set when it starts.
RESULTS: list[Any] = []


def start_worker(results: Any) -> None:
    """Ignore Ctrl-C, which the parent handles by ending its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    RESULTS.append(results)


def run(operations: Sequence[str], seed: int) -> Generator[MutantResult]:
    """Plant every mutant, in one process per core; yield results as they arrive.

    Raises RuntimeError if a detector reports the right backward as wrong, or a process is killed.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    processes = min(usable_cores(), len(operations))
    with context.Pool(processes, start_worker, (results,)) as pool:
        workers = WorkerProcesses()
        done = pool.map_async(work, [(name, seed) for name in operations], chunksize=1)
        left = count(operations)
        while left:
            try:
                yield results.get(timeout=POLL_INTERVAL)
                left -= 1
            except queue.Empty:
                if done.ready():
                    done.get()
                workers.check()
        done.get()
