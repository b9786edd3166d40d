"""What is called from outside: check a pair of functions, or a whole model."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.arguments import Arguments, check_options
from tinygpt_np.gradcheck.measure import CheckError, Measured, Method, Probes, Subject
from tinygpt_np.gradcheck.trial import Trial, measurements, same_bits, shared
from tinygpt_np.gradcheck.verdict import Report, Row, judge
from tinygpt_np.language_model import LanguageModel, Tensors

# A model of at most so many parameters is checked element by element.
ELEMENTS = 2000
DIRECTIONS = 4
KEY = "[key]"


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
    """Holds every gradient of a model's loss against the numerical one, parameter by parameter.

    tokens, targets (B, T): where. masks: dropout masks to be replayed, or None for no dropout.
    directions: so many random directions for each parameter; by default every element of a model
    of up to 2000 parameters, and 4 directions of a larger one. The rest is as in `check`.
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
        subject = Subject(self.loss, values, tokens.size * model.vocab_size, eps)
        rng = generator(seed, "gradcheck")
        self.measured = list(measurements(subject, method, directions, rng))
        self.keys = [key_bias(m, rng) for m in self.measured if m.name.endswith("attn.c_attn.bias")]

    def loss(self, params: Tensors) -> Any:
        """The loss with other parameters, which may be complex."""
        model = copy.copy(self.model)
        model.params, model.ops = params, backends.truth_of(model.ops)
        logits, _ = model.forward(self.tokens, self.masks)  # (N, V)
        return model.ops.cross_entropy.forward(logits, self.targets.reshape(-1))[0]

    def report(self, model: LanguageModel | None = None) -> Report:
        """Judges the backward of the model, or of another one with the same parameters."""
        model = model or self.model
        before = {name: param.copy() for name, param in model.params.items()}
        _, grads = model.loss_and_grads(self.tokens, self.targets, self.masks)
        rows: list[Row] = []
        sizes = [n for param in before.values() for n in (*param.shape, param.size)]
        sizes += [*self.tokens.shape, self.tokens.size]
        manners = list(shared(grads, {**model.params, **(self.masks or {})}))
        for name, param in model.params.items():
            if not same_bits(param, before[name]):
                manners.append((name, "loss_and_grads changes the parameter"))
                param[...] = before[name]
        for measured in self.measured:
            name = measured.name
            row = judge(measured, grads.get(name), before[name].dtype, sizes)
            problems = (problem for whose, problem in manners if whose == name)
            rows.append(replace(row, problems=(*row.problems, *problems)))
        for key in self.keys:
            name = key.name.removesuffix(KEY)
            fits = name in grads and np.shape(grads[name]) == before[name].shape
            part = np.split(grads[name], 3)[1] if fits else None
            rows.append(judge(key, part, before[name].dtype, sizes))
        note = (
            "a bias of the keys shifts all scores of a row alike, so its gradient is exactly zero"
        )
        return Report(self.title, tuple(rows), self.seed, (note,) if self.keys else ())


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
