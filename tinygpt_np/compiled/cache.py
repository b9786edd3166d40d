"""Compile kernels, and keep their machine code on disk.

Numba's own cache checks whether the file of a function has changed. A function that it calls may be
in another file and is compiled into it, so after a change of that file alone the old machine code
would still be loaded. Here kernels are kept in a folder named after a stamp: a hash of the sources
of compiled/, ops/, config.py and the function's own folder, of the compilers' versions, and of
settings that change the result. The processor's features are part of each kernel's key.

Numba's FunctionCache is not used, because its keys differ between processes (pickled closures), its
index is overwritten by other processes, and damaged or unwritable files are errors.

Private names of Numba used here: load_overload and save_overload, which its dispatcher calls on a
cache, CompileResult._reduce and _rebuild, and the event numba:compile.
"""

import contextlib
import functools
import gc
import hashlib
import inspect
import os
import pickle
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple, cast

import llvmlite  # pyright: ignore[reportMissingTypeStubs]
import numba
import numpy as np
import platformdirs
from numba import extending
from numba.core import compiler, config, event, serialize

# Never nnan or ninf: a NaN must stay one, so that it is found and reported.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
HERE = Path(__file__).parent
# Every edit of a kernel makes a new folder; only those used last are kept.
FOLDERS_KEPT = 8
DIGEST_BYTES = hashlib.sha256().digest_size

# Numba has no types to offer.
njit: Any = numba.njit
extend: Any = extending
settings: Any = config
events: Any = event
compile_result: Any = compiler.CompileResult
pickle_of: Callable[[Any], bytes] = cast(Any, serialize).dumps


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call, to run without the GIL, and keep it on disk.

    Sums may be reassociated, depending on the code around them. So a kernel that another calls is
    always inlined: if it were called by name, the linker would take the copy that was loaded first.
    """
    return compiled(function, fastmath=FASTMATH, forceinline=True)


def strict(function: Callable[..., Any]) -> Any:
    """Like kernel, but without fastmath: every operation is done as written, in all copies.

    Use it for sums in a fixed order, and for functions that are too large to be always inlined.
    """
    # Without fastmath=False a callee takes over the fastmath flags of its caller.
    return compiled(function, fastmath=False)


def inner(function: Callable[..., Any]) -> Any:
    """Like strict, for a function that only kernels call; Python would run it uncompiled.

    Code that converts its arguments and results from and to Python would take time to compile. It
    is not kept on disk by itself, but within the kernels that call it.
    """
    return extend.register_jitable(nogil=True, error_model="numpy", fastmath=False)(function)


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function on its first call, with a cache if it has a source file."""
    # No code in C calls it.
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    dispatcher = njit(**options)(function)
    source = Path(function.__code__.co_filename)
    if source.is_file():
        folder = cache_root() / stamp(source.parent)
        dispatcher._cache = Cache(function, folder, dispatcher.targetoptions)
    return dispatcher


@contextlib.contextmanager
def without_collection() -> Generator[None]:
    """Pause garbage collection, which looks for little among the many objects of the compiler."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def cache_root() -> Path:
    """Return the folder of all caches: in NUMBA_CACHE_DIR if it is set, or in the user's cache."""
    chosen = settings.CACHE_DIR
    user = Path(chosen, "tinygpt-np") if chosen else platformdirs.user_cache_path("tinygpt-np")
    return user / "kernels"


@functools.cache
def stamp(folder: Path) -> str:
    """Return a hash of everything that the kernels in a folder are compiled from."""
    versions = [module.__version__ for module in (numba, llvmlite, np)]
    digest = hashlib.sha256(
        repr((sys.version, versions, settings.OPT, settings.BOUNDSCHECK)).encode()
    )
    package = HERE.parent
    sources = {
        *HERE.rglob("*.py"),
        *package.glob("ops/**/*.py"),
        *package.glob("config.py"),
        *folder.glob("*.py"),
    }
    for path in sorted(sources):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.parent.name}/{path.name} {content}\n".encode())
    return digest.hexdigest()[:32]


