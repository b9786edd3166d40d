"""Datasets from texts and token folders; folders that are refused."""

import math
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.byte_pairs import small
from helpers.optional import needs
from helpers.tiny_run import TEXT
from helpers.token_folders import CONFIG, TOKENIZER, prepared

from tinygpt_np.storage import checkpoint
from tinygpt_np.text import corpus, dataset, tokenizers
from tinygpt_np.text.corpus import Corpus, DataError
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer


def load(data: Path, of_model: Tokenizer | None = None, **settings: Any) -> Dataset:
    return dataset.load(replace(CONFIG, data=str(data), **settings), of_model)


# Texts


def test_a_text_is_split_as_in_the_lecture(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    found = load(tmp_path / "text.txt")
    train, val = corpus.split(TOKENIZER.encode(TEXT), 8)
    np.testing.assert_array_equal(found.train, train)
    np.testing.assert_array_equal(found.val, val)
    assert found.tokenizer.kind == "char"
    assert found.about == "1,720 characters, 18 distinct"
    assert (found.name, found.sha256) == (str(tmp_path / "text.txt"), Corpus("", TEXT).sha256)
    assert found.bits_per_character(2.5) == pytest.approx(2.5 / math.log(2), rel=1e-12)


def test_a_text_is_split_before_it_is_encoded() -> None:
    needs("tiktoken")
    text = "hii" * 90 + "xyz" * 10  # 90 tokens in nine tenths of the text, 30 in the rest.
    found = dataset.from_corpus(Corpus("x", text), small())
    assert (len(found.train), len(found.val)) == (90, 30)
    assert found.about == "300 characters, 120 tokens"
    # A word across the cut is encoded in two parts.
    found = dataset.from_corpus(Corpus("x", "x" * 88 + "hii" + "y" * 9), small())
    assert found.tokenizer.decode(found.train) == "x" * 88 + "hi"
    assert found.tokenizer.decode(found.val) == "i" + "y" * 9


def test_bits_per_character_leave_out_the_first_token_and_ends_of_documents() -> None:
    needs("tiktoken")
    tokenizer = small()
    end = tokenizer.start()
    ids = np.concatenate([tokenizer.encode("hii there"), end, tokenizer.encode("hi"), end])
    assert dataset.length(tokenizer, ids) == len("hii therehi")
    found = Dataset("x", ids, ids, tokenizer, "", "")
    # hii is given; of the text, " there" and "hi" are predicted, in 4 tokens.
    assert found.bits_per_character(1.5) == pytest.approx(1.5 * 4 / 8 / math.log(2), rel=1e-12)
    assert replace(found, val=ids[-2:]).bits_per_character(1.5) == math.inf


def test_unseen_characters_are_those_that_only_the_validation_split_has() -> None:
    assert dataset.from_corpus(Corpus("odd", "ab" * 45 + "azxbababab")).unseen() == "xz"


def test_a_text_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^odd does not fit this model: character 'é'"):
        dataset.from_corpus(Corpus("odd", TEXT + "é"), CharTokenizer.from_text(TEXT))
    (tmp_path / "text.txt").write_text(TEXT[:80], encoding="utf-8")
    with pytest.raises(DataError, match="its validation split has 8 tokens"):
        load(tmp_path / "text.txt")


# Token folders

# The second and the last character of each split.
ENDS = (1, 1547, 1548, 1719)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepared(tmp_path / "tokens")


def as_nanogpts(folder: Path, text: str = TEXT) -> None:
    """Leave only the files of nanoGPT's shakespeare_char, with its text."""
    (folder / "meta.json").unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "input.txt").write_text(text, encoding="utf-8")


def test_a_prepared_folder_is_mapped_and_has_its_tokenizer(folder: Path) -> None:
    found = load(folder)
    assert isinstance(found.train, np.memmap)
    assert not found.train.flags.writeable
    assert found.tokenizer.decode(found.train) + found.tokenizer.decode(found.val) == TEXT
    assert found.name == str(folder)
    assert found.unseen() == ""


@pytest.mark.parametrize(("mark", "encoded"), [("", ""), ("\ufeff", ""), ("\ufeff", "\ufeff")])
def test_nanogpts_folder_is_read_with_its_text(tmp_path: Path, mark: str, encoded: str) -> None:
    folder = prepared(tmp_path / "shakespeare_char", encoded + TEXT)
    as_nanogpts(folder, mark + TEXT)
    found = load(folder)
    assert found.tokenizer.decode([*found.train, *found.val]) == encoded + TEXT


