"""A kernel is found in the file of a user, and checked without running what is in the file.

Python is parsed. C is compiled, and its parameters are read from the definition of the function. A
compiled library tells nothing of them: its function takes all that a kernel may take, then threads.
"""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.mine import c_source
from benchmarks.mine.signature import SAVED, THREADS, Parameter, Signature, signatures

# A kernel with one of these in its decorators, or without these in its file, uses several threads,
# even if it is not told how many.
PARALLEL = re.compile(rb"parallel\s*=\s*True|#\s*pragma\s+omp|GOMP_|__kmpc_|pthread_create")
# The parameters of functions; None where these cannot be read.
Functions = dict[str, list[Parameter] | None]


@dataclass(frozen=True)
class Function:
    """A function to call. takes: what its parameters stand for. types: of ctypes, in C."""

    name: str
    takes: Sequence[str]
    types: Sequence[str] = ()


@dataclass(frozen=True)
class Kernel:
    """A kernel of a user.

    name: FILE:FUNCTION. path: a Python file or a library. save: computes what a backward takes from
    its forward. parallel: whether it uses several threads.
    """

    name: str
    path: str
    operation: str
    direction: str
    function: Function
    save: Function | None
    parallel: bool

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return a kernel from what JSON keeps of it."""
        called: dict[str, Any] = {
            name: fields[name] and Function(**fields[name]) for name in ("function", "save")
        }
        return cls(**fields | called)


def find_all(texts: Sequence[str], operations: Sequence[str]) -> tuple[Kernel, ...]:
    """Return kernels, with their paths in their names where these would be equal otherwise."""
    found = {text: find(text, operations) for text in texts}
    files = {(each.name, split(text)[0].resolve()) for text, each in found.items()}
    names = Counter(name for name, _ in files)
    return tuple(
        kernel if names[kernel.name] == 1 else replace(kernel, name=text.partition("@")[0])
        for text, kernel in found.items()
    )


def find(text: str, operations: Sequence[str]) -> Kernel:
    """Return the kernel FILE:FUNCTION[@DIRECTION] of one of some operations.

    Raises ValueError if it cannot be run; says why.
    """
    path, name, direction = split(text)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    save, library, in_c = f"{name}_save", path, path.suffix != ".py"
    if not in_c:
        functions = functions_in_python(path, source)
    elif path.suffix == ".c":
        functions = c_source.functions(source.decode(errors="replace"))
    else:
        functions: Functions = dict.fromkeys(c_source.exported(path, path, name, save))
    if name not in functions:
        raise ValueError(f"{path} has no function {name}; it has {', '.join(functions) or 'none'}")
    signature, parameters, takes = choose(path, name, functions, direction, operations)
    if SAVED in takes and save not in functions:
        raise ValueError(f"{path}: {name} takes {SAVED}, so there must be a function {save}")
    if path.suffix == ".c":
        library = c_source.compiled(path, openmp=b"omp" in source)
        needed = [name, save][: 1 + (SAVED in takes)]
        if missing := {*needed} - {*c_source.exported(path, library, *needed)}:
            raise ValueError(f"{path} does not export {missing.pop()}; it must not be static")
    return Kernel(
        name=f"{path.name}:{name}",
        path=str(library.resolve()),
        operation=signature.operation,
        direction=signature.direction,
        function=Function(name, takes, c_source.types_of(path, parameters, takes, signature)),
        save=saver(path, save, functions[save], signature, in_c) if SAVED in takes else None,
        parallel=(THREADS in takes and functions[name] is not None)
        or PARALLEL.search(source if in_c else decorators(source, name)) is not None,
    )


def split(text: str) -> tuple[Path, str, str]:
    """Return file, function and direction of FILE:FUNCTION[@DIRECTION]."""
    file, _, name = text.rpartition(":")
    name, _, direction = name.partition("@")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ValueError(f"must be FILE:FUNCTION, such as my_kernel.py:product, not {text}")
    if not path.is_file():
        raise ValueError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if path.suffix not in (".py", ".c", ".so", ".dylib"):
        raise ValueError(f"must be a .py, .c or .so file, not {path}")
    return path, name, direction


def functions_in_python(path: Path, source: bytes) -> Functions:
    """Return the functions of a Python file by name, and other names that it assigns or imports."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not Python: {error}") from None
    found: Functions = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = parameters_of(node.args)
        elif isinstance(node, ast.Assign):
            found |= {each.id: None for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: None for each in node.names}
    return found


