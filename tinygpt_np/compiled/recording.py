"""Calls of kernels, recorded so that one call from Python makes them all without the GIL.

Many kernels of a training step take some ten microseconds. Python takes several to call each, and
with more threads each call waits for the GIL. The arguments are the same arrays in every step, so
the calls are recorded once and then played.

A recorded call is three addresses: of an entry, of a kernel's machine code and of the arguments.
Numba passes arrays and tuples member by member, so arguments are a row of numbers of 64 bits. An
entry loads them and calls the kernel; kernels with the same kinds of numbers share one.
"""

import functools
import struct
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types
from numba.core import compiler_lock

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.barrier import count_arrival, read_counter
from tinygpt_np.compiled.simd.linking import POINTER
from tinygpt_np.compiled.simd.vectors import INT, Emitter, intrinsic
from tinygpt_np.compiled.threads import STOPPED, ParallelRegion, ThreadTeam, threads_for

# They have no types to offer.
llvm: Any = binding
locked: Any = cast(Any, compiler_lock).global_compiler_lock

# Kinds of arguments: integers and addresses, float64, float32, and bool.
KINDS = {"i": INT, "d": ir.DoubleType(), "f": ir.FloatType(), "b": ir.IntType(8)}
STATUS = ir.IntType(32)


def members(value: Any) -> list[tuple[str, int]]:
    """Return kinds and bits of the numbers that Numba passes for an argument of a kernel."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        # No owner and no parent: a recording keeps the array.
        found = 0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides
        return [("i", number) for number in found]
    if isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)
        return [member for part in parts for member in members(part)]
    if isinstance(value, bool):
        return [("b", int(value))]
    if type(value) is np.float32:
        return [("f", struct.unpack("=I", struct.pack("=f", value))[0])]
    if isinstance(value, float):
        return [("d", struct.unpack("=q", struct.pack("=d", value))[0])]
    if isinstance(value, int):
        return [("i", value)]
    raise TypeError(f"a kernel with an argument of {type(value).__name__} cannot be recorded")


@functools.cache
def compiler() -> Any:
    """Return a compiler that keeps its machine code in memory."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True, opt=0)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


@locked  # Before the look whether there is one, so that no other thread makes a second.
@functools.cache
def entry(kinds: str) -> int:
    """Compile what calls a kernel with arguments of these kinds; return its address.

    It takes two addresses, of the kernel's machine code and of the arguments, and returns Numba's
    status: 0, or another number if an exception was raised.
    """
    module: Any = ir.Module()
    name = f"entry_{kinds}"
    function: Any = ir.Function(module, ir.FunctionType(STATUS, [INT, INT]), name)
    emit = Emitter(ir.IRBuilder(function.append_basic_block()))
    code, arguments = function.args
    loaded = [
        emit.load(emit.at(arguments, more=8 * number), KINDS[kind])
        for number, kind in enumerate(kinds)
    ]
    unused = [emit.builder.alloca(POINTER) for _ in range(2)]  # For a result and an exception.
    places = [emit.builder.bitcast(place, POINTER) for place in unused]
    emit.builder.ret(call_address(emit.builder, code, [*places, *loaded]))
    compiler().add_module(llvm.parse_assembly(str(module)))
    return compiler().get_function_address(name)


def call_address(builder: Any, address: Any, arguments: list[Any]) -> Any:
    """Emit a call of a function by its address; return the status that it returns."""
    kind = ir.FunctionType(STATUS, [each.type for each in arguments])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic(types.int32, types.int64, types.int64, types.int64)
def call_entry(emit: Emitter, entry: Any, code: Any, arguments: Any) -> Any:
    """Call an entry by its address; return the status of its kernel."""
    return call_address(emit.builder, entry, [code, arguments])


@strict
def play(calls: Any, first: Any, end: Any, counter: Any) -> Any:
    """Make the calls (M, 3) of these numbers, unless the region of this counter is stopped.

    Return the number of a call that failed, or `end`.
    """
    for number in range(first, end):
        if read_counter(counter) >= STOPPED:
            break
        if call_entry(calls[number, 0], calls[number, 1], calls[number, 2]) != 0:
            return number
    return end


