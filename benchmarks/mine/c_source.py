"""C of a user: the parameters of its functions, compiled to a library that is checked."""

import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mine.signature import SAVED, THREADS, Parameter, Signature

COMPILER = ("cc", "-O3", "-march=native", "-fPIC", "-shared")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|^[ \t]*#(?:\\\n|[^\n])*", re.DOTALL | re.MULTILINE)
DEFINITION = re.compile(r"\b(\w+)\s*\(([^(){};]*)\)\s*(?:__attribute__\s*\(\(.*?\)\)\s*)?\{")
QUALIFIER = re.compile(r"\b(?:const|restrict|__restrict|__restrict__|volatile|register)\b")
# The types of numbers in C, and what ctypes calls them.
TYPES = {
    "float": "c_float", "double": "c_double", "int": "c_int", "long": "c_long",
    "long long": "c_longlong", "unsigned": "c_uint", "unsigned int": "c_uint",
    "unsigned long": "c_ulong", "size_t": "c_size_t", "ssize_t": "c_ssize_t",
    "ptrdiff_t": "c_ssize_t", "int32_t": "c_int32", "int64_t": "c_int64",
    "uint32_t": "c_uint32", "uint64_t": "c_uint64",
}  # fmt: skip
REAL = ("float", "double")
# Types of the elements of arrays that are the same.
ALIKE = {"float": ("float",), "int64_t": ("int64_t", "long", "long long")}
WORDS = ("if", "for", "while", "switch")  # in C, followed by what looks like a definition
# Prints which of some functions a library has, in a process that may crash.
LOAD = (
    "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]); "
    "print(*(name for name in sys.argv[2:] if hasattr(library, name)))"
)
LOAD_SECONDS = 20
LINES = 8  # of the messages of a compiler that are shown


def functions(source: str) -> dict[str, list[Parameter] | None]:
    """Return the functions that are defined in C."""
    found: dict[str, list[Parameter] | None] = {}
    for match in DEFINITION.finditer(COMMENT.sub("", source)):
        name, text = match[1], match[2]
        if name not in WORDS:
            written = "" if text.strip() == "void" else text.strip()
            found[name] = [declared(each) for each in written.split(",") if each]
    return found


def declared(text: str) -> Parameter:
    """Return a parameter of C: "const float *x" is a "float *" of the name x."""
    plain, _, length = QUALIFIER.sub("", text).partition("[")
    *words, name = plain.replace("*", " ").split() or [""]
    stars = plain.count("*") + bool(length)
    return Parameter(name, " ".join([*words, "*" * stars]).strip())


def types_of(
    path: Path, parameters: Sequence[Parameter], takes: Sequence[str], signature: Signature
) -> list[str]:
    """Return what ctypes calls the types of parameters; nothing for those of Python."""
    wanted = {each.name: each.type.removeprefix("const ") for each in signature.parameters(True)}
    wanted |= {THREADS: "int64_t", SAVED: "void *"}
    found: list[str] = []
    for (name, kind), value in zip(parameters, takes, strict=True):
        if kind and not accepted(kind, wanted[value]):
            raise ValueError(f"{path}: {name} must be {wanted[value]}, not {kind}")
        if kind:
            found.append("c_void_p" if "*" in kind else TYPES[kind])
    return found


def accepted(kind: str, wanted: str) -> bool:
    """Return whether a parameter may have a type; a pointer to an unknown type may be right."""
    if kind.endswith("*") != wanted.endswith("*"):
        return False
    if kind.endswith("*"):
        base = kind.rstrip(" *")
        return base not in TYPES or wanted == "void *" or base in ALIKE[wanted.rstrip(" *")]
    return kind in TYPES and (kind in REAL) == (wanted in REAL)


@functools.cache
def libraries() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of compiled C, which is removed at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="kernels-")


def compiled(path: Path, openmp: bool) -> Path:
    """Return a library of compiled C. Raises ValueError with the errors of the compiler."""
    folder = Path(libraries().name)
    library = folder / f"{path.stem}-{len([*folder.iterdir()])}.so"
    command = [*COMPILER, *["-fopenmp"] * openmp, str(path), "-o", str(library), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError(f"there is no C compiler {COMPILER[0]} for {path}") from None
    if done.returncode:
        lines = [
            line for line in done.stderr.splitlines() if "error" in line or "undefined" in line
        ]
        raise ValueError("\n".join([f"{path} does not compile", *lines[:LINES]]))
    return library


def exported(path: Path, library: Path, *names: str) -> list[str]:
    """Return those of some functions that a library has. Raises ValueError if it is no library."""
    command = [sys.executable, "-S", "-c", LOAD, str(library.resolve()), *names]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LOAD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} is not loaded within {LOAD_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"{path} cannot be loaded: {lines[-1]}")
    return done.stdout.split()
