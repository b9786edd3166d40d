"""`tinygpt tokenize`: show the tokens of a text, or learn a vocabulary from one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinygpt_np.cli.flags import Argument
from tinygpt_np.cli.output import print_facts, suggest
from tinygpt_np.config import PIECES, counted, require
from tinygpt_np.storage import files
from tinygpt_np.text import corpus, tokenizers
from tinygpt_np.text.tokenizers import SentencePieceTokenizer, Tokenizer

# Visible forms of white space.
VISIBLE = str.maketrans({" ": "·", "\n": "\\n", "\t": "\\t", "\r": "\\r"})


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """Show the tokens of a text, or learn a vocabulary from one (--train)."""

    text: Annotated[str | None, Argument("TEXT", positional=True)] = None
    """The text to encode."""
    tokenizer: Literal["char", "gpt2", "sentencepiece"] = "char"
    """The tokens: characters, GPT-2's byte pairs, or SentencePiece's pieces."""
    tokenizer_path: Annotated[str, Argument("PATH")] = ""
    """The files of that tokenizer, as for tinygpt train."""
    data: str = "shakespeare"
    """The text that the vocabulary is made from: shakespeare, tinyshakespeare, or the path of a
    UTF-8 text."""
    train: Annotated[Literal["sentencepiece"] | None, Argument("sentencepiece")] = None
    """Learn a vocabulary from --data and write it to --out."""
    vocab_size: int = PIECES
    """Vocabulary size of SentencePiece."""
    out: Annotated[Path | None, Argument("NAME.model")] = None
    """With --train: the file to write; it must not exist."""

    def __post_init__(self) -> None:
        require(self, "vocab_size", self.vocab_size > 0, "positive")

    def execute(self, console: Console) -> None:
        """Show the tokens of a text, or learn a vocabulary."""
        if self.train is not None:
            self.learn(console)
        elif self.out is not None:
            raise ValueError("--out is the file that --train writes; add --train sentencepiece")
        elif self.text is None:
            raise ValueError("there is nothing to do: give a text, or --train sentencepiece")
        else:
            needs_text = not self.tokenizer_path and self.tokenizer != "gpt2"
            source = corpus.load(self.data).text if needs_text else ""
            path, size = self.tokenizer_path, self.vocab_size
            show(self.text, tokenizers.make(self.tokenizer, path, source, size), console)

    def learn(self, console: Console) -> None:
        """Learn a vocabulary of SentencePiece's and write it."""
        if self.text is not None:
            raise ValueError("--train learns from --data; leave out the text")
        if self.out is None:
            raise ValueError("--out must name the file to write, for example --out my.model")
        if self.out.exists():
            raise ValueError(f"{self.out} exists already, and nothing is overwritten")
        source = corpus.load(self.data)
        tokenizer = SentencePieceTokenizer.train(source.text, self.vocab_size)
        files.create_file(self.out, tokenizer.model)
        count = len(tokenizer.encode(source.text))
        facts = [
            ("text", f"{source.name}: {len(source.text):,} characters"),
            ("tokens", f"{count:,}, from a vocabulary of {tokenizer.vocab_size:,} pieces"),
            ("", f"{len(source.text) / count:.2f} characters per token"),
            ("written", str(self.out)),
        ]
        print_facts(console, facts)
        command = "tinygpt train --tokenizer sentencepiece --tokenizer-path"
        suggest(console, "train with it", command, self.out)


def show(text: str, tokenizer: Tokenizer, console: Console) -> None:
    """Print a row per token, then the number of tokens."""
    ids: list[int] = tokenizer.encode(text).tolist()
    table = Table(box=None, pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("piece", overflow="fold")
    table.add_column("bytes", overflow="fold")
    for token in ids:
        content = tokenizer.bytes_of(token)
        table.add_row(str(token), Text(visible(content)), content.hex(" "))
    console.print(table)
    ratio = f", {len(text) / len(ids):.2f} characters per token" if ids else ""
    console.print(
        f"{counted(len(ids), 'token')} for {counted(len(text), 'character')}{ratio}; "
        f"the {tokenizer.kind} vocabulary has {counted(tokenizer.vocab_size, 'token')}"
    )
    decoded = tokenizer.decode(ids)
    if decoded != text:
        console.print(f"this tokenizer changes the text; decoding gives {escape(repr(decoded))}")


def visible(content: bytes) -> str:
    """Return the text of a token with visible white space; incomplete characters are escaped."""
    text = content.decode("utf-8", errors="backslashreplace").translate(VISIBLE)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
