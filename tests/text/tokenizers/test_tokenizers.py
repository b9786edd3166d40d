"""Properties of every tokenizer; making one; finding the one in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.byte_pairs import description, small, write
from helpers.optional import needs
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import (
    CharTokenizer,
    GPT2Tokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerError,
)

needs("tiktoken")
needs("sentencepiece")
TEXT = "hii there, my lord:\nhii thee! it is 12 o'clock\n"
EVERY: dict[str, Tokenizer] = {
    "char": CharTokenizer.from_text(TEXT),
    "gpt2": small(),
    "sentencepiece": SentencePieceTokenizer.train(TEXT, 285),
}
every_kind = pytest.mark.parametrize("kind", EVERY)
steady = settings(deadline=None, derandomize=True)


def put(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder


# Every tokenizer


@every_kind
@steady
@given(text=st.text(sorted(set(TEXT))))
def test_a_text_comes_back_at_once_or_in_a_stream(kind: str, text: str) -> None:
    tokenizer = EVERY[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text == "".join(tokenizer.stream(ids.tolist()))


@every_kind
@steady
@given(content=st.data())
def test_a_stream_of_any_tokens_is_their_text(kind: str, content: st.DataObject) -> None:
    tokenizer = EVERY[kind]
    ids = content.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert "".join(tokenizer.stream(iter(ids))) == tokenizer.decode(ids)


@every_kind
def test_the_bytes_of_its_tokens_are_those_of_the_text(kind: str) -> None:
    ids = EVERY[kind].encode(TEXT).tolist()
    assert b"".join(map(EVERY[kind].bytes_of, ids)) == TEXT.encode()


@every_kind
def test_tokens_are_int64_in_the_vocabulary(kind: str) -> None:
    for ids in (EVERY[kind].encode(TEXT), EVERY[kind].start()):
        assert ids.dtype == np.int64
        assert ids.min() >= 0
        assert ids.max() < EVERY[kind].vocab_size
    assert EVERY[kind].start().shape == (1,)


@every_kind
@pytest.mark.parametrize("beyond", [-1, 0, 47])
def test_a_token_outside_the_vocabulary_is_refused(kind: str, beyond: int) -> None:
    tokenizer = EVERY[kind]
    token = beyond if beyond < 0 else tokenizer.vocab_size + beyond
    for use in (
        lambda: tokenizer.decode([token]),
        lambda: list(tokenizer.stream([token])),
        lambda: tokenizer.bytes_of(token),
    ):
        with pytest.raises(ValueError, match=f"not {token}"):
            use()


@every_kind
def test_a_tokenizer_comes_back_from_its_files(kind: str, tmp_path: Path) -> None:
    assert not tokenizers.has_tokenizer(tmp_path)
    found = tokenizers.load(put(tmp_path, EVERY[kind]))
    assert tokenizers.has_tokenizer(tmp_path)
    assert found.kind == kind
    assert found.files() == EVERY[kind].files()
    assert found.encode(TEXT).tolist() == EVERY[kind].encode(TEXT).tolist()


# Making a tokenizer


def test_without_a_path_pieces_are_learned_from_the_text() -> None:
    text = " ".join(f"{number * 7919 % 100_003}" for number in range(9000))
    made = tokenizers.make("sentencepiece", "", text)
    assert made.files() == SentencePieceTokenizer.train(text).files()


@pytest.mark.parametrize(("kind", "path"), [("char", ""), ("gpt2", ""), ("sentencepiece", "x")])
def test_a_number_of_pieces_is_refused_where_none_are_learned(kind: str, path: str) -> None:
    with pytest.raises(TokenizerError, match="--vocab-size 285 sets how many pieces"):
        tokenizers.make(kind, path, TEXT, 285)


def test_without_a_path_gpt2_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT2Tokenizer, "from_cache", small)
    assert tokenizers.make("gpt2", "", "").files() == small().files()


@pytest.mark.parametrize("kind", ["gpt2", "sentencepiece"])
def test_a_folder_or_any_file_of_it_makes_a_tokenizer(kind: str, tmp_path: Path) -> None:
    put(tmp_path, EVERY[kind])
    for path in (tmp_path, *tmp_path.iterdir()):
        assert tokenizers.make(kind, str(path), "").files() == EVERY[kind].files()


@pytest.mark.parametrize(
    ("kind", "lies_there", "expected"),
    [
        ("gpt2", "sentencepiece", "is not a GPT-2 tokenizer: expected a folder with vocab.bpe"),
        ("gpt2", "char", "is not a GPT-2 tokenizer: expected a folder with vocab.bpe"),
        ("sentencepiece", "gpt2", "has a tokenizer of another kind, gpt2"),
        ("sentencepiece", "char", "has a tokenizer of another kind, char"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    kind: str, lies_there: str, expected: str, tmp_path: Path
) -> None:
    put(tmp_path, EVERY[lies_there])
    with pytest.raises(TokenizerError, match=f"^{tmp_path}") as caught:
        tokenizers.make(kind, str(tmp_path), "")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("gpt2", "", "is not a GPT-2 tokenizer"),
        ("gpt2", "nowhere", "is not a GPT-2 tokenizer"),
        ("gpt2", "vocab.json", "there is no file"),
        ("gpt2", "tokenizer.json", "there is no file"),
        ("sentencepiece", "", "there is no tokenizer in"),
        ("sentencepiece", "x.model", "there is no file"),
    ],
)
def test_a_path_without_a_tokenizer_is_named(
    kind: str, name: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=f"{tmp_path / name}") as caught:
        tokenizers.make(kind, str(tmp_path / name), "")
    assert expected in str(caught.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(TokenizerError, match="one of char, gpt2, sentencepiece, not 'words'"):
        tokenizers.make("words", "", "")


# Loading from a folder


def test_a_tokenizer_of_the_first_runs_is_read(tmp_path: Path) -> None:
    content = '{\n  "type": "char",\n  "vocabulary": [\n    "\\n",\n    "é"\n  ]\n}\n'
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    found = tokenizers.load(tmp_path)
    assert (found.kind, found.encode("é\n").tolist()) == ("char", [1, 0])
    assert found.files() == {"tokenizer.json": content.encode()}


@pytest.mark.parametrize("with_pair", [False, True])
def test_a_folder_of_hugging_face_is_read(with_pair: bool, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(description()), encoding="utf-8")
    if with_pair:
        write(tmp_path)
    assert tokenizers.load(tmp_path).files() == small().files()
    assert tokenizers.make("gpt2", str(tmp_path / "tokenizer.json"), "").kind == "gpt2"


def test_a_lone_model_of_sentencepiece_may_have_any_name(tmp_path: Path) -> None:
    put(tmp_path, EVERY["sentencepiece"])
    (tmp_path / "tokenizer.model").rename(tmp_path / "spiece.model")
    # Hugging Face also writes a tokenizer.json.
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    assert tokenizers.load(tmp_path).files() == EVERY["sentencepiece"].files()


def test_tokenizer_model_is_preferred_and_two_other_models_are_refused(tmp_path: Path) -> None:
    put(tmp_path, EVERY["sentencepiece"])
    (tmp_path / "a.model").write_text("something else")
    assert tokenizers.load(tmp_path).kind == "sentencepiece"
    (tmp_path / "tokenizer.model").rename(tmp_path / "b.model")
    with pytest.raises(TokenizerError, match=r"has two tokenizers: a\.model and b\.model"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("char", "gpt2", ["tokenizer.json", "vocab.json"]),
        ("char", "sentencepiece", ["tokenizer.json", "tokenizer.model"]),
        ("gpt2", "sentencepiece", ["tokenizer.model", "vocab.json"]),
    ],
)
def test_two_tokenizers_in_a_folder_are_refused(
    first: str, second: str, names: list[str], tmp_path: Path
) -> None:
    put(put(tmp_path, EVERY[first]), EVERY[second])
    with pytest.raises(TokenizerError, match=f"has two tokenizers: {' and '.join(names)}"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_one_file_of_two_is_no_tokenizer(name: str, tmp_path: Path) -> None:
    put(tmp_path, EVERY["gpt2"])
    (tmp_path / name).unlink()
    assert not tokenizers.has_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=r"there is no tokenizer in .*vocab\.json with merges"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("\xff", "is not UTF-8"),
        ("[1]", "is damaged: it is not a JSON object"),
        ("{}", "is not a tokenizer: it is an empty JSON object"),
        ('{"type": "char"}', "has no valid vocabulary"),
        ('{"type": "char", "vocabulary": {"a": 1}}', "has no valid vocabulary: it is not a list"),
        ('{"type": "char", "vocabulary": []}', "has no valid vocabulary: it is not a list"),
        ('{"type": "char", "vocabulary": ["a", "a"]}', "has no valid vocabulary"),
        ('{"type": "words"}', "is not a tokenizer of characters or byte pairs"),
    ],
)
def test_a_wrong_tokenizer_json_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(TokenizerError, match=f"^{path} {expected}"):
        tokenizers.load(tmp_path)


def test_a_tokenizer_is_shown_with_the_size_of_its_vocabulary() -> None:
    assert repr(CharTokenizer.from_text("to be")) == "<CharTokenizer: 5 characters>"
    assert repr(CharTokenizer.from_text("a")) == "<CharTokenizer: 1 character>"
    assert repr(small()) == f"<GPT2Tokenizer: {small().vocab_size:,} tokens>"
