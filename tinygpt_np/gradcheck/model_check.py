"""Check the loss and the gradients of a whole model at one point."""

import contextlib
import copy
import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.gradcheck.backward_run import memory_shared
from tinygpt_np.gradcheck.calls import same_bits
from tinygpt_np.gradcheck.measure import (
    CheckError,
    Measurement,
    Method,
    check_options,
    measure_all,
)
from tinygpt_np.gradcheck.oracles import central_difference
from tinygpt_np.gradcheck.probes import Probes
from tinygpt_np.gradcheck.progress import Announce, quiet
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.gradcheck.rounding import Rounding, noisy_view
from tinygpt_np.gradcheck.subject import Subject
from tinygpt_np.gradcheck.verdict import compare, unusable
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.storage.parameters import Tensors

# A model with at most this many parameters is checked element by element.
ELEMENTS = 2000
DIRECTIONS = 4
KEY = "[key]"
# The parameters are changed by this fraction before the first of the three calls.
MOVE = 1 / 2
# A call whose loss and directional derivative have a relative error below this was right.
NEAR = 1e-2
NOT_ZEROED = "it still contains the gradient of the previous call: gradients are not set to zero"
STALE = (
    "an earlier call, at other parameters, was right: state survives from one call to the next, "
    "such as weights packed before an update"
)
KEY_NOTE = "a bias of the keys shifts all scores of a row equally, so its gradient is exactly zero"
TINY = float(np.finfo(np.float64).tiny)