@strict
def share(calls: Any, taken: Any) -> Any:
    """Make those calls (M, 3) that no other thread makes; `taken` counts, at an address.

    Return the number of a call that failed, or M.
    """
    number = count_arrival(taken)
    while number < calls.shape[0]:
        if call_entry(calls[number, 0], calls[number, 1], calls[number, 2]) != 0:
            return number
        number = count_arrival(taken)
    return calls.shape[0]


@functools.cache
def address_of(dispatcher: Any, signature: tuple[Any, ...]) -> int:
    """Return the address of a kernel's machine code, which is compiled if necessary."""
    if signature not in dispatcher.overloads:
        dispatcher.compile(signature)
    found = dispatcher.overloads[signature]
    return found.library.get_pointer_to_function(found.fndesc.llvm_func_name)


class Recording:
    """Calls of kernels with the arrays they use, and marks in between.

    results: what the calls write, if it has no other place.
    """

    def __init__(self, recorder: "Recorder", results: Any = None) -> None:
        self.calls = np.array(recorder.calls, np.int64).reshape(-1, 3)
        self.marks, self.kept, self.results = recorder.marks, recorder.kept, results
        self.made = recorder.made

    def play(self, region: ParallelRegion, happen: Callable[[str], object] | None = None) -> None:
        """Make all calls in their order; call happen(name) at marks.

        Raises what the region's check or a kernel raises.
        """
        first, counter = 0, region.counter.ctypes.data
        if happen:
            for end, name in self.marks:
                self.check(play(self.calls, first, end, counter), end)
                region.check()
                happen(name)
                first = end
        end = len(self.calls)
        self.check(play(self.calls, first, end, counter), end)
        region.check()

    def shared(self) -> Callable[[], None]:
        """Return what several threads call to make all calls together, in any order."""
        taken, count = np.zeros(1, np.int64), len(self.calls)
        return lambda: self.check(share(self.calls, taken.ctypes.data), count)

    def share(self, team: ThreadTeam, flops: float) -> None:
        """Make all calls, in any order, by the threads of a team, or by one if that is not long.

        flops: about how many all of them take.
        """
        job, threads = self.shared(), min(threads_for(flops, team.size), len(self.calls))
        team.run(lambda _: job(), ParallelRegion(max(threads, 1)))

    def check(self, number: int, end: int) -> None:
        """Raise what the kernel of a call raised, unless it is the number after the last one."""
        if number != end:
            kernel, args = self.made[number]
            kernel(*args)  # Once more by Python, which raises its error.
            raise RuntimeError(f"{kernel.__name__} has failed, and did not when called again")


class Recorder:
    """Records calls of kernels instead of making them, in the place of a ThreadTeam of one."""

    size = 1

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.marks: list[tuple[int, str]] = []
        self.kept: list[Any] = []
        self.made: list[tuple[Any, tuple[Any, ...]]] = []

    def call(self, kernel: Any, *args: Any) -> None:
        """Record a call of a kernel that returns nothing."""
        found = [member for each in args for member in members(each)]
        signature = tuple(kernel.typeof_pyval(each) for each in args)
        numbers = np.array([bits for _, bits in found], np.int64)
        own = entry("".join(kind for kind, _ in found))
        self.calls.append((own, address_of(kernel, signature), numbers.ctypes.data))
        self.kept.append(numbers)
        self.made.append((kernel, args))

    def mark(self, name: str) -> None:
        """Mark the place between the calls recorded so far and those to come."""
        self.marks.append((len(self.calls), name))

    def split(self, total: int, unit: int, job: Callable[[slice], object], flops: float) -> None:
        """Record a job as a whole."""
        job(slice(0, total))


class Recordings:
    """Recordings by what they are of. They keep their arrays, so there are at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: dict[tuple[Any, ...], Recording] = {}

    def get(
        self, record: Callable[[Recorder], Any], kind: tuple[Any, ...], *sources: object
    ) -> Recording:
        """Return a recording of what `record` does and returns, which is made if there is none.

        It is used again for the same kind and sources, the objects that hold its arrays.
        """
        key = kind, *map(id, sources)
        if key not in self.found:
            if len(self.found) >= self.most:
                self.found.clear()
            recorder = Recorder()
            recorder.kept += sources  # So that no other object gets their ids.
            self.found[key] = Recording(recorder, record(recorder))
        return self.found[key]


# Threads that split the work of a micro-batch, or a recorder of it.
Team = ThreadTeam | Recorder
