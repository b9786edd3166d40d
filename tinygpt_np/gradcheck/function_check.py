"""Check one forward, at one point, and any number of backwards written for it.

A FunctionCheck measures the numerical gradient once, because that depends on the forward alone, and
compares many backwards with it: the right one, and every planted bug.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.measure import (
    CheckError,
    Measurement,
    Method,
    Subject,
    check_options,
    measure_all,
)
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.gradcheck.verdict import compare

Arguments = Sequence[Any] | Mapping[str, Any]
Gradients = dict[str, Any]
# The same numbers in another memory layout, or in memory that cannot be written.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array.copy(),
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "Fortran-ordered": lambda array: array.copy(order="F"),
    "read-only": lambda array: np.broadcast_to(array.copy(), array.shape),
}


class FunctionCheck:
    """A forward, the arguments of one call, and the gradients measured there.

    The parameters are those of `check`. doutput is the upstream gradient; by default it is random.
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
        self.by_keyword = isinstance(args, Mapping)
        self.args = named(forward, args)
        self.wrt = differentiable(self.args, wrt)
        # Arguments that may hold floats, but not in an array.
        self.unchecked = [
            f"{name} ({kind_of(arg)})"
            for name, arg in self.args.items()
            if wrt is None and isinstance(arg, float | complex | dict | list | tuple)
            if name not in self.wrt
        ]
        self.rng = generator(seed, "gradcheck")
        self.out, self.plain = self.first_output()
        if doutput is None:
            # A scalar returned alone is the loss itself; d(loss)/d(loss) is 1.
            doutput = np.ones(()) if self.plain else self.rng.standard_normal(self.out.shape)
        self.doutput = np.asarray(doutput, dtype=self.out.dtype)

    def call(self, function: Callable[..., Any], args: Mapping[str, Any]) -> Any:
        """Call a function with the arguments by name, or by position as they were given."""
        return function(**args) if self.by_keyword else function(*args.values())

    def first_output(self) -> tuple[np.ndarray, bool]:
        """Return the output as an array, and whether forward returns it without `saved`."""
        returned, again = (self.call(self.forward, copied(self.args)) for _ in range(2))
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
    def measurements(self) -> list[Measurement]:
        """The numerical gradient of each differentiable argument."""
        fixed = {
            name: np.asarray(arg, dtype=np.float64) if is_floating(arg) else arg
            for name, arg in self.args.items()
        }
        weights = self.doutput.astype(np.float64)
        # If the terms of the loss cancel, the loss is small but its rounding error is not. A
        # constant of the size of the terms is added to show that; it has no derivative.
        size = 2 * float(np.abs(weights * self.out).sum())

        def loss(values: dict[str, np.ndarray]) -> Any:
            # Copies, so that a random generator starts from the same state.
            returned = self.call(self.truth, copied({**fixed, **values}))
            return size + np.sum(weights * (returned if self.plain else returned[0]))

        values = {name: fixed[name] for name in self.wrt}
        eps = max(float(np.finfo(self.args[name].dtype).eps) for name in self.wrt)
        subject = Subject(loss, values, max(self.out.size, 1), eps)
        return list(measure_all(subject, self.method, self.directions, self.rng))

    def report(self, backward: Callable[..., Any], title: str | None = None) -> Report:
        """Run a backward and compare its gradients with the numerical ones."""
        return self.report_of(BackwardRun(self, backward), title)

    def report_of(self, run: "BackwardRun", title: str | None = None) -> Report:
        """Return the report of a run, perhaps from a check of the same call by another method."""
        sizes: list[int] = []
        for arg in (*self.args.values(), self.out):
            sizes += [*getattr(arg, "shape", ()), getattr(arg, "size", 1)]
        rows: list[Row] = []
        for measurement in self.measurements:
            row = self.row(measurement, run.gradients, sizes)
            problems = [*row.problems, *run.problems.get(measurement.name, [])]
            for layout, found in run.in_layouts.items() if not problems else ():
                wrong = [found] if isinstance(found, str) else self.row(measurement, found).problems
                problems += [f"with {layout} inputs: {problem}" for problem in wrong]
            rows.append(replace(row, problems=tuple(problems)))
        return Report(title or self.title, tuple(rows), self.seed, tuple(self.notes(rows)))

    def row(self, measurement: Measurement, found: Gradients, sizes: Sequence[int] = ()) -> Row:
        """Compare one of the gradients found with its measurement."""
        gradient, dtype = found.get(measurement.name), self.args[measurement.name].dtype
        return compare(measurement, gradient, dtype, sizes)

    def run_forward(
        self, backward: Callable[..., Any], args: Mapping[str, Any], doutput: np.ndarray
    ) -> tuple[Any, Callable[[], Gradients]]:
        """Return the output, and a function that runs the backward and names its gradients."""
        if self.plain:
            return None, lambda: self.by_name(self.call(backward, args))
        out, saved = self.call(self.forward, args)
        return out, lambda: self.by_name(backward(doutput, saved))

    def gradients(
        self, backward: Callable[..., Any], args: Mapping[str, Any], doutput: np.ndarray
    ) -> Gradients:
        """Run forward and backward once; return the gradients by argument name."""
        return self.run_forward(backward, args, doutput)[1]()

    def by_name(self, returned: Any) -> Gradients:
        """Return the gradients that a backward returned, by argument name."""
        if isinstance(returned, Mapping):
            found = dict(cast(Mapping[str, Any], returned))
            if unknown := set(found) - set(self.wrt):
                raise CheckError(
                    f"backward returned a gradient of {', '.join(sorted(unknown))}, "
                    f"which is none of {', '.join(self.wrt)}"
                )
            return found
        parts = list(cast(Any, returned)) if isinstance(returned, tuple | list) else [returned]
        if len(parts) != len(self.wrt):
            # The gradient of an optional argument that was None is None.
            parts = [part for part in parts if part is not None]
        if len(parts) != len(self.wrt):
            raise CheckError(
                f"backward must return a gradient for each of {', '.join(self.wrt)} "
                f"({len(self.wrt)} in all), not {len(parts)}; wrt says which arguments have one"
            )
        return dict(zip(self.wrt, parts, strict=True))

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """Yield what a reader should know about how the gradients were measured."""
        if self.method == "complex" and any(m.method == "richardson" for m in self.measurements):
            yield "forward is not complex-safe, so Richardson extrapolation was used"
        if skipped := sum(int(measurement.kinks.sum()) for measurement in self.measurements):
            yield f"skipped: {skipped} at a kink of forward, where there is no derivative"
        if self.unchecked:
            yield f"not checked, because not an array of floats: {', '.join(self.unchecked)}"
        if zeros := [row.name for row in rows if row.verdict == "zero"]:
            yield f"zero up to rounding: {', '.join(zeros)}"


