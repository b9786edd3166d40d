"""Tokens that are bytes are decoded in complete characters; files that cannot be read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text.tokenizers.byte_level import (
    ByteLevel,
    TokenizerError,
    checked,
    read,
    read_json,
    read_text,
)

steady = settings(deadline=None, derandomize=True)
BYTES = ByteLevel([bytes([byte]) for byte in range(256)])


@steady
@given(st.text())
def test_a_stream_gives_each_character_when_its_last_byte_comes(text: str) -> None:
    assert list(BYTES.stream(text.encode())) == list(text)


@steady
@given(st.binary())
def test_a_stream_equals_decode_for_any_bytes(content: bytes) -> None:
    assert "".join(BYTES.stream(content)) == BYTES.decode(content)


def test_a_character_is_yielded_with_its_last_byte() -> None:
    tokens = iter("é€".encode())
    stream = BYTES.stream(tokens)
    assert next(stream) == "é"
    assert len(list(tokens)) == 3


def test_incomplete_and_invalid_characters_are_replaced() -> None:
    tokens = ByteLevel([b"a\xf0\x9f", b"\x99\x82b", b""])
    assert list(tokens.stream([0, 2, 1, 2])) == ["a", "🙂b"]
    assert list(BYTES.stream(b"a\xf0\x9f\x99")) == ["a", "\ufffd"]
    assert list(BYTES.stream(b"\xf0\x9fab")) == ["\ufffda", "b"]


def test_an_unpaired_surrogate_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"U\+D83D at position 2 is half of a surrogate pair"):
        checked("ab\ud83d")


@pytest.mark.parametrize("use", [read, read_text, read_json])
@pytest.mark.parametrize(
    ("name", "reason"), [("x", "there is no file"), ("", "is a folder"), ("fifo", "is a pipe")]
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, reason: str, use: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TokenizerError, match=reason) as caught:
        use(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"[", "is damaged: it is not JSON"),
        (b"[" * 100_000, "is damaged: it is not JSON"),
        (b"[1]", "is damaged: it is not a JSON object"),
        ('{"é": 1}'.encode("latin-1"), "is not UTF-8: byte 0xe9 at offset 2; .* iconv -f LATIN1"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8: .* iconv -f UTF-16"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_named(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"x\.json {expected}"):
        read_json(tmp_path / "x.json")