def decorators(source: bytes, name: str) -> bytes:
    """Return the decorators of a function of Python, or the source if it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name and node.decorator_list:
            return "\n".join(map(ast.unparse, node.decorator_list)).encode()
    return source


def parameters_of(arguments: ast.arguments) -> list[Parameter] | None:
    """Return the parameters that a kernel is called with; None if there may be any number."""
    if arguments.vararg:
        return None
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    optional = {*names[len(names) - len(arguments.defaults) :]} - {THREADS, SAVED}
    return [Parameter(name) for name in names if name not in optional]


def choose(
    path: Path, name: str, functions: Functions, direction: str, operations: Sequence[str]
) -> tuple[Signature, list[Parameter], list[str]]:
    """Return the signature that a function fits, its parameters, and what these stand for."""
    in_c, parameters = path.suffix != ".py", functions[name]
    every = signatures(operations)
    if direction:
        known = [each.identifier for each in every]
        every = [each for each in every if direction in (each.direction, each.identifier)]
        if not every:
            raise ValueError(f"DIRECTION must be one of {', '.join(known)}, not {direction}")
    elif parameters is None:
        every = [each for each in every if f"_{name}".endswith(f"_{each.identifier}")]
    fitting: list[tuple[Signature, list[Parameter], list[str]]] = []
    if parameters is None:
        for each in every:
            own = each.parameters(in_c)
            own += [Parameter(THREADS, "int64_t")] * in_c
            own += [Parameter(SAVED, "void *" * in_c)] * (f"{name}_save" in functions)
            fitting.append((each, own, [parameter.name for parameter in own]))
    else:
        for match in (Signature.by_name, *[Signature.by_position] * bool(direction)):
            found = [(each, parameters, match(each, parameters)) for each in every]
            fitting = fitting or [(each, own, takes) for each, own, takes in found if takes]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [f"{each.operation} {each.direction}" for each, *_ in fitting]
        raise ValueError(f"{path}: {name} fits {' and '.join(names)}; name the operation")
    raise ValueError(f"{path}: {misfit(name, parameters, in_c, direction, operations)}")


def misfit(
    name: str, parameters: list[Parameter] | None, in_c: bool, direction: str,
    operations: Sequence[str],
) -> str:  # fmt: skip
    """Return what the parameters of a kernel are, and what they should be in each direction."""
    names = "cannot be read"
    if parameters is not None:
        names = f"are {', '.join(each.name for each in parameters) or 'none'}"
    rule = f"those of {direction}" if direction else "one of these; @DIRECTION goes by their order"
    lines = [
        f"  {each.definition(name, in_c)}{';  //' if in_c else '  #'} {each.direction}"
        for each in signatures(operations)
    ]
    return "\n".join([f"the parameters of {name} {names}, but must be {rule}", *lines])


def saver(
    path: Path, name: str, parameters: list[Parameter] | None, signature: Signature, in_c: bool
) -> Function:
    """Return the function that computes what a backward takes from its forward."""
    given = [*signature.savable, *(signature.sizes if in_c else ())]
    if not signature.savable:
        raise ValueError(f"{path}: {signature.direction} has no forward, so nothing can be {SAVED}")
    if parameters is None:
        parameters = [each for each in signature.parameters(in_c) if each.name in given]
    takes = [each.name for each in parameters]
    if not {*takes} <= {*given}:
        raise ValueError(f"{path}: {name} may take {', '.join(given)}, not {', '.join(takes)}")
    return Function(name, takes, c_source.types_of(path, parameters, takes, signature))
