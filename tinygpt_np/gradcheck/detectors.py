"""Which checks detect which planted bugs: the oracles, weaker checks, and those of libraries.

Every bug of mutations.py is planted, one at a time, and each detector reports whether something is
wrong. Measurements that depend on the forward alone are made once per operation.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, cast

import numpy as np

from tinygpt_np import hooks, ops
from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.backward_run import BackwardRun
from tinygpt_np.gradcheck.calls import copied
from tinygpt_np.gradcheck.cases import VARIANTS, as_tuple, case, variants_of
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS, Arrays, Pair
from tinygpt_np.gradcheck.measure import METHODS, Method
from tinygpt_np.gradcheck.model_check import ModelCheck
from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, Site, sites
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.gradcheck.workers import results
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import Tensors

WEAK_CHECKS = {
    "loss": "the loss falls by half in training",
    "sum": "y.sum() as the loss, so the upstream gradient is all ones",
    "absolute": "an absolute tolerance of 1e-4, on a whole model at GPT-2's initialisation",
    "float32": "differences in float32, at best: twice the tolerance the right gradient needs",
    "init": "a whole model at GPT-2's initialisation, by the complex step",
}
# The ending of the name of a library's check if it is used at GPT-2's initialisation.
AT_INIT = ", init"
ABSOLUTE, FLOAT32_STEP = 1e-4, 1e-2
DROPOUT = replace(suite.CONFIG, dropout=0.3)
# Its dropout masks, heads, head and soft cap run the lines of the GPT that DROPOUT leaves out.
*_, NEWER = suite.NEWER.values()
# Small enough for hundreds of trainings a minute; a right gradient halves the loss in 25 steps.
TRAINED = replace(suite.CONFIG, block_size=suite.TIME, n_layer=1, n_embd=8, dropout=0.05)
STEPS, LEARNING_RATE, PERIOD, SEED = 40, 4e-2, 10, 0
ACTIVATIONS = ("gelu_exact", "relu", "relu_squared", "silu", "swiglu")
# The fields of a model that uses an operation, or a line, that GPT-2 does not use.
USED_BY: dict[str, dict[str, Any]] = {
    **{name: {"activation": name} for name in ACTIVATIONS},
    "rms_norm": {"norm": "rms_norm"},
    "rotary": {"positions": "rotary_halves", "n_embd": 8},
    "soft_cap": {"logit_soft_cap": 3.0},
    "gpt": {"logit_soft_cap": 3.0, "qk_norm": True},
}


@dataclass(frozen=True)
class Point:
    """A forward at generic values. owner: the module or model that has its backward."""

    forward: Callable[..., Any]
    args: dict[str, Any]
    wrt: tuple[str, ...]
    owner: Any

    @property
    def backward(self) -> Callable[..., Any]:
        """The backward, or the mutant that replaces it now."""
        return self.owner.backward

    def check(self, seed: int, **options: Any) -> FunctionCheck:
        """Return the check of the forward."""
        return FunctionCheck(self.forward, self.args, self.wrt, seed=seed, **options)


def variant_point(variant: str, seed: int, **sizes: int) -> Point:
    """Return a point for a variant of an operation."""
    chosen = case(variant, seed, sizes)
    return Point(chosen.module.forward, chosen.args, chosen.differentiable, chosen.module)


def operation_points(operation: str, seed: int) -> list[Point]:
    """Return a point for every variant of an operation."""
    return [variant_point(variant, seed) for variant in variants_of(operation)]


def model_point(config: GPTConfig, seed: int) -> Point:
    """Return the whole GPT, from parameters to logits; a mutant is planted in its class."""
    model = suite.generic_gpt(config, seed)
    tokens, _ = suite.batch(config.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    params = model.params

    def forward(**params: np.ndarray) -> tuple[np.ndarray, Any]:
        model.params = params
        # Masks have the precision of the parameters; complex parameters leave them real.
        dtype = np.finfo(next(iter(params.values())).dtype).dtype
        return model.forward(tokens, {name: mask.astype(dtype) for name, mask in masks.items()})

    return Point(forward, params, tuple(params), model)


class Detectors:
    """All detectors for the mutants of one operation, or of "gpt"; made while none is planted."""

    def __init__(self, operation: str, seed: int = 0) -> None:
        self.operation, self.seed = operation, seed
        self.fields = USED_BY.get(operation, {})
        is_model = operation == "gpt"
        self.points = (
            [model_point(config, seed) for config in (DROPOUT, NEWER)]
            if is_model
            else operation_points(operation, seed)
        )
        # On the whole model, only the complex step looks at every element.
        few = 2 if is_model else None
        self.checks: dict[Method, list[FunctionCheck]] = {
            method: [
                point.check(seed, method=method, directions=None if method == "complex" else few)
                for point in self.points
            ]
            for method in METHODS
        }
        self.sums = [
            point.check(seed, doutput=np.ones_like(check.upstream["out"]), directions=few)
            for point, check in zip(self.points, self.checks["complex"], strict=True)
        ]
        self.float32 = [Float32Differences(point, seed) for point in self.points]
        self.initial = initial_check(replace(DROPOUT, **self.fields), seed)
        self.right = self.initial_gradients()

    def named(self, libraries: Sequence[str] = ()) -> dict[str, Callable[[], bool]]:
        """Return the detectors by name; each returns whether it detects the planted mutant.

        libraries: the keys of LIBRARY_CHECKS that are used too.
        """
        runs = cache(self.runs)
        oracles: dict[str, Callable[[], bool]] = {
            method: lambda method=method: wrong(self.reports(method, runs())) for method in METHODS
        }
        sums = list(zip(self.sums, self.points, strict=True))
        return oracles | {
            "loss": lambda: not loss_halves(replace(TRAINED, **self.fields)),
            "sum": lambda: wrong(check.report(point.backward) for check, point in sums),
            "absolute": lambda: not self.within_absolute(),
            "float32": lambda: not all(check.passes() for check in self.float32),
            "init": lambda: wrong([self.initial.report()]),
            **{name: partial(refused, name, self.pairs) for name in libraries},
            **{name + AT_INIT: partial(refused, name, [self.initial_pair]) for name in libraries},
        }

    @cached_property
    def pairs(self) -> list[Pair]:
        """The points as the checks of libraries take them."""
        return [*map(pair_of, self.points)]

    @cached_property
    def initial_pair(self) -> Pair:
        """The loss of the model at GPT-2's initialisation, as the checks of libraries take it."""
        check, model = self.initial, copy.copy(self.initial.model)
        names, arrays = zip(*check.model.params.items(), strict=True)

        def loss_and_grads(arrays: Arrays) -> tuple[float, Tensors]:
            model.params = dict(zip(names, arrays, strict=True))
            return model.loss_and_grads(check.tokens, check.targets, check.masks)

        def gradients(arrays: Arrays, doutput: np.ndarray) -> Arrays:
            found = loss_and_grads(arrays)[1]
            return tuple(doutput * found[name] for name in names)

        return Pair(arrays, lambda *arrays: np.asarray(loss_and_grads(arrays)[0]), gradients)

    def runs(self) -> list[BackwardRun]:
        """Run the planted mutant at generic values, once for all oracles."""
        pairs = zip(self.checks["complex"], self.points, strict=True)
        return [check.run(point.backward) for check, point in pairs]

    def reports(self, method: Method, runs: list[BackwardRun]) -> list[Report]:
        """Return the reports of an oracle."""
        pairs = zip(self.checks[method], runs, strict=True)
        return [check.report_of(run) for check, run in pairs]

    def problem(self) -> str:
        """Return the first problem that the complex step finds, with its likely cause."""
        reports = self.reports("complex", self.runs())
        rows = [row for report in reports for row in report.rows if not row.ok]
        return f"{rows[0].name}: {rows[0].problems[0]}; {rows[0].cause}".strip("; ") if rows else ""

    def detect_elsewhere(self) -> bool:
        """Return whether a mutant of an operation is detected at other values, or sizes of 1."""
        seed = self.seed + 1
        points = operation_points(self.operation, seed)
        points += [
            variant_point(variant, seed, **{letter: 1})
            for variant in variants_of(self.operation)
            for letter in VARIANTS[variant].letters
        ]
        return wrong(point.check(seed).report(point.backward) for point in points)

    def initial_gradients(self) -> Tensors:
        """Return the gradients of the model at GPT-2's initialisation."""
        check = self.initial
        return check.model.loss_and_grads(check.tokens, check.targets, check.masks)[1]

    def within_absolute(self) -> bool:
        """Return whether those gradients are within the absolute tolerance."""
        found = self.initial_gradients()
        return all(np.abs(found[n] - right).max() <= ABSOLUTE for n, right in self.right.items())