class BackwardRun:
    """The gradients of a backward, and the rules it broke, found by running it several times.

    gradients, problems: by argument name. in_layouts: the gradients for each other memory layout of
    the inputs, or the error raised.
    """

    def __init__(self, check: FunctionCheck, backward: Callable[..., Any]) -> None:
        check_callable("backward", backward)
        self.check, self.problems = check, dict[str, list[str]]()
        args, doutput = copied(check.args), check.doutput.copy()
        out, call = check.run_forward(backward, args, doutput)
        self.note_changes(args, "forward")
        first = call()
        self.note_changes({**args, "dout": doutput}, "backward")
        self.gradients = copied(first)
        for name, problem in memory_shared(first, {**args, "dout": doutput, "out": out}):
            self.note(name, problem)
        second = self.repeat(call, "a second backward", "the first changed what was saved")
        if not check.plain and not self.problems:
            # Flipped arguments have the same shapes and kinds, so hardly any forward refuses them.
            others = {name: np.flip(check.args[name]) for name in check.wrt}
            with contextlib.suppress(Exception):
                check.call(check.forward, copied({**check.args, **others}))
            self.repeat(call, "after another forward it", "that changed what was saved")
        for name, gradient in first.items():
            if not self.problems.get(name) and shares_memory(gradient, second.get(name)):
                self.note(name, "a second backward overwrites the gradient of the first")
        self.in_layouts = dict[str, Gradients | str]()
        for layout, change in LAYOUTS.items():
            args = {
                name: change(cast(Any, arg)) if isinstance(arg, np.ndarray) else copy.deepcopy(arg)
                for name, arg in check.args.items()
            }
            try:
                found = check.gradients(backward, args, change(check.doutput))
            except Exception as error:
                found = f"it raises {describe(error)}"
            self.in_layouts[layout] = found

    def repeat(self, call: Callable[[], Gradients], what: str, why: str) -> Gradients:
        """Run the backward again and note each gradient that differs from the first run."""
        try:
            found = call()
        except Exception as error:
            self.note("", f"{what} raises {describe(error)}: {why}")
            return {}
        for name, gradient in self.gradients.items():
            if not same_bits(found.get(name), gradient):
                self.note(name, f"{what} differs: {why}")
        return found

    def note(self, name: str, problem: str) -> None:
        """Record a problem with a tensor, or with the first one if it concerns none."""
        name = name if name in self.check.wrt else self.check.wrt[0]
        self.problems.setdefault(name, []).append(problem)

    def note_changes(self, args: Mapping[str, Any], culprit: str) -> None:
        """Record the arguments that were changed, and restore them."""
        before = {**self.check.args, "dout": self.check.doutput}
        for name, arg in args.items():
            if isinstance(arg, np.ndarray) and not same_bits(arg, before[name]):
                self.note(name, f"{culprit} changes its input {name}")
                cast(np.ndarray, arg)[...] = before[name]


