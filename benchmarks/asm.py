"""How much of a compiled kernel's arithmetic is done by vectors.

Counted are instructions as they stand in the machine code, once each, however often they run: of
floating-point arithmetic, comparisons and conversions, those that work on a vector, however wide.
Moves, broadcasts, shuffles and bit masks are no arithmetic. What is called of the C library, such
as expf, is not looked into and counts as nothing. A loop of vectors whose remainder is done number
by number stands there twice, and comes to about a half.

Numba does not show the assembly of what was loaded from disk. But beside the machine code it keeps
the optimised module, for what compiles it in, and of that assembly is made here.
"""

import inspect
import re
from typing import Any, cast

from llvmlite import binding  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.compiled.simd import linking

llvm: Any = cast(Any, binding)

# In front may stand the v of AVX. The first p or s before the size says packed or single; the
# conversions of integers have it at the end.
X86 = re.compile(
    r"^\s+v?(?:h?add|h?sub|mul|div|r?sqrt|rcp|max|min|fn?madd|fn?msub|cmp|u?comi|cvt|round|rndscale"
    r"|scalef|getexp|getmant|range|reduce)\w*?([ps])[sd]\w*\s",
    re.MULTILINE,
)
# The arrangement of a vector's numbers stands behind its register, or on Darwin behind the
# mnemonic; v0.s[1] is one number.
ARM = re.compile(
    r"^\s+(?:f(?:n?m?add|n?m?sub|n?mul|ml[as]|div|r?sqrt|recp|max|min|abd|cc?m|ac|cvt|rint)"
    r"|[su]cvtf)[\w.]*\s.*",
    re.MULTILINE,
)
ARM_PACKED = re.compile(r"\.\d+[hsd]\b|\bz\d+\.")


def packed_share(compiled: tuple[Any, ...]) -> float | None:
    """Of the floating-point instructions of these functions, the share that works on vectors.

    compiled: what compiling.kernel, exact or linking.linked returned. All signatures count that
    were compiled or loaded, and what they call, linked kernels as well. None if there is nothing
    to count: nothing was compiled, it has no such instruction, or a processor's assembly is not
    known here.
    """
    linked = {name_of(result): result for result in linking.compiled_kernels}
    waiting: list[Any] = []
    for function in compiled:
        if hasattr(function, "overloads"):
            waiting += function.overloads.values()
        else:
            waiting.append(linked[inspect.getclosurevars(function._defn).nonlocals["name"]])
    seen: list[Any] = []
    while waiting:
        result = waiting.pop()
        if result not in seen:
            seen.append(result)
            waiting += [linked[name] for name in reached(result)[1] if name in linked]
    kinds = [kind for result in seen for kind in arithmetic(*assembly(result))]
    return sum(kinds) / len(kinds) if kinds else None


def name_of(result: Any) -> str:
    """The name by which a linked kernel is called."""
    return f"{result.fndesc.modname}.{result.fndesc.qualname}"


def reached(result: Any) -> tuple[set[str], set[str]]:
    """The functions that a compiled one calls, and those call, and so on.

    Of its module, with itself; and of others. Left out are those that Python would call it by.
    """
    functions = {each.name: each for each in result.library._get_module_for_linking().functions}
    found, waiting = set[str](), [result.fndesc.llvm_func_name]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            waiting += [
                operand.name
                for block in functions[name].blocks
                for instruction in block.instructions
                for operand in instruction.operands
            ]
    outside = {name for name in found if functions[name].is_declaration}
    return found - outside, outside


def assembly(result: Any) -> tuple[str, str]:
    """Of what a compiled function reaches in its module; and for which processor.

    Made from a copy, for making assembly changes a module.
    """
    library = result.library
    module = library._get_module_for_linking().clone()
    own, _ = reached(result)
    for function in module.functions:
        if not function.is_declaration and function.name not in own:
            function.linkage = llvm.Linkage.available_externally  # Not written out.
    machine = library.codegen._tm
    return machine.emit_assembly(module), machine.triple


def arithmetic(text: str, triple: str) -> list[bool]:
    """Of each floating-point instruction in an assembly, whether it works on a vector."""
    if triple.startswith(("x86_64", "i386", "i686")):
        return [kind == "p" for kind in X86.findall(text)]
    if triple.startswith(("aarch64", "arm64")):
        return [ARM_PACKED.search(line) is not None for line in ARM.findall(text)]
    return []
