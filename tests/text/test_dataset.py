"""Datasets from texts and token folders; folders that are refused."""

import math
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.byte_pairs import small
from helpers.optional import needs
from helpers.tiny_run import TEXT
from helpers.token_folders import CONFIG, TOKENIZER, folder_of, prepared

from tinygpt_np.storage import checkpoint
from tinygpt_np.text import corpus, dataset, tokenizers
from tinygpt_np.text.corpus import Corpus, DataError
from tinygpt_np.text.tokenizers import CharTokenizer


class Pairs:
    """A tokenizer whose tokens are two characters each, 7·first + second of the alphabet."""

    kind, vocab_size = "gpt2", 49

    def encode(self, text: str) -> np.ndarray:
        ids = np.array(["abcdefg".index(char) for char in text])
        return ids[::2] * 7 + ids[1::2]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        return "".join("abcdefg"[i // 7] + "abcdefg"[i % 7] for i in ids)

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        return (self.decode([token]) for token in tokens)

    def bytes_of(self, token: int) -> bytes:
        return self.decode([token]).encode()

    def start(self) -> np.ndarray:
        return np.zeros(1, np.int64)

    def files(self) -> dict[str, bytes]:
        return {}


# Texts


def test_a_text_is_split_as_in_the_lecture(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    found = dataset.load(replace(CONFIG, data=str(tmp_path / "text.txt")))
    train, val = corpus.split(TOKENIZER.encode(TEXT), 8)
    np.testing.assert_array_equal(found.train, train)
    np.testing.assert_array_equal(found.val, val)
    assert found.tokenizer.kind == "char"
    assert found.about == "1,720 characters, 18 distinct"
    assert (found.name, found.sha256) == (str(tmp_path / "text.txt"), Corpus("", TEXT).sha256)


def test_the_splits_are_of_the_same_text_whatever_the_tokenizer() -> None:
    text = "abcdefg" * 20
    found = dataset.from_corpus(Corpus("letters", text), Pairs())
    assert found.tokenizer.decode(found.train) == text[:126]
    assert found.tokenizer.decode(found.val) == text[126:]
    assert found.about == "140 characters, 70 tokens"


def test_a_text_is_split_before_it_is_encoded() -> None:
    needs("tiktoken")
    text = "hii" * 90 + "xyz" * 10  # 90 tokens in nine tenths of the text, 30 in the rest.
    found = dataset.from_corpus(Corpus("x", text), small())
    assert (len(found.train), len(found.val)) == (90, 30)
    # A word across the cut is encoded in two parts.
    found = dataset.from_corpus(Corpus("x", "x" * 88 + "hii" + "y" * 9), small())
    assert found.tokenizer.decode(found.train) == "x" * 88 + "hi"
    assert found.tokenizer.decode(found.val) == "i" + "y" * 9


def test_bits_per_character_leave_out_the_first_token() -> None:
    found = dataset.from_corpus(Corpus("letters", "abcdefg" * 20), Pairs())
    # The split has 14 characters in 7 tokens; 12 in 6 are predicted, at 1.5 nats per token.
    expected = 1.5 * 6 / 12 / math.log(2)
    assert found.bits_per_character(1.5) == pytest.approx(expected, rel=1e-12)
    characters = dataset.from_corpus(Corpus("text", TEXT))
    assert characters.bits_per_character(2.5) == pytest.approx(2.5 / math.log(2), rel=1e-12)


def test_the_end_of_a_document_is_not_a_character() -> None:
    needs("tiktoken")
    tokenizer = small()
    end = tokenizer.start()
    ids = np.concatenate([tokenizer.encode("hii there"), end, tokenizer.encode("hi"), end])
    assert dataset.length(tokenizer, ids) == len("hii therehi")
    found = dataset.Dataset("x", ids, ids, tokenizer, "", "")
    # hii is given; of the text, " there" and "hi" are predicted, in 4 tokens.
    assert found.bits_per_character(1.5) == pytest.approx(1.5 * 4 / 8 / math.log(2), rel=1e-12)


@pytest.mark.parametrize("change", ["folder", "model"])
def test_a_number_of_pieces_is_refused_where_the_vocabulary_is_given(
    tmp_path: Path, change: str
) -> None:
    folder = str(prepared(tmp_path / "tokens"))
    config = replace(CONFIG, tokenizer="sentencepiece", vocab_size=300, init_from="gpt2")
    if change == "folder":
        config = replace(config, data=folder, init_from="scratch")
    with pytest.raises(DataError, match=r"--vocab-size 300 .* has its own vocabulary"):
        dataset.load(config, TOKENIZER)


def test_unseen_characters_are_those_that_only_the_validation_split_has() -> None:
    assert dataset.from_corpus(Corpus("odd", "ab" * 45 + "azxbababab")).unseen() == "xz"


def test_a_text_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^odd does not fit this model: character 'é'"):
        dataset.from_corpus(Corpus("odd", TEXT + "é"), CharTokenizer.from_text(TEXT))
    (tmp_path / "text.txt").write_text(TEXT[:80], encoding="utf-8")
    with pytest.raises(DataError, match="its validation split has 8 tokens"):
        dataset.load(replace(CONFIG, data=str(tmp_path / "text.txt")))


# Token folders


def test_a_prepared_folder_is_mapped_and_has_its_tokenizer(tmp_path: Path) -> None:
    found = dataset.load(replace(CONFIG, data=str(prepared(tmp_path / "tokens"))))
    assert isinstance(found.train, np.memmap)
    assert not found.train.flags.writeable
    assert found.tokenizer.decode(found.train) + found.tokenizer.decode(found.val) == TEXT
    assert found.name == str(tmp_path / "tokens")
    assert found.unseen() == ""


def nanogpts(path: Path, text: str, tokens_of: str = TEXT) -> Path:
    """Write a folder as nanoGPT's shakespeare_char, with its text and without other files."""
    folder = prepared(path, tokens_of)
    (folder / "meta.json").unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "input.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", [1, 1547, 1548, 1719])
def test_one_token_that_differs_from_the_text_is_noticed(tmp_path: Path, place: int) -> None:
    other = "T" if TEXT[place] == "o" else "o"
    folder = nanogpts(tmp_path / "tokens", TEXT[:place] + other + TEXT[place + 1 :])
    with pytest.raises(DataError, match=r"is not the encoded input\.txt"):
        dataset.load(replace(CONFIG, data=str(folder)))


@pytest.mark.parametrize(
    ("text", "tokens_of"),
    [(TEXT, TEXT), (f"\ufeff{TEXT}", TEXT), (f"\ufeff{TEXT}", f"\ufeff{TEXT}")],
    ids=["no mark", "a mark that is not encoded", "an encoded mark"],
)
def test_nanogpts_folder_of_characters_is_read_with_its_text(
    tmp_path: Path, text: str, tokens_of: str
) -> None:
    folder = nanogpts(tmp_path / "shakespeare_char", text, tokens_of)
    found = dataset.load(replace(CONFIG, data=str(folder)))
    assert found.tokenizer.decode(found.train) + found.tokenizer.decode(found.val) == tokens_of


def test_tokens_of_an_unknown_tokenizer_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tokens", np.arange(90), np.arange(20))
    with pytest.raises(DataError, match=r"no meta\.json, so its .* add --tokenizer gpt2"):
        dataset.load(replace(CONFIG, data=str(folder)))


def test_pieces_without_their_model_are_refused(tmp_path: Path) -> None:
    folder = nanogpts(tmp_path / "tokens", TEXT)
    with pytest.raises(DataError, match="--tokenizer sentencepiece needs --tokenizer-path here"):
        dataset.load(replace(CONFIG, data=str(folder), tokenizer="sentencepiece"))


def test_another_tokenizer_than_that_of_the_tokens_is_refused(tmp_path: Path) -> None:
    folder = str(prepared(tmp_path / "tokens"))
    with pytest.raises(DataError, match=r"of tokenizer char, .* and --tokenizer is gpt2"):
        dataset.load(replace(CONFIG, data=folder, tokenizer="gpt2"))
    with pytest.raises(DataError, match="tokenizer char with a vocabulary of 18, but the model"):
        dataset.load(replace(CONFIG, data=folder), CharTokenizer("abc"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.bin", None, r"there is no file .*train\.bin; --data is a text file or a folder"),
        ("val.bin", b"123", r"val\.bin should hold tokens of 2 bytes each, but has 3 bytes"),
        ("val.bin", b"\1\0\1\0", r"val\.bin has 2 tokens, but meta\.json says 172"),
        ("meta.json", b"{}", "of tokenizer None, its tokenizer files are of char"),
        ("tokenizer.json", b"{}", r"tokenizer\.json"),
    ],
)
def test_an_incomplete_folder_is_refused(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    folder = prepared(tmp_path / "tokens")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        dataset.load(replace(CONFIG, data=str(folder)))


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_the_fingerprint_depends_on_the_number_of_tokens_and_on_both_ends(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ENDS", 4)
    folder = prepared(tmp_path / "tokens")
    tokens = np.fromfile(folder / name, "<u2")
    found = {dataset.fingerprint(folder)}
    for changed in (
        np.concatenate([tokens[:20], tokens[10:]]),
        np.concatenate([tokens[:1] ^ 1, tokens[1:]]),
        np.concatenate([tokens[:-1], tokens[-1:] ^ 1]),
    ):
        changed.tofile(folder / name)
        found.add(dataset.fingerprint(folder))
    assert len(found) == 4


# Files that are not little-endian uint16, or not in the vocabulary

SMALL = np.random.default_rng(0).integers(0, 18, 400)
HEADER = np.zeros(256, "<i4")
HEADER[:3] = 20240520, 1, 400


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SMALL.astype("<u4").tobytes(), "it looks like uint32"),
        (SMALL.astype(">u2").tobytes(), "it looks like big-endian uint16"),
        (HEADER.tobytes() + SMALL.astype("<u2").tobytes(), "has the header of llm.c"),
    ],
    ids=["uint32", "big-endian", "llm.c"],
)
@pytest.mark.parametrize(
    ("name", "kind"),
    [("train.bin", "meta.json"), ("val.bin", "gpt2"), ("train.bin", "input.txt")],
)
def test_another_format_is_named_with_advice_that_rewrites_it(
    tmp_path: Path, name: str, content: bytes, expected: str, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = prepared(tmp_path / "tokens")
    if kind != "meta.json":
        (folder / "meta.json").unlink()
        (folder / "input.txt").write_text(TEXT, encoding="utf-8")
    if kind == "gpt2":
        monkeypatch.setattr(tokenizers, "make", Mock(return_value=TOKENIZER))
    (folder / name).write_bytes(content)
    asked = "gpt2" if kind == "gpt2" else "char"
    with pytest.raises(DataError) as caught:
        dataset.load(replace(CONFIG, data=str(folder), tokenizer=asked))
    assert str(folder / name) in str(caught.value)
    assert expected in str(caught.value)
    advised = re.search(r"(np\.fromfile\(.*\))\.tofile\('(\w+)-uint16\.bin'\)", str(caught.value))
    assert advised
    np.testing.assert_array_equal(eval(advised[1], {"np": np}), SMALL)
    assert f"{advised[2]}.bin" == name


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_token_beyond_the_vocabulary_is_named_with_its_position(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "PART", 16)
    folder = prepared(tmp_path / "tokens")
    tokens = np.fromfile(folder / name, "<u2")
    tokens[150] = 18
    tokens.tofile(folder / name)
    with pytest.raises(
        DataError, match=r"the token 18 at position 150, .* char has 18 tokens"
    ) as caught:
        dataset.load(replace(CONFIG, data=str(folder)))
    assert str(folder / name) in str(caught.value)
    tokens[150] = 17
    tokens.tofile(folder / name)
    assert dataset.load(replace(CONFIG, data=str(folder))).tokenizer.vocab_size == 18


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"dtype": "uint32"}, r"meta\.json should say dtype 'uint16', but says 'uint32'"),
        ({"vocab_size": 19}, r"meta\.json should say vocab_size 18, but says 19"),
        ({"val_tokens": "all"}, r"val\.bin has 172 tokens, but meta\.json says all"),
    ],
)
def test_a_folder_that_is_not_what_its_meta_json_says_is_refused(
    tmp_path: Path, entry: dict[str, object], expected: str
) -> None:
    folder = prepared(tmp_path / "tokens")
    (folder / "meta.json").write_bytes(checkpoint.to_json({"tokenizer": "char", **entry}))
    with pytest.raises(DataError, match=expected):
        dataset.load(replace(CONFIG, data=str(folder)))


