"""Check one forward, at one point, and any number of backwards written for it.

A FunctionCheck measures the numerical gradient once, because that depends on the forward alone, and
compares many backwards with it: the right one, and every planted bug.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.backward_run import BackwardRun
from tinygpt_np.gradcheck.calls import (
    Arguments,
    ForwardCall,
    check_callable,
    check_values,
    copied,
    kind_of,
)
from tinygpt_np.gradcheck.measure import (
    TAYLOR_DIRECTIONS,
    CheckError,
    Measurement,
    Method,
    announce_all,
    check_options,
    measure,
    with_groups,
)
from tinygpt_np.gradcheck.probes import Probes
from tinygpt_np.gradcheck.progress import Announce, quiet
from tinygpt_np.gradcheck.report import Report, Row
from tinygpt_np.gradcheck.rounding import Rounding
from tinygpt_np.gradcheck.subject import Subject
from tinygpt_np.gradcheck.tree import Gradients, is_floating, leaves, map_leaves, with_leaves
from tinygpt_np.gradcheck.verdict import compare

# A tensor with more elements is measured along a few random directions.
MAX_ELEMENTS, DIRECTIONS = 2000, 4
# The time for one tensor in seconds, and the runs of forward that finite differences need for one
# element; if forward is slow, fewer elements are measured one by one.
TIME_LIMIT, RUNS_OF_DIFFERENCES = 3.0, 32
# The number of times a forward is timed, and the limit in seconds on the time this takes.
TIMINGS, TIMING_LIMIT = 5, 0.3
# The relative error that the output of a float32 kernel may have, in ulps.
TRUTH_ULPS = 64


def max_elements(run: Callable[[], Any], takes_complex: bool) -> int:
    """Return the largest number of elements of a tensor that are measured one by one.

    run: runs forward once. takes_complex: whether it can be measured by the complex step.
    """
    runs, times = 1 if takes_complex else RUNS_OF_DIFFERENCES, list[float]()
    while len(times) < TIMINGS and sum(times) < TIMING_LIMIT:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    seconds = min(times)  # Other programs delay some runs.
    return max(DIRECTIONS, min(MAX_ELEMENTS, int(TIME_LIMIT / (runs * max(seconds, 1e-9)))))


class FunctionCheck:
    """A forward, the arguments of one call, and the gradients measured there.

    The parameters are those of `check`. backward: one whose form decides how forward is called.
    doutput: the upstream gradient; by default it is random. announce: shows the progress.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        args: Arguments,
        wrt: Sequence[str] | None = None,
        *,
        backward: Callable[..., Any] | None = None,
        method: Method = "complex",
        directions: int | None = None,
        seed: int = 0,
        truth: Callable[..., Any] | None = None,
        title: str | None = None,
        doutput: Any = None,
        announce: Announce = quiet,
    ) -> None:
        check_options(method, directions, seed)
        check_callable("forward", forward)
        self.method: Method = method
        self.directions, self.seed, self.announce = directions, seed, announce
        name = getattr(forward, "__qualname__", type(forward).__qualname__)
        self.title = title or f"{forward.__module__}.{name}"
        self.call = ForwardCall(forward, args, wrt, backward)
        self.truth = truth or self.call.forward
        self.args = leaves(self.call.args)
        rng = generator(seed, "gradcheck")
        self.upstream = self.draw_upstream(rng, doutput)
        self.rngs = dict(zip(self.call.wrt, rng.spawn(len(self.call.wrt)), strict=True))
        self.measured, self.subjects = dict[str, Measurement](), dict[float, Subject]()

    def draw_upstream(self, rng: np.random.Generator, given: Any) -> dict[str, np.ndarray]:
        """Return the upstream gradient of each output, random unless it is given."""
        outputs = self.call.outputs
        if given is not None:
            drawn = leaves({"out": given})
        elif not {"upstream", "each"} & {*self.call.convention.takes}:
            # A scalar returned alone is the loss itself; d(loss)/d(loss) is 1.
            drawn = dict.fromkeys(outputs, np.ones(()))
        else:
            drawn = {name: rng.standard_normal(out.shape) for name, out in outputs.items()}
        return {name: np.asarray(drawn[name], dtype=out.dtype) for name, out in outputs.items()}

    def terms(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the terms of the loss, the outputs times their upstream gradients, in a vector.

        values: the leaves to be replaced, real or complex.
        """
        try:
            outputs = self.true_outputs(values)
        except (np.linalg.LinAlgError, ArithmeticError):  # Outside the domain of forward.
            return np.full(sum(map(np.size, self.weights.values())), np.nan)
        parts = [np.ravel(weights * outputs[name]) for name, weights in self.weights.items()]
        return np.concatenate(parts)

    def true_outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs of the forward that is differentiated, for replaced leaves."""
        # Copies, so that a random generator starts from the same state.
        args = copied(with_leaves(self.fixed, values))
        return leaves({"out": self.call.convention.outputs(self.call.call(self.truth, args))})

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The arguments in float64."""
        return map_leaves(
            lambda _, leaf: np.asarray(leaf, np.float64) if is_floating(leaf) else leaf,
            self.call.args,
        )

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The upstream gradients in float64."""
        return {name: weights.astype(np.float64) for name, weights in self.upstream.items()}

    @cached_property
    def takes_complex(self) -> bool:
        """Whether forward accepts complex numbers; slow ones are measured in fewer places."""
        if self.method != "complex":
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                self.terms({name: self.args[name] + 0j for name in self.call.wrt})
        except Exception:
            return False
        return True

    def measurements(self, names: Sequence[str]) -> list[Measurement]:
        """Return the numerical gradient of each of some leaves of the arguments."""
        unknown = {name: self.probes(name) for name in names if name not in self.measured}
        announced = announce_all(self.announce, unknown)
        for name, probes in unknown.items():
            check_values(name, np.asarray(self.args[name]))
            dtypes = [self.args[name].dtype, *(each.dtype for each in self.upstream.values())]
            subject = self.subject(max(float(np.finfo(dtype).eps) for dtype in dtypes))
            self.measured[name] = measure(
                subject, name, probes, self.method, self.rngs[name], announced[name]
            )
        found = [self.measured[name] for name in names]
        if unknown:
            found = with_groups(self.subject(max(each.eps for each in found)), found)
            self.measured.update((each.name, each) for each in found)
        return found

    def probes(self, name: str) -> Probes:
        """Return the directions in which a leaf is moved, a few random ones if it is large."""
        leaf, count = self.args[name], self.directions
        if count is None and self.method == "taylor":
            count = TAYLOR_DIRECTIONS
        elif count is None and leaf.size > self.max_elements:
            count = DIRECTIONS
        rng = self.rngs[name]
        drawn = None if count is None else rng.standard_normal((count, *leaf.shape))
        return Probes(leaf.shape, drawn)

    def subject(self, eps: float) -> Subject:
        """Return the loss as a function of the leaves with a gradient."""
        if eps not in self.subjects:
            values = {name: np.asarray(self.args[name], np.float64) for name in self.call.wrt}
            self.subjects[eps] = Subject(self.terms, values, eps)
        return self.subjects[eps]

    @cached_property
    def max_elements(self) -> int:
        """The largest number of elements of a leaf that are measured one by one."""
        step = 0j if self.takes_complex else 0.0
        values = {name: self.args[name] + step for name in self.call.wrt}
        return max_elements(lambda: self.terms(values), self.takes_complex)

    def report(self, backward: Callable[..., Any], title: str | None = None) -> Report:
        """Run a backward and compare its gradients with the numerical ones."""
        return self.report_of(self.run(backward), title)

    def run(self, backward: Callable[..., Any]) -> BackwardRun:
        """Return the gradients of a backward, and the rules that it breaks."""
        return BackwardRun(self.call, backward, self.upstream)

    def report_of(self, run: BackwardRun, title: str | None = None) -> Report:
        """Return the report of a run, perhaps from a check of the same call by another method."""
        every: list[Any] = [*self.args.values(), *self.upstream.values()]
        shapes = [np.shape(cast(Any, each)) for each in every if isinstance(each, np.ndarray)]
        sizes = [size for shape in shapes for size in (*shape, math.prod(shape))]
        wrong, rows = self.truth_differs(), list[Row]()
        for measurement in self.measurements(run.names):
            row = self.row(measurement, run.gradients, sizes, run.rounding)
            problems = [*row.problems, *run.problems.get(measurement.name, [])]
            for layout, found in run.in_layouts.items() if not problems else ():
                row_of = partial(self.row, measurement, rounding=run.rounding)
                other = [found] if isinstance(found, str) else row_of(found).problems
                problems += [f"with {layout} inputs: {problem}" for problem in other]
            if not problems and measurement.name in run.in_broadcast:
                problem = run.in_broadcast[measurement.name]
                problems.append(f"with broadcast (stride 0) inputs: {problem}")
            rows.append(replace(row, problems=tuple(problems)))
        if wrong:
            rows[0] = replace(rows[0], problems=(wrong, *rows[0].problems))
        return Report(title or self.title, tuple(rows), self.seed, tuple(self.notes(rows)))

    def row(
        self, measurement: Measurement, found: Gradients, sizes: Sequence[int] = (),
        rounding: Rounding | None = None,
    ) -> Row:  # fmt: skip
        """Compare one of the gradients found with its measurement."""
        return compare(measurement, found, self.args[measurement.name].dtype, sizes, rounding)

    def truth_differs(self) -> str:
        """Return how forward differs from the function that was given as its truth, or ""."""
        if self.truth is self.call.forward:
            return ""
        rng = generator(self.seed, "gradcheck")

        def moved(name: str) -> np.ndarray:
            value = np.asarray(self.args[name])
            ulps = np.finfo(value.dtype).eps * rng.choice([-1.0, 1.0], value.shape)
            return value * (1 + ulps)

        right = self.true_outputs({})
        near = self.true_outputs({name: moved(name) for name in self.call.wrt})
        for name, out in self.call.outputs.items():
            shape = np.shape(cast(Any, right.get(name)))
            if shape != out.shape:
                raise CheckError(f"truth must return {name} in the shape {out.shape}, not {shape}")
            norm, error, move = (
                float(np.linalg.norm(np.ravel(each)))
                for each in (right[name], out - right[name], near[name] - right[name])
            )
            # The output may differ by its own rounding, and by that of the inputs.
            if not error <= TRUTH_ULPS * (np.finfo(out.dtype).eps * norm + move):
                size = error / (norm or 1)
                return f"{name} differs from that of truth: off by {size:.2g} of its norm"
        return ""

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """Yield what a reader should know about how the gradients were measured."""
        if self.method == "complex" and any(row.oracle == "Richardson" for row in rows):
            yield "forward is not complex-safe, so Richardson extrapolation was used"
        large = [row.name for row in rows if not row.by_element]
        if large and self.directions is None and self.method != "taylor":
            yield (
                f"too large or too slow to check every element: {', '.join(large)}; checked along "
                f"{DIRECTIONS} directions"
            )
        if skipped := sum(row.skipped for row in rows):
            yield (
                f"at a kink of forward: {skipped}, where the derivatives from both sides, their "
                "mean and 0 between them are right"
            )
        if constants := [name for name in self.call.wrt if name not in [row.name for row in rows]]:
            yield (
                f"backward returns no gradient of {', '.join(constants)}: taken as constant; name "
                "it in wrt to demand one"
            )
        unchecked = [
            f"{name} ({kind_of(arg)})"
            for name, arg in self.args.items()
            if not self.call.are_chosen
            if isinstance(arg, float | complex)
            if name not in (*self.call.wrt, *self.call.held)
        ]
        if unchecked:
            yield f"not checked, because not an array of floats: {', '.join(unchecked)}"
        if zeros := [row.name for row in rows if row.verdict == "zero"]:
            yield f"zero up to rounding: {', '.join(zeros)}"
