"""Reading texts from files: UTF-8 in regular files, and what to do about anything else."""

import codecs
import io
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from tinygpt_np.machine import available_memory

# Bytes of a file that are read at once.
BLOCK = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
# A file of which a larger share of the first bytes is 0 is no text, if it has so many.
ZEROS, SHORTEST = 0.2, 8
# Peak memory while a text is read and encoded, in bytes for each byte of the file; measured with
# characters as tokens (GPT-2's take 14).
MEMORY_PER_BYTE = 17
# First bytes of files that are not UTF-8 texts, what they are, and the command that converts them.
# UTF-32 comes before UTF-16, whose mark is the beginning of its own.
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


class DataError(ValueError):
    """A text cannot be read, or cannot be trained on."""


def read_text(path: Path, keep_mark: bool = False) -> str:
    """Return the whole text of a file, as `pieces` reads it.

    Raises DataError also if the file is empty, or if training on it would not fit into memory.
    """
    size, has = file_size(path), available_memory()
    if size * MEMORY_PER_BYTE > has:
        raise DataError(
            f"{path} has {in_words(size)}; training on it as a text would take about "
            f"{in_words(size * MEMORY_PER_BYTE)} of memory, and {in_words(has)} are available: "
            "turn it into a folder of tokens with tinygpt prepare, which reads a text in small "
            "pieces, and train on that folder"
        )
    text = "".join(pieces(path, keep_mark))
    if not text:
        raise DataError(f"{path} is empty; expected a text")
    return text


def pieces(path: Path, keep_mark: bool = False) -> Iterator[str]:
    """Yield the text of a UTF-8 file piece by piece, with line ends as \\n.

    A byte order mark at the start is left out, unless keep_mark is true. Raises DataError, which
    says what to do, for anything but a regular file and for any other encoding.
    """
    file_size(path)
    # A character or a \r\n may be split between two blocks; the decoder keeps the first part.
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    begins, ascii_only, head = True, True, b""
    try:
        with path.open("rb") as file:
            while True:
                block = file.read(BLOCK)
                if not head:
                    head = block
                    refuse_zeros(path, head)
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    offset = file.tell() - len(error.object) + error.start
                    ascii_only = ascii_only and error.object[: error.start].isascii()
                    raise not_utf8(path, head, offset, error, ascii_only) from None
                if begins and text:
                    text = text if keep_mark else text.removeprefix(BYTE_ORDER_MARK)
                    begins = False
                ascii_only = ascii_only and text.isascii()
                if text:
                    yield text
                if not block:
                    return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Return the size of a regular file in bytes.

    Raises DataError for anything else before it is opened: opening a FIFO waits for a writer, a
    device may have no end, and a pipe can be read only once.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # A NUL character in the path.
        raise DataError(f"{str(path)!r} is not a path: {error}") from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path} is a folder; expected a file")
    if not stat.S_ISREG(found.st_mode):
        kind = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise DataError(
            f"{path} is {kind.get(stat.S_IFMT(found.st_mode), 'a device')}; expected a regular "
            "file: save the text first, for example with  cat > text.txt"
        )
    return found.st_size


def in_words(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def not_utf8(
    path: Path, head: bytes, offset: int, error: UnicodeDecodeError, ascii_before: bool
) -> DataError:
    """Return the error for a file that is not UTF-8: what it looks like and how to convert it.

    head: the first bytes of the file. offset: of the first byte that cannot be decoded.
    ascii_before: whether all the text before it is ASCII, which says nothing about the encoding.
    """
    byte = error.object[error.start]
    place = f"{path} is not UTF-8: byte 0x{byte:02x} at offset {offset}"
    for signature, kind, command in SIGNATURES:
        if head.startswith(signature):
            return DataError(f"{place}; it looks like {kind}; {advice(path, command)}")
    ends = error.reason == "unexpected end of data"
    # One byte at the end of ASCII is rather a letter of another encoding than half a character.
    if not ascii_before or (ends and len(error.object) - error.start > 1):
        what = "the file may be cut off" if ends else "it is damaged there"
        return DataError(f"{place}; {what}; {advice(path, 'iconv -c -f UTF-8 -t UTF-8')}")
    # Windows-1252 has quotation marks and dashes where Latin-1 has control characters.
    encoding = "WINDOWS-1252" if byte < 0xA0 else "LATIN1"
    return DataError(
        f"{place}; if it is {encoding}: {advice(path, f'iconv -f {encoding} -t UTF-8')}"
    )


def advice(path: Path, command: str) -> str:
    """Return a shell command that writes the text of a file as UTF-8 into another file."""
    name = path.name.removesuffix(path.suffix)
    source, target = shlex.quote(str(path)), shlex.quote(f"{name}-utf8.txt")
    return f"convert it with  {command} {source} > {target}"


def refuse_zeros(path: Path, head: bytes) -> None:
    """Raise DataError if many of a file's first bytes are 0, as in UTF-16 and in files of tokens.

    Most of these bytes decode as UTF-8. A file that begins with a known signature is left to the
    decoder, whose error says more.
    """
    if head.startswith(tuple(signature for signature, _, _ in SIGNATURES)):
        return
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= SHORTEST and even + odd > len(head) * ZEROS:
        encoding = "UTF-16LE" if odd >= even else "UTF-16BE"
        raise DataError(
            f"{path} is not a text: {(even + odd) / len(head):.0%} of its first bytes are 0, as in "
            "UTF-16 without a byte order mark or in a file of tokens; "
            + advice(path, f"iconv -f {encoding} -t UTF-8")
            + ", or give the folder of train.bin and val.bin"
        )
