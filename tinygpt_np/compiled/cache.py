"""How a kernel is compiled, and how what was compiled is kept on disk.

Numba's own cache asks whether the file of a function has changed. A function it calls may stand in
another file, and is compiled into it: change that file alone, and the old machine code goes on
being loaded. So kernels are kept here, in a folder named after a stamp of all that goes into
them: the sources of compiled/, ops/ and config.py, and of the function's own folder, the
versions of the compilers, and the settings that change what they do. What a processor must be able
to do is part of a kernel's key.

Of Numba this relies on what its dispatcher asks of a cache (load_overload, save_overload, flush,
cache_path), on CompileResult._reduce and _rebuild, which its own cache is made of, on the names
py_func and _defn for what a dispatcher and an intrinsic wrap, and on the event numba:compile.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import llvmlite  # pyright: ignore[reportMissingTypeStubs]
import numba
import numpy as np
import platformdirs
from numba.core import compiler, config, event, serialize

# Never nnan or ninf: a NaN must stay one, to be found and named.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
HERE = Path(__file__).parent
# Folders of the latest stamps, of which each edit of a kernel makes a new one.
FOLDERS_KEPT = 8
DIGEST_BYTES = hashlib.sha256().digest_size

# Numba has no types to offer.
njit: Any = numba.njit
settings: Any = config
events: Any = event
compile_result: Any = compiler.CompileResult
pickle_of: Callable[[Any], bytes] = cast(Any, serialize).dumps


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call, without the GIL, and keep it on disk.

    Sums may be regrouped, and how they are depends on the code around them. A kernel that another
    calls is therefore always inlined: a copy that is called by name would be one of several with
    the same name, and which of them the linker takes depends on what was loaded first.
    """
    options = {"nogil": True, "fastmath": FASTMATH, "forceinline": True}
    return kept(njit(**options, error_model="numpy")(function), function)


def strict(function: Callable[..., Any]) -> Any:
    """Like kernel, but without fastmath: every operation is done as written, in all copies.

    Use it for sums that must not be regrouped, and for a function too large to be always inlined.
    """
    # Without fastmath=False a callee takes over the fastmath flags of its caller.
    return kept(njit(nogil=True, fastmath=False, error_model="numpy")(function), function)


def kept(dispatcher: Any, function: Callable[..., Any]) -> Any:
    """The dispatcher, with a cache if its function has a source that can be looked after."""
    source = Path(function.__code__.co_filename)
    if source.is_file():
        folder = cache_root() / stamp(source.parent)
        dispatcher._cache = Cache(function, folder, dispatcher.targetoptions)
    return dispatcher


def cache_root() -> Path:
    """Where the folders are: in NUMBA_CACHE_DIR if that is set, or in the user's cache."""
    chosen = settings.CACHE_DIR
    user = Path(chosen, "tinygpt-np") if chosen else platformdirs.user_cache_path("tinygpt-np")
    return user / "kernels"


@functools.cache
def stamp(folder: Path) -> str:
    """What kernels in a folder are made of, as a name: another one, whatever has changed of it."""
    made_of = [
        sys.version,
        *(module.__version__ for module in (numba, llvmlite, np)),
        *(str(setting) for setting in (settings.OPT, settings.BOUNDSCHECK)),
    ]
    package = HERE.parent
    sources = {
        *HERE.rglob("*.py"),
        *package.glob("ops/**/*.py"),
        *package.glob("config.py"),
        *folder.glob("*.py"),
    }
    digest = hashlib.sha256(repr(made_of).encode())
    for path in sorted(sources):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.parent.name}/{path.name} {content}\n".encode())
    return digest.hexdigest()[:32]


class Cache:
    """The machine code of one function, one file for each signature and kind of processor.

    A file is a digest and what it is the digest of, put in place whole: two processes at once write
    the same, and of one that is damaged nothing is believed.
    """

    def __init__(self, function: Callable[..., Any], folder: Path, options: dict[str, Any]) -> None:
        self.function, self.folder = function, folder
        # One function may be compiled in two ways.
        self.liberties = sorted(options["fastmath"] or ())
        self.name = f"{Path(function.__code__.co_filename).stem}.{function.__name__}"
        with contextlib.suppress(OSError):  # Used now, so removed last.
            os.utime(folder)

    @property
    def cache_path(self) -> str:
        return str(self.folder)

    def path(self, signature: Any, target: Any) -> Path:
        """The file for a signature on this processor."""
        of = identity(self.function), self.liberties
        key = repr((signature, target.codegen().magic_tuple(), of))
        return self.folder / f"{self.name}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """What was compiled, or None."""
        target.refresh()
        try:
            content = self.path(signature, target).read_bytes()
        except OSError:
            return None
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        return compile_result._rebuild(target, *pickle.loads(body))

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Writes what was compiled; where that cannot be done, says so once."""
        if compiled.library.has_dynamic_globals:
            warnings.warn(
                f"{self.name} holds addresses of this process, so it cannot be kept on disk",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        body = pickle_of(compiled._reduce())
        path = self.path(signature, compiled.target_context)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, hashlib.sha256(body).digest() + body)
        except OSError as error:
            if not path.is_file():  # Else another process is reading it, and Windows locks it.
                warn_unwritable(path.parent.parent, error.strerror)
        else:
            remove_old_folders(path.parent.parent)

    def flush(self) -> None:
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)


def identity(value: Any) -> Any:
    """What tells a function, or a value in its closure, from others, the same in each process.

    Where in the sources it stands is enough for a function without a closure; functions made in
    one place differ by what they enclose.
    """
    function = getattr(value, "py_func", getattr(value, "_defn", value))  # Of what Numba wraps.
    if (code := getattr(function, "__code__", None)) is None:
        return pickle_of(value)
    enclosed = [identity(cell.cell_contents) for cell in function.__closure__ or ()]
    return Path(code.co_filename).name, code.co_firstlineno, function.__qualname__, enclosed


def write(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    beside = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


@functools.cache
def warn_unwritable(folder: Path, reason: str | None) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept in {folder} ({reason}), so they are compiled anew on "
        "each start; NUMBA_CACHE_DIR may name another folder",
        RuntimeWarning,
        stacklevel=2,
    )


def remove_old_folders(root: Path) -> None:
    """Leaves those used last."""
    with contextlib.suppress(OSError):  # Another process may be doing the same.
        folders = sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-FOLDERS_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def watch(callback: Callable[[str], None]) -> Generator[None]:
    """Calls callback("file.function") whenever a kernel is about to be compiled, not loaded."""

    class Listener(events.Listener):
        def on_start(self, event: Any) -> None:
            cache = event.data["dispatcher"]._cache
            if isinstance(cache, Cache):  # Numba compiles parts of its own, too.
                callback(cache.name)

        def on_end(self, event: Any) -> None:
            pass

    with events.install_listener("numba:compile", Listener()):
        yield


@dataclass(frozen=True)
class CacheState:
    """folder: of the kernels as they are now; kernels: how many compiled ones it keeps."""

    folder: Path
    writable: bool
    kernels: int
    bytes: int


def cache_state() -> CacheState:
    folder = cache_root() / stamp(HERE / "kernels")
    sizes = [path.stat().st_size for path in folder.glob("*.nbc")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return CacheState(folder, False, len(sizes), sum(sizes))
    return CacheState(folder, True, len(sizes), sum(sizes))
