"""One forward at one point: what its gradients should be, and whether a backward has the manners.

A trial is made once and may judge many backwards (a right one, and every planted bug): what it
measures depends on the forward alone.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.arguments import (
    Arguments,
    check_callable,
    check_options,
    differentiable,
    named,
    output_of,
    promoted,
    unchecked,
)
from tinygpt_np.gradcheck.measure import CheckError, Measured, Method, Probes, Subject, measure
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.gradcheck.verdict import judge

Gradients = dict[str, Any]
# The Taylor slope test looks along so many random directions.
TAYLOR_DIRECTIONS = 3
# Arrays that hold the same numbers in another order in memory, or refuse to be written to.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array.copy(),
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "Fortran-ordered": lambda array: array.copy(order="F"),
    "read-only": lambda array: frozen(array.copy()),
}


class Trial:
    """A forward and the arguments of one call; see check.check for what each means.

    doutput: the upstream gradient, random and of the output's shape, unless it is given.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        args: Arguments,
        wrt: Sequence[str] | None = None,
        *,
        method: Method = "complex",
        directions: int | None = None,
        seed: int = 0,
        truth: Callable[..., Any] | None = None,
        title: str | None = None,
        doutput: np.ndarray | None = None,
    ) -> None:
        check_options(method, directions, seed)
        check_callable("forward", forward)
        self.forward, self.truth = forward, truth or forward
        self.method: Method = method
        self.directions, self.seed = directions, seed
        self.title = title or f"{forward.__module__}.{getattr(forward, '__qualname__', forward)}"
        self.keywords = isinstance(args, Mapping)
        self.args = named(forward, args)
        self.wrt = differentiable(self.args, wrt)
        self.unchecked = [] if wrt is not None else unchecked(self.args, self.wrt)
        self.rng = generator(seed, "gradcheck")
        self.out, self.plain = self.first_output()
        if doutput is None:
            # A scalar returned alone is the loss itself; d(loss)/d(loss) is 1.
            doutput = np.ones(()) if self.plain else self.rng.standard_normal(self.out.shape)
        self.doutput = np.asarray(doutput, dtype=self.out.dtype)

    def call(self, forward: Callable[..., Any], args: Mapping[str, Any]) -> Any:
        """Calls a forward. A random generator among the arguments is replayed: copied each time."""
        fresh = {name: copy.deepcopy(arg) for name, arg in args.items()}
        return forward(**fresh) if self.keywords else forward(*fresh.values())

    def first_output(self) -> tuple[np.ndarray, bool]:
        """The output as an array, and whether forward returns it alone, without `saved`."""
        returned, again = (self.call(self.forward, self.args) for _ in range(2))
        plain = not isinstance(returned, tuple)
        out, second = output_of(returned), output_of(again)
        if plain and out.size != 1:
            raise CheckError(
                f"a forward that returns no (out, saved) must return a scalar, not {out.shape}"
            )
        if not np.array_equal(out, second):
            raise CheckError(
                "forward must give the same output each time; if it draws random numbers, pass it "
                "its generator or its mask as an argument, and it is replayed"
            )
        return out, plain

    @cached_property
    def measured(self) -> list[Measured]:
        """What the gradient of each tensor should be."""
        fixed = {name: promoted(arg) for name, arg in self.args.items()}
        weights = self.doutput.astype(np.float64)
        # Where the terms of the loss cancel it is small, but its rounding is not. Beside a constant
        # of their size it is known for what it is; and a constant has no derivative.
        size = 2 * float(np.abs(weights * self.out).sum())

        def loss(values: dict[str, np.ndarray]) -> Any:
            returned = self.call(self.truth, {**fixed, **values})
            return size + np.sum(weights * (returned if self.plain else returned[0]))

        values = {name: cast(np.ndarray, fixed[name]) for name in self.wrt}
        eps = max(float(np.finfo(self.args[name].dtype).eps) for name in self.wrt)
        subject = Subject(loss, values, max(self.out.size, 1), eps)
        return list(measurements(subject, self.method, self.directions, self.rng))

    def report(self, backward: Callable[..., Any], title: str | None = None) -> Report:
        """Judges a backward."""
        check_callable("backward", backward)
        return self.verdict(Run(self, backward), title)

    def verdict(self, run: "Run", title: str | None = None) -> Report:
        """Judges what a backward gave, here or in a trial of the same call by another method."""
        sizes: list[int] = []
        for arg in (*self.args.values(), self.out):
            sizes += [*getattr(arg, "shape", ()), getattr(arg, "size", 1)]
        rows: list[Row] = []
        for measured in self.measured:
            row = self.judge(measured, run.gradients, sizes)
            problems = [*row.problems, *run.problems.get(measured.name, [])]
            for layout, found in run.layouts if not problems else ():
                wrong = (found,) if isinstance(found, str) else self.judge(measured, found).problems
                problems += [f"with {layout} inputs: {problem}" for problem in wrong]
            rows.append(replace(row, problems=tuple(problems)))
        zeros = ", ".join(row.name for row in rows if row.verdict == "zero")
        notes = [*self.notes(), f"zero, as far as rounding lets one tell: {zeros}"]
        return Report(
            title or self.title, tuple(rows), self.seed, tuple(notes if zeros else notes[:-1])
        )

    def judge(self, measured: Measured, found: Gradients, sizes: Sequence[int] = ()) -> Row:
        gradient, dtype = found.get(measured.name), self.args[measured.name].dtype
        return judge(measured, gradient, dtype, sizes)

    def in_layouts(self, backward: Callable[..., Any]) -> Iterator[tuple[str, Gradients | str]]:
        """Each other layout of the inputs, with the gradients found, or what was raised."""
        for layout, change in LAYOUTS.items():
            args = {
                name: change(cast(Any, arg)) if isinstance(arg, np.ndarray) else copy.deepcopy(arg)
                for name, arg in self.args.items()
            }
            try:
                yield layout, self.gradients(backward, args, change(self.doutput))
            except Exception as error:
                yield layout, f"it raises {describe(error)}"

    def gradients(
        self, backward: Callable[..., Any], args: Mapping[str, Any], doutput: np.ndarray
    ) -> Gradients:
        """What a backward returns for a call of the forward, by the name of the argument."""
        values = args if self.keywords else tuple(args.values())
        if self.plain:
            returned = backward(**args) if self.keywords else backward(*cast(Any, values))
        else:
            _, saved = self.forward(**args) if self.keywords else self.forward(*cast(Any, values))
            returned = backward(doutput, saved)
        return self.by_name(returned)

    def by_name(self, returned: Any) -> Gradients:
        """The gradients that a backward returned, by the name of the argument."""
        if isinstance(returned, Mapping):
            unknown = set(cast(Mapping[str, Any], returned)) - set(self.wrt)
            if unknown:
                raise CheckError(
                    f"backward returned a gradient of {', '.join(sorted(unknown))}, "
                    f"which is none of {', '.join(self.wrt)}"
                )
            return dict(cast(Mapping[str, Any], returned))
        parts = list(cast(Any, returned)) if isinstance(returned, tuple | list) else [returned]
        if len(parts) != len(self.wrt):
            # An argument that was None has None for a gradient.
            parts = [part for part in parts if part is not None]
        if len(parts) != len(self.wrt):
            raise CheckError(
                f"backward must return a gradient for each of {', '.join(self.wrt)} "
                f"({len(self.wrt)} in all), not {len(parts)}; wrt says which arguments have one"
            )
        return dict(zip(self.wrt, parts, strict=True))

    def notes(self) -> Iterator[str]:
        """What a reader should know of how it was measured."""
        methods = {measured.method for measured in self.measured}
        if self.method == "complex" and "richardson" in methods:
            yield "forward does not take complex numbers rightly, so Richardson measured it"
        skipped = sum(int(measured.kinks.sum()) for measured in self.measured)
        if skipped:
            yield f"skipped: {skipped} at a kink of forward, where there is no derivative"
        if self.unchecked:
            yield f"not checked, being no arrays of floats: {', '.join(self.unchecked)}"