class ModelCheck:
    """A model at one point, measured once, with which many backwards can be compared."""

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
        announce: Announce = quiet,
    ) -> None:
        check_options(method, directions, seed)
        if not isinstance(model, LanguageModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CheckError(f"model must be a LanguageModel, not {type(model).__name__}")
        model.check_targets(tokens, targets)
        self.model, self.tokens, self.targets, self.masks = model, tokens, targets, masks
        self.seed, self.title, self.announce = seed, title, announce
        if directions is None and sum(p.size for p in model.params.values()) > ELEMENTS:
            directions = DIRECTIONS
        eps = max(float(np.finfo(param.dtype).eps) for param in model.params.values())
        values = {name: param.astype(np.float64) for name, param in model.params.items()}
        self.subject = Subject(self.loss, values, eps)
        self.rounding = Rounding(lambda: self.with_noise(values))
        rng = generator(seed, "gradcheck")
        self.measurements = list(self.measure(method, directions, rng))
        self.keys = [
            key_bias(measurement, keys, rng)
            for measurement in self.measurements
            if (keys := key_columns(model, measurement.name))
        ]
        loss = np.array([complex(self.loss(values)).real])
        self.measured_loss = Measurement.exact("loss", Probes(()), "forward", loss, eps)
        self.factors = {
            name: 1 + MOVE * rng.choice([-1.0, 1.0], value.shape) for name, value in values.items()
        }

    def measure(
        self, method: Method, directions: int | None, rng: np.random.Generator
    ) -> Iterable[Measurement]:
        """Measure the numerical gradient of each parameter."""
        return measure_all(self.subject, method, directions, rng, self.announce)

    def loss_problems(self, values: Tensors, call: "ModelCall") -> list[str]:
        """Return what is wrong with the loss of a call at other parameters."""
        right = np.array([complex(self.loss(values)).real])
        measured = Measurement.exact("loss", Probes(()), "forward", right, self.subject.eps)
        rounding = Rounding(lambda: self.with_noise(values))
        row = compare(measured, {"loss": call.loss}, call.loss.dtype, [], rounding)
        return [f"at other parameters: {problem}" for problem in row.problems]

    def with_noise(self, values: Tensors) -> Tensors:
        """Return the gradients and the loss of NumPy's operations, with noise added to each."""
        params = {name: noisy_view(value.copy()) for name, value in values.items()}
        loss, grads = self.reference(params)
        found = {**grads, "loss": np.asarray(loss)}
        return found | {key.name: self.key_part(key, grads) for key in self.keys}

    def reference(self, params: Tensors) -> tuple[Any, Tensors]:
        """Return the loss and the gradients by NumPy's operations."""
        model = copy.copy(self.model)
        model.params, model.ops = params, backends.reference_of(model.ops)
        return LanguageModel.loss_and_grads(model, self.tokens, self.targets, self.masks)

    def key_part(self, key: Measurement, grads: Tensors) -> np.ndarray:
        """Return the gradient of the bias of the keys."""
        name = key.name.removesuffix(KEY)
        return grads[name][key_columns(self.model, name)]

    def loss(self, params: Tensors) -> Any:
        """Return the loss for other parameters, which may be complex."""
        model = copy.copy(self.model)
        model.params, model.ops = params, backends.reference_of(model.ops)
        logits, _ = model.forward(self.tokens, self.masks)  # (N, V)
        return model.ops.cross_entropy.forward(logits, self.targets.reshape(-1))[0]

    def report(self, model: LanguageModel | None = None) -> Report:
        """Check the model, or another one with the same parameters."""
        model = model or self.model
        with moved(model.params, self.factors) as values:
            earlier = self.call(model)
            wrong_loss = self.loss_problems(values, earlier)
        first, second = self.call(model), self.call(model)
        sizes = [n for param in model.params.values() for n in (*param.shape, param.size)]
        sizes += [*self.tokens.shape, self.tokens.size]
        rows = self.rows(first, sizes)
        for number, again in enumerate(self.rows(second)):
            if rows[number].ok:
                problems = [f"in a second call: {problem}" for problem in again.problems]
                problems += wrong_loss if rows[number].name == "loss" else []
                rows[number] = replace(rows[number], problems=tuple(problems))
        if not all(row.ok for row in rows):
            before = self.relative_error(values, earlier)
            after = max(self.relative_error(self.subject.values, call) for call in (first, second))
            # The call at the moved parameters was right, and a later one is wrong.
            if before <= NEAR and max(NEAR, 10 * before) <= after < math.inf:
                added = {name: first.grads[name] - earlier.grads[name] for name in values}
                without = self.rows(ModelCall(first.loss, added, []))
                rows = [
                    row if row.ok else replace(row, cause=NOT_ZEROED if rest.ok else STALE)
                    for row, rest in zip(rows, without, strict=True)
                ]
        return Report(self.title, tuple(rows), self.seed, (KEY_NOTE,) if self.keys else ())

    def call(self, model: LanguageModel) -> "ModelCall":
        """Call loss_and_grads; copy its gradients and restore parameters that it changed."""
        before = {name: param.copy() for name, param in model.params.items()}
        loss, grads = model.loss_and_grads(self.tokens, self.targets, self.masks)
        problems = list(memory_shared(grads, {**model.params, **(self.masks or {})}))
        for name, param in model.params.items():
            if not same_bits(param, before[name]):
                problems.append((name, "loss_and_grads changes the parameter"))
                param[...] = before[name]
        return ModelCall(np.asarray(loss, np.float64), copy.deepcopy(dict(grads)), problems)

    def rows(self, call: "ModelCall", sizes: Sequence[int] = ()) -> list[Row]:
        """Return one row for each parameter, for each bias of the keys, and for the loss."""
        found: dict[str, Any] = {**call.grads, "loss": call.loss}
        for key in self.keys:
            name = key.name.removesuffix(KEY)
            param = self.model.params[name]
            fits = name in call.grads and np.shape(call.grads[name]) == param.shape
            found[key.name] = self.key_part(key, call.grads) if fits else None
        rows: list[Row] = []
        for measurement in (*self.measurements, *self.keys, self.measured_loss):
            name = measurement.name
            dtype = self.model.params.get(name.removesuffix(KEY), call.loss).dtype
            row = compare(measurement, found, dtype, sizes, self.rounding)
            problems = (problem for whose, problem in call.problems if whose == name)
            rows.append(replace(row, problems=(*row.problems, *problems)))
        return rows

    def relative_error(self, values: Tensors, call: "ModelCall") -> float:
        """Return the relative error of the loss or of a random derivative, whichever is larger."""
        if unusable(call.loss, (), None) or any(
            unusable(call.grads.get(name), value.shape, None) for name, value in values.items()
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
class ModelCall:
    """The result of one call of loss_and_grads. problems: pairs of a parameter and a message."""

    loss: np.ndarray
    grads: Tensors
    problems: list[tuple[str, str]]


@contextlib.contextmanager
def moved(params: Tensors, factors: Tensors) -> Generator[Tensors]:
    """Multiply the writable parameters in place for a while; yield all of them in float64."""
    before = {name: p.copy() for name, p in params.items() if p.flags.writeable}
    try:
        for name in before:
            params[name][...] = before[name] * factors[name]
        yield {name: param.astype(np.float64) for name, param in params.items()}
    finally:
        for name, param in before.items():
            params[name][...] = param


def key_columns(model: LanguageModel, name: str) -> slice | None:
    """Return the place of the keys in a parameter, if it is a bias that shifts all scores of a row.

    A bias that is normalized or rotated with the keys does not.
    """
    if not name.endswith("attn.c_attn.bias"):
        return None
    config = getattr(model, "config", None)
    if not isinstance(config, GPTConfig):
        third = len(model.params[name]) // 3
        return slice(third, 2 * third)
    shifts = config.positions == "learned" and not config.qk_norm
    return slice(config.n_embd, config.qk_width) if shifts else None


def key_bias(qkv_bias: Measurement, keys: slice, rng: np.random.Generator) -> Measurement:
    """Return the measurement of the key part of a qkv bias: zero, with no oracle error."""
    shape, directions = (keys.stop - keys.start,), qkv_bias.probes.directions
    drawn = None if directions is None else rng.standard_normal((len(directions), *shape))
    probes = Probes(shape, drawn)
    return Measurement.exact(
        qkv_bias.name + KEY, probes, qkv_bias.method, np.zeros(len(probes)), qkv_bias.eps,
        qkv_bias.size,
    )  # fmt: skip
