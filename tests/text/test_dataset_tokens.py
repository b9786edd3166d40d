"""Files of tokens that are not little-endian uint16, or not of the vocabulary, are named."""

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.tiny_run import TEXT
from helpers.token_folders import CONFIG, TOKENIZER, folder_of, prepared

from tinygpt_np.storage import checkpoint
from tinygpt_np.text import dataset, tokenizers
from tinygpt_np.text.corpus import DataError

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
@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
@pytest.mark.parametrize("kind", ["meta.json", "gpt2", "input.txt"])
def test_a_file_of_other_numbers_is_named_with_what_it_looks_like_and_how_to_rewrite_it(
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
def test_a_token_beyond_the_vocabulary_is_named_with_its_file_and_place(
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
        ({"train_tokens": 1549}, r"train\.bin has 1548 tokens, but meta\.json says 1549"),
        ({"val_tokens": 171}, r"val\.bin has 172 tokens, but meta\.json says 171"),
        ({"val_tokens": "all"}, r"val\.bin has 172 tokens, but meta\.json says all"),
    ],
)
def test_a_folder_that_is_not_what_its_meta_json_says_is_refused(
    tmp_path: Path, entry: dict[str, object], expected: str
) -> None:
    folder = prepared(tmp_path / "tokens")
    meta = {"tokenizer": "char", "dtype": "uint16", "vocab_size": 18, **entry}
    (folder / "meta.json").write_bytes(checkpoint.to_json(meta))
    with pytest.raises(DataError, match=expected):
        dataset.load(replace(CONFIG, data=str(folder)))


def test_tokens_that_alternate_with_zeros_are_read_where_something_says_what_they_are(
    tmp_path: Path,
) -> None:
    text = "b\na\n" * 100  # Every second token is 0, as in a file of uint32.
    folder = prepared(tmp_path / "tokens", text)
    assert len(dataset.load(replace(CONFIG, data=str(folder))).train) == 360
    (folder / "meta.json").unlink()
    (folder / "input.txt").write_text(text, encoding="utf-8")
    assert len(dataset.load(replace(CONFIG, data=str(folder))).train) == 360


def test_an_odd_number_of_tokens_is_no_file_of_uint32(tmp_path: Path) -> None:
    np.array([20, 0, 20], "<u2").tofile(tmp_path / "x.bin")
    assert dataset.appearance(tmp_path / "x.bin", 18) == "it is damaged, or of another tokenizer"


def test_small_tokens_at_every_second_place_are_not_uint32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.tile([5, 3], 100)
    folder = folder_of(tmp_path / "tokens", tokens, tokens)
    monkeypatch.setattr(tokenizers, "make", Mock(return_value=TOKENIZER))
    found = dataset.load(replace(CONFIG, data=str(folder), tokenizer="gpt2"))
    assert found.train.tolist() == tokens.tolist()


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
