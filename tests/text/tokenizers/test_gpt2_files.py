"""GPT-2's byte pairs from files: Hugging Face's tokenizer.json, and merges that are cut off."""

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
from helpers.byte_pairs import PAIRS, small, vocabulary, write
from helpers.optional import needs

from tinygpt_np.text.tokenizers import GPT2Tokenizer, TokenizerError
from tinygpt_np.text.tokenizers.gpt2 import check_learned, merges_in

needs("tiktoken")


# Hugging Face's tokenizer.json


def hugging_face(**changes: Any) -> dict[str, Any]:
    """The small tokenizer as Hugging Face describes it, with entries changed."""
    words = {k: v for k, v in vocabulary().items() if v < 263}
    return {
        "added_tokens": [{"id": 263, "content": "<|endoftext|>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": words, "merges": [list(pair) for pair in PAIRS]},
        **changes,
    }


def test_hugging_faces_description_is_read() -> None:
    found = GPT2Tokenizer.from_hugging_face(Path("x"), hugging_face())
    assert found.files() == small().files()


def test_its_merges_may_be_strings() -> None:
    description = hugging_face()
    description["model"]["merges"] = [" ".join(pair) for pair in PAIRS]
    found = GPT2Tokenizer.from_hugging_face(Path("x"), description)
    assert found.files() == small().files()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 0.1),
        ("continuing_subword_prefix", "##"),
        ("end_of_word_suffix", "</w>"),
        ("ignore_merges", True),
    ],
)
def test_a_model_that_merges_otherwise_is_refused(name: str, value: object) -> None:
    description = hugging_face()
    description["model"][name] = value
    with pytest.raises(TokenizerError, match=rf"x has {name} = .*, which is not supported"):
        GPT2Tokenizer.from_hugging_face(Path("x"), description)


@pytest.mark.parametrize(
    "after",
    [
        {"type": "ByteLevel", "trim_offsets": False},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]},
    ],
)
def test_a_post_processor_that_adds_nothing_is_accepted(after: object) -> None:
    found = GPT2Tokenizer.from_hugging_face(Path("x"), hugging_face(post_processor=after))
    assert found.files() == small().files()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": None}, "is no tokenizer of characters or byte pairs"),
        ({"model": {"type": "WordPiece"}}, "is no tokenizer of characters or byte pairs"),
        ({"model": {"type": "BPE", "vocab": 5, "merges": []}}, "the vocab and the merges"),
        ({"model": {"vocab": {}, "merges": [5]}}, "merge 1 should be of two tokens"),
        ({"model": {"vocab": {}, "merges": [["a", ["b"]]]}}, "merge 1 should be of two tokens"),
        ({"added_tokens": 7}, "added_tokens should have a content and an id"),
        ({"added_tokens": [{"id": 3}]}, "added_tokens should have a content and an id"),
        ({"pre_tokenizer": None}, "cuts texts into words in another way than GPT-2"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "another way than GPT-2: {'type': 'Metas"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
            "cuts texts into words in another way than GPT-2",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "use_regex": False,
                }
            },
            "cuts texts into words in another way than GPT-2",
        ),
        ({"normalizer": {"type": "NFC"}}, "has a normalizer, which is not supported"),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": [{"x": "A"}, {"y": "B"}]}},
            "has a post_processor that adds tokens to every text, which is not supported",
        ),
        (
            {"post_processor": {"type": "RobertaProcessing"}},
            "has a post_processor that adds tokens to every text, which is not supported",
        ),
        ({"post_processor": 5}, "has a post_processor that adds tokens"),
    ],
)
def test_another_description_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(TokenizerError, match=r"^x\.json") as caught:
        GPT2Tokenizer.from_hugging_face(Path("x.json"), hugging_face(**changes))
    assert expected in str(caught.value)


# Merges that are cut off


@pytest.mark.parametrize("kept", range(len(PAIRS)))
def test_missing_merges_are_noticed_whatever_their_number(tmp_path: Path, kept: int) -> None:
    lines = [" ".join(pair) for pair in PAIRS[:kept]]
    paths = write(tmp_path, merges="\n".join(["#version: 0.2", *lines]))
    first = "".join(PAIRS[kept])
    expected = rf"is cut off, .* no merge makes the token '{first}' \({256 + kept}\)"
    with pytest.raises(TokenizerError, match=rf"merges\.txt {expected}"):
        GPT2Tokenizer.from_files(*paths)
    description = hugging_face()
    description["model"]["merges"] = lines
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json {expected}"):
        GPT2Tokenizer.from_hugging_face(tmp_path / "tokenizer.json", description)


@pytest.mark.parametrize(
    ("pair", "parts"), [(("a", "bc"), "['ab', 'c']"), (("c", "cc"), "['cc', 'c']")]
)
def test_a_merge_that_is_never_applied_is_refused(pair: tuple[str, str], parts: str) -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "c"), pair]
    with pytest.raises(TokenizerError, match=r"merge 4, .* is never applied") as caught:
        GPT2Tokenizer(vocabulary(pairs), pairs, "x")
    assert parts in str(caught.value)


def test_whatever_merges_are_accepted_are_applied_as_hugging_face_applies_them() -> None:
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


def test_gpt2s_own_merges_are_all_applied(gpt2_files: Path) -> None:
    # The check itself is left out for them, because it takes a second.
    merges = merges_in((gpt2_files / "vocab.bpe").read_text(encoding="utf-8"), "vocab.bpe")
    assert len(merges) == 50_000
    check_learned(merges, "vocab.bpe")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9999])
def test_gpt2s_own_merges_cut_off_anywhere_are_noticed(
    tmp_path: Path, gpt2_files: Path, share: float
) -> None:
    merges = (gpt2_files / "vocab.bpe").read_bytes()
    (tmp_path / "vocab.bpe").write_bytes(merges[: int(share * len(merges))])
    shutil.copy(gpt2_files / "encoder.json", tmp_path)
    with pytest.raises(TokenizerError, match=r"vocab\.bpe is cut off|vocab\.bpe: merge|lacks the"):
        GPT2Tokenizer.from_files(tmp_path / "encoder.json", tmp_path / "vocab.bpe")


def test_an_empty_file_of_merges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"merges\.txt is empty"):
        GPT2Tokenizer.from_files(*write(tmp_path, merges=""))


def test_bytes_alone_are_a_vocabulary(tmp_path: Path) -> None:
    paths = write(tmp_path, vocabulary([]), merges="#version: 0.2\n")
    assert GPT2Tokenizer.from_files(*paths).encode("hi").tolist() == [104, 105]
