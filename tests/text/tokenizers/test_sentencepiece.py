"""SentencePiece tokenizers: lossless if trained here; models that were trained elsewhere."""

import io
import re
import sys
from typing import Any

import pytest
from helpers.optional import needs

from tinygpt_np.text import corpus
from tinygpt_np.text.tokenizers import MissingPackageError, SentencePieceTokenizer, TokenizerError

library: Any = needs("sentencepiece")
TEXT = "to be or not to be"


@pytest.fixture(scope="module")
def learned() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(corpus.load("shakespeare").text, 600)


# Training


def test_a_new_line_is_a_token_of_its_own(learned: SentencePieceTokenizer) -> None:
    the, newline = learned.encode(" the").tolist(), learned.start().tolist()
    assert learned.encode(" the\n\n the").tolist() == the + newline * 2 + the
    assert learned.decode(learned.start()) == "\n"


def test_the_same_text_gives_the_same_long_pieces(learned: SentencePieceTokenizer) -> None:
    again = SentencePieceTokenizer.train(corpus.load("shakespeare").text, 600)
    assert again.model == learned.model
    pieces = [learned.bytes_of(token) for token in learned.encode(", my lord")]
    assert pieces == [b",", b" my", b" lord"]


@pytest.mark.parametrize(
    ("text", "size", "word"),
    [
        ("to be or not to be " * 500 + "🙂", 275, "🙂"),
        ("漢字 " * 4096, 263, " 漢字"),
        *((f"to be or not{reserved} to be {reserved}", 270, "to be") for reserved in "▁▅\0"),
    ],
    ids=["a rare character", "a long line", *("a reserved character",) * 3],
)
def test_any_text_is_learned_from_silently(
    text: str, size: int, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = SentencePieceTokenizer.train(text, size)
    assert len(tokenizer.encode(word)) < len(word.encode()) - 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("asked", "many", "advice", "beyond"),
    [(1024, "many", "or less, or --tokenizer char", 1), (100, "few", "or more", -1)],
)
def test_too_many_or_too_few_pieces_are_refused_with_the_limit(
    asked: int, many: str, advice: str, beyond: int
) -> None:
    message = f"{asked:,} pieces are too {many} for this text"
    with pytest.raises(TokenizerError, match=message) as caught:
        SentencePieceTokenizer.train(TEXT, asked)
    found = re.search(r"--vocab-size (\d+)", str(caught.value))
    assert found
    limit = int(found[1])
    assert SentencePieceTokenizer.train(TEXT, limit).vocab_size == limit
    with pytest.raises(TokenizerError, match=f"use --vocab-size {limit} {advice}"):
        SentencePieceTokenizer.train(TEXT, limit + beyond)


def test_training_without_words_or_for_an_impossible_number_of_pieces_is_refused() -> None:
    for size in (0, 2**31):
        with pytest.raises(TokenizerError, match=rf"positive and below 2\*\*31, not {size}"):
            SentencePieceTokenizer.train(TEXT, size)
    with pytest.raises(TokenizerError, match="there is no text to learn pieces from"):
        SentencePieceTokenizer.train("▁\n\0")


# Files


def test_a_file_that_is_not_a_model_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"text"):
        with pytest.raises(TokenizerError, match=r"x\.model is damaged, or not a Sent"):
            SentencePieceTokenizer(content, "x.model")
    assert capfd.readouterr() == ("", "")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    for use in (SentencePieceTokenizer.train, SentencePieceTokenizer):
        with pytest.raises(MissingPackageError, match=r"needs sentencepiece: pip .*\[tokenizers\]"):
            use(b"")  # pyright: ignore[reportArgumentType, reportCallIssue]


# Models that were trained elsewhere


@pytest.fixture(scope="module")
def their() -> SentencePieceTokenizer:
    """Train a model that normalises, adds a space before a text and has no bytes."""
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus.load("shakespeare").text[:50_000].split("\n")),
        model_writer=written, vocab_size=300, minloglevel=2,
    )  # fmt: skip
    return SentencePieceTokenizer(written.getvalue(), "their.model")


@pytest.mark.parametrize("text", ["to be", "b", "the end of it"])
def test_the_space_that_a_model_adds_is_removed(their: SentencePieceTokenizer, text: str) -> None:
    ids = their.encode(text)
    assert ids.tolist() == their.processor.encode(text)
    assert their.decode(ids) == their.processor.decode(ids.tolist()) == text
    # A stream continues a text, so the space separates words.
    assert "".join(their.stream(ids.tolist())) == f" {text}"


def test_a_model_normalises_and_starts_with_its_own_token(their: SentencePieceTokenizer) -> None:
    assert their.decode(their.encode("  ｔｏ   be\n")) == "to be"
    assert their.decode(their.encode("to 漢 be")) == "to \ufffd be"
    assert their.start().tolist() == [their.processor.bos_id()] == [1]
    assert their.decode(their.start()) == ""
