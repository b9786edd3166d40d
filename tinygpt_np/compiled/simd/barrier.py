"""A barrier for threads inside kernels: none goes on before all have come.

Between two products of one token lie microseconds; to wake a thread takes longer. So threads count
themselves in, in a number that only grows, and look at it until all are there. One that looks for
long lets others have its core now and then, where there are more threads than cores.
"""

import os
from typing import Any

from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types

from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.vectors import INT, intrinsic

# A thread that fails sets the number to this, which releases all that wait, now and later.
GIVEN_UP = 1 << 62
# Looks before a thread lets another have its core.
PATIENCE = 1 << 12
# Looks after which a thread gives up: minutes. Unlike a time, looks are not used up while the
# process is suspended.
MOST_LOOKS = 1 << 37


@intrinsic
def count_in(context: Any, address: Any) -> Any:
    """Adds one to the int64 at an address, at once for all threads; what it was before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], INT.as_pointer())
        return builder.atomic_rmw("add", pointer, INT(1), "seq_cst")

    return types.int64(types.int64), codegen


@intrinsic
def look(context: Any, address: Any) -> Any:
    """The int64 at an address, as it is now; what others wrote before is there too."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], INT.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def give_up(context: Any, address: Any) -> Any:
    """Set the int64 at an address to GIVEN_UP."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], INT.as_pointer())
        builder.store_atomic(INT(GIVEN_UP), pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def yield_core(context: Any) -> Any:
    """Lets another thread run, where the system knows how to."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if os.name == "posix":
            name, number = "sched_yield", ir.IntType(32)
            module = builder.module
            function = module.globals.get(name) or ir.Function(
                module, ir.FunctionType(number, []), name
            )
            builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@exact
def wait_for_all(counter: Any, threads: Any, most_looks: Any = MOST_LOOKS) -> None:
    """Return when as many threads as there are have called this as often as this one.

    Also returns, in all threads, after one has set the counter to GIVEN_UP, and after most_looks
    looks, when it is set here: the caller checks the counter at the end.
    """
    if threads == 1:
        return
    before = count_in(counter)
    if before >= GIVEN_UP:
        return
    target, looks = (before // threads + 1) * threads, 0
    while look(counter) < target:
        looks += 1
        if looks % PATIENCE == 0:
            if looks >= most_looks:
                give_up(counter)
                return
            yield_core()
