"""GPT-2's tokenizer, compared with other implementations; files that are refused."""

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from helpers.byte_pairs import PAIRS, description, small, vocabulary, write
from helpers.optional import needs
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.storage.files import write_folder
from tinygpt_np.text import corpus, tokenizers
from tinygpt_np.text.tokenizers import GPT2Tokenizer, MissingPackageError, TokenizerError
from tinygpt_np.text.tokenizers.gpt2 import ENCODER, MERGES, SOURCE

needs("tiktoken")
# Random characters, and a mix that exercises every rule of PATTERN.
TEXTS = st.text() | st.text("aAzé't sre12 \n\t\r.,!\u00a0\u3000🙂漢\u0301\0")


@pytest.fixture(scope="module")
def gpt2(gpt2_files: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer.from_files(gpt2_files / "encoder.json", gpt2_files / "vocab.bpe")


# GPT-2's files


def test_gpt2_has_the_tokens_that_the_lecture_shows(gpt2: GPT2Tokenizer) -> None:
    assert gpt2.encode("hii there").tolist() == [71, 4178, 612]
    assert (gpt2.vocab_size, gpt2.kind) == (50257, "gpt2")
    assert gpt2.start().tolist() == [50256]
    assert gpt2.decode([50256]) == "<|endoftext|>"


@pytest.mark.slow
def test_transformers_gives_the_same_tokens(gpt2: GPT2Tokenizer, tmp_path: Path) -> None:
    transformers: Any = needs("transformers")
    write_folder(tmp_path / "saved", gpt2.files())
    other = transformers.GPT2Tokenizer.from_pretrained(tmp_path / "saved")

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(TEXTS)
    def holds(text: str) -> None:
        assert gpt2.encode(text).tolist() == other.encode(text)

    holds()
    assert len(other) == 50257
    # The files that transformers writes are read, too.
    other.save_pretrained(tmp_path / "theirs")
    assert tokenizers.from_path(tmp_path / "theirs" / "tokenizer.json").files() == gpt2.files()


# Tokens of the embedded corpus, in upper and in lower case, from transformers 5.24:
# their number, and the SHA-256 of them in 16 bits each.
CORPUS: dict[Callable[[str], str], tuple[int, str]] = {
    str: (362_472, "db840c0261847b9eabe5bbd7c98044c7581fc41fe6ff0edce4169df327539c9d"),
    str.upper: (486_055, "5d365bc6c6e5873a0ddec29cd5f353589a4a77a361056d45ecc8a02b9e526ef6"),
    str.lower: (357_561, "709a14091ced24b9ad62f708d0f3b2ab4614088168ec77a59b9b71aeb08860f0"),
}


@pytest.mark.parametrize("change", CORPUS, ids=["as it is", "capitals", "small letters"])
def test_the_whole_corpus_has_the_tokens_that_transformers_makes(
    gpt2: GPT2Tokenizer, change: Callable[[str], str]
) -> None:
    ids = gpt2.encode(change(corpus.load("shakespeare").text))
    found = len(ids), hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()
    assert found == CORPUS[change]


def test_the_cache_of_tiktoken_is_used(
    gpt2_files: Path, gpt2: GPT2Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for name, sha256 in (ENCODER, MERGES):
        content = (gpt2_files / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        (tmp_path / hashlib.sha1((SOURCE + name).encode()).hexdigest()).write_bytes(content)
    assert GPT2Tokenizer.from_cache().files() == gpt2.files()


def test_a_failed_download_says_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str, __: str) -> bytes:
        raise ConnectionError("no network")

    monkeypatch.setattr("tiktoken.load.read_file_cached", refuse)
    with pytest.raises(TokenizerError) as caught:
        GPT2Tokenizer.from_cache()
    for word in ("ConnectionError", "/encoder.json", "/vocab.bpe", "--tokenizer-path"):
        assert word in str(caught.value)


@pytest.mark.parametrize("make", [small, GPT2Tokenizer.from_cache])
def test_without_tiktoken_the_extra_is_named(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tiktoken", "tiktoken.load"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=r"needs tiktoken: pip install .*\[tokenizers\]"):
        make()


# A small tokenizer


def test_a_vocabulary_without_an_end_of_text_starts_after_a_new_line() -> None:
    tokenizer = GPT2Tokenizer({t: i for t, i in vocabulary().items() if i < 263}, PAIRS, "x")
    assert tokenizer.decode(tokenizer.start()) == "\n"
    assert tokenizer.vocab_size == 263


@pytest.mark.parametrize("first", ["#version: 0.2\r\n", ""])
def test_merges_are_read_with_any_line_ends_and_version(tmp_path: Path, first: str) -> None:
    paths = write(tmp_path)
    lines = "\r\n".join(" ".join(pair) for pair in PAIRS)
    paths[1].write_bytes(f"{first}{lines}\r\n".encode())
    assert GPT2Tokenizer.from_files(*paths).files() == small().files()


def test_bytes_may_be_numbered_in_any_order(tmp_path: Path) -> None:
    swapped = GPT2Tokenizer.from_files(*write(tmp_path, vocabulary() | {"a": 98, "b": 97}))
    assert swapped.encode("ab").tolist() == [98, 97]
    assert swapped.decode(swapped.encode("abba hii")) == "abba hii"


def changed(**changes: int | None) -> dict[str, int]:
    """Return the small vocabulary with tokens renumbered or, if None, removed."""
    found = vocabulary() | {token: i for token, i in changes.items() if i is not None}
    return {token: i for token, i in found.items() if changes.get(token, i) is not None}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"h": "1"}, "should be a JSON object of tokens and their numbers"),
        ({"h": True}, "should be a JSON object of tokens and their numbers"),
        ({}, "lacks the token 'Ā'"),
        (changed(hi=257), "numbered from 0 without gaps or repeats"),
        (changed(hi=258, he=256), "token 256 should be 'hi', the result of merge 1, but is 'he'"),
        (changed(a=263, **{"<|endoftext|>": 97}), "token 97 should be a byte, but is '<|endof"),
        (changed(hii=None, **{"<|endoftext|>": 262}), "lacks the token 'hii', which the merges"),
        (changed(a=None, **{"<|endoftext|>": 97}), "lacks the token 'a'"),
    ],
)
def test_a_vocabulary_that_is_not_what_the_merges_make_is_refused(
    tmp_path: Path, tokens: object, expected: str
) -> None:
    with pytest.raises(TokenizerError, match=r"vocab\.json") as caught:
        GPT2Tokenizer.from_files(*write(tmp_path, tokens))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("merges", "expected"),
    [
        ("h i\nhi\n", "merge 2 should be two bytes or results of earlier merges, but is ['hi']"),
        ("hi i\nh i\n", "merge 1 should be two bytes or results of earlier merges"),
        ("h ÿ\n", "is not UTF-8"),
    ],
)
def test_merges_of_unknown_tokens_are_refused(tmp_path: Path, merges: str, expected: str) -> None:
    paths = write(tmp_path)
    paths[1].write_text(merges, encoding="latin-1")
    with pytest.raises(TokenizerError, match=rf"merges\.txt:? {re.escape(expected)}"):
        GPT2Tokenizer.from_files(*paths)


