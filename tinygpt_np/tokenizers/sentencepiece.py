"""SentencePiece: a vocabulary of pieces that is learned from the text itself.

Trained so that any text comes back as it was: nothing is normalised, a new line is a piece of its
own, and a character that no piece has is written as its bytes.
Source: Kudo, Richardson, "SentencePiece" (2018); Kudo, "Subword Regularization" (2018), section 3.2,
for the unigram model.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_np.tokenizers.byte_level import ByteLevel, TokenizerError, checked, optional

FILE = "tokenizer.model"
# How a piece writes a space; and what stands for what no piece covers, in a model without bytes.
SPACE, UNKNOWN = "\N{LOWER ONE EIGHTH BLOCK}", "\N{REPLACEMENT CHARACTER}"
LONGEST_LINE = 1 << 16  # bytes; a longer one would be left out of training


class SentencePieceTokenizer(ByteLevel):
    """model: the bytes of a .model. Raises TokenizerError if they are none.

    A model of another's may change a text as it encodes it (case, accents, white space); one of
    ours never does.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, name: str = FILE) -> None:
        library = optional("sentencepiece")
        self.model = model
        try:
            self.processor: Any = library.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, TypeError, ValueError):
            raise TokenizerError(f"{name} is damaged, or no model of SentencePiece's") from None
        pieces = range(self.processor.get_piece_size())
        super().__init__([self.piece_bytes(i) for i in pieces])
        # The bytes of the character that means a space to the library, if the model has them.
        places = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        self.space_bytes = places if all(map(self.processor.is_byte, places)) else None
        # Whether the library puts a space before the first word, which was not in the text.
        self.prefixed = self.tokens_of("a")[:1] != self.tokens_of("\na")[1:2]

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "SentencePieceTokenizer":
        """Learns vocab_size pieces from a text; the same text gives the same pieces.

        Raises TokenizerError if the text has too many characters for that many, or too few words.
        """
        library, written = optional("sentencepiece"), io.BytesIO()
        lines = (line for line in checked(text).split("\n") if line)
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=lines, model_writer=written, vocab_size=vocab_size,
                model_type="unigram", character_coverage=1.0, byte_fallback=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, user_defined_symbols=["\n"], num_threads=1,
                max_sentence_length=LONGEST_LINE, minloglevel=2,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(why_not(str(error), vocab_size)) from None
        return cls(written.getvalue())

    @classmethod
    def from_file(cls, path: Path) -> "SentencePieceTokenizer":
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None

    def encode(self, text: str) -> np.ndarray:
        """text -> (T,) int64. Raises TokenizerError for what is no UTF-8."""
        parts = checked(text).split(SPACE) if self.space_bytes else [text]
        tokens = self.tokens_of(parts[0])
        for part in parts[1:]:
            tokens += [*(self.space_bytes or ()), *self.tokens_of(part)]
        return np.array(tokens, dtype=np.int64)

    def tokens_of(self, text: str) -> list[int]:
        return self.processor.encode(text) if text else []

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


def why_not(error: str, vocab_size: int) -> str:
    """The library's reason, in a sentence."""
    few = re.search(r"smaller than required_chars\. \d+ vs (\d+)", error)
    if few:
        return f"{vocab_size} pieces are too few for this text; it needs at least {few[1]}"
    many = re.search(r"set it to a value <= (\d+)", error, re.IGNORECASE)
    if many:
        return f"{vocab_size} pieces are too many for this text; it has no more than {many[1]}"
    return f"SentencePiece cannot be trained on this text: {error.strip().splitlines()[-1]}"
