"""Sampling: tokens a second of model.generate, which keeps keys and values, by reading anew.

The others read the window anew for each token, as nanoGPT does: ours in NumPy, by model.logits, and
PyTorch. Until the text fills the window a kept key is a key that need not be computed again; after
that every token in the window has moved, and only the last block and the head are spared work; ours
in Numba reads most of the windows to come ahead, on other threads.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import ours, report, summary, works
from benchmarks.contest import Progress, machine_facts, write
from benchmarks.rounds import DisagreementError, Measured, measure
from benchmarks.workers import Side
from benchmarks.works import Work
from tinygpt_np.model.gpt import GPT

WORK, TOKENS, ROUNDS = "cpu", 500, 9
RECOMPUTE = "recompute"
# How far float32 logits may lie from those in float64, relative to their norm.
SAME = 1e-5


def sides(work: Work, tokens: int, threads: int, pytorch: bool) -> list[Side]:
    """The one that all are held against comes first. pytorch: whether it is there."""
    common: dict[str, Any] = {"work": asdict(work), "tokens": tokens}
    # They warm up as they are built, so that a turn begins where a text does.
    found = [
        Side(name, "benchmarks.ours:sample", {**common, "backend": backend, "cached": cached}, 0.0)
        for name, backend, cached in (
            (RECOMPUTE, "numpy", False),
            ("ours, NumPy", "numpy", True),
            ("ours, Numba", "numba", True),
        )
    ]
    if pytorch:
        options = {**common, "threads": threads}
        found.append(Side("PyTorch", "benchmarks.peers.pytorch:sample", options, 0.0))
    return found


def check(work: Work, backend: str) -> None:
    """Raises DisagreementError unless a text read token by token gets the logits of model.logits.

    It is read to beyond the window; model.logits computes them in float64.
    """
    truth, model = GPT(work.config, dtype="float64"), ours.sampler(work, backend, cached=True)
    truth.params = {name: param.astype(np.float64) for name, param in model.params.items()}
    size, read = work.block_size, model.decoder(1)
    rng = np.random.default_rng(works.SEED)
    text = rng.integers(0, work.vocab_size, (1, size + 2))
    for end in range(1, size + 3):
        found = read(text[:, end - 1 : end])
        if end in (1, 2, size // 2, size, size + 1, size + 2):
            expected = truth.logits(text[:, max(end - size, 0) : end])[:, -1]
            error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
            if not error <= SAME:
                raise DisagreementError(
                    f"WRONG: logits in {backend} after {end} tokens are {error:.1e} from the true "
                    f"ones, of their norm; {SAME:.0e} is allowed"
                )


def run(
    work: Work, tokens: int, threads: int, rounds: int, pytorch: bool, path: Path | None
) -> bool:
    """Checks, measures, shows, and writes it to `path`; returns whether it came to its end.

    Ctrl-C keeps the rounds that were whole.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    facts, progress = machine_facts(errors), Progress(errors)
    with progress.status:
        for backend in ("numpy", "numba"):
            progress.say(f"checking logits, {backend}")
            check(work, backend)
        contestants = sides(work, tokens, threads, pytorch)
        measured = measure(contestants, threads, rounds, progress.say, steps=tokens)
    found = summarise(measured, work.block_size - 1, tokens)
    show(found, console)
    about = {"benchmark": "sample", "complete": not measured.stopped, "threads": threads}
    write(path, {**about, "machine": facts, "contests": [{"about": asdict(work), **found}]})
    return not measured.stopped


def summarise(measured: Measured, first: int, tokens: int) -> dict[str, Any]:
    """In values for JSON: parts of the text, in each for each side what its rounds came to.

    first: how many tokens are told apart from the rest. ratio: tokens a second, by RECOMPUTE's.
    """
    rounds = min((len(turns) for turns in measured.turns.values()), default=0)
    found: dict[str, Any] = {"rounds": rounds, "stopped": measured.stopped, "tokens": tokens}
    found |= {"left_out": measured.left_out, "memory": measured.memory, "ready": measured.ready}
    parts = {f"all {tokens}": slice(tokens), f"the first {first}": slice(first)}
    parts[f"the other {tokens - first}"] = slice(first, tokens)
    found["parts"] = {}
    for label, part in parts.items() if rounds else ():
        seconds = {
            name: [sum(turn[part]) for turn in turns] for name, turns in measured.turns.items()
        }
        count = len(range(tokens)[part])
        found["parts"][label] = {
            name: numbers(times, seconds[RECOMPUTE], count) for name, times in seconds.items()
        }
    return found


def numbers(seconds: Sequence[float], recompute: Sequence[float], count: int) -> dict[str, Any]:
    ratio = summary.estimate([b / a for a, b in zip(seconds, recompute, strict=True)])
    speed = count / statistics.median(seconds)
    return {"seconds": seconds, "tokens_per_second": speed, "ratio": asdict(ratio)}


def show(found: dict[str, Any], console: Console) -> None:
    """The table, part by part."""
    if not report.preface(found, console):
        return
    title = f"{found['tokens']} tokens from one: {found['rounds']} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for label in ("", "tokens/s", f"by {RECOMPUTE}"):
        table.add_column(label, justify="right" if label else "left")
    for label, results in found["parts"].items():
        table.add_section()
        for name, result in results.items():
            ratio = "1" if name == RECOMPUTE else report.by(result["ratio"])
            speed = f"{result['tokens_per_second']:,.0f}"
            table.add_row(label, escape(name), speed, ratio)
            label = ""
    console.print(table)
