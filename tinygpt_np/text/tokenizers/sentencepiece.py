"""SentencePiece tokenizers, whose vocabulary of pieces is learned from a text.

They are trained to be lossless: nothing is normalised, a newline is a piece of its own, and unknown
characters are encoded as bytes. Byte pairs are used instead of unigrams, which take 17 times as
long to train on Shakespeare and make two percent more tokens.
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
from tinygpt_np.storage.checkpoint import CheckpointError, read_bytes
from tinygpt_np.text.tokenizers.base import Tokenizer, TokenizerError, checked, missing

FILE = "tokenizer.model"
# A space in a piece, and the text of the unknown token of models without byte pieces.
SPACE, UNKNOWN = "\N{LOWER ONE EIGHTH BLOCK}", "\N{REPLACEMENT CHARACTER}"
# The lines to train on. The library skips lines with one of its reserved characters and lines with
# more bytes than max_sentence_length.
LINE, LONGEST = re.compile(r"[^\n\0▁▅]{1,4096}"), 4 * 4096


class SentencePieceTokenizer(Tokenizer):
    """A tokenizer from the content of a .model file.

    Models that were trained elsewhere may normalise a text (case, accents, white space), or decode
    unknown characters to U+FFFD. Models from `train` are lossless.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, name: str = FILE) -> None:
        library = sentencepiece_library()
        self.model = model
        try:
            # From an empty file the library would make a processor that fails later.
            self.processor: Any = library.SentencePieceProcessor(model_proto=model or b"none")
        except (RuntimeError, TypeError, ValueError):
            raise TokenizerError(f"{name} is damaged, or not a SentencePiece model") from None
        super().__init__([self.piece_bytes(i) for i in range(self.processor.get_piece_size())])
        # The byte pieces of the library's character for a space, if the model has them.
        pieces = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        self.space_bytes = pieces if all(map(self.processor.is_byte, pieces)) else None
        # Whether encoding adds a space before a text, which decoding removes.
        self.prefixed = super().decode(self.processor.encode("a")).startswith(" ")

    @classmethod
    def train(cls, text: str, vocab_size: int = PIECES) -> "SentencePieceTokenizer":
        """Learn vocab_size pieces from a text, always the same ones."""
        library, written = sentencepiece_library(), io.BytesIO()
        if not 0 < vocab_size < 2**31:
            raise TokenizerError(f"vocab_size must be positive and below 2**31, not {vocab_size}")
        lines = [found[0] for found in LINE.finditer(checked(text))]
        if not lines:
            raise TokenizerError("there is no text to learn pieces from")
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=written, vocab_size=vocab_size,
                model_type="bpe", character_coverage=1.0, byte_fallback=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, user_defined_symbols=["\n"], bos_id=-1, eos_id=-1,
                num_threads=1, max_sentence_length=LONGEST, minloglevel=2,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(explain(str(error), vocab_size)) from None
        return cls(written.getvalue())

    @classmethod
    def from_file(cls, path: Path) -> "SentencePieceTokenizer":
        """Return the tokenizer in a .model file."""
        try:
            return cls(read_bytes(path), str(path))
        except CheckpointError as error:
            raise TokenizerError(str(error)) from None

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, (T,) int64. Raise TokenizerError if it is not UTF-8."""
        if self.space_bytes is None or self.prefixed:
            return np.array(self.processor.encode(checked(text)), dtype=np.int64)
        tokens, *others = (self.processor.encode(part) for part in checked(text).split(SPACE))
        for part in others:
            tokens += [*self.space_bytes, *part]
        return np.array(tokens, dtype=np.int64)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of tokens (T,). Bytes that are not UTF-8 become U+FFFD."""
        text = super().decode(ids)
        return text.removeprefix(" ") if self.prefixed else text

    def start(self) -> np.ndarray:
        """Return a newline (1,), or the model's beginning of a text if it has no newline."""
        newline = self.processor.piece_to_id("\n")
        begin = max(self.processor.bos_id(), 0)
        return np.array([begin if self.processor.is_unknown(newline) else newline])

    def files(self) -> dict[str, bytes]:
        """Return tokenizer.model."""
        return {FILE: self.model}

    def piece_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a piece."""
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


def explain(error: str, vocab_size: int) -> str:
    """Return a sentence for an error of SentencePiece's trainer, with what to do."""
    if few := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return f"{vocab_size:,} pieces are too few for this text; use --vocab-size {few[1]} or more"
    if many := re.search(r"set it to a value <= (\d+)", error, re.IGNORECASE):
        return (
            f"{vocab_size:,} pieces are too many for this text; use --vocab-size {many[1]} or "
            "less, or --tokenizer char"
        )
    return f"SentencePiece cannot be trained on this text: {error.strip().splitlines()[-1]}"
