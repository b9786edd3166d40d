"""What each gradient of a forward should be, measured at one point: of a value, or of one use.

A forward is a straight line. For one of its values v: run it up to where v is set, put v + i·h·u in
its place, run the rest. What that does to the loss is the derivative along u, without any backward.
Where v is read by several lines, v is moved for one of them only, and the rest read it as it was.
"""

import ast
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.function_check import FunctionCheck, is_floating
from tinygpt_np.gradcheck.measure import ORACLES, Measurement
from tinygpt_np.gradcheck.oracles import Curve
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source import StudyError
from tinygpt_np.study.target import Target
from tinygpt_np.study.trace import Trace, Value

# A larger tensor, or one of a forward that takes long, is looked at along some random directions.
ELEMENTS, DIRECTIONS = 2000, 4
# Seconds for one tensor, and how often forward runs where differences must do for the complex step.
PATIENCE, RUNS_OF_DIFFERENCES = 3.0, 32
TINY, SMALL = 1e-40, 1e-6
# How near one line alone must come to be called right, as a share of its size.
NEAR = 1e-9
# How far rounding may take a sum, as a share of the sum of its terms' sizes.
ROUNDING = 1e-13


@dataclass(frozen=True)
class Expected:
    """What the gradient of one tensor should be. value: the tensor; measured: its derivatives."""

    trial: FunctionCheck
    measured: Measurement
    sizes: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        return np.asarray(self.trial.args[self.measured.name])

    @property
    def gradient(self) -> np.ndarray | None:
        """The whole gradient, where every element was measured."""
        probes = self.measured.probes
        whole = probes.directions is None
        return self.measured.values.reshape(probes.shape) if whole else None

    def judge(self, found: Any) -> Row:
        return self.trial.row(self.measured, {self.measured.name: found}, self.sizes)

    def plus(self, other: "Expected") -> "Expected":
        """What the two come to, of the same tensor."""
        ours, theirs = self.measured, other.measured
        both = replace(
            ours, values=ours.values + theirs.values, errors=ours.errors + theirs.errors,
            floor=ours.floor + theirs.floor,
        )  # fmt: skip
        return replace(self, measured=both)

    def curve(self, direction: np.ndarray) -> Curve:
        """t ↦ loss where the tensor is moved by t·direction."""
        start, name = self.value, self.measured.name
        weights, call = self.trial.doutput, self.trial.forward
        return lambda t: np.sum(weights * call(**{name: start + t * direction})[0])


