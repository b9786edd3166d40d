"""Where kernels are opened and take their turns: the inside of a worker of the kernel benchmark.

One process holds all rungs of a ladder, so that they differ in nothing but themselves; each peer
has a process of its own. `source` is the module whose rungs(operation) gives them.
"""

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks import tasks
from benchmarks.compiles import Compiles, module_of
from benchmarks.gate import TRIALS, Trial, Wrong
from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import Task
from tinygpt_np.compiled.threads import limited

# A sample repeats a step until it has taken this long, for what a step of microseconds takes is
# lost beside the reading of a clock; a turn goes on for so long, in seconds, or so many samples.
SAMPLE_SECONDS, TURN_SECONDS, SAMPLES = 2e-4, 5e-3, 12
# Before a turn on several threads they run for so long, untimed: a thread that slept is woken on
# the CPU of whoever woke it, and Linux takes a while to move it to one that is free.
SPREADING = 0.03
# A step of so many seconds brings all it needs into the caches itself.
LONG = 0.05
# Seconds between two looks at whether threads sleep, how many looks, and how many that find it.
PAUSE, LOOKS, QUIET = 4e-3, 100, 2


@dataclass
class Entrant:
    """Somebody whose turn may come. seconds: of a step. foreign: whether its threads are those of a
    library.
    """

    step: Callable[[], Any]
    restore: Callable[[], None]
    threads: int
    seconds: float
    foreign: bool

    @property
    def repeat(self) -> int:
        """Steps of a sample."""
        return max(1, round(SAMPLE_SECONDS / max(self.seconds, 1e-7)))


class Tried(NamedTuple):
    """A step that was taken once. seconds: of that, without compiling."""

    step: Callable[[], Any]
    call: Call
    seconds: float


