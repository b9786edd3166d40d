"""`tinygpt prepare`: encode texts as the token files that training maps into memory."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.output import print_facts
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


def run_prepare(job: Prepare, console: Console) -> None:
    """Encode texts and show the progress."""
    if not job.out:
        problem = "--out must name the folder to create, for example --out data/my-corpus"
        raise UsageError(problem, "tinygpt prepare")
    out = Path(job.out)
    bar = Progress(
        TextColumn("encoding"),
        BarColumn(None),
        TextColumn("{task.completed:,}/{task.total:,} characters"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        meta: dict[str, Any] = prepare.prepare(
            list(map(corpus.path_of, job.data)), job.tokenizer, job.tokenizer_path, out, report,
            separate_documents=job.separate_documents, vocab_size=job.vocab_size,
        )  # fmt: skip
    print_facts(
        console,
        [
            ("text", counted(meta["characters"], "character")),
            ("training", counted(meta["train_tokens"], "token")),
            ("validation", counted(meta["val_tokens"], "token")),
            ("tokenizer", f"{meta['tokenizer']}, {meta['vocab_size']:,} tokens in the vocabulary"),
        ],
    )
    console.print(
        f"train on it:  tinygpt train --data {escape(shlex.quote(job.out))}", soft_wrap=True
    )
