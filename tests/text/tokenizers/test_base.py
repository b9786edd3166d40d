"""Facts about every tokenizer; making one; finding the one in a folder."""

import json
import os
from collections.abc import Callable
from operator import length_hint
from pathlib import Path

import numpy as np
import pytest
from helpers.byte_pairs import description, small, write
from helpers.optional import needs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_np.config import PIECES
from tinygpt_np.storage.files import write_folder
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
TEXTS = st.text() | st.text("the aA'sre12 \n\t\r\0▁▅\ufffd <unk>0x41é\u0301\u00a0\u3000🙂漢")
every_kind = pytest.mark.parametrize("kind", EVERY)
steady = settings(deadline=None, derandomize=True, max_examples=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


# Every tokenizer


@every_kind
@steady
@given(text=TEXTS)
@example(text="  a  \n\n\n ▁ b▁▁ \r\n\t<|endoftext|>🙂👩‍👩‍👧")
@example(text="<s></s><unk><0x41>\n<0x0A>")
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokenizer = CharTokenizer.from_text(text) if kind == "char" else EVERY[kind]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert tokenizer.decode(ids) == text == "".join(tokenizer.stream(iter(ids.tolist())))


@every_kind
@steady
@given(content=st.data())
def test_a_stream_of_any_tokens_is_their_text(kind: str, content: st.DataObject) -> None:
    tokenizer = EVERY[kind]
    ids = content.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert "".join(tokenizer.stream(iter(ids))) == tokenizer.decode(ids)


@steady
@given(st.text())
def test_a_stream_yields_each_character_when_its_last_byte_comes(text: str) -> None:
    tokenizer = EVERY["gpt2"]
    tokens = iter([tokenizer.tokens.index(bytes([byte])) for byte in text.encode()])
    stream = tokenizer.stream(tokens)
    for place, char in enumerate(text, start=1):
        assert next(stream) == char
        assert length_hint(tokens) == len(text[place:].encode())


@pytest.mark.parametrize("token", [-1, 264, 300])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(ValueError, match=rf"token ids must be in \[0, 264\), not {token}"):
        EVERY["gpt2"].decode([token])


@pytest.mark.parametrize(
    "use", [EVERY["gpt2"].encode, EVERY["sentencepiece"].encode, SentencePieceTokenizer.train]
)
def test_an_unpaired_surrogate_is_refused(use: Callable[[str], object]) -> None:
    with pytest.raises(TokenizerError, match=r"U\+D83D at position 2 is half of a surrogate pair"):
        use("ab\ud83d")


@every_kind
def test_a_tokenizer_comes_back_from_its_folder_or_any_file(kind: str, folder: Path) -> None:
    assert not tokenizers.has_tokenizer(folder)
    write_folder(folder, EVERY[kind].files())
    assert tokenizers.has_tokenizer(folder)
    for path in (folder, *folder.iterdir()):
        for found in (
            tokenizers.from_path(path),
            *([] if kind == "char" else [tokenizers.make(kind, str(path), "")]),
        ):
            assert found.kind == kind
            assert found.files() == EVERY[kind].files()
            assert found.encode(TEXT).tolist() == EVERY[kind].encode(TEXT).tolist()


# Making a tokenizer


def test_without_a_path_a_tokenizer_is_learned_or_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"{number * 7919 % 100_003}" for number in range(9000))
    made = tokenizers.make("sentencepiece", "", text)
    assert made.files() == SentencePieceTokenizer.train(text).files()
    assert made.vocab_size == PIECES
    monkeypatch.setattr(GPT2Tokenizer, "from_cache", small)
    assert tokenizers.make("gpt2", "", "").files() == small().files()


