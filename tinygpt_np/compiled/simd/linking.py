"""Kernels that other kernels call instead of compiling them in.

Numba compiles a callee into each of its callers. For a register tile, which is large and called
from many places, that would be most of the compile time. A linked kernel is compiled once, when it
is defined, and called by the name under which the JIT compiler's linker finds it.
"""

import inspect
from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import extending, types
from numba.core import cgutils

from tinygpt_np.compiled.cache import compiled, without_collection
from tinygpt_np.compiled.simd.memory import Matrix

# Numba's calling convention: pointers for a result and an exception (there are none), then the
# arguments; the function returns a status.
POINTER = ir.IntType(8).as_pointer()
MATRIX: Any = cast(Any, types).NamedUniTuple(types.int64, len(Matrix._fields), Matrix)

# Compiled code whose address the linker has must stay in memory.
compiled_kernels: list[Any] = []


def linked(function: Callable[..., None]) -> Any:
    """Compile a function of integers and of matrices that returns nothing, for kernels to call.

    Parameters annotated with Matrix are matrices, all others are int64.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    parameters = inspect.signature(function).parameters.values()
    kinds = [MATRIX if each.annotation is Matrix else types.int64 for each in parameters]
    signature = types.void(*kinds)
    dispatcher = compiled(function, fastmath=False, no_cpython_wrapper=True)
    with without_collection():
        dispatcher.compile(signature)
    (result,) = dispatcher.overloads.values()
    compiled_kernels.append(result)
    address = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
    cast(Any, binding).add_symbol(name, address)

    def call(context: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            packer = context.get_arg_packer(signature.args)
            function_type = ir.FunctionType(
                ir.IntType(32), [POINTER] * 2 + list(packer.argument_types)
            )
            callee = cast(Any, cgutils).get_or_insert_function(builder.module, function_type, name)
            with builder.goto_entry_block():
                unused = builder.alloca(POINTER, 2)
            places = [
                builder.bitcast(builder.gep(unused, [ir.IntType(64)(i)]), POINTER) for i in range(2)
            ]
            builder.call(callee, [*places, *packer.as_arguments(builder, args)])
            return context.get_dummy_value()

        return signature, codegen

    # Numba reads the names of the arguments here.
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = inspect.Signature([context, *parameters])
    return cast(Any, extending).intrinsic(call)
