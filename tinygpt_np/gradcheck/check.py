"""What is called from outside: check a pair of functions, or a whole model."""

import contextlib
import copy
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.arguments import Arguments, check_options
from tinygpt_np.gradcheck.measure import (
    TOLERANCE,
    CheckError,
    Measured,
    Method,
    Probes,
    Subject,
    roundings,
)
from tinygpt_np.gradcheck.oracles import EPS, central_difference
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.gradcheck.trial import Trial, measurements, same_bits, shared
from tinygpt_np.gradcheck.verdict import judge, unfit
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.storage.parameters import Tensors

# A model of at most so many parameters is checked element by element.
ELEMENTS = 2000
DIRECTIONS = 4
KEY = "[key]"
LOSS = "loss"
# The parameters are moved by this share of themselves before the gradients are judged.
MOVE = 1 / 2
# An earlier call whose loss and directional derivative are off by less may explain a later one.
NEAR = 1e-2
NOT_ZEROED = "the gradient of the call before is still in it: it is not set to zero between calls"
KEPT = (
    "a call before, at other parameters, was right: something is kept from one call to the next, "
    "such as weights packed before an update"
)
TINY = float(np.finfo(np.float64).tiny)


def check(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Arguments,
    wrt: Sequence[str] | None = None,
    method: Method = "complex",
    *,
    directions: int | None = None,
    seed: int = 0,
    truth: Callable[..., Any] | None = None,
    title: str | None = None,
) -> Report:
    """Holds a backward written by hand against the numerical gradient of its forward.

    forward(*args) -> (out, saved), out an array of any shape; backward(dout, saved) -> the gradient
    of each differentiable argument, in their order, as a tuple, alone, or in a dict by name. Or a
    plain forward(*args) -> a scalar, with backward(*args) -> its gradient.

    args: a tuple, or a dict by name. wrt: names of the arguments that have a gradient; by default
    all arrays of floats. method: "complex" (replaced by Richardson where forward is not
    complex-safe), "central", "richardson", "taylor". directions: so many random directions for
    each argument in place of every element; for large arrays. seed: of the random dout and
    directions. truth: the forward to differentiate, if forward itself cannot take float64 (a
    float32 kernel). float32 arguments are checked as float32, against float64.

    Checked too: shape and dtype; that neither function changes its inputs, nor backward what was
    saved; that gradients are memory of their own; strided, Fortran-ordered and read-only inputs.
    Raises CheckError (a ValueError) for what cannot be checked.
    """
    trial = Trial(
        forward, args, wrt,
        method=method, directions=directions, seed=seed, truth=truth, title=title,
    )  # fmt: skip
    return trial.report(backward)


def assert_gradients(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Arguments,
    wrt: Sequence[str] | None = None,
    method: Method = "complex",
    *,
    directions: int | None = None,
    seed: int = 0,
    truth: Callable[..., Any] | None = None,
    title: str | None = None,
) -> None:
    """For tests: as `check`, but raises AssertionError with the report if a gradient is wrong."""
    report = check(
        forward, backward, args, wrt, method,
        directions=directions, seed=seed, truth=truth, title=title,
    )  # fmt: skip
    if not report.ok:
        raise AssertionError(f"\n{report}")


