"""Added tokens are matched as by transformers, saved in files, or refused."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers.byte_pairs import description, vocabulary, write
from helpers.optional import needs
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.storage.files import write_folder
from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import GPT2Tokenizer, TokenizerError
from tinygpt_np.text.tokenizers.added import AddedToken

needs("tiktoken")
WORDS = ("hello", "hello there", "<sep>", "€", "(a|.)")
# Numbers after those of the small tokenizer, whose <|endoftext|> is 263.
PAD = AddedToken("<|pad|>", 264, special=True, normalized=False)
ADDED = [PAD, *(AddedToken(word, 265 + i, False, True) for i, word in enumerate(WORDS))]
HELLO = {"id": 264, "content": "hello"}


def load(folder: Path, **files: object) -> GPT2Tokenizer:
    """Load the small tokenizer with these JSON files next to vocab.json and merges.txt."""
    write(folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    found = tokenizers.load(folder)
    assert isinstance(found, GPT2Tokenizer)
    return found


def fast(folder: Path, *added: AddedToken) -> GPT2Tokenizer:
    """Load the small tokenizer from a tokenizer.json with added tokens."""
    config = {"add_prefix_space": False, "add_bos_token": False}
    entries = [asdict(token) | {"lstrip": token.special} for token in added]
    return load(folder, tokenizer=description(*entries), tokenizer_config=config)


# Matching


# The ids that transformers 5.24 gives, with split_special_tokens=True.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello there", [266]),
        ("hello ther", [265, 259, ord("r")]),
        ("hellohello  hello", [265, 265, 32, 32, 265]),
        ("<sep>€(a|.)", [267, 268, 269]),
        ("<SEP>a", [*map(ord, "<SEP>a")]),
        ("<|pad|>", [*map(ord, "<|pad|>")]),
        ("there <sep> there", [ord("t"), 258, 260, 32, 267, 261]),
    ],
)
def test_only_ordinary_added_tokens_are_matched(tmp_path: Path, text: str, ids: list[int]) -> None:
    tokenizer = fast(tmp_path, *ADDED)
    assert tokenizer.encode(text).tolist() == ids
    assert tokenizer.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [(True, True, True), (False, True, False)])
def test_transformers_finds_the_same_tokens(tmp_path: Path, normalized: tuple[bool, ...]) -> None:
    transformers: Any = needs("transformers")
    words = ("hello", "lo th", "<sep>")
    tokens = [
        AddedToken(word, 265 + i, False, last)
        for i, (word, last) in enumerate(zip(words, normalized, strict=True))
    ]
    ours = fast(tmp_path, PAD, *tokens)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    write_folder(tmp_path / "saved", ours.files())
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.lists(st.sampled_from([*words, "h", "el", "lo", " th", " ", "\n", "<|pad|>"])))
    def holds(parts: list[str]) -> None:
        text = "".join(parts)
        ids = ours.encode(text).tolist()
        assert ids == theirs.encode(text, split_special_tokens=True, add_special_tokens=False)
        assert ids == saved.encode(text, split_special_tokens=True)
        assert ours.decode(ids) == text

    holds()
    assert len(saved) == len(theirs) == ours.vocab_size == 268


def test_tokens_that_are_not_normalized_are_matched_first(tmp_path: Path) -> None:
    tokens = AddedToken("bc", 264, False, False), AddedToken("abc", 265, False, True)
    assert fast(tmp_path, *tokens).encode("abc").tolist() == [ord("a"), 264]


# Files


def test_added_tokens_come_back_from_the_files_of_the_tokenizer(tmp_path: Path) -> None:
    added, folder = fast(tmp_path, *ADDED), tmp_path / "saved"
    write_folder(folder, added.files())
    found = tokenizers.load(folder)
    assert isinstance(found, GPT2Tokenizer)
    assert found.added == tuple(ADDED)
    assert found.files() == added.files()
    text = "hello there, <sep><|pad|>"
    assert found.encode(text).tolist() == added.encode(text).tolist()


DECODER = {"264": {"content": "<sep>"}}


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({}, [265, 264]),
        (
            {"special_tokens_map": {"a_token": "<sep>", "b_token": 5, "c": "hello"}},
            [265, *b"<sep>"],
        ),
        ({"special_tokens_map": {"sep_token": {"content": "<sep>"}}}, [265, *b"<sep>"]),
        ({"tokenizer_config": {"additional_special_tokens": ["<sep>"]}}, [265, *b"<sep>"]),
        ({"tokenizer_config": {"extra_special_tokens": [{"content": "<sep>"}]}}, [265, *b"<sep>"]),
        # This outranks the older file.
        ({"tokenizer_config": {"added_tokens_decoder": DECODER}}, [258, *b"llo", 264]),
    ],
)
def test_added_tokens_json_is_read_with_the_files_next_to_it(
    tmp_path: Path, files: dict[str, Any], ids: list[int]
) -> None:
    tokenizer = load(tmp_path, added_tokens={"<sep>": 264, "hello": 265}, **files)
    assert tokenizer.encode("hello<sep>").tolist() == ids
    assert tokenizer.decode([264]) == "<sep>"


def test_a_token_declared_special_is_not_a_missing_merge(tmp_path: Path) -> None:
    write(tmp_path, {**vocabulary(), "hehe": 264})  # Looks like a merge of he and he.
    with pytest.raises(TokenizerError, match="no merge makes the token 'hehe'"):
        tokenizers.load(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "hehe"}')
    assert tokenizers.load(tmp_path).encode("hehe").tolist() == [258, 258]


# Refused files

NUMBERED = r"vocab\.json and added_tokens\.json: tokens should be numbered"
NEITHER = "added_tokens should have a content and an id"
DECODED = "added_tokens_decoder should have tokens by their numbers"
WRONG: list[Any] = [
    *(7, {"id": 264, "content": "a"}, [7], [{"id": 3}], [{"content": "a"}]),
    *([{"id": "3", "content": "a"}], [{"id": True, "content": "a"}], [{"id": 3, "content": ""}]),
]
FLAGS = ("single_word", "lstrip", "rstrip")
REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"added_tokens": {"<sep>": number}}, NUMBERED) for number in (3, 270, -1)),
    ({"added_tokens": {"\ud800": 264}}, r"added_tokens\.json: in a token, .*half of a surrogate"),
    *(({"tokenizer": description(added_tokens=wrong)}, NEITHER) for wrong in WRONG),
    *(
        ({"tokenizer_config": {"added_tokens_decoder": decoder}}, DECODED)
        for decoder in (5, [1], {"a": {"content": "b"}}, {"3": 4})
    ),
    *(({"tokenizer": description(HELLO | {flag: True})}, f"'hello' has {flag}") for flag in FLAGS),
    *(
        ({**files, "tokenizer_config": {name: True}}, f"{name} puts a .* before every text")
        for name in ("add_prefix_space", "add_bos_token")
        for files in ({}, {"tokenizer": description()})
    ),
]


@pytest.mark.parametrize(("files", "expected"), REFUSED)
def test_wrong_or_unsupported_added_tokens_are_refused(
    tmp_path: Path, files: dict[str, Any], expected: str
) -> None:
    with pytest.raises(TokenizerError, match=expected):
        load(tmp_path, **files)
