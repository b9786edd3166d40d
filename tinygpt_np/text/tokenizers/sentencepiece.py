"""SentencePiece: a vocabulary of pieces that is learned from the text itself.

Trained so that any text comes back as it was: nothing is normalised, a new line is a piece of its
own, and a character that no piece has is written as its bytes. Of the library's two ways to learn,
byte pairs are taken: on Shakespeare they are learned 17 times as fast as unigrams are, and make two
percent fewer tokens.
Source: Kudo, Richardson, "SentencePiece" (2018); Sennrich, Haddow, Birch, "Neural Machine
Translation of Rare Words with Subword Units" (2016) for byte pairs.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.config import PIECES
from tinygpt_np.text.tokenizers.byte_level import ByteLevel, TokenizerError, checked, missing, read

FILE = "tokenizer.model"
# How a piece writes a space; and what stands for what no piece covers, in a model without bytes.
SPACE, UNKNOWN = "\N{LOWER ONE EIGHTH BLOCK}", "\N{REPLACEMENT CHARACTER}"
# What the library is shown to learn from: it would leave out a line with a character in it that it
# keeps for itself, and one of more bytes than it is told to expect.
LINE, LONGEST = re.compile(r"[^\n\0▁▅]{1,4096}"), 4 * 4096


class SentencePieceTokenizer(ByteLevel):
    """model: the bytes of a .model. Raises TokenizerError if they are none.

    A model of another's may change a text as it encodes it (case, accents, white space), and have
    no bytes for what it does not know (U+FFFD comes back); one of ours never does.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, name: str = FILE) -> None:
        library = sentencepiece_library()
        self.model = model
        try:
            # Of an empty file the library makes a processor that fails later.
            self.processor: Any = library.SentencePieceProcessor(model_proto=model or b"none")
        except (RuntimeError, TypeError, ValueError):
            raise TokenizerError(f"{name} is damaged, or no model of SentencePiece's") from None
        super().__init__([self.piece_bytes(i) for i in range(self.processor.get_piece_size())])
        # The bytes of the character that means a space to the library, if the model has them.
        places = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        self.space_bytes = places if all(map(self.processor.is_byte, places)) else None
        # Whether the library puts a space before a text, which it takes away again.
        self.prefixed = super().decode(self.processor.encode("a")).startswith(" ")

    @classmethod
    def train(cls, text: str, vocab_size: int = PIECES) -> "SentencePieceTokenizer":
        """Learn vocab_size pieces from a text; the same text gives the same pieces.

        Raises TokenizerError, with the limit, if the text has too many characters for that many
        pieces, or too few words.
        """
        library, written = sentencepiece_library(), io.BytesIO()
        if vocab_size < 1:
            raise TokenizerError(f"vocab_size must be positive, not {vocab_size}")
        if vocab_size >= 2**31:
            raise TokenizerError(f"vocab_size must be below 2**31, not {vocab_size}")
        lines = [found[0] for found in LINE.finditer(checked(text))]
        if not lines:
            raise TokenizerError("there is no text that pieces could be learned from")
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=written, vocab_size=vocab_size,
                model_type="bpe", character_coverage=1.0, byte_fallback=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, user_defined_symbols=["\n"], bos_id=-1, eos_id=-1,
                num_threads=1, max_sentence_length=LONGEST, minloglevel=2,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(why_not(str(error), vocab_size)) from None
        return cls(written.getvalue())

    @classmethod
    def from_file(cls, path: Path) -> "SentencePieceTokenizer":
        return cls(read(path), str(path))

    def encode(self, text: str) -> np.ndarray:
        """text -> (T,) int64. Raises TokenizerError for what is no UTF-8."""
        if self.space_bytes is None or self.prefixed:
            return np.array(self.processor.encode(checked(text)), dtype=np.int64)
        first, *others = (self.processor.encode(part) for part in checked(text).split(SPACE))
        tokens: list[int] = first
        for part in others:
            tokens += [*self.space_bytes, *part]
        return np.array(tokens, dtype=np.int64)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """(T,) integers in [0, vocab_size) -> text; what is no UTF-8 becomes U+FFFD."""
        text = super().decode(ids)
        return text.removeprefix(" ") if self.prefixed else text

    def start(self) -> np.ndarray:
        """A new line, or the model's own begin where it has no piece for that."""
        newline = self.processor.piece_to_id("\n")
        begin = max(self.processor.bos_id(), 0)
        return np.array([begin if self.processor.is_unknown(newline) else newline])

    def files(self) -> dict[str, bytes]:
        return {FILE: self.model}

    def piece_bytes(self, token: int) -> bytes:
        piece: str = self.processor.id_to_piece(token)
        if self.processor.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        if self.processor.is_control(token):
            return b""
        if self.processor.is_unknown(token):
            return UNKNOWN.encode()
        return piece.replace(SPACE, " ").encode()


def sentencepiece_library() -> Any:
    """Return the package sentencepiece. Raise MissingPackageError if it is not installed."""
    try:
        import sentencepiece  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise missing("sentencepiece") from None
    return sentencepiece


def why_not(error: str, vocab_size: int) -> str:
    """Return the library's reason in a sentence, and what to do."""
    few = re.search(r"smaller than required_chars\. \d+ vs (\d+)", error)
    if few:
        return f"{vocab_size:,} pieces are too few for this text; use --vocab-size {few[1]} or more"
    many = re.search(r"set it to a value <= (\d+)", error, re.IGNORECASE)
    if many:
        return (
            f"{vocab_size:,} pieces are too many for this text; use --vocab-size {many[1]} or "
            "less, or --tokenizer char"
        )
    return f"SentencePiece cannot be trained on this text: {error.strip().splitlines()[-1]}"
