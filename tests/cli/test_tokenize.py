"""`tinygpt tokenize`: tokens are shown, and vocabularies are learned."""

from pathlib import Path
from typing import Any

from helpers.byte_pairs import write
from helpers.commands import Captured, output_of
from helpers.optional import needs

from tinygpt_np.text.tokenizers import SentencePieceTokenizer


def rows(out: str) -> list[list[str]]:
    """Return the rows of the table: id, piece, bytes."""
    table = out.split(" of ")[0].splitlines()[1:-1]
    return [[cell.strip() for cell in line.split(maxsplit=2)] for line in table]


def test_characters_are_shown_with_their_ids_and_bytes(capsys: Captured) -> None:
    Path("abc.txt").write_text("ab é\n", encoding="utf-8")
    out = output_of(capsys, "tokenize", "é b\n", "--data", "abc.txt")
    assert rows(out) == [
        ["4", "é", "c3 a9"], ["1", "·", "20"], ["3", "b", "62"], ["0", "\\n", "0a"],
    ]  # fmt: skip
    expected = "4 tokens for 4 characters, 1.00 characters per token; the char vocabulary has 5 tok"
    assert expected in out
    expected = "0 tokens for 0 characters; the char vocabulary has 63 tokens\n"
    assert expected in output_of(capsys, "tokenize", "")


def test_pieces_of_gpt2_are_shown_and_control_characters_escaped(
    tmp_path: Path, capsys: Captured
) -> None:
    needs("tiktoken")
    write(tmp_path)
    flags = ("--tokenizer", "gpt2", "--tokenizer-path", str(tmp_path))
    out = output_of(capsys, "tokenize", "hii there[b]é\x1b\t\r", *flags)
    pieces = ["hii", "·there", "[", "b", "]", "\\xc3", "\\xa9", "\\x1b", "\\t", "\\r"]
    assert [row[1] for row in rows(out)] == pieces
    assert "10 tokens for 16 characters, 1.60 characters per token; the gpt2 vocabulary" in out


def test_pieces_are_learned_and_written_and_used(capsys: Captured) -> None:
    needs("sentencepiece")
    text = "to be or not to be that is the question whether tis nobler in the mind\n" * 9
    Path("text.txt").write_text(text, encoding="utf-8")
    flags = ("--vocab-size", "300", "--data", "text.txt", "--out", "my own.model")
    out = output_of(capsys, "tokenize", "--train", "sentencepiece", *flags)
    learned = SentencePieceTokenizer.from_file(Path("my own.model"))
    assert learned.files() == SentencePieceTokenizer.train(text, 300).files()
    assert f"{len(learned.encode(text)):,}, from a vocabulary of 300 pieces" in out
    assert "tinygpt train --tokenizer sentencepiece --tokenizer-path 'my own.model'" in out
    flags = ("--tokenizer", "sentencepiece", "--tokenizer-path", "my own.model")
    out = output_of(capsys, "tokenize", "or the", *flags)
    assert [int(row[0]) for row in rows(out)] == learned.encode("or the").tolist()


def test_a_tokenizer_that_changes_the_text_is_reported(capsys: Captured) -> None:
    library: Any = needs("sentencepiece")
    lines = ["the [end] of it all", "to be or not to be"]
    options: dict[str, Any] = {"vocab_size": 24, "minloglevel": 2, "hard_vocab_limit": False}
    with Path("other.model").open("wb") as file:  # By default, SentencePiece normalises.
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, **options
        )
    flags = ("--tokenizer", "sentencepiece", "--tokenizer-path", "other.model")
    out = output_of(capsys, "tokenize", "to [ｅnd]", *flags)
    assert "this tokenizer changes the text; decoding gives 'to [end]'" in out
    assert "changes" not in output_of(capsys, "tokenize", "to [end]", *flags)
