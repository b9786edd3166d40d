"""Files to start from: a simple kernel for each direction of an operation, in three languages."""

import inspect
import shlex
from pathlib import Path

from benchmarks import cases
from benchmarks.cases.shapes import SHAPES
from benchmarks.mine.signature import INTEGERS, Signature, signatures

FOLDER = Path(__file__).with_name("templates")
SUFFIXES = {"numba": ".py", "numpy": ".py", "c": ".c"}
RULES = {
    ".py": """\
A kernel writes its outputs, or takes the inputs only and returns the outputs, which are copied then
within the time. It is called many times, and the values in the arrays change between calls. It must
not change other inputs, and must have finished when it returns. Arrays are float32. Some calls have
arrays that are not contiguous; a kernel that cannot take these must raise a ValueError, or assert.
If the last parameter is `threads`, the kernel is also measured on several threads.
""",
    ".c": """\
A kernel writes its outputs. It is called many times, and the values in the arrays change between
calls. It must not change other inputs, and must have finished when it returns. Arrays are float
and contiguous, but may start at any multiple of four bytes. If the last parameter is `int64_t
threads`, or OpenMP is used, the kernel is also measured on several threads.
""",
}


def write(operation: str, language: str, folder: Path) -> tuple[Path, str]:
    """Write a new file to a folder; return its path and the arguments that measure its kernels."""
    suffix = SUFFIXES[language]
    path = folder / f"my_{operation}{suffix}"
    every = signatures([operation])
    kernels = [f"{path}:{each.identifier}" for each in every]
    arguments = f"{operation} --mine {shlex.join(kernels)}"
    body = (FOLDER / language / path.name.removeprefix("my_")).read_text(encoding="utf-8")
    start, end = ("/*\n", "*/") if suffix == ".c" else ('"""', '"""')
    said = header(every, f"python -m benchmarks kernels {arguments}")
    with path.open("x", encoding="utf-8") as file:
        file.write(f"{start}{said}\n\n{RULES[suffix]}{end}\n\n{body}")
    return path, arguments


def header(every: list[Signature], command: str) -> str:
    """Return what the kernels of an operation compute and take, at which sizes."""
    operation = every[0].operation
    sizes = [
        f"{shape}: {', '.join(f'{each} {size}' for each, size in sizes_at.items())}"
        for shape in SHAPES
        for sizes_at in [cases.sizes(operation, shape)]
    ]
    lists = "\n".join(map(contract, every)), "\n".join(sizes)
    return "\n\n".join([inspect.getdoc(cases.module(operation)) or "", f"    {command}", *lists])


def contract(signature: Signature) -> str:
    """Return what a kernel reads and writes, such as "forward: x (N, V) -> probs (N, V)"."""
    how = signature.how
    read, written = (
        ", ".join(
            f"{name} ({', '.join(letters)}){' of int64' * (name in INTEGERS)}"
            for name, letters in part.items()
        )
        for part in (how.inputs, {name: how.inputs[name] for name in how.changed} | how.outputs)
    )
    return f"{signature.direction}: {read} -> {written}"
