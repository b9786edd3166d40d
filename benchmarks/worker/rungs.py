"""The rungs of a ladder in a worker process, which are checked by the gate and then timed.

A process holds a case, with its inputs and the results expected for them. For each rung it is
forked, and the fork opens that rung; so a rung that crashes or hangs ends only itself. Each peer
has its own process. `source` is the module whose ``rungs(operation)`` returns the rungs.
"""

import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from numba.core import event

from benchmarks import cases
from benchmarks.cases import KernelCase
from benchmarks.ladders import Rung, Runner
from benchmarks.mine import loading
from benchmarks.mine.source import Kernel
from benchmarks.worker import counters, sampling
from benchmarks.worker.clock import Eviction, Timed
from benchmarks.worker.gate import Gate, refusal
from benchmarks.worker.problem import problems_of
from tinygpt_np.compiled.threads import limited

# The CPU time for which a step is sampled.
SAMPLED_SECONDS = 0.2

events: Any = cast(Any, event)
Step = Callable[[], Any]
pool = functools.cache(ThreadPoolExecutor)  # by the number of threads


class CompileTime(events.Listener):
    """Seconds of compilation by module, with functions called; loading from disk does not count."""

    def __init__(self) -> None:
        self.depth, self.began = 0, 0.0
        self.by_module: dict[str, float] = defaultdict(float)
        events.register("numba:compile", self)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return sum(self.by_module.values())

    def on_start(self, event: Any) -> None:
        """Start the clock at the outermost compilation."""
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        """Stop the clock at the end of the outermost compilation."""
        self.depth -= 1
        if self.depth == 0:
            self.by_module[module_of(event.data["dispatcher"])] += time.perf_counter() - self.began


def module_of(compiled: Any) -> str:
    """Return the module of a compiled function: one of `njit`, or an intrinsic."""
    function = getattr(compiled, "py_func", None) or compiled._defn
    return function.__module__


class Rungs:
    """The rungs of one source. All processes of a run use the same seed for their inputs.

    cache: "hot" to time steps with warm caches, "cold" to empty these before each.
    """

    def __init__(self, source: str, seed: int, options: dict[str, Any], cache: str = "hot") -> None:
        self.source: Any = importlib.import_module(source)
        if hasattr(self.source, "set_up"):
            self.source.set_up(**options)
        self.seed = seed
        self.eviction = Eviction.of(cache)
        self.clock = CompileTime()
        self.limit = ExitStack()
        self.compiled: dict[tuple[str, str, str], float] = {}
        self.claimed: dict[str, float] = {}
        self.mine: dict[str, Kernel] = {}

    def about(self) -> dict[str, Any]:
        """Return the versions of what runs here."""
        return self.source.about()

    def begin(self, operation: str, direction: str, shape: str) -> dict[str, Any]:
        """Replace the current case; return its sizes and cost, and the rungs for it."""
        self.case: KernelCase = cases.case(operation, direction, shape)
        rungs: list[Rung] = self.source.rungs(operation)
        self.rungs = {rung.name: rung for rung in rungs if direction in rung.runners}
        self.problems = problems_of(self.case, self.seed)
        working_set = self.problems[0].nbytes
        about = {"sizes": self.case.sizes, "flops": self.case.flops, "bytes": self.case.bytes}
        offered = [
            {"rung": rung.name, "idea": rung.idea, "threads": rung.threads,
             "reference": rung.reference, "trained": rung.trained,
             "able": self.case.flops <= rung.max_flops}
            for rung in self.rungs.values()
        ]  # fmt: skip
        return {"case": {**about, "working_set": working_set}, "rungs": offered}

    def bring(self, **kernel: Any) -> None:
        """Note a kernel of the user for the case; the fork that opens it loads its file."""
        self.mine[kernel["name"]] = Kernel.of(kernel)

    def open(self, name: str, threads: int) -> dict[str, Any]:
        """Check a rung at the gate, and say how long that took, or why it is "wrong".

        compile_seconds: None if nothing is compiled, 0 if all was loaded from disk. first_seconds:
        the first step without compiling.
        """
        self.limit.enter_context(limited(threads))
        if name in self.mine:
            self.rungs[name] = loading.load(self.mine[name])
        rung = self.rungs[name]
        runner = rung.runners[self.case.direction]
        self.gate = Gate(runner, self.problems, threads, pool(threads), self.without_compiling)
        try:
            first = self.gate.open()
        except Exception as error:
            return refusal(error)
        trial = self.gate.trial
        evict = self.eviction and self.eviction.step(threads, pool(threads))
        library = rung.threads == "any" and threads > 1
        self.timed = Timed(trial.step, trial.restore, threads, library, evict)
        return {
            "wrong": None,
            "compile_seconds": self.compile_seconds(name, runner) if runner.compiled else None,
            "first_seconds": first,
        }

    def without_compiling(self) -> float:
        """Return the seconds of a clock that stops while kernels are compiled."""
        return time.perf_counter() - self.clock.seconds

    def compile_seconds(self, name: str, runner: Runner) -> float:
        """Return the compile time of a rung when it was first opened, which includes imports."""
        modules = {module_of(function) for function in runner.compiled}
        spent = sum(
            self.clock.by_module.get(each, 0.0) - self.claimed.get(each, 0.0) for each in modules
        )
        return self.compiled.get((self.case.operation, self.case.direction, name), spent)

    def claim(self, name: str, seconds: float) -> None:
        """Note the compile time of a rung that a fork opened, for the forks of later cases.

        What its modules compiled here, on import, is part of it.
        """
        self.compiled.setdefault((self.case.operation, self.case.direction, name), seconds)
        for function in self.rungs[name].runners[self.case.direction].compiled:
            module = module_of(function)
            self.claimed[module] = self.clock.by_module.get(module, 0.0)

    def turn(self) -> dict[str, Any]:
        """Take a turn; see clock.py."""
        with self.gate.turn():
            found = self.timed.turn()
        self.timed.rest()  # After the steps that the gate takes.
        return found

    def count(self) -> dict[str, Any]:
        """Return the "counters" of a step, or why there are none; see counters.py."""
        timed, samples = self.timed, len(self.turn()["seconds"])  # The turn also warms up.
        try:
            return {
                "counters": counters.per_step(
                    timed.step, timed.arguments, samples, timed.repeat, counters.HARDWARE
                )
            }
        except counters.CountersError as error:
            return {"reason": str(error)}

    def close(self) -> dict[str, Any]:
        """Check the rung after its last turn; return what is "wrong", or its "layouts"."""
        try:
            return {"wrong": None, "layouts": self.gate.close()}
        except Exception as error:
            return refusal(error)

    def asm(self, name: str) -> dict[str, Any]:
        """Return what is known of the machine code of a rung; see asm.py."""
        from benchmarks.worker import asm

        if name in self.mine and self.mine[name].function.types:  # It is in C.
            kernel = self.mine[name]
            return asm.loop_of_library(Path(kernel.path), kernel.function.name, self.sample())
        compiled = self.rungs[name].runners[self.case.direction].compiled
        return asm.of_numba(compiled).fields(self.sample() if compiled else [])

    def sample(self) -> list[int]:
        """Return addresses at which the step was found, in a further turn, if that is possible."""
        self.turn()  # It warms up.
        timed = self.timed
        try:
            return sampling.addresses(timed.step, timed.arguments, timed.repeat, SAMPLED_SECONDS)
        except counters.CountersError:
            return []
