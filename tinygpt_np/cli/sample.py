"""`tinygpt sample`: a trained model writes."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console

from tinygpt_np import sample
from tinygpt_np.cli.output import announced, write
from tinygpt_np.tokenizers import CharTokenizer


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Write text with a trained model, token by token."""

    run: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """A run (a path, or a name under runs/) or a checkpoint; by default the run saved last."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """In place of a run: gpt2, gpt2-medium, gpt2-large, gpt2-xl, or a folder of a GPT-2 checkpoint
    as Hugging Face keeps it."""
    tokenizer_path: Annotated[str, tyro.conf.arg(metavar="PATH")] = ""
    """With --model: the files of its tokenizer, if they do not lie beside it."""
    prompt: str = ""
    """The text to go on from."""
    tokens: int = 500
    """How many tokens to write; most models here write characters, GPT-2 about four at once."""
    endless: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write until Ctrl-C."""
    temperature: float = 1.0
    """Below 1 the likely gets likelier, above 1 the unlikely does; 0 is --greedy."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Draw from the K likeliest tokens only."""
    greedy: tyro.conf.FlagCreatePairsOff[bool] = False
    """Always take the likeliest token."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """The same seed writes the same text."""
    backend: Literal["numba", "numpy"] = "numba"
    """Which implementation runs: compiled by Numba, or NumPy alone."""
    skip_unknown: tyro.conf.FlagCreatePairsOff[bool] = False
    """Drop characters of the prompt that the model has never seen."""


def run_sample(job: Sample, console: Console) -> None:
    if job.greedy and job.temperature not in (0, 1):
        raise ValueError("--greedy takes the likeliest token, so --temperature has no say in it")
    if job.run is not None and job.model is not None:
        raise ValueError(f"a run, {job.run}, and --model {job.model}: give one of them")
    # What is compiled is said on the other stream: this one is for the text.
    with announced(job.backend, Console(stderr=True, highlight=False)):
        model, tokenizer = sample.load_any(
            job.model or job.run, job.backend, tokenizer_path=job.tokenizer_path
        )
        sample.warm_up(model)
    prompt = job.prompt
    if job.skip_unknown and isinstance(tokenizer, CharTokenizer):
        prompt = tokenizer.known(prompt)
    temperature = 0.0 if job.greedy else job.temperature
    tokens = None if job.endless else job.tokens
    stream = sample.stream(model, tokenizer, prompt, tokens, temperature, job.top_k, job.seed)
    write(itertools.chain([prompt], stream))
