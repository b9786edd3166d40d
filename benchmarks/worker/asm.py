"""The machine code of a kernel: the fraction of vector instructions, and the hottest loop.

The fraction is that of the floating-point arithmetic in the machine code, each instruction counted
once however often it runs. Calls of a library such as expf do not count. A vectorised loop with a
scalar loop for the remainder therefore has a fraction of about a half.

The assembly of what Numba compiled is made from the optimised LLVM module, because Numba does not
show that of a function loaded from its cache; that of a shared library by objdump.
"""

import inspect
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from llvmlite import binding  # pyright: ignore[reportMissingTypeStubs]

from benchmarks.worker import loops
from benchmarks.worker.instructions import parser_of
from tinygpt_np.compiled.simd.linking import compiled_kernels

llvm: Any = cast(Any, binding)

# A line of objdump, the target of a jump within a function or of a call, and an address of which
# the comment tells the name.
LISTED = re.compile(r"\s*([0-9a-f]+):\s+(.*)")
HEADER = re.compile(r"[0-9a-f]+ <(.+)>:$")
INSIDE = re.compile(r"(?:0x)?([0-9a-f]+) <[^>]+\+0x[0-9a-f]+>")
OUTSIDE = re.compile(r"(?:0x)?[0-9a-f]+ <([^>+]+)>")
NAMED = re.compile(r"-?0x[0-9a-f]+\(%rip\)(.*?)\s*# [0-9a-f]+ <([^>+]+)>$")


@dataclass
class Program:
    """The assembly of a kernel for a target. starts: the functions that are called first."""

    functions: dict[str, loops.Function]
    starts: list[str]
    target: str

    def fields(self) -> dict[str, Any]:
        """Return the fields of a row: "packed", and "loop" with "loop_flops" per iteration.

        "packed" is None if there is no arithmetic, and "loop" is empty if nothing computes in one.
        """
        parse = parser_of(self.target)
        if parse is None:
            return {"packed": None, "loop": [], "loop_flops": 0}
        reached = {name for start in self.starts for name in loops.depths_of(self.functions, start)}
        lines = (
            line
            for name in reached
            for block in self.functions[name].blocks
            for line in block.lines
        )
        kinds = [each.lanes > 1 for each in map(parse, lines) if each.lanes]
        hottest = loops.hottest(self.functions, self.starts, parse)
        return {
            "packed": sum(kinds) / len(kinds) if kinds else None,
            "loop": hottest.text if hottest else [],
            "loop_flops": hottest.flops if hottest else 0,
        }


def of_numba(compiled: tuple[Any, ...]) -> Program:
    """Return the program of functions compiled by Numba, with all that they call."""
    linked = {f"{each.fndesc.modname}.{each.fndesc.qualname}": each for each in compiled_kernels}
    waiting: list[Any] = []
    for function in compiled:
        if hasattr(function, "overloads"):
            waiting += function.overloads.values()
        else:
            waiting.append(linked[inspect.getclosurevars(function._defn).nonlocals["name"]])
    found = Program({}, [each.fndesc.llvm_func_name for each in waiting], "")
    seen: list[Any] = []
    while waiting:
        result = waiting.pop()
        if result not in seen:
            seen.append(result)
            own, outside = reached(result)
            waiting += [linked[name] for name in outside if name in linked]
            text, found.target = assembly(result.library, own)
            found.functions |= loops.functions_of(text)
    for name, each in linked.items():
        if each in seen:  # Others call it by this name.
            found.functions[name] = found.functions[each.fndesc.llvm_func_name]
    return found


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


def of_library(path: Path, symbol: str) -> Program:
    """Return the program of a function in a shared library. Raises OSError without objdump."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(path)]
    environment = os.environ | {"LC_ALL": "C"}  # "file format" is translated otherwise.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    listing = done.stdout
    functions = loops.functions_of("\n".join(assembly_of(listing.splitlines())))
    start = next((name for name in (symbol, f"_{symbol}") if name in functions), None)
    target = re.search(r"file format (.*)", listing)
    return Program(functions, [start] if start else [], target[1] if target else "")


def assembly_of(listing: Iterable[str]) -> Iterator[str]:
    """Yield the lines of objdump as assembly, with labels where jumps lead."""
    lines = list(listing)
    targets = {each for line in lines for each in INSIDE.findall(line)}
    for line in lines:
        if header := HEADER.match(line):
            yield f"{header[1]}:"
        elif listed := LISTED.match(line):
            if listed[1] in targets:
                yield f".L{listed[1]}:"
            named = NAMED.sub(r"\2(%rip)\1", listed[2])
            yield "\t" + OUTSIDE.sub(r"\1", INSIDE.sub(r".L\1", named))


def loop_of_library(path: Path, symbol: str) -> dict[str, Any]:
    """Return the fields of a row (see Program) for a function in a shared library."""
    try:
        return of_library(path, symbol).fields()
    except OSError:
        return {"packed": None, "loop": ["objdump is needed to show the loop"], "loop_flops": 0}
