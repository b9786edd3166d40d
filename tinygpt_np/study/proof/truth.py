"""Measure what each gradient of a forward should be: of a value, or through one use of it.

A forward is a straight line of statements. To differentiate with respect to one of its values v,
run it up to the line that sets v, replace v by v + i·h·u, and run the rest. The imaginary part of
the loss, divided by h, is the derivative along u; no backward is involved. If several lines read v,
it can be replaced for one of them only, while the others read the original value. That measures one
term of the gradient.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial, reduce
from types import MethodType
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.calls import SELF
from tinygpt_np.gradcheck.function_check import FunctionCheck, max_elements
from tinygpt_np.gradcheck.measure import Measurement
from tinygpt_np.gradcheck.progress import Announce, quiet
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.gradcheck.tree import is_floating, with_leaves
from tinygpt_np.study.source.parse import Function, StudyError
from tinygpt_np.study.source.paths import Namespace, read, store
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import Trace, Value, copied

TINY, SMALL = 1e-40, 1e-6
# The rounding errors of a backward, in units of the last place of the loss: the values between that
# it multiplies may be much larger than their products.
ROUNDINGS = 16
# Arguments that a backward may take, in words.
TAKEN = {
    "upstream": "the upstream gradient", "each": "the upstream gradient of each output",
    "saved": "what forward saved", "args": "the arguments of forward",
}  # fmt: skip
# Two gradients with a smaller relative difference may be equal.
NEAR = 1e-4


@dataclass(frozen=True)
class Expected:
    """The expected gradient of one tensor, as measured derivatives."""

    check: FunctionCheck
    measured: Measurement
    sizes: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        """The tensor itself."""
        return np.asarray(self.check.args[self.measured.name])

    @property
    def gradient(self) -> np.ndarray | None:
        """The gradient, or None if it was measured along some directions only."""
        probes = self.measured.probes
        is_complete = probes.directions is None
        return self.measured.values.reshape(probes.shape) if is_complete else None

    @property
    def array(self) -> np.ndarray | None:
        """The gradient in the dtype of the tensor, or None."""
        return None if self.gradient is None else self.gradient.astype(self.value.dtype)

    def compare(self, found: Any) -> Row:
        """Compare a gradient with the expected one; rounding of the size of the loss is right."""
        row, measured = (
            self.check.row(self.measured, {self.measured.name: found}, self.sizes),
            self.measured,
        )
        if row.problems and row.absolute <= ROUNDINGS * measured.eps * measured.size:
            errors = np.abs(measured.probes.along(np.asarray(found)) - measured.values)
            if (errors <= ROUNDINGS * measured.eps * measured.size).all():
                return replace(row, problems=(), cause="")
        return row

    @np.errstate(all="ignore")
    def is_near(self, found: Any) -> bool:
        """Return whether a gradient is roughly the expected one: worth an exact comparison."""
        try:
            found = np.broadcast_to(np.asarray(found, float), np.shape(self.value))
        except (TypeError, ValueError):
            return False
        measured, along = self.measured, self.measured.probes.along(found)
        smooth = measured.usable & ~measured.kinks
        difference = float(np.linalg.norm((along - measured.values)[smooth]))
        size = float(np.linalg.norm(measured.values[smooth])) + NEAR * measured.size
        return difference <= NEAR * size

    @cached_property
    def is_zero(self) -> bool:
        """Whether no gradient flows here."""
        return not self.measured.values.any() or self.compare(np.zeros_like(self.value)).ok

    def plus(self, other: "Expected") -> "Expected":
        """Return the sum of two gradients of the same tensor."""
        return replace(self, measured=self.measured.plus(other.measured))


class Truth:
    """The expected gradients of one target; each is measured once, when it is first needed.

    announce: called before each measurement with the name of the gradient, the number of
    measurements that are done, and about how many there will be.
    """

    def __init__(
        self, target: Target, announce: Announce = quiet, upstream: float | None = None
    ) -> None:
        self.target, self.announce, self.measured = target, announce, 0
        self.trace = Trace(target.forward, target.module, target.args, target.convention)
        self.out = np.asarray(self.trace.output(self.trace.returned))
        if not np.isfinite(self.out).all():
            raise StudyError(
                f"{target.forward.file}: the output of {target.forward.name} is not finite; "
                "its arguments are random numbers of order one, positive and negative"
            )
        if target.functions:
            called = self.trace.output(call_forward(target))
            if not np.array_equal(np.asarray(called), self.out, equal_nan=True):
                raise StudyError(
                    f"{target.forward.file}: calling {target.forward.name} gives another output "
                    "than running its lines; is it decorated or redefined?"
                )
        # Random, so that no error cancels by chance.
        rng = generator(target.seed, "gradcheck")
        if not {"upstream", "each"} & {*target.convention.takes}:  # The output is the loss.
            upstream = 1.0
        drawn = rng.standard_normal(self.out.shape) if upstream is None else upstream
        self.doutput = np.full(self.out.shape, drawn, dtype=self.out.dtype)
        self.total = cache(self._total)
        self.uses, self.use = cache(self._uses), cache(self._use)
        self.param = cache(self._param)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Lengths by which a wrong gradient may have been divided or multiplied."""
        arrays = [arg for arg in (*self.target.args.values(), self.out) if hasattr(arg, "shape")]
        return tuple(size for a in arrays for size in (*np.shape(a), int(np.size(a))))

    @cached_property
    def differentiable(self) -> set[Value]:
        """The values through which a gradient flows: they get an imaginary part with the arguments.

        Without complex numbers, they are read from the arguments and change with them.
        """
        found = self.changed_by_imaginary_part or set[Value]()
        if self.target.wrt:
            found = found | (self.read_from_arguments() & self.changed_by(SMALL))
        return {value for value in found if self.trace.can_be_replaced(value)}

    @cached_property
    def changed_by_imaginary_part(self) -> set[Value] | None:
        """The values that get an imaginary part; None if forward accepts no complex numbers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                return self.changed_by(1j * TINY)
        except (TypeError, ValueError, np.exceptions.ComplexWarning):
            return None

    @cached_property
    def max_elements(self) -> int:
        """The largest number of elements that can be measured one by one in the time limit."""
        takes_complex = self.changed_by_imaginary_part is not None
        return max_elements(lambda: self.trace.output_for(self.target.args), takes_complex)

    def changed_by(self, step: complex) -> set[Value]:
        """Return the values that change when the arguments move in a random direction."""
        rng = generator(self.target.seed, "gradcheck")

        def move(array: np.ndarray) -> np.ndarray:
            return array + step * rng.standard_normal(array.shape)

        def has_changed(here: Any, there: Any) -> bool:
            if not isinstance(here, np.ndarray | np.generic) or cast(Any, here).dtype == object:
                return False
            if isinstance(step, complex):  # The real part may be rounded otherwise.
                return bool(np.imag(cast(Any, here)).any())
            return not np.array_equal(cast(Any, here), there)

        args = self.target.args
        if self.target.params:
            params = {name: move(param) for name, param in self.target.params.items()}
            args = self.target.with_params(params)
        args = with_leaves(args, {name: move(read(args, name)) for name in self.target.wrt})
        trace = Trace(self.target.forward, self.target.module, args, self.target.convention)
        return {v for v in trace.values() if has_changed(trace.data(v), self.trace.data(v))}

    def read_from_arguments(self) -> set[Value]:
        """Return the float values that depend on the arguments according to the source."""
        found = {Value(name, -1) for name in self.target.wrt}
        for step in self.trace.steps:
            reads = {self.trace.definition(name, step.index) for name in step.statement.reads}
            if reads & found:
                values = (Value(name, step.index) for name in step.statement.sets)
                found |= {value for value in values if is_floating(self.trace.data(value))}
        return found

    def _total(self, value: Value) -> Expected:
        """Return the gradient of a value."""
        data, run = self.trace.data(value), partial(self.trace.output_with, value)
        return self.expected(value.name, data, run)

    def _uses(self, value: Value) -> tuple[int, ...]:
        """Return the steps through which a value affects the output; the return is the last."""
        end, found = len(self.trace.steps), self.trace.uses(value)
        is_output = value.name in self.trace.output_names
        is_output = is_output and self.trace.definition(value.name, end) == value
        return (*found, end) if is_output else (*found,)

    def _use(self, value: Value, step: int) -> Expected:
        """Return the term of a value's gradient that comes from one step that reads it."""
        if self.uses(value) == (step,):
            return self.total(value)
        trace = self.trace

        def run_return(replacement: Any) -> Any:
            namespace = trace.at(step)
            store(namespace, value.name, replacement)
            return trace.run_from(namespace, step)

        run = partial(trace.output_with_use, value, step)
        run = run_return if step == len(trace.steps) else run
        return self.expected(value.name, trace.data(value), run)

    def sum(self, value: Value, uses: Iterable[int]) -> Expected:
        """Return the sum of the terms of a value's gradient that come from some steps."""
        every = tuple(sorted({*uses}))
        if every == self.uses(value):
            return self.total(value)
        return reduce(Expected.plus, (self.use(value, use) for use in every))

    def _param(self, name: str) -> Expected:
        """Return the gradient of a parameter."""

        def run(replacement: Any) -> Any:
            return self.trace.output_for(self.target.with_params({name: replacement}))

        return self.expected(name, self.target.params[name], run)

    @cached_property
    def planned(self) -> int:
        """The number of measurements if all gradients and all their terms are needed."""
        uses = (len(self.trace.uses(value)) for value in self.differentiable)
        return len(self.target.params) + sum(1 if count < 2 else 1 + count for count in uses)

    def result(self, name: str) -> Expected:
        """Return the gradient of an argument or a parameter."""
        return self.param(name) if name in self.target.params else self.total(Value(name, -1))

    def given(self, function: Function) -> Namespace:
        """Return the arguments of a backward, in copies: a wrong one may change them."""
        target, trace = self.target, self.trace
        names = [name for name in function.arguments if name != SELF]
        kept = copied({"returned": trace.returned, "owner": trace.before[-1].get(SELF)})
        if target.kind == "model":
            saved = "saved" if "saved" in names else names[1]
            given = {function.upstream: self.doutput.copy(), saved: kept["returned"][1]}
            return given | target.backward_args(function)
        args = [arg for name, arg in copied(target.args).items() if name != SELF]
        upstream = trace.upstream(self.doutput.copy())
        values = target.convention.arguments(upstream, kept["returned"], args)
        if len(names) < len(values):
            what = " and ".join(TAKEN[each] for each in target.convention.takes)
            raise StudyError(f"{function.file}: {function.name} must take {what}")
        owner = {SELF: kept["owner"]} if SELF in target.args else {}
        return owner | dict(zip(names, values, strict=False))

    def expected(self, name: str, value: Any, run: Callable[[Any], Any]) -> Expected:
        """Measure the gradient of the loss with respect to the argument of `run`."""
        self.announce(f"d{name}", self.measured, max(self.planned, self.measured + 1))
        self.measured += 1

        def forward(**moved: np.ndarray) -> tuple[Any, tuple[()]]:
            return run(moved[name]), ()

        check = FunctionCheck(
            forward, {name: np.asarray(value)}, (name,),
            seed=self.target.seed, title=name,
            doutput=self.doutput,
        )  # fmt: skip
        # Decided once, because a time differs from run to run, and terms must be added up.
        check.max_elements = self.max_elements
        return Expected(check, check.measurements((name,))[0], self.sizes)


def call_forward(target: Target) -> Any:
    """Return what the forward returns if it is called with copies of its arguments."""
    args, forward = copied(target.args), target.functions[0]
    if isinstance(forward, MethodType):
        forward = MethodType(forward.__func__, args.pop(SELF))
    return forward(**args)
