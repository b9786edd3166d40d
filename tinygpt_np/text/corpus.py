"""Read texts from files, split them, and draw batches of sequences from their tokens.

A text is a regular file in UTF-8, or one of three named corpora. Anything else is refused with the
command that converts it.
"""

import codecs
import hashlib
import io
import logging
import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygpt_np.config import counted
from tinygpt_np.machine import available_memory

TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
NAMED = ("shakespeare", "tinyshakespeare", "words")
TRAIN_SHARE = 0.9
# Bytes to read at a time.
BLOCK = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
# A file is not a text if more than this fraction of its first bytes is 0, and it is not tiny.
MAX_ZEROS, MIN_BYTES = 0.2, 8
# Peak memory of reading and encoding a text, per byte of the file. Measured with characters as
# tokens; GPT-2's tokens take 14.
MEMORY_PER_BYTE = 17
# First bytes of files that are not UTF-8, their format, and the command that converts them.
# UTF-32 comes before UTF-16, because its byte order mark begins with that of UTF-16.
SIGNATURES = (
    (b"\xff\xfe\0\0", "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"\x1f\x8b", "a gzip file", "gunzip -c"),
    (b"PK\x03\x04", "a zip file", "unzip -p"),
    (b"BZh", "a bzip2 file", "bunzip2 -c"),
    (b"\xfd7zXZ\0", "an xz file", "xz -dc"),
)
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


class DataError(ValueError):
    """A text cannot be read or is unsuitable for training."""


@dataclass(frozen=True)
class Corpus:
    """A named text."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The SHA-256 of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(source: str, keep_mark: bool = False) -> Corpus:
    """Return a named corpus or the UTF-8 text in a file, with its byte order mark if asked."""
    if source == "words":
        return Corpus(source, words(read_text(embedded_file())))
    path = path_of(source)
    if source in NAMED:
        return Corpus(source, read_text(path))
    if not os.path.lexists(path):
        raise DataError(
            f"there is no file {path}; expected {', '.join(NAMED)}, the path of a UTF-8 text, or, "
            "to train, a folder with train.bin and val.bin"
        )
    return Corpus(str(path.resolve()), read_text(path, keep_mark))


def words(text: str) -> str:
    """Return the distinct words of a text in lower case, one on each line, in a random order."""
    found = set(re.findall("(?<!['a-z])[a-z]+", text.lower()))  # Not the ll of I'll.
    lines = sorted(found, key=lambda word: hashlib.sha256(word.encode()).digest())
    return "\n".join(lines) + "\n"


def path_of(source: str) -> Path:
    """Return the file that --data names: shakespeare, tinyshakespeare or a path."""
    if source == "words":
        raise DataError("words are not a file: they are made from shakespeare, and only trained on")
    if source == "tinyshakespeare":
        return tinyshakespeare_file()
    return embedded_file() if source == "shakespeare" else Path(source)


def embedded_file() -> Path:
    """Return the path of the embedded corpus, which is in data/ in a clone of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "shakespeare.txt"
    return installed if installed.exists() else package.parent / "data" / "shakespeare.txt"


def tinyshakespeare_file() -> Path:
    """Return the path of Karpathy's corpus in the user's cache, downloading it on first use."""
    import pooch  # pyright: ignore[reportMissingTypeStubs]

    path = Path(pooch.os_cache("tinygpt-np")) / "tinyshakespeare.txt"
    remedy = (
        f"put the file input.txt of karpathy/char-rnn, data/tinyshakespeare (1,115,394 bytes, "
        f"SHA-256 {TINYSHAKESPEARE_SHA256}) at {path}"
    )
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(  # pyright: ignore[reportUnknownMemberType]
            TINYSHAKESPEARE_URL, TINYSHAKESPEARE_SHA256, path.name, path.parent
        )
    except OSError as error:
        reason = type(error).__name__
        raise DataError(f"tinyshakespeare cannot be downloaded ({reason}); {remedy}") from None
    except ValueError:
        raise DataError(f"the download has the wrong checksum; {remedy}") from None
    return path


def read_text(path: Path, keep_mark: bool = False) -> str:
    """Return the text of a file; see `pieces`. Raise DataError if memory is too small for it."""
    size, has = file_size(path), available_memory()
    if size * MEMORY_PER_BYTE > has:
        raise DataError(
            f"{path} has {size / 1e6:,.0f} MB; training on it as a text would take about "
            f"{size * MEMORY_PER_BYTE / 1e6:,.0f} MB of memory, and {has / 1e6:,.0f} MB are "
            "available: turn it into a folder of tokens with tinygpt prepare, which reads a text "
            "in small pieces, and train on that folder"
        )
    text = "".join(pieces(path, keep_mark))
    if not text:
        raise DataError(f"{path} is empty; expected a text")
    return text


def pieces(path: Path, keep_mark: bool = False) -> Iterator[str]:
    """Yield the text of a UTF-8 file in pieces, with normalised line ends.

    A byte order mark at the start is skipped unless keep_mark is true. The error for a file with
    another encoding says what to do.
    """
    file_size(path)
    # The decoder keeps the first part of a character or \r\n that is split between two blocks.
    encoding = codecs.getincrementaldecoder("utf-8" if keep_mark else "utf-8-sig")
    decoder = io.IncrementalNewlineDecoder(encoding(), translate=True)
    try:
        with path.open("rb") as file:
            refuse_zeros(path, file.read(BLOCK))
            file.seek(0)
            while True:
                block = file.read(BLOCK)
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    raise not_utf8(path, file, error) from None
                if text:
                    yield text
                if not block:
                    return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Return the size of a regular file. Nothing else is opened: a FIFO may block."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # A NUL character in the path.
        raise DataError(f"{str(path)!r} is not a path: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        save = "a regular file: save the text first, for example with  cat > text.txt"
        raise DataError(f"{path} is {kind}; expected {'a file' if kind == 'a folder' else save}")
    return found.st_size


def not_utf8(path: Path, file: BinaryIO, error: UnicodeDecodeError) -> DataError:
    """Return the error for a file that is not UTF-8: its likely encoding and how to convert it."""
    place = file.tell() - len(error.object) + error.start
    byte, ends = error.object[error.start], error.reason == "unexpected end of data"
    file.seek(0)
    head = file.read(BLOCK)
    likely = next((found for found in SIGNATURES if head.startswith(found[0])), None)
    if likely:
        what, command = f"it looks like {likely[1]}", likely[2]
    # ASCII before the byte says nothing about the encoding, and a single byte at the end of it is
    # more likely a letter in another encoding than part of a character.
    elif is_ascii(file, place) and not (ends and len(error.object) - error.start > 1):
        # Windows-1252 has quotation marks and dashes where Latin-1 has control characters.
        encoding = "WINDOWS-1252" if byte < 0xA0 else "LATIN1"
        what, command = f"it may be {encoding}", f"iconv -f {encoding} -t UTF-8"
    else:
        what = "the file may be cut off" if ends else "it is damaged there"
        command = "iconv -c -f UTF-8 -t UTF-8"
    return DataError(
        f"{path} is not UTF-8: byte 0x{byte:02x} at offset {place}; {what}; {advice(path, command)}"
    )


def is_ascii(file: BinaryIO, end: int) -> bool:
    """Return whether the first `end` bytes of a file are ASCII."""
    starts = range(0, end, BLOCK)
    file.seek(0)
    return all(file.read(min(BLOCK, end - start)).isascii() for start in starts)


def advice(path: Path, command: str) -> str:
    """Return advice to convert a file to UTF-8 with a shell command."""
    name = path.name.removesuffix(path.suffix)
    source, target = shlex.quote(str(path)), shlex.quote(f"{name}-utf8.txt")
    return f"convert it with  {command} {source} > {target}"


def refuse_zeros(path: Path, head: bytes) -> None:
    """Raise DataError if many of a file's first bytes are 0, which decode as UTF-8."""
    if head.startswith(tuple(signature for signature, _, _ in SIGNATURES)):
        return
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= MIN_BYTES and even + odd > len(head) * MAX_ZEROS:
        encoding = "UTF-16LE" if odd >= even else "UTF-16BE"
        raise DataError(
            f"{path} is not a text: {(even + odd) / len(head):.0%} of its first bytes are 0, as in "
            "UTF-16 without a byte order mark or in a file of tokens; "
            + advice(path, f"iconv -f {encoding} -t UTF-8")
            + ", or give the folder of train.bin and val.bin"
        )


def split(ids: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ids (M,) into 90 % for training and the rest. Raise DataError if one is too short."""
    cut = int(TRAIN_SHARE * len(ids))
    train, val = ids[:cut], ids[cut:]
    check_lengths(train, val, block_size)
    return train, val


def check_lengths(train: np.ndarray, val: np.ndarray, block_size: int) -> None:
    """Raise DataError unless each split has block_size + 1 tokens."""
    needed = block_size + 1
    for name, part in (("training", train), ("validation", val)):
        if len(part) < needed:
            # The validation split, a tenth rounded up, is the smaller one.
            enough = 10 * block_size + 1
            raise DataError(
                f"the text is too short: its {name} split has {counted(len(part), 'token')}, but "
                f"--block-size {block_size:,} needs {needed:,}; a text of {enough:,} tokens is "
                "long enough"
            )
