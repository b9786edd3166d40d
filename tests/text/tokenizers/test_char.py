"""The tokenizer of characters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.optional import needs

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.storage.files import write_folder
from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers.char import CharTokenizer, UnknownCharacterError

ODD = 'To be, or\n\tnot – é🙂\u0301\u200d Ġ$#\r\\"\u2028'


def test_a_token_is_the_place_of_its_character_in_the_sorted_vocabulary() -> None:
    assert CharTokenizer.from_text("hii there\n").vocabulary == tuple("\n ehirt")
    assert CharTokenizer("xaz").encode("zax").tolist() == [2, 1, 0]
    tokens = CharTokenizer("ab").encode("")
    assert (tokens.shape, tokens.dtype) == ((0,), np.int64)
    starts = [CharTokenizer(vocabulary).start().tolist() for vocabulary in ("a\n", "ab")]
    assert starts == [[1], [0]]


@pytest.mark.parametrize(
    ("vocabulary", "text", "message"),
    [
        (
            "Eacfghx!",
            "caféX",
            "character 'é' (U+00E9) at position 3, in 'caféX', is not in the vocabulary of 8 "
            "characters; the nearest are 'E', 'x', 'h'",
        ),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklm€nopqrstuvwxyz", "'defghijklm€nopqrstuvw'"),
    ],
)
def test_the_first_unknown_character_is_named(vocabulary: str, text: str, message: str) -> None:
    with pytest.raises(UnknownCharacterError) as caught:
        CharTokenizer(vocabulary).encode(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("char", "nearest"), [("É", "e"), ("Ö", "O"), ("ß", "z"), ("5", "9"), ("~", "9")]
)
def test_nearest_is_by_base_letter_then_kind_then_code_point(char: str, nearest: str) -> None:
    assert CharTokenizer("9AEOez\u2019").nearest(char)[0] == nearest


def test_known_leaves_out_unknown_characters() -> None:
    assert CharTokenizer("ab").known("abcab") == "abab"


def test_the_files_for_transformers_come_back_as_the_same_vocabulary(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text(ODD)
    write_folder(tmp_path / "saved", tokenizer.files_for_transformers())
    for place in (tmp_path / "saved", tmp_path / "saved" / "tokenizer.json"):
        assert tokenizers.from_path(place).files() == tokenizer.files()


@pytest.mark.slow
def test_transformers_reads_the_same_ids(tmp_path: Path) -> None:
    transformers: Any = needs("transformers")
    tokenizer = CharTokenizer.from_text(ODD)
    config = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=4, n_layer=1, n_head=1, n_embd=2)
    GPT(config).save_pretrained(tmp_path / "gpt", tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt")
    for text in (ODD, ODD[::-1], "  \n\n be", ""):
        ids = tokenizer.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert len(theirs) == tokenizer.vocab_size
    with pytest.raises(Exception, match=r"Missing \[UNK\] token"):
        theirs("Ω")


@pytest.mark.parametrize(
    "words", [{"a": 0, "bc": 1}, {"a": 0, "b": 2}, {"a": 0, "b": None}, ["a"], None, "Whitespace"]
)
def test_words_that_are_not_characters_are_refused(tmp_path: Path, words: object) -> None:
    files = CharTokenizer("ab").files_for_transformers()
    change = {"model": {"type": "WordLevel", "vocab": words}}
    if words == "Whitespace":
        change = {"pre_tokenizer": {"type": words}}
    description = json.loads(files["tokenizer.json"]) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(tokenizers.TokenizerError, match=r"tokenizer\.json has no valid vocabulary"):
        tokenizers.load(tmp_path)