def check_model(
    model: LanguageModel,
    tokens: np.ndarray,
    targets: np.ndarray,
    masks: Tensors | None = None,
    method: Method = "complex",
    *,
    directions: int | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Check the loss and every gradient of a model against the numerical ones.

    loss_and_grads is called three times: at parameters moved in place, as an optimizer moves them,
    and twice at the model's own, where the loss and each gradient must be right both times. So a
    model that keeps something of an earlier call (a gradient not set to zero, weights packed before
    the update) is wrong. The parameters are as before when it returns.

    Parameters
    ----------
    tokens, targets : arrays of integers (B, T)
        Where the model is checked.
    masks : dict of arrays, or None
        Dropout masks to be replayed; None for no dropout.
    directions : int, or None
        So many random directions for each parameter. By default every element of a model of up to
        2000 parameters, and 4 directions of a larger one.

    The other parameters are those of `check`.

    Returns
    -------
    Report
        One row per parameter, one for the bias of the keys of each layer, and one for the loss.
    """
    title = title or type(model).__name__
    return ModelTrial(model, tokens, targets, masks, method, directions, seed, title).report()


class ModelTrial:
    """A model at one point: measured once, to judge the gradients of many backwards."""

    def __init__(
        self,
        model: LanguageModel,
        tokens: np.ndarray,
        targets: np.ndarray,
        masks: Tensors | None,
        method: Method,
        directions: int | None,
        seed: int,
        title: str,
    ) -> None:
        check_options(method, directions, seed)
        if not isinstance(model, LanguageModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CheckError(f"model must be a LanguageModel, not {type(model).__name__}")
        model.check_targets(tokens, targets)
        self.model, self.tokens, self.targets, self.masks = model, tokens, targets, masks
        self.seed, self.title = seed, title
        if directions is None and sum(p.size for p in model.params.values()) > ELEMENTS:
            directions = DIRECTIONS
        eps = max(float(np.finfo(param.dtype).eps) for param in model.params.values())
        values = {name: param.astype(np.float64) for name, param in model.params.items()}
        self.subject = Subject(self.loss, values, tokens.size * model.vocab_size, eps)
        rng = generator(seed, "gradcheck")
        self.measured = list(self.measure(method, directions, rng))
        self.keys = [key_bias(m, rng) for m in self.measured if m.name.endswith("attn.c_attn.bias")]
        self.measured_loss = known_loss(self.subject, self.loss_rounding())
        self.factors = {
            name: 1 + MOVE * rng.choice([-1.0, 1.0], value.shape) for name, value in values.items()
        }

    def measure(
        self, method: Method, directions: int | None, rng: np.random.Generator
    ) -> Iterable[Measured]:
        """Measure what the gradient of each parameter should be."""
        return measurements(self.subject, method, directions, rng)

    def loss_rounding(self) -> float:
        """Return how far rounding may move the loss of a right model."""
        subject = self.subject
        return roundings(subject.terms) * subject.term_rounding * subject.eps / EPS

    def loss(self, params: Tensors) -> Any:
        """The loss with other parameters, which may be complex."""
        model = copy.copy(self.model)
        model.params, model.ops = params, backends.reference_of(model.ops)
        logits, _ = model.forward(self.tokens, self.masks)  # (N, V)
        return model.ops.cross_entropy.forward(logits, self.targets.reshape(-1))[0]

    def report(self, model: LanguageModel | None = None) -> Report:
        """Judge the loss and gradients of the model, or of another one with the same parameters."""
        model = model or self.model
        with moved(model.params, self.factors) as values:
            earlier = self.call(model)
        first, second = self.call(model), self.call(model)
        sizes = [n for param in model.params.values() for n in (*param.shape, param.size)]
        sizes += [*self.tokens.shape, self.tokens.size]
        rows = self.rows(first, sizes)
        for number, again in enumerate(self.rows(second)):
            if rows[number].ok:
                problems = [f"in a second call: {problem}" for problem in again.problems]
                rows[number] = replace(rows[number], problems=tuple(problems))
        if not all(row.ok for row in rows) and self.keeps(values, earlier, first, second):
            added = {name: first.grads[name] - earlier.grads[name] for name in values}
            without = self.rows(Call(first.loss, added, []))
            rows = [
                row if row.ok else replace(row, cause=NOT_ZEROED if rest.ok else KEPT)
                for row, rest in zip(rows, without, strict=True)
            ]
        note = (
            "a bias of the keys shifts all scores of a row alike, so its gradient is exactly zero"
        )
        return Report(self.title, tuple(rows), self.seed, (note,) if self.keys else ())

    def call(self, model: LanguageModel) -> "Call":
        """Call loss_and_grads once; its gradients are copied, and changed parameters put back."""
        before = {name: param.copy() for name, param in model.params.items()}
        loss, grads = model.loss_and_grads(self.tokens, self.targets, self.masks)
        problems = list(shared(grads, {**model.params, **(self.masks or {})}))
        for name, param in model.params.items():
            if not same_bits(param, before[name]):
                problems.append((name, "loss_and_grads changes the parameter"))
                param[...] = before[name]
        return Call(np.asarray(loss, np.float64), copy.deepcopy(dict(grads)), problems)

    def rows(self, call: "Call", sizes: Sequence[int] = ()) -> list[Row]:
        """Return one row for each parameter, for each bias of the keys, and for the loss."""
        rows: list[Row] = []
        for measured in self.measured:
            name = measured.name
            row = judge(measured, call.grads.get(name), self.model.params[name].dtype, sizes)
            problems = (problem for whose, problem in call.problems if whose == name)
            rows.append(replace(row, problems=(*row.problems, *problems)))
        for key in self.keys:
            name = key.name.removesuffix(KEY)
            param = self.model.params[name]
            fits = name in call.grads and np.shape(call.grads[name]) == param.shape
            part = np.split(call.grads[name], 3)[1] if fits else None
            rows.append(judge(key, part, param.dtype, sizes))
        row = judge(self.measured_loss, call.loss, call.loss.dtype, sizes)
        return [*rows, replace(row, oracle="forward")]

    def keeps(self, values: Tensors, earlier: "Call", first: "Call", second: "Call") -> bool:
        """Return whether the call at moved parameters was right, and one after it is not.

        values: the moved parameters, in float64.
        """
        before = self.astray(values, earlier)
        after = max(self.astray(self.subject.values, call) for call in (first, second))
        return before <= NEAR and max(NEAR, 10 * before) <= after < math.inf

    def astray(self, values: Tensors, call: "Call") -> float:
        """Return how far a call is off at these parameters, the larger of two relative errors.

        One is of the loss, one of its derivative along one random direction of all parameters.
        """
        if unfit(call.loss, (), None) or any(
            unfit(call.grads.get(name), value.shape, None) for name, value in values.items()
        ):
            return math.inf
        rng = generator(self.seed, "gradcheck")
        along = {name: rng.standard_normal(value.shape) for name, value in values.items()}
        slope = central_difference(
            lambda t: self.loss({name: value + t * along[name] for name, value in values.items()})
        ).value
        found = sum(float(np.vdot(along[name], call.grads[name])) for name in values)
        loss = complex(self.loss(values)).real
        pairs = ((found, slope), (float(call.loss), loss))
        return max(abs(a - b) / max(abs(b), TINY) for a, b in pairs)


@dataclass(frozen=True)
class Call:
    """The result of one call of loss_and_grads. problems: broken rules, each with a parameter."""

    loss: np.ndarray
    grads: Tensors
    problems: list[tuple[str, str]]


@contextlib.contextmanager
def moved(params: Tensors, factors: Tensors) -> Generator[Tensors]:
    """Multiply parameters in place inside, as far as they can be written to; yield them in float64.

    They have the same bits as before afterwards.
    """
    before = {name: p.copy() for name, p in params.items() if p.flags.writeable}
    try:
        for name in before:
            params[name][...] = before[name] * factors[name]
        yield {name: param.astype(np.float64) for name, param in params.items()}
    finally:
        for name, param in before.items():
            params[name][...] = param


def known_loss(subject: Subject, floor: float) -> Measured:
    """Return the loss itself as something measured, to judge the one that a model returns."""
    tolerance = TOLERANCE["complex"] * subject.eps / EPS
    values, errors, kinks = np.array([subject.whole]), np.zeros(1), np.zeros(1, bool)
    return Measured(
        LOSS, Probes(()), "complex", values, errors, kinks, floor, 0.0, tolerance,
        scale=abs(subject.whole),
    )  # fmt: skip


def key_bias(whole: Measured, rng: np.random.Generator) -> Measured:
    """The middle third of the bias of queries, keys and values: zero in theory, and held to it."""
    shape = (whole.probes.shape[0] // 3,)
    count = None if whole.probes.directions is None else len(whole.probes)
    drawn = None if count is None else rng.standard_normal((count, *shape))
    probes = Probes(shape, drawn)
    zero = np.zeros(len(probes))
    # A direction sums over all elements.
    floor = whole.floor * (1.0 if count is None else shape[0] ** 0.5)
    return Measured(
        whole.name + KEY, probes, whole.method, zero, zero, zero > 0, floor, 0.0, whole.tolerance
    )