class Bench:
    """Answers the conductor, kernels.py. seed: of the inputs; the same for all processes."""

    def __init__(self, source: str, seed: int, options: dict[str, Any]) -> None:
        self.source: Any = importlib.import_module(source)
        if hasattr(self.source, "set_up"):
            self.source.set_up(**options)
        self.seed = seed
        self.pools: dict[int, ThreadPoolExecutor] = {}
        self.entrants: dict[int, Entrant] = {}
        self.compiles = Compiles()
        self.threads, self.limit = 0, ExitStack()
        self.compiled: dict[tuple[str, str, str], float] = {}
        self.claimed: dict[str, float] = {}

    def about(self) -> dict[str, Any]:
        """Versions of what runs here."""
        return self.source.about() if hasattr(self.source, "about") else {}

    def begin(self, operation: str, direction: str, shape: str) -> dict[str, Any]:
        """Forgets the task before. Gives what the next is, and the rungs that can do it."""
        self.entrants.clear()
        self.task: Task = tasks.task(operation, direction, shape)
        self.rungs: list[Rung] = [
            rung for rung in self.source.rungs(operation) if direction in rung.ways
        ]
        self.trials = [Trial(self.task, self.seed, number) for number in range(TRIALS)]
        call = self.trials[0].call(1, self.pool(1))
        about = {"sizes": self.task.sizes, "flops": self.task.flops, "bytes": self.task.bytes}
        about["working_set"] = sum(array.nbytes for array in call.arrays.values())
        rungs = [
            {"rung": rung.name, "idea": rung.idea, "threads": rung.threads,
             "reference": rung.reference, "able": self.task.flops <= rung.most}
            for rung in self.rungs
        ]  # fmt: skip
        return {"task": about, "rungs": rungs}

    def open(self, name: str, threads: int) -> dict[str, Any]:
        """Lets a rung through the gate; "key" is what its turns are asked for by.

        Without a key, "wrong" says why. compile_seconds: of this rung's first opening here; None if
        nothing is compiled, 0 if it was kept on disk. first_seconds: of its first step, without
        compiling.
        """
        (rung,) = (rung for rung in self.rungs if rung.name == name)
        way = rung.ways[self.task.direction]
        self.set_threads(threads)
        tried: list[Tried] = []
        try:
            tried.extend(self.attempt(way, trial, threads) for trial in self.trials)
            # A step must do its work each time, or the clock would run for nothing.
            if not way.goes_on:
                self.take(way, self.trials[-1], tried[-1].call, tried[-1].step)
        except Wrong as wrong:
            return {"wrong": str(wrong)}
        except Exception as error:
            return {"wrong": f"{type(error).__name__}: {error}"}
        first, last = tried[0], tried[-1]
        compiling = self.compiling(rung, way)
        foreign = rung.threads == "any" and threads > 1
        entrant = Entrant(last.step, self.restorer(last.call), threads, last.seconds, foreign)
        return {
            "wrong": None,
            "key": self.add(entrant),
            "compile_seconds": compiling if way.compiled else None,
            "first_seconds": first.seconds,
            "step_seconds": last.seconds,
        }

    def compiling(self, rung: Rung, way: Way) -> float:
        """What compiling a rung took, the first time it was opened here.

        That of a module which nobody bore before: some kernels are compiled when their file is
        imported, and the first rung that is written there bears them.
        """
        key = (self.task.operation, self.task.direction, rung.name)
        if key not in self.compiled:
            modules = {module_of(function) for function in way.compiled}
            spent = {each: self.compiles.by_module.get(each, 0.0) for each in modules}
            self.compiled[key] = sum(spent[each] - self.claimed.get(each, 0.0) for each in modules)
            self.claimed |= spent
        return self.compiled[key]

    def attempt(self, way: Way, trial: Trial, threads: int) -> Tried:
        """Prepares a step and takes it once. Raises Wrong."""
        call = trial.call(threads, self.pool(threads))
        step = way.prepare(call)
        return Tried(step, call, self.take(way, trial, call, step))

    def take(self, way: Way, trial: Trial, call: Call, step: Callable[[], Any]) -> float:
        """The seconds of a step, without compiling. Raises Wrong unless it does what it should."""
        trial.poison(call)
        before = self.compiles.seconds
        began = time.perf_counter()
        returned = step()
        seconds = time.perf_counter() - began
        if way.collect is not None:
            way.collect(call, returned)
        trial.check(call)
        return seconds - (self.compiles.seconds - before)

    def restorer(self, call: Call) -> Callable[[], None]:
        """Puts the inputs that a kernel changes back to what they were.

        Of a sample, that is: short steps go on from what the one before them left.
        """
        pairs = [
            (call.inputs[name], self.trials[-1].inputs[name]) for name in self.task.how.changed
        ]

        def restore() -> None:
            for array, values in pairs:
                array[...] = values

        return restore

    def open_limit(self, name: str, threads: int, size: int) -> dict[str, Any]:
        """A limit of the machine as an entrant. "amount": FLOPs or bytes of a step."""
        # Not imported above: it brings kernels, whose compiling is to be counted.
        from benchmarks import limits

        step, amount = limits.make(name, threads, size, self.pool(threads))
        step()  # Compiles.
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        foreign = name == "BLAS" and threads > 1
        entrant = Entrant(step, lambda: None, threads, seconds, foreign)
        return {"key": self.add(entrant), "amount": amount, "step_seconds": seconds}

    def turn(self, key: int) -> list[float]:
        """The seconds of a step, in each sample of a turn."""
        entrant = self.entrants[key]
        seconds: list[float] = []
        spent = 0.0
        self.set_threads(entrant.threads)
        warm_up(entrant)
        while spent < TURN_SECONDS and len(seconds) < SAMPLES:
            entrant.restore()
            began = time.perf_counter()
            for _ in range(entrant.repeat):
                entrant.step()
            took = time.perf_counter() - began
            spent += took
            seconds.append(took / entrant.repeat)
        if entrant.foreign:
            settle()
        return seconds

    def set_threads(self, threads: int) -> None:
        """Those of BLAS and of Numba, if they are others: to find them takes a millisecond."""
        if threads != self.threads:
            self.limit.close()
            self.limit.enter_context(limited(threads))
            self.threads = threads

    def packed(self, name: str) -> float | None:
        """The share of packed vector instructions among a rung's arithmetic; see asm.py."""
        from benchmarks import asm

        (rung,) = (rung for rung in self.rungs if rung.name == name)
        return asm.packed_share(rung.ways[self.task.direction].compiled)

    def pool(self, threads: int) -> ThreadPoolExecutor:
        if threads not in self.pools:
            self.pools[threads] = ThreadPoolExecutor(threads)
        return self.pools[threads]

    def add(self, entrant: Entrant) -> int:
        key = len(self.entrants)
        self.entrants[key] = entrant
        return key


def warm_up(entrant: Entrant) -> None:
    """Takes a step, unless it is a long one; on several threads, until these have spread."""
    began = time.perf_counter()
    if entrant.seconds < LONG:
        entrant.step()
    while entrant.threads > 1 and time.perf_counter() - began < SPREADING:
        entrant.step()


def settle() -> None:
    """Waits for this process's threads to sleep.

    Those of BLAS and of OpenMP go on looking for work for up to 50 ms, on the CPU of whoever is
    next.
    """
    quiet = 0
    for _ in range(LOOKS):
        before = time.process_time()
        time.sleep(PAUSE)
        quiet = quiet + 1 if time.process_time() - before < PAUSE / 8 else 0
        if quiet == QUIET:
            return
