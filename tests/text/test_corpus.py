"""Texts: where they come from, what is wrong with them, how batches are cut from them."""

import hashlib
import re
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import corpus
from tinygpt_np.text.corpus import DataError

DATA = Path(__file__).parents[2] / "data"
TINYSHAKESPEARES_65 = set("\n !$&',-.3:;?" + string.ascii_letters)
steady = settings(deadline=None, derandomize=True)


def text_file(folder: Path, content: bytes) -> str:
    path = folder / "text.txt"
    path.write_bytes(content)
    return str(path)


# --data FILE


def test_a_relative_path_gives_a_name_that_holds_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text_file(tmp_path, b"text")
    monkeypatch.chdir(tmp_path)
    assert corpus.load("text.txt").name == path


def test_a_missing_file_is_named_and_what_could_be_given_is_said(tmp_path: Path) -> None:
    path = tmp_path / "absent.txt"
    with pytest.raises(DataError, match="there is no file") as caught:
        corpus.load(str(path))
    assert f"{path}; expected shakespeare, tinyshakespeare, the path" in str(caught.value)


def test_a_corpus_has_the_checksum_of_its_text() -> None:
    assert corpus.Corpus("a name", "é\n").sha256 == hashlib.sha256(b"\xc3\xa9\n").hexdigest()


# The split


@steady
@given(st.integers(1, 300), st.integers(0, 5000))
def test_the_split_keeps_every_token_in_order_nine_tenths_to_train_on(block: int, n: int) -> None:
    ids = np.arange(n + 10 * (block + 2))
    train, val = corpus.split(ids, block)
    np.testing.assert_array_equal(np.concatenate([train, val]), ids)
    assert 9 * len(val) <= len(train) + 9
    assert len(train) <= 9 * len(val)


@pytest.mark.parametrize("block_size", [1, 2, 31, 64, 256])
def test_as_many_characters_as_the_error_calls_enough_are_enough(block_size: int) -> None:
    train, val = corpus.split(np.zeros(characters_called_enough(block_size)), block_size)
    assert len(train) >= len(val) >= block_size + 1


@pytest.mark.parametrize("block_size", [1, 2, 31, 64, 256])
def test_one_fewer_than_the_error_calls_enough_is_too_short(block_size: int) -> None:
    with pytest.raises(DataError):
        corpus.split(np.zeros(characters_called_enough(block_size) - 1), block_size)


def characters_called_enough(block_size: int) -> int:
    with pytest.raises(DataError, match="too short") as caught:
        corpus.split(np.zeros(5), block_size)
    found = re.search(r"a text of ([\d,]+) tokens is long enough", str(caught.value))
    assert found
    return int(found[1].replace(",", ""))


def test_too_short_a_text_says_which_split_is_how_short() -> None:
    with pytest.raises(DataError, match="its validation split has 3 tokens") as caught:
        corpus.split(np.zeros(30), block_size=7)
    assert "--block-size 7 needs 8" in str(caught.value)


def test_a_text_too_short_to_train_on_names_the_training_split() -> None:
    with pytest.raises(DataError, match="its training split has 0 tokens"):
        corpus.split(np.zeros(1), block_size=1)


def test_targets_are_the_tokens_one_further_on() -> None:
    tokens, targets = corpus.random_batch(np.arange(50), 6, 8, np.random.default_rng(3))
    np.testing.assert_array_equal(targets, tokens + 1)


def test_a_chunk_is_tokens_that_stand_side_by_side() -> None:
    tokens, _ = corpus.random_batch(np.arange(50), 6, 8, np.random.default_rng(3))
    assert tokens.shape == (6, 8)
    np.testing.assert_array_equal(tokens, tokens[:, :1] + np.arange(8))


@steady
@given(st.integers(1, 9), st.integers(1, 9))
def test_every_start_is_drawn_the_last_included_and_none_past_it(block: int, starts: int) -> None:
    ids = np.arange(block + starts)
    # All draws miss a given place with a chance of (8/9)^1000 at most.
    tokens, targets = corpus.random_batch(ids, 1000, block, np.random.default_rng(0))
    assert set(tokens[:, 0].tolist()) == set(range(starts))
    assert targets.max() == ids[-1]


