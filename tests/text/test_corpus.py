"""Texts are read from files or refused with advice; splits."""

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import socket
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import corpus, dataset
from tinygpt_np.text.corpus import DataError

DATA = Path(__file__).parents[2] / "data"
steady = settings(deadline=None, derandomize=True)


def text_file(folder: Path, content: bytes) -> str:
    path = folder / "text.txt"
    path.write_bytes(content)
    return str(path)


# Reading files


QUOTED = "a ‘b’ c\n"
LINE = "Où est l’été? “Là-bas” – 5 €\n" * 3


@pytest.mark.parametrize(
    ("content", "kind", "command"),
    [
        ("Où est l'été?\n".encode("latin-1"), "it may be LATIN1", "iconv -f LATIN1 -t UTF-8"),
        (b"\xef\xbb\xbfplain \xff", "it is damaged there", "iconv -c -f UTF-8 -t UTF-8"),
        (b"it\x92s " + "été\n".encode("cp1252"), "it may be WINDOWS-1252", "iconv -f WINDOWS-1252"),
        (LINE.encode("utf-16"), "looks like UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (LINE.encode("utf-32"), "looks like UTF-32", "iconv -f UTF-32 -t UTF-8"),
        (b"\0\0\xfe\xff" + LINE.encode("utf-32-be"), "looks like UTF-32", "iconv -f UTF-32"),
        ("plain".encode("utf-16-le"), "of its first bytes are 0", "iconv -f UTF-16LE -t UTF-8"),
        (QUOTED.encode("utf-16-be"), "of its first bytes are 0", "iconv -f UTF-16BE"),
        (gzip.compress(LINE.encode(), mtime=0), "looks like a gzip file", "gunzip -c"),
        (bz2.compress(LINE.encode()), "looks like a bzip2 file", "bunzip2 -c"),
        (lzma.compress(LINE.encode()), "looks like an xz file", "xz -dc"),
        (LINE.encode() + b"\xff", "it is damaged there", "iconv -c -f UTF-8 -t UTF-8"),
        (LINE.encode() + b"\xe2\x82", "the file may be cut off", "iconv -c -f UTF-8 -t UTF-8"),
        (b"plain \xe2\x82", "the file may be cut off", "iconv -c -f UTF-8 -t UTF-8"),
    ],
)
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_the_error_of_another_encoding_has_a_command_that_converts_it(
    tmp_path: Path, content: bytes, kind: str, command: str, block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(corpus, "BLOCK", block)
    folder = tmp_path / "my folder; rm"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        corpus.load(text_file(folder, content))
    assert kind in str(caught.value)
    assert command in str(caught.value)
    if place := re.search(r"byte (0x..) at offset (\d+);", str(caught.value)):
        assert f"{content[int(place[2])]:#04x}" == place[1]
        content[: int(place[2])].decode()
    advised = re.search(r"convert it with  (.* > [^ ,]+)", str(caught.value))
    assert advised
    if shutil.which(command.split()[0]) is None:
        return  # Not every machine has bunzip2 and xz.
    subprocess.run(advised[1], shell=True, cwd=tmp_path, timeout=60, check=False)
    text = corpus.read_text(tmp_path / "text-utf8.txt").strip("\ufeff\ufffd ")
    assert text in (LINE, QUOTED, "Où est l'été?\n", "it’s été\n", "plain")


def test_a_text_may_have_nul_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("\0a\0bcdefgh", "a\0"):
        path = text_file(tmp_path, text.encode())
        assert corpus.load("text.txt") == corpus.Corpus(path, text)


def test_only_a_regular_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    text_file(tmp_path, b"text")
    monkeypatch.chdir(tmp_path)  # The path of a socket must be short.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    for path, expected in (
        ("fifo", "fifo is a pipe; expected a regular file: save"),
        ("socket", "socket is a socket; expected a regular file: save"),
        ("/dev/zero", "/dev/zero is a device; expected a regular file: save"),
        (".", "is a folder; expected a file"),
        (
            "absent",
            "there is no file absent; expected shakespeare, tinyshakespeare, words, the path",
        ),
        ("text.txt", "text.txt cannot be read: Permission denied"),
    ):
        with pytest.raises(DataError, match=expected):
            corpus.load(path)
        with pytest.raises(DataError, match=expected.partition(";")[0]):
            next(corpus.pieces(Path(path)))
    for name, expected in (("a\0b", "is not a path"), ("x" * 300, "cannot be read: File name too")):
        with pytest.raises(DataError, match=expected):
            corpus.read_text(Path(name))


def test_a_text_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(10**10)  # A sparse file, which takes no space.
    monkeypatch.setattr(corpus, "available_memory", lambda: 16e10)
    monkeypatch.setattr(Path, "open", Mock(side_effect=AssertionError("it was opened")))
    with pytest.raises(DataError) as caught:
        corpus.load(str(path))
    for part in ("large.txt has 10,000 MB", "170,000 MB", "160,000 MB are", "tinygpt prepare"):
        assert part in str(caught.value)


def test_the_memory_that_a_text_takes_is_not_underestimated() -> None:
    text = "To be, or not to be: that is the question.\n" * 5000
    tracemalloc.start()
    try:
        dataset.from_corpus(corpus.Corpus("text", text))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Add the text itself, which existed before.
    assert 0.9 * corpus.MEMORY_PER_BYTE < peak / len(text) + 1 < corpus.MEMORY_PER_BYTE


@steady
@given(st.text("a\r\né€🙂\ufeff"), st.integers(1, 9))
def test_a_text_in_pieces_is_the_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, block: int
) -> None:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_bytes(text.encode())
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BLOCK", block)
        assert "".join(corpus.pieces(path, keep_mark=True)) == expected
        assert "".join(corpus.pieces(path)) == expected.removeprefix("\ufeff")
        assert all(corpus.pieces(path, keep_mark=True))
        if not expected.removeprefix("\ufeff"):
            with pytest.raises(DataError, match=r"text\.txt is empty"):
                corpus.read_text(path)


