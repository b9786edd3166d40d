"""The gate: a kernel is timed only if it computes what it should, and counts only if it still does.

A runner prepares its step for arrays that hold garbage. Before it is timed, the step gets several
problems in the same arrays, the last of which differ in a few elements only, and one of them twice.
Before each turn the arrays get another problem, before each sample a few other values, and after a
turn one more step is checked. After the last turn the step gets a problem without and once more
with poisoned outputs, its time may not depend on whether it has seen its inputs, and steps that are
prepared for other layouts get a problem. In the turns it may not use more CPUs than it has threads.

Poisoned outputs are filled with NaN, so that an element that is not written is noticed. As soon as
a step has returned, some elements of its results are copied: whatever is written later shows there.
The memory around all arrays must not change. What else must be right is in problem.py.
"""

import functools
import random
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numba.core.errors import NumbaError

from benchmarks.ladders import Call, Runner
from benchmarks.worker.memory import MISALIGNED, STRIDED, TRAINING, Guarded, Layout
from benchmarks.worker.problem import Problem, WrongResult, bits, check_finite

# About this many elements are copied when a step has returned, AT_ONCE at a time: NumPy copies
# these without letting another thread run Python code.
LOOKED, AT_ONCE = 4096, 500
# Elements of each input that vary from sample to sample.
VARIED = 5
# By how much a process may use more CPUs than it has threads to work.
SPARE_CPUS = 0.1
# A turn ends with another step that is checked; if it takes longer than this, in some turns only.
AFTER_SECONDS = 0.05
# Steps that take less than SHORT are compared with as many that repeat their inputs. Their median
# counts as faster if all others take longer than FASTER times that.
SHORT, PAIRS, FASTER = 1e-3, 15, 1.5
# The ways to refuse a layout.
REFUSALS = (TypeError, ValueError, AssertionError, BufferError, NumbaError)

# An input, flat, the index of an element that varies, its value in the problem, and another.
Varied = tuple[np.ndarray, int, float, float]


class Trial:
    """A step of a runner with its arrays in some layout.

    clock: tells the seconds of a step, for example without those of compiling.
    """

    def __init__(
        self, runner: Runner, problem: Problem, threads: int, pool: ThreadPoolExecutor,
        clock: Callable[[], float] = time.perf_counter, layout: Layout = TRAINING,
    ) -> None:  # fmt: skip
        self.runner, self.case, self.clock = runner, problem.case, clock
        inputs = {
            name: Guarded(array.shape, array.dtype, layout)
            for name, array in problem.inputs.items()
        }
        outputs = {
            name: Guarded(shape, np.dtype(np.float32), layout)
            for name, shape in self.case.output_shapes.items()
        }
        self.memory = {**inputs, **outputs}
        given, wanted = (
            {name: each.array for name, each in part.items()} for part in (inputs, outputs)
        )
        self.call = Call(self.case.sizes, given, wanted, threads, pool, self.case.flops)
        self.varied: list[Varied] = []
        self.random = random.Random()
        self.step = runner.prepare(self.call)

    def give(self, problem: Problem, poison: bool = True) -> None:
        """Write the inputs of a problem, have the runner save what it may, and poison outputs."""
        self.problem, self.varied = problem, []
        if self.call.saves:
            for name in problem.inputs:
                self.memory[name].spoil()
            for name in self.case.how.known:
                self.call.inputs[name][...] = problem.inputs[name]
            for save in self.call.saves:
                save()
        for name, array in problem.inputs.items():
            self.call.inputs[name][...] = array
        if poison:
            for name in self.call.outputs:
                self.memory[name].spoil()

    def restore(self, draw: bool = True) -> tuple[()]:
        """Restore what the kernel overwrites and vary some elements; return the arguments: none.

        So a kernel that keeps its results has none for the inputs of a sample. draw: whether others
        vary than before. They are drawn in any case, because steps with vectors of 512 bits take up
        to twice as long after a pause in which a processor has powered its wide units down.
        """
        kept = self.varied
        self.settle()
        drawn = self.draw()
        self.varied = drawn if draw else kept
        for array, index, _, value in self.varied:
            array[index] = value
        return ()

    def settle(self) -> None:
        """Write the values of the problem where they have changed."""
        for array, index, value, _ in self.varied:
            array[index] = value
        for name in self.case.how.changed:
            self.call.inputs[name][...] = self.problem.inputs[name]
        self.varied = []

    def draw(self) -> list[Varied]:
        """Draw elements of each input, with other values; what is saved must remain true."""
        found: list[Varied] = []
        for name, array in self.call.inputs.items():
            if name not in self.case.how.known:
                flat = array.reshape(-1)
                for index in {self.random.randrange(flat.size) for _ in range(VARIED)}:
                    other = flat[index] + self.random.uniform(1, 2)
                    found.append((flat, index, flat[index], other))
        return found

    def take(self) -> float:
        """Take a step, check it, and return its seconds. Raises WrongResult."""
        arrays = self.call.arrays
        look = Look({name: arrays[name] for name in self.problem.accepted})
        began = self.clock()
        returned = self.step()
        look.take()
        seconds = self.clock() - began
        if self.runner.collect is None:
            try:
                self.check()
            finally:  # Late writes explain all else.
                look.check()
        else:
            self.runner.collect(self.call, returned)
            self.check()
        self.seconds = seconds
        return seconds

    def take_after_turn(self) -> None:
        """Check that outputs were written, and one more step, if it is long after some turns only.

        To the kernel it is one like those before. Raises WrongResult.
        """
        if self.runner.collect is None:
            for name, array in self.call.outputs.items():
                check_finite(name, array)
        self.settle()
        if self.random.random() * self.seconds < AFTER_SECONDS:
            self.take()

    def check_repeated(self) -> None:
        """Raise WrongResult if a short step is faster for the inputs of the step before.

        Samples of short steps repeat them, so that a kernel may keep the result of the first.
        """
        fresh: list[float] = []
        again: list[float] = []
        # Steps on several threads take longer after a pause, because these fall asleep.
        paired = self.seconds < SHORT and self.call.threads == 1
        for _ in range(PAIRS if paired else 0):
            for draw, seconds in ((True, fresh), (False, again)):
                self.restore(draw)
                began = self.clock()
                self.step()
                seconds.append(self.clock() - began)
        if fresh and min(fresh) > FASTER * statistics.median(again):
            raise WrongResult(
                f"it keeps results: {statistics.median(again) * 1e6:.3g} µs for the inputs of the "
                f"step before, at least {min(fresh) * 1e6:.3g} µs if one element differs"
            )

    def check(self) -> None:
        """Raise WrongResult unless the arrays and the memory around them are as they should be."""
        for name, each in self.memory.items():
            if damage := each.damage(name):
                raise WrongResult(damage)
        self.problem.check(self.call.arrays)