def test_the_same_generator_state_draws_the_same_batch() -> None:
    first, second = (
        corpus.random_batch(np.arange(500), 4, 8, np.random.default_rng(5))[0] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


# The whole split in windows

lengths, blocks = st.integers(2, 9000), st.integers(1, 3000)


@steady
@given(lengths, blocks)
def test_windows_predict_each_token_after_the_first_exactly_once(length: int, block: int) -> None:
    targets = [batch.ravel() for _, batch in corpus.windows(np.arange(length), block)]
    np.testing.assert_array_equal(np.concatenate(targets), np.arange(1, length))


@steady
@given(lengths, blocks)
def test_windows_show_the_token_before_each_target(length: int, block: int) -> None:
    for tokens, targets in corpus.windows(np.arange(length), block):
        np.testing.assert_array_equal(tokens + 1, targets)


@steady
@given(lengths, blocks)
def test_windows_are_as_long_as_the_block_but_for_the_last(length: int, block: int) -> None:
    widths = [tokens.shape[1] for tokens, _ in corpus.windows(np.arange(length), block)]
    assert set(widths[:-1]) <= {block}
    assert widths[-1] in {block, (length - 1) % block}


@steady
@given(lengths, blocks)
def test_windows_come_in_calls_of_bounded_size(length: int, block: int) -> None:
    sizes = [tokens.size for tokens, _ in corpus.windows(np.arange(length), block)]
    assert max(sizes) <= max(corpus.EVAL_TOKENS, block)


# The embedded corpus


@pytest.fixture(scope="module")
def shakespeare() -> str:
    return corpus.load("shakespeare").text


def readme_row(name: str) -> str:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(name)}[^|]*\| (.*) \|$", readme, re.MULTILINE)
    assert found
    return found[1]


def test_the_embedded_corpus_is_the_file_in_data() -> None:
    assert corpus.embedded_file().read_bytes() == (DATA / "shakespeare.txt").read_bytes()


def test_the_corpus_has_the_checksum_its_readme_gives() -> None:
    found = hashlib.sha256(corpus.embedded_file().read_bytes()).hexdigest()
    assert readme_row("SHA-256") == f"`{found}`"


def test_the_corpus_has_the_size_its_readme_gives(shakespeare: str) -> None:
    size = corpus.embedded_file().stat().st_size
    assert readme_row("characters") == f"{len(shakespeare):,}" == f"{size:,}"


def test_the_corpus_uses_tiny_shakespeares_65_characters_only(shakespeare: str) -> None:
    assert set(shakespeare) <= TINYSHAKESPEARES_65


def test_the_corpus_begins_as_tiny_shakespeare_does(shakespeare: str) -> None:
    begin = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak."
    assert shakespeare.startswith(begin)


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
def test_the_corpus_nowhere_has(shakespeare: str, what: str, pattern: str) -> None:
    assert not re.findall(pattern, shakespeare, re.MULTILINE), what


# tiny Shakespeare, downloaded


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in a cache of the test's own. Nothing may be downloaded unless the test says how."""
    monkeypatch.setattr("pooch.os_cache", tmp_path.joinpath)
    monkeypatch.setattr("pooch.retrieve", download(AssertionError("nothing may be downloaded")))
    (tmp_path / "tinygpt-np").mkdir()
    return tmp_path / "tinygpt-np" / "tinyshakespeare.txt"


def download(outcome: Exception | bytes) -> Callable[..., str]:
    """A stand-in for pooch.retrieve that fails, or writes these bytes."""

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        if isinstance(outcome, Exception):
            raise outcome
        assert known_hash == hashlib.sha256(outcome).hexdigest()
        (path / fname).write_bytes(outcome)
        return str(path / fname)

    return retrieve


def expect_error(cache: Path, what: str) -> str:
    """Loading must fail with this message and say what to put where; returns the message."""
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


def test_a_download_with_the_wrong_checksum_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.retrieve", download(ValueError("SHA256 hash does not match")))
    expect_error(cache, "the download has the wrong checksum")


FAILURES = [requests.ConnectionError, requests.exceptions.InvalidSchema, PermissionError]


@pytest.mark.parametrize("error", FAILURES)
def test_a_download_that_fails_is_named_with_its_reason(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr("pooch.retrieve", download(error("no way")))
    expect_error(cache, rf"cannot be downloaded \({error.__name__}\)")


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
