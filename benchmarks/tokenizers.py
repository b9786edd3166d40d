"""Tokenizers compared: bits per character of a small model after the same training time.

Three GPTs with the same number of parameters, embeddings included, take turns on the same corpus.
Losses per token are not comparable, because tokens differ in length; bits per character are. The
learning rate follows the fraction of the time that has passed.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness.session import session
from benchmarks.render.report import table_of
from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, learning_rate_at
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset, tokenizers
from tinygpt_np.text.batches import random_batch, sequences
from tinygpt_np.text.corpus import load
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import engine

KINDS = ("char", "sentencepiece", "gpt2")
PARAMS = 3_500_000
CONFIG = TrainConfig(block_size=128, batch_size=12, warmup_iters=50, lr_decay_iters=1000)
# Seconds of training and of one turn; the number of seeds.
SECONDS, TURN, ROUNDS = 60.0, 10.0, 3


class Learner:
    """A GPT that is trained on the tokens of one tokenizer."""

    def __init__(self, found: Dataset, seed: int, threads: int) -> None:
        self.found, self.tokens, self.seconds = found, 0, 0.0
        config = replace(CONFIG, seed=seed, threads=threads, tokenizer=found.tokenizer.kind)
        self.config = config
        self.model = GPT(fitting(found.tokenizer.vocab_size), seed, backend="numba")
        self.engine = engine.make(self.model, config)
        self.optimizer = AdamW(self.model.params, config.beta1, config.beta2, config.weight_decay)
        self.rng = generator(seed, "data")
        self.engine.warm_up(self.optimizer)

    def train(self, until: float, total: float) -> None:
        """Take steps until `until` of `total` seconds are spent."""
        config = self.config
        while self.seconds < until:
            began = time.perf_counter()
            batch = random_batch(self.found.train, config.batch_size, config.block_size, self.rng)
            _, grads = self.engine.loss_and_grads(*batch)
            rate = learning_rate_at(int(self.seconds / total * config.lr_decay_iters), config)
            norm = self.engine.norm(grads)
            self.engine.update(self.optimizer, grads, norm, rate, config.grad_clip)
            self.tokens += batch[0].size
            self.seconds += time.perf_counter() - began

    def bits(self) -> float:
        """Return the bits per character on the whole validation split."""
        total, count = 0.0, 0
        for tokens, targets in sequences(self.found.val, self.config.block_size):
            total += self.engine.loss(tokens, targets) * targets.size
            count += targets.size
        return self.found.bits_per_character(total / count)


def fitting(vocab_size: int) -> GPTConfig:
    """Return the configuration whose number of parameters is closest to PARAMS."""
    widths = range(CONFIG.n_head, 200 * CONFIG.n_head, CONFIG.n_head)
    configs = [replace(CONFIG, n_embd=width).gpt(vocab_size) for width in widths]
    return min(configs, key=lambda config: abs(param_count(config) - PARAMS))


def run(
    data: str, gpt2: str, seconds: float, rounds: int | None, threads: int, json: Path | None
) -> bool:
    """Train and evaluate, show, and write the result; return whether this was completed."""
    corpus = load(data)
    rounds = rounds or ROUNDS
    options = {"corpus": corpus.name, "seconds": seconds, "rounds": rounds, "threads": threads}
    with session("tokenizers", options, json) as run:
        found: dict[str, Dataset] = {}
        results: dict[str, dict[str, Any]] = {}
        for kind in KINDS:
            made = tokenizers.make(kind, gpt2 if kind == "gpt2" else "", corpus.text)
            found[kind] = dataset.from_corpus(corpus, made)
            ratio = len(corpus.text) / (len(found[kind].train) + len(found[kind].val))
            config = fitting(made.vocab_size)
            results[kind] = {
                "vocab_size": config.vocab_size, "n_embd": config.n_embd,
                "params": param_count(config), "characters_per_token": ratio,
                "tokens": [], "bits": [],  # read and per character, for each seed
            }  # fmt: skip
        for seed in range(1, rounds + 1):
            learners = {kind: Learner(each, seed, threads) for kind, each in found.items()}
            take_turns(learners, seconds, lambda text, seed=seed: run.say(f"seed {seed}: {text}"))
            for kind, learner in learners.items():
                results[kind]["bits"].append(learner.bits())
                results[kind]["tokens"].append(learner.tokens)
        with run.hidden() as console:
            show(results, seconds, console)
        run.found |= {"results": results, "complete": True}
    return run.found["complete"]


def take_turns(learners: Mapping[str, Learner], seconds: float, say: Callable[[str], None]) -> None:
    """Train each for the same number of seconds, alternating."""
    until = 0.0
    while until < seconds:
        until = min(until + TURN, seconds)
        for kind, learner in learners.items():
            say(f"{kind}, {until:.0f} of {seconds:.0f} seconds")
            learner.train(until, seconds)


def show(results: Mapping[str, dict[str, Any]], seconds: float, console: Console) -> None:
    """Show the table."""
    table = table_of(
        f"{seconds:.0f} seconds of training each; medians over the seeds (lowest to highest)",
        "tokenizer", "vocabulary", "width", "parameters", "characters/token", "characters read",
        "bits/character",
    )  # fmt: skip
    for kind, result in results.items():
        ratio, bits = result["characters_per_token"], result["bits"]
        read = statistics.median(result["tokens"]) * ratio / 1e6
        table.add_row(
            kind, f"{result['vocab_size']:,}", str(result["n_embd"]), f"{result['params']:,}",
            f"{ratio:.2f}", f"{read:.1f} million",
            f"{statistics.median(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})",
        )  # fmt: skip
    console.print(table)
