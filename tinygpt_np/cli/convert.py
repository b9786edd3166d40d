"""`tinygpt convert`: checkpoints to the folders that GPT-2's world reads."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.markup import escape

from tinygpt_np.cli.flags import Argument, UsageError
from tinygpt_np.cli.output import print_facts
from tinygpt_np.training import export


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn nanoGPT's ckpt.pt, or a run, into a folder that transformers loads as a GPT-2."""

    source: Annotated[str, Argument("SOURCE", positional=True, required=True)] = ""
    """A ckpt.pt (read by PyTorch, which must be installed), a run, or a saved model."""
    out: Annotated[str, Argument("OUT", positional=True, required=True)] = ""
    """The folder to create; it must not exist."""
    text: Annotated[str | None, Argument("FILE")] = None
    """For a model of characters without a tokenizer, as in every ckpt.pt: the text that it was
    trained on, for the vocabulary."""
    tokenizer_path: Annotated[str, Argument("PATH")] = ""
    """For another model without a tokenizer: the files of its tokenizer."""


def run_convert(job: Convert, console: Console) -> None:
    if not job.source or not job.out:
        problem = "convert takes two arguments: SOURCE, and OUT, the folder to create"
        raise UsageError(problem, "tinygpt convert")
    model, _ = export.convert(job.source, Path(job.out), job.text, job.tokenizer_path)
    config = model.config
    params = sum(param.size for param in model.params.values())
    files = ", ".join(sorted(path.name for path in Path(job.out).iterdir()))
    print_facts(
        console,
        [
            (
                "model",
                f"{params:,} parameters, {config.in_words()}",
            ),
            ("written", f"{job.out}/ with {files}"),
        ],
    )
    console.print(
        f"sample from it:  tinygpt sample --model {escape(shlex.quote(job.out))}", soft_wrap=True
    )