class Cache:
    """The machine code of one function, one file for each signature and kind of processor.

    A file is a digest and its content. It is replaced atomically, so that processes may write it at
    the same time, and ignored if the digest is wrong.
    """

    def __init__(self, function: Callable[..., Any], folder: Path, options: dict[str, Any]) -> None:
        self.function, self.folder = function, folder
        # One function may be compiled in two ways.
        self.liberties = sorted(options["fastmath"] or ())
        self.name = f"{Path(function.__code__.co_filename).stem}.{function.__name__}"
        with contextlib.suppress(OSError):  # Mark the folder as used.
            os.utime(folder)

    def path(self, signature: Any, target: Any) -> Path:
        """Return the file for a signature on this processor."""
        of = identity(self.function), self.liberties
        key = repr((signature, target.codegen().magic_tuple(), of))
        return self.folder / f"{self.name}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the cached machine code, or None."""
        target.refresh()
        try:
            content = self.path(signature, target).read_bytes()
        except OSError:
            return None
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        return compile_result._rebuild(target, *pickle.loads(body))

    def save_overload(self, signature: Any, found: Any) -> None:
        """Write machine code; warn once if that is not possible."""
        if found.library.has_dynamic_globals:
            warnings.warn(
                f"{self.name} contains addresses of this process, so it cannot be stored on disk",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        body = pickle_of(found._reduce())
        path = self.path(signature, found.target_context)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, hashlib.sha256(body).digest() + body)
        except OSError as error:
            if not path.is_file():  # Windows locks a file that another process is reading.
                warn_unwritable(path.parent.parent, error.strerror)
        else:
            remove_old_folders(path.parent.parent)


def identity(value: Any) -> Any:
    """Return what distinguishes a function, or a value in its closure; equal in every process.

    That is its place in the sources and the values in its closure.
    """
    function = inspect.unwrap(value)  # The function that Numba compiled or that emits an intrinsic.
    if (code := getattr(function, "__code__", None)) is None:
        return pickle_of(value)
    enclosed = [identity(cell.cell_contents) for cell in function.__closure__ or ()]
    return Path(code.co_filename).name, code.co_firstlineno, function.__qualname__, enclosed


def write(path: Path, content: bytes) -> None:
    """Write a file atomically. Not by storage/files.py, which would not be covered by the stamp."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@functools.cache
def warn_unwritable(folder: Path, reason: str | None) -> None:
    """Warn, once for each folder and reason."""
    warnings.warn(
        f"compiled kernels cannot be stored in {folder} ({reason}), so they are compiled again at "
        "every start; set NUMBA_CACHE_DIR to use another folder",
        RuntimeWarning,
        stacklevel=2,
    )


def remove_old_folders(root: Path) -> None:
    """Remove all folders except those used last."""
    with contextlib.suppress(OSError):  # Another process may be doing the same.
        folders = sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-FOLDERS_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def watch(callback: Callable[[str], None]) -> Generator[None]:
    """Call callback("file.function") for each kernel that is compiled and not loaded."""

    class Listener(events.Listener):
        def on_start(self, event: Any) -> None:
            cache = event.data["dispatcher"]._cache
            if isinstance(cache, Cache):  # Numba compiles parts of its own, too.
                callback(cache.name)

        def on_end(self, event: Any) -> None:
            pass

    with events.install_listener("numba:compile", Listener()):
        yield


class CacheState(NamedTuple):
    """The folder of the present kernels, and the number and size of its files."""

    folder: Path
    writable: bool
    kernels: int
    bytes: int


def cache_state() -> CacheState:
    """Return the state of the cache on disk."""
    folder = cache_root() / stamp(HERE / "kernels")
    sizes = [path.stat().st_size for path in folder.glob("*.nbc")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        writable = True
    except OSError:
        writable = False
    return CacheState(folder, writable, len(sizes), sum(sizes))
