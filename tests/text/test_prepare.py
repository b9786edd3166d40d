"""Token folders have the tokens of the whole text, and are written atomically."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import byte_pairs
from helpers.optional import needs
from helpers.tiny_run import TEXT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tinygpt_np.config import TrainConfig
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import corpus, dataset, prepare, tokenizers
from tinygpt_np.text.corpus import Corpus, DataError
from tinygpt_np.text.dataset import Dataset


def nothing(done: int, total: int) -> None:
    pass


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def encode(
    folder: Path, *texts: str, kind: str = "char", report: prepare.Report = nothing, **options: Any
) -> dict[str, Any]:
    """Prepare texts, for gpt2 with a tokenizer in their own folder."""
    paths = [write(folder / f"{i}.txt", text) for i, text in enumerate(texts)]
    place = options.pop("path", folder if kind == "gpt2" else "")
    return prepare.prepare(paths, kind, str(place), folder / "out", report, **options)


def written(folder: Path) -> Dataset:
    return dataset.load(TrainConfig(block_size=2, data=str(folder / "out")))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BLOCK", 7)
    monkeypatch.setattr(prepare, "MAX_PIECE", 20)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Write the files of a small GPT-2 tokenizer."""
    needs("tiktoken")
    byte_pairs.write(tmp_path)
    return tmp_path


def test_several_texts_are_encoded_as_one(tmp_path: Path, small_pieces: None) -> None:
    told: list[int] = []
    meta = encode(tmp_path, TEXT[:700], TEXT[700:], report=lambda done, total: told.append(done))
    expected, found = dataset.from_corpus(Corpus("text", TEXT)), written(tmp_path)
    np.testing.assert_array_equal(found.train, expected.train)
    np.testing.assert_array_equal(found.val, expected.val)
    assert meta == json.loads((tmp_path / "out" / "meta.json").read_text()) == {
        "tokenizer": "char", "vocab_size": 18, "dtype": "uint16", "characters": 1720,
        "train_tokens": 1548, "val_tokens": 172,
    }  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == 1720
    assert len(told) > 100


# Pieces


@settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(" \n\taé’!'\u3000\x1c", min_size=1), st.integers(0, 60), st.integers(1, 9))
@example("x" * 63, 0, 9)
def test_pieces_end_before_white_space_or_at_the_cut_or_are_long(
    small_pieces: None, text: str, cut: int, size: int
) -> None:
    given = (text[start : start + size] for start in range(0, len(text), size))
    pieces = list(prepare.whole_words(given, cut))
    assert "".join(pieces) == text
    assert all(pieces)
    ends = np.cumsum([len(piece) for piece in pieces])
    assert not 0 < cut < len(text) or cut in ends
    assert max(map(len, pieces)) < 30
    for end, piece in zip(ends[:-1], pieces[:-1], strict=True):
        whole = text[end] in " \n" and not text[end - 1].isspace()
        assert whole or end == cut or len(piece) >= 20


@pytest.mark.parametrize("kind", ["gpt2", "sentencepiece"])
def test_pieces_have_the_tokens_of_the_whole_text(
    kind: str, tmp_path: Path, small_pieces: None, gpt2_files: Path
) -> None:
    text = "Where's  the 12 o'clock\r\ntrain?\n\n\tÜber  allem 🙂🙂 ,, !!  \n it's   \n" * 40
    options: dict[str, Any] = {"path": gpt2_files} if kind == "gpt2" else {"vocab_size": 320}
    meta = encode(tmp_path, text, kind=kind, **options)
    text, found = text.replace("\r\n", "\n"), written(tmp_path)
    cut = int(0.9 * len(text))
    np.testing.assert_array_equal(found.train, found.tokenizer.encode(text[:cut]))
    np.testing.assert_array_equal(found.val, found.tokenizer.encode(text[cut:]))
    assert meta["train_tokens"] == len(found.train)
    assert found.tokenizer.kind == kind