class Run:
    """A backward run twice at a trial's point. gradients: its results; problems: its manners."""

    def __init__(self, trial: Trial, backward: Callable[..., Any]) -> None:
        self.trial, self.problems = trial, dict[str, list[str]]()
        args = {name: copy.deepcopy(arg) for name, arg in trial.args.items()}
        doutput, values = trial.doutput.copy(), tuple(args.values())
        if trial.plain:
            out, call = None, lambda: backward(**args) if trial.keywords else backward(*values)
        else:
            out, saved = trial.forward(**args) if trial.keywords else trial.forward(*values)
            call = lambda: backward(doutput, saved)  # noqa: E731
        self.note_changes(args, "forward" if not trial.plain else "f")
        first = trial.by_name(call())
        self.note_changes({**args, "dout": doutput}, "backward")
        self.gradients = {name: copy.deepcopy(gradient) for name, gradient in first.items()}
        for name, problem in shared(first, {**args, "dout": doutput, "out": out}):
            self.note(name, problem)
        second = self.repeat(call, "a second backward", "the first changed what was saved")
        if not trial.plain and not self.problems:
            # Arguments of the same kind, which hardly any forward refuses.
            others = {name: np.flip(trial.args[name]) for name in trial.wrt}
            with contextlib.suppress(Exception):
                trial.call(trial.forward, {**trial.args, **others})
            self.repeat(call, "after another forward it", "that changed what was saved")
        for name, gradient in first.items():
            if not self.problems.get(name) and shares_memory(gradient, second.get(name)):
                self.note(name, "a second backward overwrites the gradient of the first")
        self.layouts = list(trial.in_layouts(backward))

    def repeat(self, call: Callable[[], Any], what: str, why: str) -> Gradients:
        """Runs the backward once more, and notes where it is not as it was."""
        try:
            found = self.trial.by_name(call())
        except Exception as error:
            self.note("", f"{what} raises {describe(error)}: {why}")
            return {}
        for name, gradient in self.gradients.items():
            if not same_bits(found.get(name), gradient):
                self.note(name, f"{what} differs: {why}")
        return found

    def note(self, name: str, problem: str) -> None:
        """Keeps a problem with the tensor it is of, or with the first one."""
        name = name if name in self.trial.wrt else self.trial.wrt[0]
        self.problems.setdefault(name, []).append(problem)

    def note_changes(self, args: Mapping[str, Any], culprit: str) -> None:
        """Notes the arguments that are not what they were, and puts them back."""
        before = {**self.trial.args, "dout": self.trial.doutput}
        for name, arg in args.items():
            if isinstance(arg, np.ndarray) and not same_bits(arg, before[name]):
                self.note(name, f"{culprit} changes its input {name}")
                cast(np.ndarray, arg)[...] = before[name]


def shared(gradients: Gradients, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of the gradients that are not memory of their own, each with whose it is."""
    others = dict(inputs)
    for name, gradient in gradients.items():
        for other, array in others.items():
            if shares_memory(gradient, array):
                yield name, f"the gradient is no memory of its own: it shares that of {other}"
        others[f"the gradient of {name}"] = gradient


def measurements(
    subject: Subject, method: Method, directions: int | None, rng: np.random.Generator
) -> Iterator[Measured]:
    """Measures every tensor of a subject, by element or along random directions."""
    count = TAYLOR_DIRECTIONS if directions is None and method == "taylor" else directions
    for name, value in subject.values.items():
        drawn = None if count is None else rng.standard_normal((count, *value.shape))
        yield measure(subject, name, Probes(value.shape, drawn), method, rng)


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def shares_memory(a: Any, b: Any) -> bool:
    arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return arrays and np.shares_memory(cast(Any, a), cast(Any, b))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two gradients are the same, NaNs included."""
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) if a is not None else b is a


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
