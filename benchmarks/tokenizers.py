"""Tokenizers: what characters, byte pairs and pieces come to in the same training time.

Three GPTs of as many parameters, embeddings included, train on the same text for the same seconds,
in turns, so that what else the machine does meets all alike. Each validates on the whole split. A
loss per token cannot be compared, for tokens are of different lengths; in bits per character it
can. The learning rate falls with the share of the time that is gone.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contest import Progress, machine_facts, write
from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, learning_rate_at
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import corpus as data
from tinygpt_np.text import dataset, tokenizers
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import engine

KINDS = ("char", "sentencepiece", "gpt2")
PARAMS = 3_500_000
CONFIG = TrainConfig(block_size=128, batch_size=12, warmup_iters=50, lr_decay_iters=1000)
# Seconds of training, and of one turn; seeds, one after another.
SECONDS, TURN, ROUNDS = 60.0, 10.0, 3


class Contestant:
    """One tokenizer, and the GPT that is trained on its tokens."""

    def __init__(self, found: Dataset, seed: int, threads: int) -> None:
        self.found, self.tokens = found, 0
        self.config = replace(CONFIG, seed=seed, threads=threads, tokenizer=found.tokenizer.kind)
        self.model = GPT(fitting(found.tokenizer.vocab_size), seed, backend="numba")
        self.engine = engine.make(self.model, self.config)
        config = self.config
        self.optimizer = AdamW(self.model.params, config.beta1, config.beta2, config.weight_decay)
        self.rng = generator(seed, "data")
        self.seconds = 0.0
        self.engine.warm_up()

    def train(self, until: float, of: float) -> None:
        """Takes steps until so many seconds are used, of so many in all."""
        config = self.config
        while self.seconds < until:
            began = time.perf_counter()
            batch = data.random_batch(
                self.found.train, config.batch_size, config.block_size, self.rng
            )
            _, grads = self.engine.loss_and_grads(*batch)
            rate = learning_rate_at(int(self.seconds / of * config.lr_decay_iters), config)
            norm = self.engine.norm(grads)
            self.engine.update(self.optimizer, grads, norm, rate, config.grad_clip)
            self.tokens += batch[0].size
            self.seconds += time.perf_counter() - began

    def bits(self) -> float:
        """Bits per character over the whole validation split."""
        total, count = 0.0, 0
        for tokens, targets in data.sequences(self.found.val, self.config.block_size):
            total += self.engine.loss(tokens, targets) * targets.size
            count += targets.size
        return self.found.bits_per_character(total / count)


@dataclass(frozen=True)
class Result:
    """What a tokenizer came to; seed by seed the tokens that were read, and bits per character."""

    vocab_size: int
    n_embd: int
    params: int
    characters_per_token: float
    tokens: list[int]
    bits: list[float]


def fitting(vocab_size: int) -> GPTConfig:
    """Of all widths that the heads divide, the one with nearest to PARAMS parameters."""
    widths = range(CONFIG.n_head, 200 * CONFIG.n_head, CONFIG.n_head)
    configs = [replace(CONFIG, n_embd=width).gpt(vocab_size) for width in widths]
    return min(configs, key=lambda config: abs(param_count(config) - PARAMS))


def contenders(corpus: Corpus, gpt2_files: str) -> dict[str, Dataset]:
    """The text in the tokens of each. gpt2_files: see tokenizers.make."""
    paths = dict.fromkeys(KINDS, "") | {"gpt2": gpt2_files}
    return {
        kind: dataset.from_corpus(corpus, tokenizers.make(kind, path, corpus.text))
        for kind, path in paths.items()
    }


def run(
    source: str, gpt2_files: str, seconds: float, rounds: int, threads: int, path: Path | None
) -> None:
    """Trains, shows, and writes it to `path`."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    facts, progress = machine_facts(errors), Progress(errors)
    corpus = data.load(source)
    found = contenders(corpus, gpt2_files)
    results: dict[str, Result] = {}
    for kind, tokens in found.items():
        config = fitting(tokens.tokenizer.vocab_size)
        ratio = len(corpus.text) / (len(tokens.train) + len(tokens.val))
        results[kind] = Result(config.vocab_size, config.n_embd, param_count(config), ratio, [], [])
    with progress.status:
        for seed in range(1, rounds + 1):
            racing = {kind: Contestant(each, seed, threads) for kind, each in found.items()}
            race(racing, seconds, lambda what, seed=seed: progress.say(f"seed {seed}: {what}"))
            for kind, contestant in racing.items():
                results[kind].bits.append(contestant.bits())
                results[kind].tokens.append(contestant.tokens)
    show(results, seconds, console)
    about = {"benchmark": "tokenizers", "corpus": corpus.name, "seconds": seconds}
    about |= {"threads": threads, "machine": facts}
    write(path, {**about, "results": {kind: asdict(each) for kind, each in results.items()}})


def race(racing: Mapping[str, Contestant], seconds: float, say: Callable[[str], None]) -> None:
    """Trains each for so many seconds, a turn of each after another."""
    until = 0.0
    while until < seconds:
        until = min(until + TURN, seconds)
        for kind, contestant in racing.items():
            say(f"{kind}, {until:.0f} of {seconds:.0f} seconds")
            contestant.train(until, seconds)


def show(results: Mapping[str, Result], seconds: float, console: Console) -> None:
    title = f"{seconds:.0f} seconds of training each; medians, and from the lowest to the highest"
    table = Table(title=title, title_justify="left")
    table.add_column("tokens")
    for label in ("vocabulary", "width", "parameters", "characters a token", "characters read"):
        table.add_column(label, justify="right")
    table.add_column("bits per character", justify="right")
    for kind, result in results.items():
        read, bits = statistics.median(result.tokens), statistics.median(result.bits)
        table.add_row(
            kind, f"{result.vocab_size:,}", str(result.n_embd), f"{result.params:,}",
            f"{result.characters_per_token:.2f}",
            f"{read * result.characters_per_token / 1e6:.1f} million",
            f"{bits:.3f} ({min(result.bits):.3f} to {max(result.bits):.3f})",
        )  # fmt: skip
    console.print(table)