def test_an_added_token_that_a_cut_might_split_is_refused(pairs: Path) -> None:
    write(pairs / "added_tokens.json", json.dumps({"one word": 264}))
    with pytest.raises(DataError, match="the added token 'one word' has white space inside"):
        encode(pairs, TEXT, kind="gpt2")
    write(pairs / "added_tokens.json", json.dumps({" words": 264}))
    encode(pairs, TEXT, kind="gpt2")


def test_sentencepiece_learns_from_all_of_the_first_pieces(
    tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("sentencepiece")
    text = " ".join(f"{number * 7919 % 1009}" for number in range(400))
    monkeypatch.setattr(prepare, "SAMPLE", 1000)
    encode(tmp_path, text, kind="sentencepiece", vocab_size=290)
    expected = tokenizers.SentencePieceTokenizer.train(text[:1001], 290)  # 143 pieces of 7.
    assert tokenizers.load(tmp_path / "out").files() == expected.files()


# Documents


@pytest.mark.parametrize("last", ["hi", ""])
def test_each_document_is_encoded_by_itself_and_ends_with_the_end_of_text(
    pairs: Path, small_pieces: None, last: str
) -> None:
    texts = ["hi", "i there " * 30, "the", "re hii", last]
    meta = encode(pairs, *texts, kind="gpt2", separate_documents=True)
    found = written(pairs)
    encoded, end = found.tokenizer.encode, [263]
    cut = int(0.9 * sum(map(len, texts))) - len(texts[0])
    train = [*encoded(texts[0]), *end, *encoded(texts[1][:cut])]
    val = [*encoded(texts[1][cut:]), *end]
    for text in texts[2:]:
        val += [*encoded(text), *end]
    assert found.train.tolist() == train
    assert found.val.tolist() == val
    assert (meta["train_tokens"], meta["val_tokens"]) == (len(train), len(val))


def test_a_document_that_ends_at_the_cut_ends_in_the_training_split(pairs: Path) -> None:
    encode(pairs, "a" * 9, "b", kind="gpt2", separate_documents=True)
    train, val = (np.fromfile(pairs / "out" / name, "<u2") for name in ("train.bin", "val.bin"))
    assert (train.tolist(), val.tolist()) == ([ord("a")] * 9 + [263], [ord("b"), 263])


@pytest.mark.parametrize("kind", ["char", "gpt2"])
def test_separating_documents_needs_a_token_for_it(pairs: Path, kind: str) -> None:
    byte_pairs.write(pairs, {t: i for t, i in byte_pairs.vocabulary().items() if i < 263})
    with pytest.raises(DataError, match=rf"endoftext.*; tokenizer {kind} does not have it"):
        encode(pairs, TEXT, kind=kind, separate_documents=True)
    assert not (pairs / "out").exists()


# Texts and folders that are refused


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "there is no file"), (b"", "there is no text"), (b"abc\xff", "not UTF-8")],
)
def test_a_text_that_cannot_be_read_is_refused_and_nothing_is_left(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        prepare.prepare([tmp_path / "a.txt"], "char", "", tmp_path / "out", nothing)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.txt"}


@pytest.mark.parametrize("size", [1000, 899])
def test_a_text_that_changes_between_the_two_readings_is_refused(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = prepare.choose

    def choose_and_change(*arguments: Any) -> tokenizers.Tokenizer:
        write(tmp_path / "0.txt", TEXT[:size])
        return choose(*arguments)

    monkeypatch.setattr(prepare, "choose", choose_and_change)
    with pytest.raises(DataError, match="changed while being read: it had 900 char"):
        encode(tmp_path, TEXT[:900])
    assert {name.name for name in tmp_path.iterdir()} <= {"0.txt"}


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    encode(tmp_path, TEXT)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["0.txt", "out"]
    with pytest.raises(CheckpointError, match="exists already, and nothing is overwritten"):
        encode(tmp_path, TEXT)


def test_a_vocabulary_that_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    text = "".join(map(chr, (*range(0x100, 0xD800), *range(0x10000, 0x13000))))
    most = 1 << 16
    with pytest.raises(
        DataError, match="a vocabulary of at most 65,536 tokens; that of char has 65,537"
    ):
        encode(tmp_path, text[: most + 1])
    assert encode(tmp_path, text[:most])["vocab_size"] == most