@pytest.mark.parametrize(("kind", "path"), [("char", ""), ("gpt2", ""), ("sentencepiece", "x")])
def test_a_number_of_pieces_is_refused_where_none_are_learned(kind: str, path: str) -> None:
    with pytest.raises(TokenizerError, match="--vocab-size 285 sets how many pieces"):
        tokenizers.make(kind, path, TEXT, 285)


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("words", "", "one of char, gpt2, sentencepiece, not 'words'"),
        ("char", "empty", "characters need no files, but empty was given"),
        ("gpt2", "char", "char has a tokenizer of another kind, char, not gpt2"),
        ("sentencepiece", "gpt2", "gpt2 has a tokenizer of another kind, gpt2, not sentencepiece"),
        ("gpt2", "empty", "there is no tokenizer in empty: neither"),
        ("gpt2", "nowhere", "nowhere is not a tokenizer: expected a folder, a .model, tokenizer"),
        ("gpt2", "empty/vocab.json", "there is no file empty/vocab.json"),
        ("sentencepiece", "empty/x.model", "there is no file empty/x.model"),
        ("sentencepiece", "fifo", "fifo should be a file"),
    ],
)
def test_a_path_without_the_tokenizer_is_refused(
    kind: str, path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("empty").mkdir()
    for name in ("char", "gpt2"):
        write_folder(Path(name), EVERY[name].files())
    with pytest.raises(TokenizerError) as caught:
        tokenizers.make(kind, path, "")
    assert expected in str(caught.value)


# Loading from a folder


def test_a_tokenizer_of_the_first_runs_is_read(tmp_path: Path) -> None:
    content = '{\n  "type": "char",\n  "vocabulary": [\n    "\\n",\n    "é"\n  ]\n}\n'
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    found = tokenizers.load(tmp_path)
    assert (found.kind, found.encode("é\n").tolist()) == ("char", [1, 0])
    assert found.files() == {"tokenizer.json": content.encode()}


def test_a_folder_of_hugging_face_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(description()), encoding="utf-8")
    for place in (tmp_path, path):
        assert tokenizers.make("gpt2", str(place), "").files() == small().files()
    write(tmp_path)
    assert tokenizers.load(tmp_path).files() == small().files()


def test_tokenizer_model_is_preferred_or_else_the_only_model_is_read(folder: Path) -> None:
    write_folder(folder, {**EVERY["sentencepiece"].files(), "a.model": b"something else"})
    assert tokenizers.load(folder).kind == "sentencepiece"
    (folder / "tokenizer.model").rename(folder / "b.model")
    with pytest.raises(TokenizerError, match=r"has two tokenizers: a\.model and b\.model"):
        tokenizers.load(folder)
    (folder / "a.model").unlink()
    # Hugging Face also writes a tokenizer.json.
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    assert tokenizers.load(folder).files() == EVERY["sentencepiece"].files()


def test_two_tokenizers_are_refused(tmp_path: Path) -> None:
    for first, second, names in (
        ("char", "gpt2", "tokenizer.json and vocab.json"),
        ("char", "sentencepiece", "tokenizer.json and tokenizer.model"),
        ("gpt2", "sentencepiece", "tokenizer.model and vocab.json"),
    ):
        folder = tmp_path / names
        write_folder(folder, EVERY[first].files() | EVERY[second].files())
        with pytest.raises(TokenizerError, match=f"has two tokenizers: {names}"):
            tokenizers.load(folder)


def test_one_file_of_two_is_no_tokenizer(folder: Path) -> None:
    write_folder(folder, {"vocab.json": EVERY["gpt2"].files()["vocab.json"]})
    assert not tokenizers.has_tokenizer(folder)
    with pytest.raises(TokenizerError, match=r"there is no tokenizer in .*vocab\.json with merges"):
        tokenizers.load(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"é": 1}', "is damaged: it is not a JSON object"),
        ("[" * 100_000, "is damaged: it is not a JSON object"),
        ("{}", "is not a tokenizer of characters or byte pairs"),
        ('{"type": "char"}', "has no valid vocabulary"),
        ('{"type": "char", "vocabulary": {"a": 1}}', "has no valid vocabulary: it is not a list"),
        ('{"type": "char", "vocabulary": ["a", "a"]}', "has no valid vocabulary"),
    ],
)
def test_a_wrong_tokenizer_json_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(TokenizerError, match=f"^{path} {expected}"):
        tokenizers.load(tmp_path)