class Truth:
    """The truths of one target: measured when they are asked for, each once."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.trace = Trace(target.forward, target.module, target.args)
        returned: Any = self.trace.returned
        if not isinstance(returned, tuple) or len(cast(tuple[Any, ...], returned)) != 2:
            line = f"{target.forward.where}, line {target.forward.returned.lineno}"
            raise StudyError(f"{line}: forward must return (out, saved), out an array of floats")
        self.saved: Any = returned[1]
        self.out = np.asarray(self.trace.output(returned))
        if not np.isfinite(self.out).all():
            where = f"{target.forward.where}: the output of {target.forward.name} is not finite"
            raise StudyError(f"{where}; what it is given is random, of order one, of either sign")
        if target.functions:
            self.check_that_it_runs_so()
        # As everywhere in the checks: random, so that nothing cancels that should not.
        rng = generator(target.seed, "gradcheck")
        self.doutput = np.asarray(rng.standard_normal(self.out.shape), dtype=self.out.dtype)
        self.total = cache(self._total)
        self.use = cache(self._use)
        self.param = cache(self._param)

    def check_that_it_runs_so(self) -> None:
        """Raises unless forward, as it runs in one go, gives what its lines give."""
        runs: Any = self.target.functions[0](**self.trace.fresh(self.target.args))
        out = self.trace.output(runs)
        if not np.array_equal(np.asarray(out), self.out, equal_nan=True):
            where, name = self.target.forward.where, self.target.forward.name
            as_it_runs = "as it runs gives another output than its lines, one after another"
            raise StudyError(f"{where}: {name} {as_it_runs}; is it decorated, or set again?")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Lengths that a wrong gradient may have been divided or multiplied by."""
        arrays = [arg for arg in (*self.target.args.values(), self.out) if hasattr(arg, "shape")]
        return tuple(size for a in arrays for size in (*np.shape(a), int(np.size(a))))

    @cached_property
    def flowing(self) -> set[Value]:
        """The values through which a gradient flows: those that move with what is differentiable.

        Moved by an imaginary part, they have one too; what np.real cut off has none. Where forward
        cannot take complex numbers, wholly or in a line, what moves by a real part is read instead.
        """
        found = self.moved_by_imaginary or set[Value]()
        return found | (self.read() & self.moved(SMALL) if self.target.wrt else set())

    @cached_property
    def moved_by_imaginary(self) -> set[Value] | None:
        """Those that get an imaginary part; None where forward takes no complex numbers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                return self.moved(1j * TINY)
        except (TypeError, ValueError, np.exceptions.ComplexWarning):
            return None

    @cached_property
    def most_elements(self) -> int:
        """How many elements a tensor may have for each to be looked at in the time there is."""
        start = time.perf_counter()
        self.trace.finish({**self.target.module, **self.trace.fresh(self.target.args)}, 0)
        runs = 1 if self.moved_by_imaginary is not None else RUNS_OF_DIFFERENCES
        return min(ELEMENTS, int(PATIENCE / (runs * (time.perf_counter() - start))))

    def moved(self, by: complex) -> set[Value]:
        """The values that are others once the arguments are, by so much in a random direction."""
        rng = generator(self.target.seed, "gradcheck")

        def move(array: np.ndarray) -> np.ndarray:
            return array + by * rng.standard_normal(array.shape)

        args = {**self.target.args}
        if self.target.with_params is not None:
            params = {name: move(param) for name, param in self.target.params.items()}
            args = self.target.with_params(params)
        args |= {name: move(args[name]) for name in self.target.wrt}
        trace = Trace(self.target.forward, self.target.module, args)
        has_moved = has_imaginary_part if isinstance(by, complex) else differ
        return {v for v in trace.values() if has_moved(trace.held(v), self.trace.held(v))}

    def read(self) -> set[Value]:
        found = {Value(name, -1) for name in self.target.wrt}
        for step in self.trace.steps:
            reads = {self.trace.reaching(name, step.index) for name in step.statement.reads}
            if reads & found:
                values = (Value(name, step.index) for name in step.statement.sets)
                found |= {value for value in values if is_floating(self.trace.held(value))}
        return found

    def _total(self, value: Value) -> Expected:
        """The gradient of a value."""
        return self.expected(value.name, self.trace.held(value), self.trace.rest(value))

    def _use(self, value: Value, step: int) -> Expected:
        """The part of it that comes by way of one step that reads it."""
        if self.trace.uses(value) == [step] and value.name not in self.outputs:
            return self.total(value)
        run = self.trace.rest_where_read(value, step)
        return self.expected(value.name, self.trace.held(value), run)

    @cached_property
    def outputs(self) -> set[str]:
        """The names in the output that forward returns, which is not all it returns."""
        value: ast.AST = self.trace.function.returned
        match self.trace.function.returned.value:
            case ast.Tuple(elts=[out, _]):
                value = out
            case _:
                pass
        return {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}

    def _param(self, name: str) -> Expected:
        with_params, trace = self.target.with_params, self.trace
        assert with_params is not None

        def run(changed: Any) -> Any:
            args = with_params({**self.target.params, name: changed})
            names = {**self.target.module, **trace.fresh(args)}
            return trace.finish(names, 0)

        # Its name has dots, which an argument's may not.
        return self.expected(name, self.target.params[name], run)

    def is_right_here(self, value: Value, step: int, gradients: Tensors, found: Any) -> bool:
        """Whether `found` is the part of the gradient of a value that comes by way of one step, if
        the gradients of what the step sets were the given ones: along some directions.
        """
        run = self.trace.one_step(value.name, step, tuple(gradients))
        weights = np.concatenate([np.reshape(d, -1) for d in gradients.values()])
        start = np.asarray(self.trace.held(value))
        measured = self.total(value).measured
        oracle, near = ORACLES[measured.method], max(NEAR, measured.tolerance)
        rng = generator(self.target.seed, "gradcheck")
        for _ in range(DIRECTIONS):
            direction = np.asarray(rng.standard_normal(start.shape))
            there = oracle(lambda t, u=direction: np.sum(weights * run(start + t * u))).value
            here = float(np.sum(found * direction))
            size = float(np.linalg.norm(found) * np.linalg.norm(direction))
            # Terms that cancel leave their rounding.
            terms = weights * (run(start + SMALL * direction) - run(start)) / SMALL
            rounding = ROUNDING * float(np.abs(terms).sum())
            if not abs(here - there) <= near * max(size, abs(there)) + rounding:
                return False
        return True

    def expected(self, name: str, value: Any, run: Callable[[Any], Any]) -> Expected:
        def forward(**moved: np.ndarray) -> tuple[Any, tuple[()]]:
            return run(moved[name]), ()

        trial = FunctionCheck(
            forward, {name: np.asarray(value)}, (name,),
            seed=self.target.seed, title=name,
            directions=None if np.size(value) <= self.most_elements else DIRECTIONS,
            doutput=self.doutput,
        )  # fmt: skip
        return Expected(trial, trial.measurements[0], self.sizes)


def has_imaginary_part(here: Any, there: Any) -> bool:
    """Whether an array, or a number of NumPy, is no longer real; its real part may be rounded."""
    return isinstance(here, np.ndarray | np.generic) and bool(np.imag(cast(Any, here)).any())


def differ(here: Any, there: Any) -> bool:
    """Whether an array, or a number of NumPy, is another one."""
    arrays = isinstance(here, np.ndarray | np.generic)
    return arrays and not np.array_equal(cast(Any, here), there)