NANO: dict[str, bytes | None] = {"meta.json": None, "tokenizer.json": None}
OTHER = [TEXT[:place] + ("T" if TEXT[place] == "o" else "o") + TEXT[place + 1 :] for place in ENDS]
META: list[tuple[dict[str, object], str]] = [
    ({}, "of tokenizer None, its tokenizer files are of char"),
    ({"tokenizer": "char", "dtype": "uint32"}, "should say dtype 'uint16', but says 'uint32'"),
    ({"tokenizer": "char", "vocab_size": 19}, "should say vocab_size 18, but says 19"),
]
PIECES: dict[str, Any] = {"tokenizer": "sentencepiece"}
REFUSED: list[tuple[dict[str, bytes | None], dict[str, Any], str]] = [
    ({"train.bin": None}, {}, r"there is no file .*train\.bin; --data is a text file or a folder"),
    ({"val.bin": b"123"}, {}, r"val\.bin should hold tokens of 2 bytes each, but has 3 bytes"),
    ({"val.bin": b"\1\0\1\0"}, {}, r"val\.bin has 2 tokens, but meta\.json says 172"),
    ({"tokenizer.json": b"{}"}, {}, r"tokenizer\.json"),
    *(({"meta.json": checkpoint.to_json(meta)}, {}, expected) for meta, expected in META),
    ({}, {"tokenizer": "gpt2"}, r"of tokenizer char, .* and --tokenizer is gpt2"),
    ({}, {**PIECES, "vocab_size": 300}, r"--vocab-size 300 .* has its own vocabulary"),
    (NANO, {}, r"no meta\.json, so its tokenizer is unknown: add --tokenizer gpt2"),
    (NANO, PIECES, "--tokenizer sentencepiece needs --tokenizer-path here"),
    *(({**NANO, "input.txt": x.encode()}, {}, r"is not the encoded input\.txt") for x in OTHER),
]


@pytest.mark.parametrize(("files", "settings", "expected"), REFUSED)
def test_a_folder_whose_files_or_settings_disagree_is_refused(
    folder: Path, files: dict[str, bytes | None], settings: dict[str, Any], expected: str
) -> None:
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        load(folder, **settings)


def test_a_broken_link_is_no_missing_meta_json(folder: Path) -> None:
    (folder / "meta.json").unlink()
    (folder / "meta.json").symlink_to("meta.json")
    with pytest.raises(ValueError, match=r"meta\.json cannot be read: Too many levels"):
        load(folder, tokenizer="gpt2")


def test_the_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="tokenizer char with a vocabulary of 18, but the model"):
        load(folder, CharTokenizer("abc"))
    with pytest.raises(DataError, match=r"--vocab-size 300 .* has its own vocabulary"):
        load(Path("x"), None, **PIECES, vocab_size=300, init_from="gpt2")


def test_the_fingerprint_depends_on_the_number_of_tokens_and_on_both_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ENDS", 4)
    found = {dataset.fingerprint(folder)}
    for name in ("train.bin", "val.bin"):
        content = (folder / name).read_bytes()
        for changed in (content[:20] + content[10:], b"\1" + content[1:], content[:-1] + b"\1"):
            (folder / name).write_bytes(changed)
            found.add(dataset.fingerprint(folder))
    assert len(found) == 7


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
    folder: Path, name: str, content: bytes, expected: str, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if kind != "meta.json":
        as_nanogpts(folder)
    monkeypatch.setattr(tokenizers, "make", Mock(return_value=TOKENIZER))
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(folder, tokenizer="gpt2" if kind == "gpt2" else "char")
    assert str(folder / name) in str(caught.value)
    assert expected in str(caught.value)
    advised = re.search(r"(np\.fromfile\(.*\))\.tofile\('(\w+)-uint16\.bin'\)", str(caught.value))
    assert advised
    np.testing.assert_array_equal(eval(advised[1], {"np": np}), SMALL)
    assert f"{advised[2]}.bin" == name


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_token_beyond_the_vocabulary_is_named_with_its_position(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "PART", 16)
    tokens = np.fromfile(folder / name, "<u2")
    tokens[150] = 18
    tokens.tofile(folder / name)
    expected = rf"{name} has the token 18 at position 150, .* char has 18 tokens"
    with pytest.raises(DataError, match=expected):
        load(folder)
    tokens[150] = 17
    tokens.tofile(folder / name)
    assert load(folder).tokenizer.vocab_size == 18


def test_small_tokens_are_not_taken_for_uint32_if_the_tokenizer_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "b\na\n" * 100  # Every second token is 0, as in a file of uint32.
    folder = prepared(tmp_path / "tokens", text)
    assert len(load(folder).train) == 360
    as_nanogpts(folder, text)
    assert len(load(folder).train) == 360
    tokens = np.tile([5, 3], 100).astype("<u2")
    for name in ("train.bin", "val.bin"):
        (folder / name).write_bytes(tokens.tobytes())
    monkeypatch.setattr(tokenizers, "make", Mock(return_value=TOKENIZER))
    assert load(folder, tokenizer="gpt2").train.tolist() == tokens.tolist()


def test_checking_tokens_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PART", 1 << 12)
    path = prepared(tmp_path / "tokens", TEXT * 200) / "train.bin"
    tracemalloc.start()
    try:
        dataset.check_tokens(path, TOKENIZER)
        dataset.appearance(path, 18)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 10
