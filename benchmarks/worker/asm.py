"""The machine code of a kernel: the fraction of vector instructions, and the hottest loop.

The fraction is that of the floating-point arithmetic in the machine code, each instruction counted
once however often it runs. Calls of a library such as expf do not count. A vectorised loop with a
scalar loop for the remainder therefore has a fraction of about a half.

The assembly of what Numba compiled is made from the optimised LLVM module, because Numba does not
show that of a function loaded from its cache. The machine code that runs was made from it at
another time and may order instructions otherwise. If there are samples of where it spends its
time, the loop shown is that with most of them, as objdump reads it from memory. A shared library is
read by objdump too.
"""

import ctypes
import inspect
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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


# A jump in a file without symbols.
BARE = re.compile(r"^(.*:\s+(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s.*?)0x([0-9a-f]+)$")
LONGEST_INSTRUCTION = 15  # bytes
MAPS = Path("/proc/self/maps")


@dataclass
class Program:
    """The assembly of a kernel for a target.

    starts: the functions that are called first. addresses: where functions are in memory.
    """

    functions: dict[str, loops.Function]
    starts: list[str]
    target: str
    addresses: dict[str, int] = field(default_factory=dict[str, int])

    def fields(self, samples: Sequence[int] = ()) -> dict[str, Any]:
        """Return the fields of a row: "packed", and "loop" with "loop_flops" per iteration.

        samples: addresses at which the kernel was found while it ran. "packed" is None if there is
        no arithmetic, and "loop" is empty if nothing computes in one.
        """
        parse = parser_of(self.target)
        if parse is None:
            return {"packed": None, "loop": [], "loop_flops": 0}
        depths: dict[str, int] = {}
        for start in self.starts:
            depths |= loops.depths_of(self.functions, start)
        blocks = (block for name in depths for block in self.functions[name].blocks)
        kinds = [
            each.lanes > 1 for block in blocks for each in map(parse, block.lines) if each.lanes
        ]
        for name, function in self.functions.items():  # Some have two names.
            names = (each for each in depths if self.functions[each] is function)
            depths |= {name: max((depths[each] for each in [*names]), default=0)}
        loop = loops.sampled(self.running(samples), depths, samples, parse) if samples else None
        loop = loop or loops.hottest(self.functions, self.starts, parse)
        return {
            "packed": sum(kinds) / len(kinds) if kinds else None,
            "loop": loop.text if loop else [],
            "loop_flops": loop.flops if loop else 0,
        }

    def running(self, samples: Sequence[int]) -> dict[str, loops.Function]:
        """Return the functions with samples as they are in memory, if objdump is installed."""
        if not self.addresses:  # A library is listed with its addresses.
            return self.functions
        found: dict[str, loops.Function] = {}
        for name, start in self.addresses.items():
            lines = sum(len(block.lines) for block in self.functions[name].blocks)
            ends = [each for each in self.addresses.values() if each > start]
            end = min([start + LONGEST_INSTRUCTION * lines, mapped_until(start), *ends])
            if any(start <= sample < end for sample in samples):
                with suppress(OSError):
                    found[name] = disassembled(start, end - start)
        return found


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
            for name in found.functions.keys() & own:
                if address := result.library.get_pointer_to_function(name):
                    found.addresses[name] = address
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


def disassembled(start: int, size: int) -> loops.Function:
    """Return the function at an address. Raises OSError without objdump."""
    machine = {"x86_64": "i386:x86-64"}.get(platform.machine(), platform.machine())
    with tempfile.NamedTemporaryFile() as file:
        file.write(ctypes.string_at(start, size))
        file.flush()
        listing = objdump("-D", "-b", "binary", "-m", machine, file.name)
    lines = [BARE.sub(r"\1\2 <function+0x0>", line) for line in listing]
    found = loops.functions_of("\n".join(assembly_of(lines, start)))
    if len(found) != 1:
        raise OSError(f"objdump does not know {machine}")
    return found.popitem()[1]


def mapped_until(address: int) -> int:
    """Return the end of the mapped memory that an address is in."""
    for line in MAPS.read_text().splitlines():
        low, high = (int(each, 16) for each in line.split()[0].split("-"))
        if low <= address < high:
            return high
    return address


def mapped_at(path: Path) -> int:
    """Return the address at which a library is mapped, or 0 if it is not."""
    lines = MAPS.read_text().splitlines() if MAPS.exists() else []
    starts = [line.partition("-")[0] for line in lines if line.endswith(f" {path.resolve()}")]
    return min((int(each, 16) for each in starts), default=0)


def of_library(path: Path, symbol: str) -> Program:
    """Return the program of a function in a shared library. Raises OSError without objdump."""
    listing = objdump("-d", str(path))
    functions = loops.functions_of("\n".join(assembly_of(listing, mapped_at(path))))
    start = next((name for name in (symbol, f"_{symbol}") if name in functions), None)
    target = re.search(r"file format (.*)", "\n".join(listing))
    return Program(functions, [start] if start else [], target[1] if target else "")


def objdump(*arguments: str) -> list[str]:
    """Return what objdump prints. Raises OSError if it is not installed."""
    command = ["objdump", "--no-show-raw-insn", *arguments]
    environment = os.environ | {"LC_ALL": "C"}  # "file format" is translated otherwise.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.stdout.splitlines()


def assembly_of(listing: Sequence[str], base: int = 0) -> Iterator[str]:
    """Yield the lines of objdump as assembly, with labels where jumps lead, and with addresses.

    base: what is added to addresses.
    """
    targets = {each for line in listing for each in INSIDE.findall(line)}
    for line in listing:
        if header := HEADER.match(line):
            yield f"{header[1]}:"
        elif listed := LISTED.match(line):
            if listed[1] in targets:
                yield f".L{listed[1]}:"
            named = NAMED.sub(r"\2(%rip)\1", listed[2])
            code = OUTSIDE.sub(r"\1", INSIDE.sub(r".L\1", named))
            yield f"\t{code} // at {base + int(listed[1], 16):x}"


def loop_of_library(path: Path, symbol: str, samples: Sequence[int] = ()) -> dict[str, Any]:
    """Return the fields of a row (see Program) for a function in a shared library."""
    try:
        return of_library(path, symbol).fields(samples)
    except OSError:
        return {"packed": None, "loop": ["objdump is needed to show the loop"], "loop_flops": 0}