@cache
def initial_check(config: GPTConfig, seed: int) -> ModelCheck:
    """Return the check of a whole model at GPT-2's initialisation."""
    model = GPT(config, seed, "float64")
    tokens, targets = suite.batch(model.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = model.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    return ModelCheck(model, tokens, targets, masks, "complex", 4, seed, "initialisation")


def pair_of(point: Point) -> Pair:
    """Return a point as the checks of libraries take it."""

    def run(arrays: Arrays) -> tuple[Any, Any]:
        return point.forward(**{**point.args, **dict(zip(point.wrt, arrays, strict=True))})

    def gradients(arrays: Arrays, doutput: np.ndarray) -> Arrays:
        found = point.backward(doutput, run(arrays)[1])
        if isinstance(found, dict):
            return tuple(cast(Tensors, found)[name] for name in point.wrt)
        # The gradient of an argument that is None is None.
        return tuple(gradient for gradient in as_tuple(found) if gradient is not None)

    def forward(*arrays: np.ndarray) -> np.ndarray:
        return np.asarray(run(arrays)[0])

    return Pair(tuple(point.args[name] for name in point.wrt), forward, gradients)


def refused(library: str, pairs: Iterable[Pair]) -> bool:
    """Return whether the check of a library reports an error in one of the pairs."""
    try:
        for pair in pairs:
            LIBRARY_CHECKS[library].raises_unless_right(pair)
    except Exception:  # Each library has its own exceptions, and passes on those of a backward.
        return True
    return False


def wrong(reports: Iterable[Report]) -> bool:
    """Return whether any report is wrong."""
    return not all(report.ok for report in reports)


class Float32Differences:
    """A weak check: central differences in float32, within twice what the right gradient needs."""

    def __init__(self, point: Point, seed: int) -> None:
        self.point = point
        single = {name: np.asarray(point.args[name], "float32") for name in point.wrt}
        self.check = replace(point, args={**point.args, **single}).check(seed)
        self.numeric = {name: self.differences(name) for name in point.wrt}
        self.tolerance = {name: 2 * error for name, error in self.errors().items()}

    def differences(self, name: str) -> np.ndarray:
        """Return the numerical gradient of an argument."""
        check, value = self.check, self.check.args[name]
        found = np.empty(value.shape, np.float32)

        def loss(place: tuple[int, ...], step: float) -> np.float32:
            moved = value.copy()
            moved[place] += np.float32(step)
            out, _ = self.point.forward(**{**check.call.args, name: moved})
            return np.sum(check.upstream["out"] * out, dtype=np.float32)

        for place in np.ndindex(value.shape):
            ahead, behind = loss(place, FLOAT32_STEP), loss(place, -FLOAT32_STEP)
            found[place] = (ahead - behind) / np.float32(2 * FLOAT32_STEP)
        return found

    def errors(self) -> dict[str, float]:
        """Return the largest difference between each gradient and the numerical one."""
        # Copies, because a mutant may change its inputs.
        args, upstream = copied(self.check.call.args), copied(self.check.upstream)
        found = self.check.call.gradients(self.point.backward, args, upstream)
        return {n: float(np.abs(found[n] - numeric).max()) for n, numeric in self.numeric.items()}

    def passes(self) -> bool:
        """Return whether every gradient is within its tolerance."""
        return all(error <= self.tolerance[name] for name, error in self.errors().items())


def loss_halves(config: GPTConfig) -> bool:
    """Return whether a short training on a periodic sequence halves the loss."""
    model, rng = GPT(config, SEED), generator(SEED, "data")
    data = rng.integers(0, config.vocab_size, PERIOD)
    losses = suite.training_losses(model, data, rng, LEARNING_RATE)
    first = recent = next(losses)
    for loss in itertools.islice(losses, STEPS - 1):
        # A running mean of about ten steps.
        recent = 0.9 * recent + 0.1 * loss
        if recent <= first / 2:
            return True
    return False


@dataclass(frozen=True)
class MutantResult:
    """A mutant, and which detectors detected it.

    detected: by detector. raised: the error it raised instead of returning a gradient, or "".
    problem: what the complex step reports. reason: why it is listed in EQUIVALENT, or "". cause:
    what study says about a bug in an operation.
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
    cause: str = ""

    @property
    def error(self) -> str:
        """A bug that survived, or a detected mutant that is listed as equivalent, in words."""
        killed = self.detected["complex"]
        if killed and self.reason:
            return "listed as changing nothing, but it changes a gradient"
        if not killed and not self.reason:
            return "survived, and is not listed as changing nothing"
        return ""


@dataclass(frozen=True)
class RightResult:
    """The right backward of a site. accused_by: the checks of libraries that report an error."""

    operation: str
    function: str
    accused_by: tuple[str, ...]


detectors_of = cache(Detectors)
# The number of a site, that of a mutant or None for the right backward, the seed, and the libraries
# whose checks are used too.
Job = tuple[int, int | None, int, Sequence[str]]


def plant(site: Site, mutation: Mutation, seed: int, libraries: Sequence[str] = ()) -> MutantResult:
    """Plant a mutant and ask every detector."""
    mutant, detectors = site.compiled(mutation), detectors_of(site.operation, seed)
    reason = EQUIVALENT.get((site.operation, site.function, mutation.before, mutation.after), "")
    detected, raised = dict[str, bool](), ""
    # A mutant may divide by zero, which is for the detectors to find.
    with site.planted(mutant), np.errstate(all="ignore"):
        for name, detects in detectors.named(libraries).items():
            try:
                detected[name] = detects()
            except Exception as error:  # An error is a detection.
                detected[name] = True
                if name == "complex":
                    raised = f"{type(error).__name__}: {error}"
        problem = f"raises {raised}" if raised else detectors.problem()
        if reason and not raised:
            detected["complex"] |= detectors.detect_elsewhere()
    is_explained = site.operation in ops.__all__ and not reason
    cause = hooks.cause_of_bug(site, mutation, seed) if is_explained else ""
    return MutantResult(
        site.operation, site.function, mutation.kind, mutation.line, mutation.before,
        mutation.after, detected, raised, problem, reason, cause,
    )  # fmt: skip


def work(job: Job) -> MutantResult | RightResult:
    """Plant a mutant, or check the right backward."""
    number, mutant, seed, libraries = job
    site = sites()[number]
    if mutant is not None:
        return plant(site, site.mutations()[mutant], seed, libraries)
    detectors = detectors_of(site.operation, seed).named(libraries)
    with site.planted(getattr(site.owner, site.function)):
        accused_by = tuple(name for name, detects in detectors.items() if detects())
    false_alarms = [name for name in accused_by if name.removesuffix(AT_INIT) not in libraries]
    if false_alarms:
        raise RuntimeError(
            f"{site.operation}.{site.function} is right, but these detectors report an error: "
            + ", ".join(false_alarms)
        )
    return RightResult(site.operation, site.function, accused_by)


def run(
    operations: Sequence[str], seed: int, libraries: Sequence[str] = ()
) -> Generator[MutantResult | RightResult]:
    """Check every right backward and plant every mutant, in one process per core."""
    with contextlib.closing(results(work, jobs(operations, seed, libraries))) as found:
        yield from found


def jobs(operations: Sequence[str], seed: int, libraries: Sequence[str]) -> list[Job]:
    """Return the right backward of every site, followed by its mutants; the slowest come first."""
    return [
        (number, mutant, seed, libraries)
        for number, site in reversed(list(enumerate(sites())))
        if site.operation in operations
        for mutant in (None, *range(len(site.mutations())))
    ]
