"""The fraction of vector instructions in the arithmetic of a compiled kernel.

Counted are the floating-point arithmetic, comparison and conversion instructions in the machine
code, each once however often it runs. Moves, shuffles and bit masks do not count, nor do calls of
the C library such as expf. A vectorised loop with a scalar loop for the remainder therefore has a
fraction of about a half.

The assembly is made from the optimised LLVM module, because Numba does not show that of a function
loaded from its cache.
"""

import inspect
import re
from typing import Any, cast

from llvmlite import binding  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.compiled.simd.linking import compiled_kernels

llvm: Any = cast(Any, binding)

# AVX instructions start with v. The first p or s before the size means packed or scalar;
# conversions of integers have it at the end.
X86 = re.compile(
    r"^\s+v?(?:h?add|h?sub|mul|div|r?sqrt|rcp|max|min|fn?madd|fn?msub|cmp|u?comi|cvt|round|rndscale"
    r"|scalef|getexp|getmant|range|reduce)\w*?([ps])[sd]\w*\s",
    re.MULTILINE,
)
# The arrangement of a vector follows its register (v0.4s), on Darwin the mnemonic; v0.s[1] is one
# element.
ARM = re.compile(
    r"^\s+(?:f(?:n?m?add|n?m?sub|n?mul|ml[as]|div|r?sqrt|recp|max|min|abd|cc?m|ac|cvt|rint)"
    r"|[su]cvtf)[\w.]*\s.*",
    re.MULTILINE,
)
ARM_PACKED = re.compile(r"\.\d+[hsd]\b|\bz\d+\.")


def packed_fraction(compiled: tuple[Any, ...]) -> float | None:
    """Return the fraction in functions with all that they call, or None if nothing is counted."""
    linked = {f"{each.fndesc.modname}.{each.fndesc.qualname}": each for each in compiled_kernels}
    waiting: list[Any] = []
    for function in compiled:
        if hasattr(function, "overloads"):
            waiting += function.overloads.values()
        else:
            waiting.append(linked[inspect.getclosurevars(function._defn).nonlocals["name"]])
    seen: list[Any] = []
    kinds: list[bool] = []
    while waiting:
        result = waiting.pop()
        if result not in seen:
            seen.append(result)
            own, outside = reached(result)
            waiting += [linked[name] for name in outside if name in linked]
            kinds += arithmetic(*assembly(result.library, own))
    return sum(kinds) / len(kinds) if kinds else None


def reached(result: Any) -> tuple[set[str], set[str]]:
    """Return the functions of its module that a compiled one needs, itself included, and others."""
    functions = {each.name: each for each in result.library._get_module_for_linking().functions}
    found, waiting = set[str](), [result.fndesc.llvm_func_name]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            for block in functions[name].blocks:
                for instruction in block.instructions:
                    waiting += [operand.name for operand in instruction.operands]
    outside = {name for name in found if functions[name].is_declaration}
    return found - outside, outside


def assembly(library: Any, own: set[str]) -> tuple[str, str]:
    """Return the assembly of some functions of a module, and the target triple."""
    module = library._get_module_for_linking().clone()  # Emitting assembly changes a module.
    for function in module.functions:
        if not function.is_declaration and function.name not in own:
            function.linkage = llvm.Linkage.available_externally  # Not emitted.
    machine = library.codegen._tm
    return machine.emit_assembly(module), machine.triple


def arithmetic(text: str, triple: str) -> list[bool]:
    """Return for each floating-point instruction of an assembly whether it works on a vector."""
    if triple.startswith(("x86_64", "i386", "i686")):
        return [kind == "p" for kind in X86.findall(text)]
    if triple.startswith(("aarch64", "arm64")):
        return [ARM_PACKED.search(line) is not None for line in ARM.findall(text)]
    return []
