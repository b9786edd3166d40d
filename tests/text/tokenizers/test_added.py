"""Added tokens are matched as by transformers, saved in files, or refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.byte_pairs import PAIRS, small, vocabulary, write
from helpers.optional import needs
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import GPT2Tokenizer, TokenizerError
from tinygpt_np.text.tokenizers.added import AddedToken, from_entries, patterns

needs("tiktoken")
steady = settings(deadline=None, derandomize=True, max_examples=200)
WORDS = ("hello", "hello there", "<sep>", "€")
# Numbers after those of the small tokenizer, whose <|endoftext|> is 263.
PAD = AddedToken("<|pad|>", 264, special=True, normalized=False)
ADDED = [PAD, *(AddedToken(word, 265 + i, False, True) for i, word in enumerate(WORDS))]


def entry(token: AddedToken, **changes: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "id": token.id, "content": token.content, **flags, "normalized": token.normalized,
        "special": token.special, **changes,
    }  # fmt: skip


BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}


def description(entries: list[dict[str, Any]]) -> dict[str, Any]:
    end = entry(AddedToken("<|endoftext|>", 263, special=True, normalized=False))
    return {
        "version": "1.0",
        "added_tokens": [end, *entries],
        "normalizer": None,
        "pre_tokenizer": {"add_prefix_space": False, **BYTE_LEVEL},
        "post_processor": None,
        "decoder": {"add_prefix_space": True, **BYTE_LEVEL},
        "model": {"type": "BPE", "vocab": vocabulary(), "merges": [list(pair) for pair in PAIRS]},
    }


def fast(folder: Path, entries: list[dict[str, Any]]) -> GPT2Tokenizer:
    """Load the small tokenizer with added tokens from a tokenizer.json."""
    content = json.dumps(description(entries))
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    found = tokenizers.load(folder)
    assert isinstance(found, GPT2Tokenizer)
    return found


def beside(folder: Path, files: Mapping[str, object]) -> GPT2Tokenizer:
    """Load the small tokenizer with these files next to vocab.json and merges.txt."""
    write(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    found = tokenizers.load(folder)
    assert isinstance(found, GPT2Tokenizer)
    return found


@pytest.fixture
def added(tmp_path: Path) -> GPT2Tokenizer:
    return fast(tmp_path, [entry(token) for token in ADDED])


# Matching


# The ids that transformers 5.24 gives, with split_special_tokens=True.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello", [265]),
        ("hello there", [266]),
        ("hello ther", [265, 259, ord("r")]),
        ("hellohello  hello", [265, 265, 32, 32, 265]),
        ("<sep>€", [267, 268]),
        ("<SEP>", [ord(char) for char in "<SEP>"]),
        ("<|pad|>", [ord(char) for char in "<|pad|>"]),
        ("there <sep> there", [ord("t"), 258, 260, 32, 267, 261]),
    ],
)
def test_ordinary_added_tokens_are_matched_and_special_ones_are_not(
    added: GPT2Tokenizer, text: str, ids: list[int]
) -> None:
    assert added.encode(text).tolist() == ids
    assert added.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [(True, True, True), (False, True, False)])
def test_transformers_finds_the_same_tokens(tmp_path: Path, normalized: tuple[bool, ...]) -> None:
    transformers: Any = needs("transformers")
    words = ("hello", "lo th", "<sep>")
    entries = [entry(PAD)] + [
        entry(AddedToken(word, 265 + i, False, last))
        for i, (word, last) in enumerate(zip(words, normalized, strict=True))
    ]
    ours = fast(tmp_path, entries)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for name, content in ours.files().items():
        folder = tmp_path / "saved"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")

    @steady
    @given(st.lists(st.sampled_from([*words, "h", "el", "lo", " th", " ", "\n", "<|pad|>"])))
    def holds(parts: list[str]) -> None:
        text = "".join(parts)
        ids = ours.encode(text).tolist()
        assert ids == theirs.encode(text, split_special_tokens=True, add_special_tokens=False)
        assert ids == saved.encode(text, split_special_tokens=True)
        assert ours.decode(ids) == text

    holds()
    assert len(saved) == len(theirs) == ours.vocab_size == 268


def test_the_longest_added_token_is_matched() -> None:
    tokens = [AddedToken(text, i, False, True) for i, text in enumerate(("a", "abc", "ab", "a.c"))]
    (pattern,) = patterns(tokens)
    assert pattern.findall("abcabaaxcba.c") == ["abc", "ab", "a", "a", "a.c"]


def test_tokens_that_are_not_normalized_are_matched_first(tmp_path: Path) -> None:
    tokens = [AddedToken("bc", 264, False, False), AddedToken("abc", 265, False, True)]
    tokenizer = fast(tmp_path, [entry(token) for token in tokens])
    assert tokenizer.encode("abc").tolist() == [ord("a"), 264]


# Files


def test_added_tokens_come_back_from_the_files_of_the_tokenizer(
    tmp_path: Path, added: GPT2Tokenizer
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, content in added.files().items():
        (folder / name).write_bytes(content)
    found = tokenizers.load(folder)
    assert isinstance(found, GPT2Tokenizer)
    assert found.added == tuple(ADDED)
    assert found.files() == added.files()
    text = "hello there, <sep><|pad|>"
    assert found.encode(text).tolist() == added.encode(text).tolist()


def test_without_added_tokens_no_file_is_written_for_them() -> None:
    assert sorted(small().files()) == ["merges.txt", "vocab.json"]


def test_added_tokens_json_is_read(tmp_path: Path) -> None:
    tokenizer = beside(tmp_path, {"added_tokens.json": {"<sep>": 264, "hello": 265}})
    assert tokenizer.vocab_size == 266
    assert tokenizer.encode("hello<sep>").tolist() == [265, 264]


@pytest.mark.parametrize("number", [3, 270, -1])
def test_an_added_token_whose_number_does_not_fit_is_refused_with_both_files(
    tmp_path: Path, number: int
) -> None:
    with pytest.raises(
        TokenizerError, match=r"vocab\.json and added_tokens\.json: tokens should be"
    ):
        beside(tmp_path, {"added_tokens.json": {"<sep>": number}})


def test_an_added_token_with_a_surrogate_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"added_tokens\.json: the token '\\ud800': .*half of a"
    ):
        beside(tmp_path, {"added_tokens.json": {"\ud800": 264}})


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("special_tokens_map.json", {"sep_token": "<sep>"}),
        ("special_tokens_map.json", {"sep_token": {"content": "<sep>", "lstrip": True}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<sep>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": [{"content": "<sep>"}]}),
    ],
)
def test_a_token_that_another_file_declares_special_is_not_matched(
    tmp_path: Path, name: str, special: dict[str, Any]
) -> None:
    files = {"added_tokens.json": {"<sep>": 264, "hello": 265}, name: special}
    tokenizer = beside(tmp_path, files)
    assert tokenizer.encode("hello<sep>").tolist() == [265, *map(ord, "<sep>")]
    assert tokenizer.decode([264]) == "<sep>"


def test_tokens_in_tokenizer_config_json_are_read_and_outrank_the_older_file(
    tmp_path: Path,
) -> None:
    decoder = {"264": entry(AddedToken("<sep>", 264, False, True))}
    del decoder["264"]["id"]
    files: dict[str, object] = {
        "tokenizer_config.json": {"added_tokens_decoder": decoder},
        "added_tokens.json": {"<sep>": 264, "hello": 265},
    }
    tokenizer = beside(tmp_path, files)
    assert (tokenizer.vocab_size, tokenizer.encode("<sep>").tolist()) == (265, [264])


def test_a_token_declared_special_is_not_a_missing_merge(tmp_path: Path) -> None:
    numbers = {**vocabulary(), "hehe": 264}  # Looks like a merge of he and he.
    write(tmp_path, numbers)
    with pytest.raises(TokenizerError, match="no merge makes the token 'hehe'"):
        tokenizers.load(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "hehe"}')
    assert tokenizers.load(tmp_path).encode("hehe").tolist() == [258, 258]


# Refused files


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_options_for_the_text_around_a_token_are_refused(tmp_path: Path, flag: str) -> None:
    with pytest.raises(TokenizerError, match=f"token 'hello' has {flag}, which is not supported"):
        fast(tmp_path, [entry(AddedToken("hello", 264, False, True), **{flag: True})])
    fast(tmp_path, [entry(PAD, **{flag: True})])  # Special tokens are not matched.


@pytest.mark.parametrize(
    "entries",
    [
        7, {}, [7], [{"id": 3}], [{"content": "a"}], [{"id": "3", "content": "a"}],
        [{"id": True, "content": "a"}], [{"id": 3, "content": ""}], [{"id": 3, "content": 5}],
    ],
)  # fmt: skip
def test_an_added_token_without_text_or_number_is_refused(entries: object) -> None:
    with pytest.raises(TokenizerError, match="x: added_tokens should have a content and an id"):
        from_entries(entries, "x")


@pytest.mark.parametrize("decoder", [5, [1], {"a": {"content": "b"}}, {"3": 4}])
def test_an_added_tokens_decoder_of_another_form_is_refused(
    tmp_path: Path, decoder: object
) -> None:
    with pytest.raises(TokenizerError, match="added_tokens_decoder should have tokens by their"):
        beside(tmp_path, {"tokenizer_config.json": {"added_tokens_decoder": decoder}})


@pytest.mark.parametrize("name", ["add_prefix_space", "add_bos_token"])
@pytest.mark.parametrize("form", ["pair", "description"])
def test_a_prefix_for_every_text_is_refused(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: True}))
    with pytest.raises(TokenizerError, match=f"{name} puts a .* before every text"):
        beside(tmp_path, {}) if form == "pair" else fast(tmp_path, [])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: False}))
    assert (beside(tmp_path, {}) if form == "pair" else fast(tmp_path, [])).vocab_size == 264