def check_callable(name: str, function: Any) -> None:
    """Raise CheckError unless it can be called."""
    if not callable(function):
        raise CheckError(f"{name} must be a function, not {type(function).__name__}")


def copied(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return deep copies."""
    return {name: copy.deepcopy(arg) for name, arg in args.items()}


def named(forward: Callable[..., Any], args: Arguments) -> dict[str, Any]:
    """Return the arguments by name: arg0, arg1, … if forward has no signature."""
    if isinstance(args, Mapping):
        return dict(args)
    if not isinstance(args, tuple | list):
        kind = type(args).__name__
        raise CheckError(f"args must be a tuple or a dict of arguments, not {kind}: write (x,)")
    try:
        names = list(inspect.signature(forward).parameters)[: len(args)]
    except ValueError:
        names = []
    names += [f"arg{i}" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=True))


def differentiable(args: Mapping[str, Any], wrt: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the arguments to check: `wrt`, or by default all arrays of floats."""
    floats = [name for name, arg in args.items() if is_floating(arg)]
    names = tuple(floats) if wrt is None else (wrt,) if isinstance(wrt, str) else tuple(wrt)
    if not names and wrt is not None:
        raise CheckError(f"wrt must name some of the arguments ({', '.join(args)}), not none")
    if not names:
        kinds = ", ".join(f"{name}: {kind_of(arg)}" for name, arg in args.items())
        raise CheckError(f"one of the arguments must be an array of floats, not only {kinds}")
    if len(set(names)) < len(names):
        raise CheckError(f"wrt must name each argument once, not {', '.join(names)}")
    for name in names:
        if name not in args:
            raise CheckError(f"wrt must name arguments ({', '.join(args)}), not {name!r}")
        if name not in floats or args[name].dtype not in (np.float32, np.float64):
            kind = kind_of(args[name])
            raise CheckError(f"{name} must be an array of float32 or float64, not {kind}")
        check_values(name, args[name])
    return names


def output_of(returned: Any) -> np.ndarray:
    """Return the output from what a forward returned: (out, saved), or the output alone."""
    if isinstance(returned, tuple):
        parts = cast(tuple[Any, ...], returned)
        if len(parts) != 2:
            raise CheckError(f"forward must return (out, saved), not {len(parts)} values")
        returned = parts[0]
    if not isinstance(returned, float) and not is_floating(returned):
        raise CheckError(
            f"the output of forward must be an array of floats, not {kind_of(returned)}"
        )
    out: np.ndarray = np.asarray(returned)
    check_values("the output of forward", out)
    return out


def check_values(name: str, array: np.ndarray) -> None:
    """Raise CheckError if an array is empty or not finite."""
    if not array.size:
        raise CheckError(f"{name} must not be empty, but its shape is {array.shape}")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CheckError(f"{name} must be finite, but at {place} it is {array[place]}")


def is_floating(arg: Any) -> bool:
    """Return whether an argument is an array or a NumPy number of floats."""
    return isinstance(arg, np.ndarray | np.generic) and np.issubdtype(
        cast(Any, arg).dtype, np.floating
    )


def kind_of(arg: Any) -> str:
    """Return the dtype of an array, or the name of a type."""
    return str(getattr(arg, "dtype", type(arg).__name__))


def memory_shared(gradients: Gradients, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the gradients that share memory with an input or another gradient, and a message."""
    others = dict(inputs)
    for name, gradient in gradients.items():
        for other, array in others.items():
            if shares_memory(gradient, array):
                yield name, f"the gradient shares its memory with {other}"
        others[f"the gradient of {name}"] = gradient


def shares_memory(a: Any, b: Any) -> bool:
    """Return whether both are arrays and have memory in common."""
    arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return arrays and np.shares_memory(cast(Any, a), cast(Any, b))


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two gradients are equal, NaNs included."""
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) if a is not None else b is a


def describe(error: Exception) -> str:
    """Return the type and the message of an error."""
    return f"{type(error).__name__}: {error}"
