"""Files and folders that appear whole or not at all, and never replace what was there.

Content is written under a temporary name next to its destination, synced to disk, and renamed. Each
temporary name is unique and is locked by its writer, so that several processes cannot share one,
and what a killed process left behind is known by its lock, which the system has released.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: temporary names are unique there too, but leftovers stay.
    fcntl = None

TEMPORARY = ".writing-"


class FileError(ValueError):
    """A file or folder cannot be read or written, or is not what it should be."""


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new."""
    make_folder(path.parent)
    with described(path, len(content)), temporary_for(path, folder=False) as temporary:
        clean(path.parent, path.name)
        write_synced(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a new file in one step. Raise FileError if there is one already."""
    make_folder(path.parent)
    refuse_existing(path)
    with described(path, len(content)), temporary_for(path, folder=False) as temporary:
        clean(path.parent, path.name)
        write_synced(temporary, content)
        try:
            os.link(temporary, path)  # Unlike a rename, a link never replaces a file.
        except FileExistsError:
            raise FileError(existing(path)) from None
        except OSError:  # No hard links on this file system.
            refuse_existing(path)
            temporary.rename(path)
        sync_folder(path.parent)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Create a folder with these files in one step. Raise FileError if it exists."""
    with new_folder(folder, sum(map(len, contents.values()))) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)


@contextlib.contextmanager
def new_folder(folder: Path, size: int = 0) -> Generator[Path]:
    """Create a folder in one step: yield a temporary one to be filled, then give it its name.

    size: how many bytes it is going to hold, for the message that the disk is full. Raise FileError
    if the folder exists, at the beginning or at the end, or if another process is writing it. The
    temporary folder is removed if anything fails.
    """
    make_folder(folder.parent)
    refuse_existing(folder)
    if clean(folder.parent, folder.name):
        raise FileError(f"{folder} is being written by another process")
    with described(folder, size), temporary_for(folder, folder=True) as temporary:
        yield temporary
        for path in temporary.iterdir():
            sync_file(path)
        sync_folder(temporary)
        # A rename never replaces a folder with files in it, but it does replace an empty one.
        refuse_existing(folder)
        temporary.rename(folder)
        sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder, as far as possible: one that is in use may stay.

    It loses its name first, so that a crash does not leave half of it under that name.
    """
    temporary = temporary_name(folder)
    with contextlib.suppress(OSError):
        folder.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def write_link(path: Path, target: Path) -> None:
    """Make a path a link to a folder next to it, in one step. An old link is replaced."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    temporary = temporary_name(path)
    try:
        temporary.symlink_to(target.name)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and sync them."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise FileError(f"{folder} cannot be created: {error.strerror}") from None


def clean(parent: Path, name: str | None = None) -> bool:
    """Remove what killed processes left of their writing, and return whether a live one is writing.

    name: only of what should get this name.
    """
    writing = False
    for path in list(parent.iterdir()):
        if is_temporary(path) and name in (None, destination(path)):
            try:
                with locked(path):
                    remove(path)
            except BlockingIOError:
                writing = True
            except OSError:  # It has just gone, or cannot be locked here: it stays.
                pass
    return writing


def is_temporary(path: Path) -> bool:
    """Return whether a path has a temporary name."""
    return path.name.startswith(TEMPORARY)


def destination(temporary: Path) -> str:
    """Return the name that a temporary file or folder was going to get."""
    rest = temporary.name.removeprefix(TEMPORARY)
    return rest.partition("-")[2] or rest  # Older versions added nothing to the name.


def temporary_name(path: Path) -> Path:
    """Return a name that no other process uses, in the same folder."""
    return path.parent / f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}"


@contextlib.contextmanager
def temporary_for(path: Path, folder: bool) -> Generator[Path]:
    """Create a temporary file or folder next to a path, and lock it; remove it if it stays."""
    while True:
        temporary = temporary_name(path)
        if folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(temporary))
            except (BlockingIOError, FileNotFoundError):
                continue  # Before it was locked, another process took it for a leftover.
            except OSError:
                pass  # No locks on this file system: leftovers stay.
            try:
                yield temporary
            finally:
                remove(temporary)
            return


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Lock a file or folder while the context lasts.

    Raise BlockingIOError if another process has locked it, FileNotFoundError if it has gone, and
    OSError where such a lock is not supported.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no file locks")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, "replaced while it was locked")
        yield
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a temporary file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def refuse_existing(path: Path) -> None:
    """Raise FileError if a path exists, even as a dangling link."""
    if os.path.lexists(path):
        raise FileError(existing(path))


def existing(path: Path) -> str:
    return f"{path} exists already, and nothing is overwritten"


@contextlib.contextmanager
def described(path: Path, size: int) -> Generator[None]:
    """Turn an OSError of writing into a FileError that says what failed."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needs = f"{path} needs {size / 1e6:.1f} MB" if size else f"{path} was not written"
            raise FileError(f"the disk is full: {needs}; what was saved before is intact") from None
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and os.path.lexists(path):
            raise FileError(existing(path)) from None
        raise FileError(f"{path} cannot be written: {error.strerror}") from None


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and sync it to disk."""
    path.write_bytes(content)
    sync_file(path)


def sync_file(path: Path) -> None:
    """Write a file's content to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
