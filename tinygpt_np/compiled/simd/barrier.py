"""How threads wait for each other inside kernels: at a barrier, and until it is their turn.

Only microseconds pass between two matmuls of one token, and waking a thread takes longer. So
threads count in numbers that only grow, and spin until one is large enough. A thread that spins for
long yields its core now and then, in case there are more threads than cores. All return if the
number that is the counter of their region is STOPPED.
"""

import os
from typing import Any

from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types

from tinygpt_np.compiled.cache import inner, strict
from tinygpt_np.compiled.simd.vectors import INT, Emitter, intrinsic
from tinygpt_np.compiled.threads import MOST_SPINS, STOPPED

# Looks at the counter before a thread yields its core.
SPINS = 1 << 12


@intrinsic(types.int64, types.int64)
def count_arrival(emit: Emitter, address: Any) -> Any:
    """Add one to the int64 at an address atomically; return its value before."""
    pointer = emit.builder.inttoptr(address, INT.as_pointer())
    return emit.builder.atomic_rmw("add", pointer, INT(1), "seq_cst")


@intrinsic(types.int64, types.int64)
def read_counter(emit: Emitter, address: Any) -> Any:
    """Return the int64 at an address; writes that other threads made before theirs are visible."""
    pointer = emit.builder.inttoptr(address, INT.as_pointer())
    return emit.builder.load_atomic(pointer, "acquire", 8)


@intrinsic(types.void, types.int64)
def stop(emit: Emitter, address: Any) -> None:
    """Set the int64 at an address to STOPPED."""
    pointer = emit.builder.inttoptr(address, INT.as_pointer())
    emit.builder.store_atomic(INT(STOPPED), pointer, "seq_cst", 8)


@intrinsic(types.void)
def yield_core(emit: Emitter) -> None:
    """Let another thread run, if the system can."""
    if os.name == "posix":
        emit.call("sched_yield", ir.IntType(32), [])


@inner
def wait_until(address: Any, least: Any, counter: Any, most_spins: Any) -> None:
    """Wait until the int64 at an address is `least` or more, or that at `counter` is STOPPED.

    After most_spins looks this sets the counter to STOPPED.
    """
    spins = 0
    while read_counter(address) < least and read_counter(counter) < STOPPED:
        spins += 1
        if spins % SPINS == 0:
            if spins >= most_spins:
                stop(counter)
            yield_core()


@strict
def wait_for_all(counter: Any, threads: Any, most_spins: Any = MOST_SPINS) -> None:
    """Wait until `threads` threads have called this as often as the calling thread.

    Also returns, in all threads, once the number at the address `counter` is STOPPED, which this
    sets after most_spins looks; the caller checks the counter at the end.
    """
    if threads == 1:
        return
    before = count_arrival(counter)
    if before < STOPPED:
        wait_until(counter, (before // threads + 1) * threads, counter, most_spins)


@strict
def wait_for_turn(frame: Any, place: Any) -> None:
    """Wait until as many turns have ended at a place as the number of this thread's turn.

    At the address `frame` are four int64: that number, the address of what counts the turns at
    place 0, that of the region's counter, and the looks after which this stops the region.
    """
    turn = read_counter(frame + 8) + 8 * place
    wait_until(turn, read_counter(frame), read_counter(frame + 16), read_counter(frame + 24))


@strict
def end_turn(frame: Any, place: Any) -> None:
    """End a turn; the next thread sees what this one has written."""
    count_arrival(read_counter(frame + 8) + 8 * place)
