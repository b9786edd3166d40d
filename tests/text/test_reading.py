"""Texts from files: what is read, what is refused, and the advice that comes with a refusal."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import socket
import subprocess
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import corpus, dataset
from tinygpt_np.text import reading as texts
from tinygpt_np.text.corpus import DataError

steady = settings(deadline=None, derandomize=True)


def text_file(folder: Path, content: bytes) -> str:
    path = folder / "text.txt"
    path.write_bytes(content)
    return str(path)


def test_a_folder_is_named_as_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; expected a file") as caught:
        corpus.load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"], ids=["nothing", "byte order mark"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"text\.txt is empty"):
        corpus.load(text_file(tmp_path, content))


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_bytes_that_are_not_utf8_are_named_with_their_offset_in_the_file(
    tmp_path: Path, mark: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BLOCK", block)
    content = mark + b"a long way to the caf\xe9 au lait"
    offset = content.index(0xE9)
    with pytest.raises(DataError, match=rf"not UTF-8: byte 0xe9 at offset {offset};"):
        corpus.load(text_file(tmp_path, content))


LINE = "Où est l’été? “Là-bas” – 5 €\n" * 3


@pytest.mark.parametrize(
    ("content", "kind", "command"),
    [
        ("Où est l'été?\n".encode("latin-1"), "if it is LATIN1", "iconv -f LATIN1 -t UTF-8"),
        ("Olé".encode("latin-1"), "if it is LATIN1", "iconv -f LATIN1 -t UTF-8"),
        (b"it\x92s " + "été\n".encode("cp1252"), "if it is WINDOWS-1252", "iconv -f WINDOWS-1252"),
        (LINE.encode("utf-16"), "looks like UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + LINE.encode("utf-16-be"), "looks like UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (LINE.encode("utf-32"), "looks like UTF-32", "iconv -f UTF-32 -t UTF-8"),
        (b"\0\0\xfe\xff" + LINE.encode("utf-32-be"), "looks like UTF-32", "iconv -f UTF-32"),
        ("plain".encode("utf-16-le"), "of its first bytes are 0", "iconv -f UTF-16LE -t UTF-8"),
        ("a ‘b’ c\n".encode("utf-16-le"), "of its first bytes are 0", "iconv -f UTF-16LE"),
        ("a ‘b’ c\n".encode("utf-16-be"), "of its first bytes are 0", "iconv -f UTF-16BE"),
        ("café naïve\n".encode("utf-16-le"), "of its first bytes are 0", "iconv -f UTF-16LE"),
        (gzip.compress(LINE.encode(), mtime=0), "looks like a gzip file", "gunzip -c"),
        (bz2.compress(LINE.encode()), "looks like a bzip2 file", "bunzip2 -c"),
        (lzma.compress(LINE.encode()), "looks like an xz file", "xz -dc"),
        (LINE.encode() + b"\xff", "it is damaged there", "iconv -c -f UTF-8 -t UTF-8"),
        (LINE.encode() + b"\xe2\x82", "the file may be cut off", "iconv -c -f UTF-8 -t UTF-8"),
        (b"plain \xe2\x82", "the file may be cut off", "iconv -c -f UTF-8 -t UTF-8"),
    ],
)
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_a_file_in_another_encoding_comes_with_a_command_that_makes_it_utf8(
    tmp_path: Path, content: bytes, kind: str, command: str, block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(texts, "BLOCK", block)
    folder = tmp_path / "my folder; rm"
    folder.mkdir()
    path = text_file(folder, content)
    with pytest.raises(DataError) as caught:
        corpus.load(path)
    assert kind in str(caught.value)
    assert command in str(caught.value)
    advised = re.search(r"convert it with  (.* > [^ ,]+)", str(caught.value))
    assert advised
    if shutil.which(command.split()[0]) is None:
        return  # Not every machine has bunzip2 and xz.
    subprocess.run(advised[1], shell=True, cwd=tmp_path, timeout=60, check=False)
    text = texts.read_text(tmp_path / "text-utf8.txt")
    assert text in (
        LINE,
        LINE + "\ufffd",
        "Où est l'été?\n",
        "Olé",
        "it’s été\n",
        "plain",
        "plain ",
        "a ‘b’ c\n",
        "café naïve\n",
    )


def test_a_text_may_have_nul_characters(tmp_path: Path) -> None:
    assert corpus.load(text_file(tmp_path, b"\0a\0bcdefgh")).text == "\0a\0bcdefgh"
    assert corpus.load(text_file(tmp_path, b"a\0")).text == "a\0"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text_file(tmp_path, b"text")
    refusal = PermissionError(13, "Permission denied")
    for method in ("open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, Mock(side_effect=refusal))
            with pytest.raises(DataError, match=r"text\.txt cannot be read: Permission denied"):
                texts.read_text(Path(path))


def test_a_path_with_a_nul_character_is_refused() -> None:
    with pytest.raises(DataError, match="is not a path"):
        texts.read_text(Path("a\0b"))


def test_only_a_regular_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # The path of a socket must be short.
        server.bind("socket")
        monkeypatch.setattr(Path, "open", Mock(side_effect=AssertionError("it was opened")))
        for path, kind in (
            ("fifo", "a pipe"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
            ("/dev/urandom", "a device"),
        ):
            with pytest.raises(DataError, match=f"{path} is {kind}; expected a regular file: save"):
                corpus.load(path)
            with pytest.raises(DataError, match=f"{path} is {kind}; expected a regular file: save"):
                next(texts.pieces(Path(path)))


def test_a_pipe_given_as_a_file_is_refused(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"text")
        with pytest.raises(DataError, match="is a pipe; expected a regular file"):
            corpus.load(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        os.close(writing)


def test_a_text_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(10**10)  # A sparse file, which takes no space.
    monkeypatch.setattr(texts, "available_memory", lambda: 8e9)
    monkeypatch.setattr(Path, "open", Mock(side_effect=AssertionError("it was opened")))
    with pytest.raises(
        DataError, match=r"large\.txt has 10\.0 GB; .* about 170\.0 GB .* 8\.0 GB are available"
    ) as e:
        corpus.load(str(path))
    assert "tinygpt prepare" in str(e.value)


def test_a_text_that_fits_into_memory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "available_memory", lambda: 4 * texts.MEMORY_PER_BYTE)
    assert corpus.load(text_file(tmp_path, b"text")).text == "text"
    text = b"to be " * 10**5
    with pytest.raises(
        DataError, match=r"has 0\.6 MB; .* 10\.2 MB of memory, and 0\.0 MB are avail"
    ):
        corpus.load(text_file(tmp_path, text))


def test_the_memory_that_a_text_takes_is_not_underestimated() -> None:
    text = "To be, or not to be: that is the question.\n" * 5000
    tracemalloc.start()
    try:
        dataset.from_corpus(corpus.Corpus("text", text))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # And the text itself, which was there before.
    assert 0.9 * texts.MEMORY_PER_BYTE < peak / len(text) + 1 < texts.MEMORY_PER_BYTE


@steady
@given(st.text("a\r\né€🙂\ufeff"), st.integers(1, 9))
def test_a_text_in_pieces_is_the_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, block: int
) -> None:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_bytes(text.encode())
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        assert "".join(texts.pieces(path, keep_mark=True)) == expected
        assert "".join(texts.pieces(path)) == expected.removeprefix("\ufeff")
        assert all(texts.pieces(path, keep_mark=True))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"a\rb\r", "a\nb\n"),
        (b"\xef\xbb\xbfab", "ab"),
        ("Ünö\n".encode(), "Ünö\n"),
    ],
    ids=["Windows line ends", "old Mac line ends", "byte order mark", "UTF-8"],
)
def test_a_path_gives_the_text_of_the_file(tmp_path: Path, content: bytes, text: str) -> None:
    assert corpus.load(text_file(tmp_path, content)).text == text
