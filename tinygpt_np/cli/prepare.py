"""`tinygpt prepare`: encode texts as the token files that training maps into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.output import print_facts, suggest
from tinygpt_np.config import PIECES, counted, require
from tinygpt_np.text import corpus, prepare


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Encode texts of any size as train.bin and val.bin.

    Training maps these files into memory.
    """

    data: Annotated[tuple[str, ...], Argument("FILE")] = ("shakespeare",)
    """UTF-8 text files, joined in this order, or shakespeare or tinyshakespeare."""
    out: Annotated[str, Argument("DIR")] = ""
    """The folder to create; it must not exist. tinygpt train --data DIR trains on it."""
    tokenizer: Literal["char", "gpt2", "sentencepiece"] = "gpt2"
    """The tokens: characters, GPT-2's byte pairs, or SentencePiece's pieces."""
    tokenizer_path: Annotated[str, Argument("PATH")] = ""
    """The files of that tokenizer, as for tinygpt train."""
    vocab_size: int = PIECES
    """Vocabulary size of SentencePiece."""
    separate_documents: Switch = False
    """Write GPT-2's <|endoftext|> after each file, as nanoGPT does. By default all files are one
    text."""

    @staticmethod
    def hint(words: str) -> str:
        """Return advice about unexpected arguments."""
        return f"to use a text, give --data {words}"

    def __post_init__(self) -> None:
        require(self, "vocab_size", self.vocab_size > 0, "positive")

    def execute(self, console: Console) -> None:
        """Encode texts and show the progress."""
        if not self.out:
            problem = "--out must name the folder to create, for example --out data/my-corpus"
            raise UsageError(problem, "tinygpt prepare")
        shown = (
            *(TextColumn("encoding"), BarColumn(None)),
            *(TextColumn("{task.completed:,}/{task.total:,} characters"), TimeRemainingColumn()),
        )
        with Progress(*shown, console=console, disable=not console.is_terminal, expand=True) as bar:
            task = bar.add_task("", total=None)
            meta: dict[str, Any] = prepare.prepare(
                [*map(corpus.path_of, self.data)],
                self.tokenizer,
                self.tokenizer_path,
                Path(self.out),
                lambda done, total: bar.update(task, completed=done, total=total),
                separate_documents=self.separate_documents,
                vocab_size=self.vocab_size,
            )
        facts = [
            ("text", counted(meta["characters"], "character")),
            ("training", counted(meta["train_tokens"], "token")),
            ("validation", counted(meta["val_tokens"], "token")),
            ("tokenizer", f"{meta['tokenizer']}, {meta['vocab_size']:,} tokens in the vocabulary"),
        ]
        print_facts(console, facts)
        suggest(console, "train on it", "tinygpt train --data", self.out)