# Splits


@steady
@given(st.integers(1, 300), st.integers(0, 5000))
def test_nine_tenths_of_the_tokens_are_for_training(block: int, more: int) -> None:
    enough = 10 * block + 1
    ids = np.arange(enough + more)
    train, val = corpus.split(ids, block)
    np.testing.assert_array_equal(np.concatenate([train, val]), ids)
    assert 9 * len(val) <= len(train) + 9
    assert len(train) <= 9 * len(val)
    for name, count in (("validation", enough - 1), ("training", block)):
        message = f"its {name} split .* a text of {enough:,} tokens is long enough"
        with pytest.raises(DataError, match=message):
            corpus.split(ids[:count], block)


# The named corpora


def test_the_embedded_corpus_is_the_file_in_data_whose_checksum_its_readme_gives() -> None:
    content = corpus.embedded_file().read_bytes()
    assert content == (DATA / "shakespeare.txt").read_bytes()
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(content).hexdigest()
    assert re.search(rf"^\| SHA-256[^|]*\| `{digest}` \|$", readme, re.M)


def test_words_are_those_of_the_embedded_corpus_each_once_in_an_order_that_is_not_theirs() -> None:
    found = corpus.load("words")
    assert found.name == "words"
    lines = found.text.removesuffix("\n").split("\n")
    assert len(lines) == len({*lines}) > 11_000
    assert {"romeo", "thou", "will"} <= {*lines}
    spoken = {*re.split("[^a-z']+", corpus.load("shakespeare").text.lower())}
    assert {line for line in lines if len(line) > 2} <= {word.split("'")[0] for word in spoken}
    assert {*"".join(lines)} == {chr(number) for number in range(ord("a"), ord("z") + 1)}
    assert lines != sorted(lines)
    initials = [
        sum(line[0] < "m" for line in part) / len(part) for part in (lines[:9000], lines[9000:])
    ]
    assert abs(initials[0] - initials[1]) < 0.03


def test_words_end_at_an_apostrophe_and_what_follows_it_is_no_word() -> None:
    found = corpus.words("I'll hear; 'tis Hear-say, o'er th' Sea\n")
    assert sorted(found.split()) == ["hear", "i", "o", "say", "sea", "th"]
    assert found == corpus.words(found)


def test_words_are_no_file() -> None:
    with pytest.raises(DataError, match="words are not a file: they are made from shakespeare"):
        corpus.path_of("words")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in an empty cache, whose checksum is that of a small text."""
    digest = hashlib.sha256(b"First Citizen:\n").hexdigest()
    monkeypatch.setattr(corpus, "TINYSHAKESPEARE_SHA256", digest)
    monkeypatch.setattr("pooch.os_cache", tmp_path.joinpath)
    return tmp_path / "tinygpt-np" / "tinyshakespeare.txt"


@pytest.mark.parametrize(
    ("cached", "outcome", "expected"),
    [
        (b"First Citizen:\n", AssertionError("it was downloaded"), ""),
        (b"another text", b"First Citizen:\n", ""),
        (b"", b"First Citizen:\n", ""),
        (b"", b"something else", "the download has the wrong checksum"),
        (b"", requests.ConnectionError(), r"cannot be downloaded \(ConnectionError\)"),
        (b"", PermissionError("no way"), r"cannot be downloaded \(PermissionError\)"),
    ],
)
def test_tiny_shakespeare_is_in_the_cache_or_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cached: bytes, outcome: Any, expected: str
) -> None:
    if cached:
        cache.parent.mkdir()
        cache.write_bytes(cached)

    def download(url: str, output_file: str, pooch: object) -> None:
        assert url == corpus.TINYSHAKESPEARE_URL
        if isinstance(outcome, Exception):
            raise outcome
        Path(output_file).write_bytes(outcome)

    monkeypatch.setattr("pooch.core.choose_downloader", Mock(return_value=download))
    if not expected:
        assert corpus.load("tinyshakespeare").text == "First Citizen:\n"
        return
    remedy = f"; put the file input.txt of .*{corpus.TINYSHAKESPEARE_SHA256}.* at {cache}$"
    with pytest.raises(DataError, match=expected + remedy):
        corpus.load("tinyshakespeare")
