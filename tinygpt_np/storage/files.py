"""Write files and folders atomically: a reader sees all of the new content or none of it.

Content is written under a temporary name in the same folder, synced to disk and renamed. Temporary
names are unique, and each is locked by the process that writes it. The system releases the lock
when that process ends, so leftovers of killed processes are recognised and removed.
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
except ImportError:  # On Windows, leftovers of killed processes are not removed.
    fcntl = None

TEMPORARY = ".writing-"
EXISTS = "{} exists already, and nothing is overwritten"


class FileError(ValueError):
    """A file or folder cannot be read or written, or is not what it should be."""


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, replacing an older one."""
    with new_file(path, content) as temporary:
        temporary.replace(path)


def create_file(path: Path, content: bytes) -> None:
    """Write a new file atomically. Raise FileError if the path exists."""
    refuse_existing(path)
    with new_file(path, content) as temporary:
        try:
            os.link(temporary, path)  # Unlike a rename, this never replaces a file.
        except FileExistsError:
            raise FileError(EXISTS.format(path)) from None
        except OSError:  # The file system has no hard links.
            refuse_existing(path)
            temporary.rename(path)


@contextlib.contextmanager
def new_file(path: Path, content: bytes) -> Generator[Path]:
    """Yield a temporary file with this content, to be renamed to the path."""
    make_folder(path.parent)
    with described(path, len(content)), temporary_for(path, folder=False) as temporary:
        clean(path.parent, path.name)
        temporary.write_bytes(content)
        sync_file(temporary)
        yield temporary
        sync_folder(path.parent)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Create a folder with these files atomically. Raise FileError if the path exists."""
    with new_folder(folder, sum(map(len, contents.values()))) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)


@contextlib.contextmanager
def new_folder(folder: Path, size: int = 0) -> Generator[Path]:
    """Create a folder atomically: yield a temporary folder to fill, then rename it.

    It is removed if anything fails. Raise FileError if the folder exists, before or after it is
    filled, or if another process is writing it. The message about a full disk has the size.
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
        # A rename would replace an empty folder.
        refuse_existing(folder)
        temporary.rename(folder)
        sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder if possible, under another name, so that a crash leaves no part of it."""
    temporary = temporary_name(folder)
    with contextlib.suppress(OSError):
        folder.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def write_link(path: Path, target: Path) -> None:
    """Make a path a link to a folder next to it, atomically, replacing an older link or folder."""
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


def clean(parent: Path, name: str = "") -> bool:
    """Remove leftovers of killed processes. Return whether a live process is writing."""
    writing = False
    for path in list(parent.iterdir()):
        destination = path.name.removeprefix(TEMPORARY).partition("-")[2]
        if path.name.startswith(TEMPORARY) and name in ("", destination):
            try:
                with locked(path):
                    remove(path)
            except BlockingIOError:
                writing = True
            except OSError:  # It has just gone, or locks are not supported.
                pass
    return writing


def temporary_name(path: Path) -> Path:
    """Return a unique temporary path in the same folder."""
    return path.parent / f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}"


@contextlib.contextmanager
def temporary_for(path: Path, folder: bool) -> Generator[Path]:
    """Yield a new, locked temporary file or folder next to a path, removed if it is not renamed."""
    while True:
        temporary = temporary_name(path)
        create = temporary.mkdir if folder else temporary.touch
        create(exist_ok=False)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(temporary))
            except (BlockingIOError, FileNotFoundError):
                continue  # Another process removed it as a leftover before it was locked.
            except OSError:
                pass  # Locks are not supported.
            try:
                yield temporary
            finally:
                remove(temporary)
            return


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Lock a file or folder in the context, or raise OSError; BlockingIOError if it is locked."""
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
    """Remove a file or folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def refuse_existing(path: Path) -> None:
    """Raise FileError if a path exists, even as a dangling link."""
    if os.path.lexists(path):
        raise FileError(EXISTS.format(path))


@contextlib.contextmanager
def described(path: Path, size: int) -> Generator[None]:
    """Turn an OSError in the context into a FileError that says what could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needs = f"{path} needs {size / 1e6:.1f} MB" if size else f"{path} was not written"
            raise FileError(f"the disk is full: {needs}; what was saved before is intact") from None
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and os.path.lexists(path):
            raise FileError(EXISTS.format(path)) from None
        raise FileError(f"{path} cannot be written: {error.strerror}") from None


def sync_file(path: Path) -> None:
    """Sync a file's content to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk. On Windows, which cannot open folders, do nothing."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
