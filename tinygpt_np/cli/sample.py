"""`tinygpt sample`: generate text with a trained model."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from tinygpt_np.cli.flags import Argument, Switch, UsageError
from tinygpt_np.cli.output import Output, announced, write
from tinygpt_np.config import require
from tinygpt_np.model import sampling
from tinygpt_np.text.corpus import read_text
from tinygpt_np.text.tokenizers import CharTokenizer
from tinygpt_np.training import runs
from tinygpt_np.training.ranks.group import start

# nanoGPT prints the same line between samples.
SEPARATOR = "-" * 15


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Generate text with a trained model, token by token."""

    run: Annotated[str | None, Argument("RUN", positional=True)] = None
    """A run (a path, or a name in runs/) or a checkpoint; by default the latest run."""
    model: Annotated[str | None, Argument("MODEL")] = None
    """Instead of a run: gpt2, gpt2-medium, gpt2-large, gpt2-xl, or the folder of a GPT-2
    checkpoint in Hugging Face's format."""
    tokenizer_path: Annotated[str, Argument("PATH")] = ""
    """With --model: the tokenizer's files, if they are not in the model's folder."""
    prompt: str = ""
    """The text to continue."""
    prompt_file: Annotated[Path | None, Argument("PATH")] = None
    """Read the prompt from a UTF-8 text file."""
    tokens: int = 500
    """Number of tokens to generate: characters, unless the model has another tokenizer; a token of
    GPT-2's is about four characters."""
    num_samples: Annotated[int, Argument("N")] = 1
    """Generate N samples, separated by a line of dashes. With --seed S, their seeds are S, S + 1
    and so on."""
    endless: Switch = False
    """Generate until Ctrl-C."""
    temperature: float = 1.0
    """Divide the logits by it: below 1 favours likely tokens; 0 is the same as --greedy."""
    top_k: Annotated[int | None, Argument("K")] = None
    """Draw only from the K most likely tokens."""
    top_p: Annotated[float | None, Argument("P")] = None
    """Draw only from the most likely tokens whose probabilities sum to P, after --top-k."""
    greedy: Switch = False
    """Always take the most likely token."""
    seed: Annotated[int | None, Argument("INT")] = None
    """The same seed generates the same text."""
    backend: Literal["numba", "numpy"] = "numba"
    """The implementation: compiled by Numba, or NumPy only."""
    skip_unknown: Switch = False
    """Drop characters of the prompt that are not in the vocabulary."""
    typed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self, "tokens", self.tokens >= 0, "zero or more")
        require(self, "num_samples", self.num_samples > 0, "positive")
        require(self, "temperature", self.temperature >= 0, "zero or more")
        require(self, "top_k", self.top_k is None or self.top_k > 0, "positive")
        require(self, "top_p", self.top_p is None or 0 < self.top_p <= 1, "in (0, 1]")
        require(self, "seed", self.seed is None or 0 <= self.seed < 2**32, "in [0, 2**32)")

    def execute(self, console: Console) -> None:
        """Print the prompt and the text that follows it, once for each sample."""
        for problem in self.contradictions():
            raise UsageError(problem, "tinygpt sample")
        prompt = self.prompt if self.prompt_file is None else read_text(self.prompt_file)
        group = start()
        # Compiler messages go to stderr, because stdout is for the text.
        errors = Output(stderr=True, highlight=False, quiet=console.quiet)
        with announced(self.backend, errors):
            name, path = self.model or self.run, self.tokenizer_path
            model, tokenizer = runs.load(name, self.backend, tokenizer_path=path)
            group.in_turn(lambda: sampling.warm_up(model.decoder(1), model.block_size))
        if self.skip_unknown and isinstance(tokenizer, CharTokenizer):
            prompt = tokenizer.known(prompt)
        temperature = 0.0 if self.greedy else self.temperature
        tokens = None if self.endless else self.tokens
        for first in range(0, self.num_samples, group.size):
            # Each rank generates one sample at a time, and the first rank prints them.
            number, text = first + group.rank, ""
            if number < self.num_samples:
                seed = None if self.seed is None else self.seed + number
                rules = (tokens, temperature, self.top_k, seed, self.top_p)
                stream = sampling.stream_text(model.decoder(1), tokenizer, prompt, *rules)
                if group.rank == 0:
                    write(itertools.chain([SEPARATOR, "\n"] if number else [], [prompt], stream))
                else:
                    text = "".join(stream)
            texts = group.share(text)[1 : self.num_samples - first]
            if group.rank == 0:
                for text in texts:
                    write([SEPARATOR, "\n", prompt, text])

    def contradictions(self) -> Iterator[str]:
        """Yield a message for each contradiction between flags."""
        if self.greedy and self.temperature not in (0, 1):
            yield "--greedy always takes the most likely token; leave out --temperature"
        if self.run is not None and self.model is not None:
            yield f"leave out the run {self.run}, or leave out --model {self.model}"
        if self.prompt and self.prompt_file is not None:
            yield "--prompt and --prompt-file both give a prompt; leave out one of them"
        if self.endless and "tokens" in self.typed:
            yield "--endless generates until Ctrl-C; leave out --tokens"
        if self.endless and self.num_samples > 1:
            yield "--endless never ends its first sample; leave out --num-samples"
        if self.seed is not None and self.seed + self.num_samples > 2**32:
            last = self.seed + self.num_samples - 1
            yield f"the last sample would have seed {last}; seeds must be below 2**32"
