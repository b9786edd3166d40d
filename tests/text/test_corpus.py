"""Texts are read from files or refused with advice; splits and batches of sequences."""

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import socket
import string
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import corpus, dataset
from tinygpt_np.text.corpus import DataError

DATA = Path(__file__).parents[2] / "data"
TINYSHAKESPEARES_65 = set("\n !$&',-.3:;?" + string.ascii_letters)
steady = settings(deadline=None, derandomize=True)


def text_file(folder: Path, content: bytes) -> str:
    path = folder / "text.txt"
    path.write_bytes(content)
    return str(path)


# --data FILE


def test_a_relative_path_gives_an_absolute_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text_file(tmp_path, b"text")
    monkeypatch.chdir(tmp_path)
    assert corpus.load("text.txt").name == path


def test_a_missing_file_is_named_with_the_alternatives(tmp_path: Path) -> None:
    path = tmp_path / "absent.txt"
    with pytest.raises(DataError, match="there is no file") as caught:
        corpus.load(str(path))
    assert f"{path}; expected shakespeare, tinyshakespeare, the path" in str(caught.value)


# Reading files


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"], ids=["nothing", "byte order mark"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"text\.txt is empty"):
        corpus.load(text_file(tmp_path, content))


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_bytes_that_are_not_utf8_are_named_with_their_offset_in_the_file(
    tmp_path: Path, mark: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "BLOCK", block)
    content = mark + b"a long way to the caf\xe9 au lait"
    offset = content.index(0xE9)
    with pytest.raises(DataError, match=rf"not UTF-8: byte 0xe9 at offset {offset};"):
        corpus.load(text_file(tmp_path, content))


QUOTED = "a ‘b’ c\n"
LINE = "Où est l’été? “Là-bas” – 5 €\n" * 3