class Look:
    """A copy of some elements of arrays, all if there are few, which is taken fast."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.pieces: list[tuple[np.ndarray, np.ndarray]] = []
        self.places: list[tuple[str, tuple[int, ...], range]] = []
        for name, array in arrays.items():
            if array.flags.c_contiguous:
                # Odd, so that the columns of rows take turns.
                step = (array.size * len(arrays) - 1) // LOOKED | 1
                for first in range(0, array.size, step * AT_ONCE):
                    place = range(first, min(first + step * AT_ONCE, array.size), step)
                    source = array.reshape(-1)[place.start : place.stop : step]
                    self.pieces.append((np.empty_like(source), source))
                    self.places.append((name, array.shape, place))

    def take(self) -> None:
        """Copy the elements."""
        for kept, source in self.pieces:
            kept[...] = source

    def check(self) -> None:
        """Raise WrongResult if an element differs from what was copied."""
        for (kept, source), (name, shape, place) in zip(self.pieces, self.places, strict=True):
            later: list[int] = (bits(kept) != bits(source)).nonzero()[0].tolist()
            if later:
                first = later[0]
                index = [*map(int, np.unravel_index(place[first], shape))]
                raise WrongResult(
                    f"{name}{index} was {kept[first]:.6g} when the step returned and became "
                    f"{source[first]:.6g} later, like {len(later)} of {kept.size} elements"
                )


class Gate:
    """The trials of a runner: before it is timed, in each turn, and afterwards."""

    def __init__(
        self, runner: Runner, problems: Sequence[Problem], threads: int, pool: ThreadPoolExecutor,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.problems, self.threads, self.wrong = problems, threads, ""
        self.turns, self.cpus = 0, list[float]()
        self.make = functools.partial(Trial, runner, problems[0], threads, pool, clock)

    def open(self) -> float:
        """Take the steps before the clock, and return the seconds of the first one.

        Raises WrongResult.
        """
        self.trial = self.make()
        seconds: list[float] = []
        for problem in (*self.problems, self.problems[-1]):
            self.trial.give(problem)
            seconds.append(self.trial.take())
        return seconds[0]

    @property
    def next(self) -> Problem:
        """The problem of the next turn."""
        return self.problems[self.turns % len(self.problems)]

    @contextmanager
    def turn(self) -> Generator[None]:
        """Give the step another problem, and check afterwards what it did; see `close`."""
        self.trial.give(self.next)
        self.turns += 1
        began, used = time.perf_counter(), time.process_time()
        yield
        self.cpus.append((time.process_time() - used) / (time.perf_counter() - began))
        try:
            self.trial.take_after_turn()
        except WrongResult as error:
            self.wrong = self.wrong or f"in turn {self.turns}: {error}"

    def close(self) -> str:
        """Take the steps after the last turn, and return which layouts the runner takes.

        Raises WrongResult.
        """
        if self.wrong:
            raise WrongResult(self.wrong)
        if self.cpus and (cpus := statistics.median(self.cpus)) > self.threads + SPARE_CPUS:
            raise WrongResult(f"it used {cpus:.1f} CPUs, and was asked to use {self.threads}")
        for poison in (False, True):
            self.trial.give(self.next, poison)
            self.trial.take()
        self.trial.check_repeated()
        needs = [layout.needs for layout in (MISALIGNED, STRIDED) if not self.takes(layout)]
        return f"{' and '.join(needs)} only" if needs else "any"

    def takes(self, layout: Layout) -> bool:
        """Return whether the runner takes arrays of a layout. Raises WrongResult."""
        try:
            trial = self.make(layout=layout)
            trial.give(self.problems[0])
            trial.take()
        except REFUSALS:
            return False
        except WrongResult as error:
            raise WrongResult(f"with arrays that are not {layout.needs}: {error}") from None
        return True


def refusal(error: Exception) -> dict[str, str]:
    """Return why a runner is "wrong", and the traceback unless the gate has refused it."""
    if isinstance(error, WrongResult):
        return {"wrong": str(error)}
    text = "".join(traceback.format_exception(error))
    return {"wrong": f"{type(error).__name__}: {error}", "traceback": text}