def test_merges_cut_off_anywhere_are_noticed(tmp_path: Path) -> None:
    paths = write(tmp_path)
    content = paths[1].read_bytes().rstrip()
    for size in range(len(content)):
        paths[1].write_bytes(content[:size])
        with pytest.raises(TokenizerError, match=r"merges\.txt|vocab\.json lacks the token"):
            GPT2Tokenizer.from_files(*paths)
    expected = r"tokenizer\.json is truncated .* no merge makes the token 'Ġthere' \(261\)"
    model = description()["model"] | {"merges": [*map(list, PAIRS[:5])]}
    with pytest.raises(TokenizerError, match=expected):
        GPT2Tokenizer.from_description(tmp_path / "tokenizer.json", description(model=model))


@pytest.mark.parametrize(
    ("pair", "parts"), [(("a", "bc"), "['ab', 'c']"), (("c", "cc"), "['cc', 'c']")]
)
def test_a_merge_that_is_never_applied_is_refused(pair: tuple[str, str], parts: str) -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "c"), pair]
    with pytest.raises(TokenizerError, match=r"merge 4, .* is never applied") as caught:
        GPT2Tokenizer(vocabulary(pairs), pairs, "x")
    assert parts in str(caught.value)


def test_accepted_merges_are_applied_as_by_hugging_face() -> None:
    library: Any = needs("tokenizers")
    random, accepted = Random(0), 0
    for _ in range(60):
        tokens, pairs = list("abc"), list[tuple[str, str]]()
        while len(pairs) < 6:
            pair = random.choice(tokens), random.choice(tokens)
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
                pairs.append(pair)
        numbers = vocabulary(pairs)
        theirs = library.Tokenizer(library.models.BPE(vocab=numbers, merges=pairs))
        try:
            ours = GPT2Tokenizer(numbers, pairs, "x")
        except TokenizerError:
            continue
        accepted += 1
        for _ in range(40):
            text = "".join(random.choices("abc", k=random.randint(1, 14)))
            assert ours.encode(text).tolist() == theirs.encode(text).ids, (pairs, text)
    assert accepted > 20


# Hugging Face's tokenizer.json


def template(*single: dict[str, object]) -> dict[str, object]:
    return {"type": "TemplateProcessing", "single": list(single)}


@pytest.mark.parametrize("after", [None, {"type": "ByteLevel"}, template({"Sequence": {}})])
def test_a_tokenizer_json_is_read_if_its_post_processor_adds_nothing(after: object) -> None:
    found = GPT2Tokenizer.from_description(Path("x"), description(post_processor=after))
    assert found.files() == small().files()


SPLITTING: list[Any] = [
    *(None, {"type": "Metaspace"}, {"type": "ByteLevel", "add_prefix_space": True}),
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
]
OPTIONS = {
    "dropout": 0.1, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
    "ignore_merges": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"type": "WordPiece"}}, "is not a tokenizer of characters or byte pairs"),
        ({"model": {"type": "BPE", "vocab": 5, "merges": []}}, "the vocab and the merges"),
        ({"model": {"vocab": {}, "merges": [["a", ["b"]]]}}, "merge 1 should be two bytes"),
        *(({"pre_tokenizer": words}, "splits texts into words differently") for words in SPLITTING),
        ({"normalizer": []}, "has normalizer = [], which is not supported"),
        *(
            ({"model": description()["model"] | {name: value}}, f"has {name} = ")
            for name, value in OPTIONS.items()
        ),
        *(
            ({"post_processor": after}, "has a post_processor that adds tokens to every text")
            for after in (template({"x": "A"}, {"y": "B"}), {"type": "RobertaProcessing"}, 5)
        ),
    ],
)
def test_another_tokenizer_json_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(TokenizerError, match=r"^x\.json") as caught:
        GPT2Tokenizer.from_description(Path("x.json"), description(**changes))
    assert expected in str(caught.value)
