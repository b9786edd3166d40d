"""`tinygpt convert`: write a model as a folder that transformers loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from tinygpt_np.cli.flags import Argument, UsageError
from tinygpt_np.cli.output import print_facts, suggest
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.training import export


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert nanoGPT's ckpt.pt, or a run, to a folder that transformers loads."""

    source: Annotated[str, Argument("SOURCE", positional=True, required=True)] = ""
    """A ckpt.pt (which needs PyTorch), a run, or a saved model."""
    out: Annotated[str, Argument("OUT", positional=True, required=True)] = ""
    """The folder to create; it must not exist."""
    text: Annotated[str | None, Argument("FILE")] = None
    """For a character-level model without a tokenizer, such as every ckpt.pt: the text that it was
    trained on, from which the vocabulary is made."""
    tokenizer_path: Annotated[str, Argument("PATH")] = ""
    """For another model without a tokenizer: the files of its tokenizer."""

    def execute(self, console: Console) -> None:
        """Convert a model and print what was written."""
        if not self.source or not self.out:
            problem = "convert takes two arguments: SOURCE, and OUT, the folder to create"
            raise UsageError(problem, "tinygpt convert")
        model, _ = export.convert(self.source, Path(self.out), self.text, self.tokenizer_path)
        files = ", ".join(sorted(path.name for path in Path(self.out).iterdir()))
        size = f"{param_count(model.config):,} parameters, {model.config.in_words()}"
        print_facts(console, [("model", size), ("written", f"{self.out}/ with {files}")])
        suggest(console, "sample from it", "tinygpt sample --model", self.out)
