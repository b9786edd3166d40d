"""SentencePiece tokenizers: lossless if trained here; models that were trained elsewhere."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.optional import needs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_np.text import corpus
from tinygpt_np.text.tokenizers import MissingPackageError, SentencePieceTokenizer, TokenizerError
from tinygpt_np.text.tokenizers.sentencepiece import LINE, PIECES

library: Any = needs("sentencepiece")
steady = settings(deadline=None, derandomize=True, max_examples=300)
TEXTS = st.text() | st.text("the a\n\t\r\0▁▅\ufffd <unk>0x41é\u0301\u00a0\u3000🙂漢")


@pytest.fixture(scope="module")
def learned() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(corpus.load("shakespeare").text, 600)


def foreign(text: str, vocab_size: int, **changes: Any) -> SentencePieceTokenizer:
    """Train a model with the library's own settings."""
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")), model_writer=written, vocab_size=vocab_size,
        minloglevel=2, **changes,
    )  # fmt: skip
    return SentencePieceTokenizer(written.getvalue(), "foreign.model")


# Training


def test_any_text_survives_the_round_trip(learned: SentencePieceTokenizer) -> None:
    @steady
    @given(TEXTS)
    @example("  a  \n\n\n ▁ b▁▁ \r\n\t")
    @example("<s></s><unk><0x41>\n<0x0A>")
    def holds(text: str) -> None:
        ids = learned.encode(text)
        assert learned.decode(ids) == text == "".join(learned.stream(ids.tolist()))

    holds()


def test_a_new_line_is_a_token_of_its_own(learned: SentencePieceTokenizer) -> None:
    the, newline = learned.encode(" the").tolist(), learned.start().tolist()
    assert learned.encode(" the\n\n the").tolist() == the + newline * 2 + the
    assert learned.decode(learned.start()) == "\n"


def test_the_same_text_gives_the_same_pieces_longer_than_characters(
    learned: SentencePieceTokenizer,
) -> None:
    again = SentencePieceTokenizer.train(corpus.load("shakespeare").text, 600)
    assert again.model == learned.model
    pieces = [learned.bytes_of(token) for token in learned.encode(", my lord")]
    assert pieces == [b",", b" my", b" lord"]


def test_an_unpaired_surrogate_is_refused(learned: SentencePieceTokenizer) -> None:
    for use in (learned.encode, SentencePieceTokenizer.train):
        with pytest.raises(TokenizerError, match=r"U\+DE00 at position 1"):
            use("a\ude00")


@pytest.mark.parametrize("unit", ["a", " ", "é", "\n"])
def test_a_long_word_is_encoded(learned: SentencePieceTokenizer, unit: str) -> None:
    text = unit * 100_000
    assert learned.decode(learned.encode(text)) == text


def test_training_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    SentencePieceTokenizer.train("to be or not to be\n▅ to be", 268)
    assert capfd.readouterr() == ("", "")


def test_the_default_number_of_pieces_is_learned() -> None:
    assert (
        SentencePieceTokenizer.train(corpus.load("shakespeare").text[:90_000]).vocab_size == PIECES
    )


@pytest.mark.parametrize("char", ["é", "ÿ", "漢", "🙂"])
def test_even_a_rare_character_is_a_piece(char: str) -> None:
    tokenizer = SentencePieceTokenizer.train("to be or not to be " * 500 + char, 275)
    (token,) = tokenizer.encode(char).tolist()
    assert tokenizer.bytes_of(token) == char.encode("utf-8")


# The text to learn from


@pytest.mark.parametrize("kept", ["▁", "▅", "\0"])
def test_lines_with_reserved_characters_are_learned_from(kept: str) -> None:
    tokenizer = SentencePieceTokenizer.train(f"to be or not{kept} to be {kept}", 270)
    assert tokenizer.decode([269, 268]).strip() != ""
    assert len(tokenizer.encode("to be")) < len("to be")


def test_a_long_line_is_learned_from() -> None:
    tokenizer = SentencePieceTokenizer.train("漢字 " * 40_000, 263)
    assert len(tokenizer.encode(" 漢字")) == 1


@steady
@given(st.text())
def test_the_library_sees_all_characters_that_are_not_reserved(text: str) -> None:
    assert "".join(LINE.findall(text)) == "".join(c for c in text if c not in "\n\0▁▅")


@pytest.mark.parametrize("text", ["", "\n\n", "▁\0"])
def test_a_text_without_words_is_refused(text: str) -> None:
    with pytest.raises(TokenizerError, match="no text to learn pieces from"):
        SentencePieceTokenizer.train(text)


TEXT = "to be or not to be"


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


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [(0, "must be positive, not 0"), (2**31, r"must be below 2\*\*31, not 2147483648")],
)
def test_an_impossible_number_of_pieces_is_refused(vocab_size: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        SentencePieceTokenizer.train(TEXT, vocab_size)


# Files


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 99])
def test_a_file_that_is_not_a_model_is_named(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"x\.model is damaged, or not a Sent"):
        SentencePieceTokenizer.from_file(path)
    assert capfd.readouterr() == ("", "")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    message = r"needs sentencepiece: pip install 'tinygpt-np\[tokenizers\]'"
    with pytest.raises(MissingPackageError, match=message):
        SentencePieceTokenizer.train(TEXT, 300)
    with pytest.raises(MissingPackageError, match=message):
        SentencePieceTokenizer(b"")


# Models that were trained elsewhere


@pytest.fixture(scope="module")
def their() -> SentencePieceTokenizer:
    """Train a model that normalises, adds a space before a text and has no bytes."""
    return foreign(corpus.load("shakespeare").text[:50_000], 300)


@pytest.mark.parametrize("text", ["to be", "b", "the end of it"])
def test_the_space_that_a_model_adds_before_a_text_is_removed(
    their: SentencePieceTokenizer, text: str
) -> None:
    ids = their.encode(text)
    assert ids.tolist() == their.processor.encode(text)
    assert their.decode(ids) == their.processor.decode(ids.tolist()) == text
    # A stream continues a text, so the space separates words.
    assert "".join(their.stream(ids.tolist())) == f" {text}"


def test_a_model_that_normalises_decodes_to_the_normalised_text(
    their: SentencePieceTokenizer,
) -> None:
    assert their.decode(their.encode("  ｔｏ   be\n")) == "to be"
    assert their.decode(their.encode("to 漢 be")) == "to \ufffd be"


def test_a_model_without_newlines_starts_with_its_own_token(
    their: SentencePieceTokenizer,
) -> None:
    assert their.start().tolist() == [their.processor.bos_id()] == [1]
    assert their.decode(their.start()) == ""
