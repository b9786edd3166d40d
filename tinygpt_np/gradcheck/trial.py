"""One forward at one point: what its gradients should be, and whether a backward has the manners.

A trial is made once and may judge many backwards (a right one, and every planted bug): what it
measures depends on the forward alone.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.measure import (
    METHODS,
    CheckError,
    Measured,
    Method,
    Probes,
    Subject,
    measure,
)
from tinygpt_np.gradcheck.verdict import Report, Row, judge

Arguments = Sequence[Any] | Mapping[str, Any]
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
        if method not in METHODS:
            raise CheckError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        if directions is not None and directions < 1:
            raise CheckError(f"directions must be positive, not {directions}")
        self.forward, self.truth = forward, truth or forward
        self.method: Method = method
        self.directions, self.seed = directions, seed
        self.title = title or f"{forward.__module__}.{getattr(forward, '__qualname__', forward)}"
        self.keywords = isinstance(args, Mapping)
        self.args = named(forward, args)
        self.replayed = False
        self.rng = generator(seed, "gradcheck")
        self.out, self.plain = self.first_output()
        self.wrt = differentiable(self.args, wrt)
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
        first, second = output_of(returned), output_of(again)
        try:
            out: np.ndarray = np.asarray(first)
            floating = np.issubdtype(out.dtype, np.floating)
        except (TypeError, ValueError):
            out, floating = np.zeros(()), False
        if not floating:
            kind = getattr(first, "dtype", type(first).__name__)
            raise CheckError(f"the output of forward must be floating, not {kind}")
        if plain and out.size != 1:
            raise CheckError(
                f"a forward that returns no (out, saved) must return a scalar, not {out.shape}"
            )
        if not np.isfinite(out).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
            raise CheckError(
                f"the output of forward must be finite, but at {place} it is {out[place]}"
            )
        if not np.array_equal(out, np.asarray(second)):
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
        return self.verdict(Run(self, backward), title)

    def verdict(self, run: "Run", title: str | None = None) -> Report:
        """Judges what a backward gave, here or in a trial of the same call by another method."""
        sizes = [n for arg in (*self.args.values(), self.out) for n in np.shape(arg)]
        rows: list[Row] = []
        for measured in self.measured:
            row = self.judge(measured, run.gradients, [*sizes, self.out.size])
            problems = [*row.problems, *run.problems.get(measured.name, [])]
            for layout, found in run.layouts if not problems else ():
                wrong = (found,) if isinstance(found, str) else self.judge(measured, found).problems
                problems += [f"with {layout} inputs: {problem}" for problem in wrong]
            rows.append(replace(row, problems=tuple(problems)))
        return Report(title or self.title, tuple(rows), self.seed, tuple(self.notes()))

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
        inputs = {**args, "dout": doutput, "out": out}
        self.note_aliases(first, inputs)
        second = trial.by_name(call())
        for name, gradient in self.gradients.items():
            if not same_bits(second.get(name), gradient):
                self.note(name, "a second backward differs: the first changed what was saved")
            elif not same_bits(first[name], gradient):
                self.note(name, "a second backward overwrites the gradient of the first")
        self.layouts = list(trial.in_layouts(backward))

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

    def note_aliases(self, gradients: Gradients, inputs: Mapping[str, Any]) -> None:
        """Notes the gradients that are not memory of their own."""
        others = dict(inputs)
        for name, gradient in gradients.items():
            for other, array in others.items():
                if shares_memory(gradient, array):
                    self.note(
                        name, f"the gradient is no memory of its own: it shares that of {other}"
                    )
            others[f"the gradient of {name}"] = gradient


def measurements(
    subject: Subject, method: Method, directions: int | None, rng: np.random.Generator
) -> Iterator[Measured]:
    """Measures every tensor of a subject, by element or along random directions."""
    count = TAYLOR_DIRECTIONS if directions is None and method == "taylor" else directions
    for name, value in subject.values.items():
        drawn = None if count is None else rng.standard_normal((count, *value.shape))
        yield measure(subject, name, Probes(value.shape, drawn), method, rng)


def named(forward: Callable[..., Any], args: Arguments) -> dict[str, Any]:
    """The arguments by name; a function without a signature gets arg0, arg1, …"""
    if isinstance(args, Mapping):
        return dict(args)
    if isinstance(args, np.ndarray):
        raise CheckError("args must be a tuple or a dict of arguments, not an array: write (x,)")
    try:
        parameters = list(inspect.signature(forward).parameters)
    except ValueError:
        parameters = []
    names = parameters[: len(args)]
    names += [f"arg{i}" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=True))


def output_of(returned: Any) -> Any:
    """The output among what a forward returned: of (out, saved), or alone."""
    if not isinstance(returned, tuple):
        return returned
    parts = cast(tuple[Any, ...], returned)
    if len(parts) != 2:
        raise CheckError(f"forward must return (out, saved), not {len(parts)} values")
    return parts[0]


def differentiable(args: Mapping[str, Any], wrt: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the arguments to be checked: those asked for, or all arrays of floats."""
    floats = [n for n, a in args.items() if np.issubdtype(getattr(a, "dtype", object), np.floating)]
    names = tuple(floats) if wrt is None else (wrt,) if isinstance(wrt, str) else tuple(wrt)
    if not names:
        kinds = ", ".join(f"{name}: {kind_of(arg)}" for name, arg in args.items())
        raise CheckError(f"one of the arguments must be an array of floats, not only {kinds}")
    for name in names:
        if name not in args:
            raise CheckError(f"wrt must name arguments ({', '.join(args)}), not {name!r}")
        arg = args[name]
        if name not in floats or arg.dtype not in (np.float32, np.float64):
            raise CheckError(f"{name} must be an array of float32 or float64, not {kind_of(arg)}")
        if not arg.size:
            raise CheckError(f"{name} must not be empty, but its shape is {arg.shape}")
        if not np.isfinite(arg).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(arg))[0])
            raise CheckError(f"{name} must be finite, but at {place} it is {arg[place]}")
    return names


def kind_of(arg: Any) -> str:
    return str(getattr(arg, "dtype", type(arg).__name__))


def promoted(arg: Any) -> Any:
    """Arrays of floats as float64, everything else as it is."""
    floating = np.issubdtype(getattr(arg, "dtype", object), np.floating)
    return np.asarray(arg, dtype=np.float64) if floating else arg


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