@pytest.mark.parametrize(
    ("content", "kind", "command"),
    [
        ("Où est l'été?\n".encode("latin-1"), "if it is LATIN1", "iconv -f LATIN1 -t UTF-8"),
        (b"it\x92s " + "été\n".encode("cp1252"), "if it is WINDOWS-1252", "iconv -f WINDOWS-1252"),
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
    text = corpus.read_text(tmp_path / "text-utf8.txt")
    texts = LINE, f"{LINE}\ufffd", QUOTED, "Où est l'été?\n", "it’s été\n", "plain", "plain "
    assert text in texts


def test_a_text_may_have_nul_characters(tmp_path: Path) -> None:
    for text in ("\0a\0bcdefgh", "a\0"):
        assert corpus.load(text_file(tmp_path, text.encode())).text == text


def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text_file(tmp_path, b"text")
    refusal = PermissionError(13, "Permission denied")
    for method in ("open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, Mock(side_effect=refusal))
            with pytest.raises(DataError, match=r"text\.txt cannot be read: Permission denied"):
                corpus.read_text(Path(path))


def test_only_a_regular_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # The path of a socket must be short.
        server.bind("socket")
        monkeypatch.setattr(Path, "open", Mock(side_effect=AssertionError("it was opened")))
        for path, kind in (("fifo", "a pipe"), ("socket", "a socket"), ("/dev/zero", "a device")):
            with pytest.raises(DataError, match=f"{path} is {kind}; expected a regular file: save"):
                corpus.load(path)
            with pytest.raises(DataError, match=f"{path} is {kind}; expected a regular file: save"):
                next(corpus.pieces(Path(path)))
    with pytest.raises(DataError, match="is not a path"):
        corpus.read_text(Path("a\0b"))


def test_a_text_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(10**10)  # A sparse file, which takes no space.
    monkeypatch.setattr(corpus, "available_memory", lambda: 8e9)
    monkeypatch.setattr(Path, "open", Mock(side_effect=AssertionError("it was opened")))
    with pytest.raises(
        DataError, match=r"large\.txt has 10\.0 GB; .* about 170\.0 GB .* 8\.0 GB are available"
    ) as e:
        corpus.load(str(path))
    assert "tinygpt prepare" in str(e.value)


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


# Splits


@steady
@given(st.integers(1, 300), st.integers(0, 5000))
def test_nine_tenths_of_the_tokens_are_for_training(block: int, n: int) -> None:
    ids = np.arange(n + 10 * (block + 2))
    train, val = corpus.split(ids, block)
    np.testing.assert_array_equal(np.concatenate([train, val]), ids)
    assert 9 * len(val) <= len(train) + 9
    assert len(train) <= 9 * len(val)


@pytest.mark.parametrize("block_size", [1, 2, 31, 64, 256])
def test_the_length_that_the_error_calls_long_enough_is_just_enough(block_size: int) -> None:
    with pytest.raises(DataError, match="its training split has 4 tokens") as caught:
        corpus.split(np.zeros(5), max(block_size, 4))
    found = re.search(r"a text of ([\d,]+) tokens is long enough", str(caught.value))
    assert found
    enough = 10 * block_size + 1
    train, val = corpus.split(np.zeros(enough), block_size)
    assert len(train) >= len(val) >= block_size + 1
    with pytest.raises(DataError, match=f"its validation split .* {enough:,} tokens is long"):
        corpus.split(np.zeros(enough - 1), block_size)


# Batches of sequences


@steady
@given(st.integers(1, 9), st.integers(1, 9))
def test_random_sequences_start_anywhere_and_targets_follow(block: int, starts: int) -> None:
    ids = np.arange(block + starts)
    # The chance that a start is never drawn is (8/9)^1000 at most.
    tokens, targets = corpus.random_batch(ids, 1000, block, np.random.default_rng(0))
    assert set(tokens[:, 0].tolist()) == set(range(starts))
    np.testing.assert_array_equal(tokens, tokens[:, :1] + np.arange(block))
    np.testing.assert_array_equal(targets, tokens + 1)


@steady
@given(st.integers(2, 9000), st.integers(1, 3000))
def test_sequences_predict_each_token_after_the_first_once(length: int, block: int) -> None:
    batches = list(corpus.sequences(np.arange(length, dtype=np.uint16), block))
    targets = np.concatenate([batch.ravel() for _, batch in batches])
    np.testing.assert_array_equal(targets, np.arange(1, length))
    for tokens, following in batches:
        assert tokens.dtype == following.dtype == np.int64
        assert tokens.size <= max(corpus.EVAL_TOKENS, block)
        np.testing.assert_array_equal(tokens + 1, following)
    widths = [tokens.shape[1] for tokens, _ in batches]
    assert set(widths[:-1]) <= {block}
    assert widths[-1] in {block, (length - 1) % block}


# The embedded corpus


@pytest.fixture(scope="module")
def shakespeare() -> str:
    return corpus.load("shakespeare").text


def test_the_embedded_corpus_is_the_file_in_data_whose_checksum_its_readme_gives() -> None:
    content = corpus.embedded_file().read_bytes()
    assert content == (DATA / "shakespeare.txt").read_bytes()
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert re.search(
        rf"^\| SHA-256[^|]*\| `{hashlib.sha256(content).hexdigest()}` \|$", readme, re.M
    )


def test_the_corpus_has_the_form_and_the_characters_of_tiny_shakespeare(shakespeare: str) -> None:
    begin = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak."
    assert shakespeare.startswith(begin)
    assert set(shakespeare) <= TINYSHAKESPEARES_65


def test_a_speech_is_a_speakers_line_and_the_lines_below_it(shakespeare: str) -> None:
    speeches = [speech.split("\n") for speech in shakespeare.rstrip("\n").split("\n\n")]
    wrong = [s for s in speeches if not re.fullmatch(r"[A-Z][^.:;!?]*:", s[0]) or len(s) < 2]
    assert not wrong


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("two blank lines", r"\n\n\n"),
        ("a blank at either end of a line", r"^ .*|.* $"),
        ("a stage direction", r"[\[\](){}]|^(?:Enter|Exit|Exeunt) .*"),
        ("a heading", r"^(?:ACT|Act|SCENE|Scene) [IVX\d]+.*"),
        ("no single newline at the end", r"[^\n]\Z|\n\n\Z"),
    ],
)
def test_the_corpus_does_not_have(shakespeare: str, what: str, pattern: str) -> None:
    assert not re.findall(pattern, shakespeare, re.MULTILINE), what


# tiny Shakespeare, downloaded


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in an empty cache, and forbid downloads."""
    monkeypatch.setattr("pooch.os_cache", tmp_path.joinpath)
    monkeypatch.setattr("pooch.retrieve", download(AssertionError("nothing may be downloaded")))
    (tmp_path / "tinygpt-np").mkdir()
    return tmp_path / "tinygpt-np" / "tinyshakespeare.txt"


def download(outcome: Exception | bytes) -> Callable[..., str]:
    """Return a fake pooch.retrieve that fails or writes these bytes."""

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        if isinstance(outcome, Exception):
            raise outcome
        assert known_hash == hashlib.sha256(outcome).hexdigest()
        (path / fname).write_bytes(outcome)
        return str(path / fname)

    return retrieve


def expect_error(cache: Path, what: str) -> str:
    """Return the error of loading, which says which file to put where."""
    with pytest.raises(DataError, match=what) as caught:
        corpus.load("tinyshakespeare")
    message = str(caught.value)
    assert "put the file input.txt of karpathy/char-rnn" in message
    assert "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" in message
    assert message.endswith(f" at {cache}")
    return message


def test_a_cached_file_with_the_wrong_checksum_is_refused(cache: Path) -> None:
    cache.write_bytes(b"First Citizen:\n")
    assert str(cache) in expect_error(cache, "has the wrong checksum; remove it").split(";")[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("SHA256 hash does not match"), "the download has the wrong checksum"),
        (requests.ConnectionError(), r"cannot be downloaded \(ConnectionError\)"),
        (PermissionError("no way"), r"cannot be downloaded \(PermissionError\)"),
    ],
)
def test_a_download_that_fails_is_named_with_its_reason(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    monkeypatch.setattr("pooch.retrieve", download(error))
    expect_error(cache, expected)


@pytest.mark.parametrize("cached", [True, False])
def test_the_right_file_is_read_from_the_cache_or_downloaded_into_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    content = b"First Citizen:\n"
    monkeypatch.setattr(corpus, "TINYSHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
    if cached:
        cache.write_bytes(content)
    else:
        monkeypatch.setattr("pooch.retrieve", download(content))
    assert corpus.load("tinyshakespeare") == corpus.Corpus("tinyshakespeare", "First Citizen:\n")