def test_tokens_that_alternate_with_zeros_are_read_if_their_tokenizer_is_known(
    tmp_path: Path,
) -> None:
    text = "b\na\n" * 100  # Every second token is 0, as in a file of uint32.
    folder = prepared(tmp_path / "tokens", text)
    assert len(dataset.load(replace(CONFIG, data=str(folder))).train) == 360
    (folder / "meta.json").unlink()
    (folder / "input.txt").write_text(text, encoding="utf-8")
    assert len(dataset.load(replace(CONFIG, data=str(folder))).train) == 360


def test_checking_tokens_takes_no_memory_of_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "PART", 1 << 12)
    folder = prepared(tmp_path / "tokens", TEXT * 200)
    tracemalloc.start()
    try:
        dataset.check_tokens(folder / "train.bin", TOKENIZER)
        dataset.appearance(folder / "train.bin", 18)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (folder / "train.bin").stat().st_size / 10


def test_small_tokens_at_every_second_place_are_not_uint32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.tile([5, 3], 100)
    folder = folder_of(tmp_path / "tokens", tokens, tokens)
    monkeypatch.setattr(tokenizers, "make", Mock(return_value=TOKENIZER))
    found = dataset.load(replace(CONFIG, data=str(folder), tokenizer="gpt2"))
    assert found.train.tolist() == tokens.tolist()
