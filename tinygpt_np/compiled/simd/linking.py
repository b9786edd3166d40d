"""Kernels that others call without compiling them in.

Numba compiles a callee into each of its callers. For a register tile, which is large and called
from many places, that would be most of the time that compiling takes. A linked kernel is compiled
once, at once, and called by the name under which the JIT compiler's linker finds it.
"""

import inspect
from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import extending, types

from tinygpt_np.compiled.cache import exact

WORD = ir.IntType(64)
# Numba's calling convention: where to put a result and an exception (there are none), arguments;
# it returns a status.
NOTHING = ir.IntType(8).as_pointer()

# What the linker has an address of must stay in memory.
compiled_kernels: list[Any] = []


def linked(function: Callable[..., None]) -> Any:
    """Compiles a function of int64s that returns nothing; to be called by kernels only."""
    name = f"{function.__module__}.{function.__qualname__}"
    parameters = inspect.signature(function).parameters.values()
    arity = len(parameters)
    dispatcher = exact(function)
    dispatcher.compile(types.void(*[types.int64] * arity))
    (compiled,) = dispatcher.overloads.values()
    compiled_kernels.append(compiled)
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    cast(Any, binding).add_symbol(name, address)

    def call(context: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(32), [NOTHING] * 2 + [WORD] * arity)
            module = builder.module
            found = module.globals.get(name) or ir.Function(module, kind, name)
            with builder.goto_entry_block():
                unused = builder.alloca(NOTHING, 2)
            places = [builder.bitcast(builder.gep(unused, [WORD(i)]), NOTHING) for i in range(2)]
            builder.call(found, [*places, *args])
            return context.get_dummy_value()

        return types.void(*[types.int64] * arity), codegen

    # Numba reads the names of the arguments here.
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = inspect.Signature([context, *parameters])
    return cast(Any, extending).intrinsic(call)
