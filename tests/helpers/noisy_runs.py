"""Made-up runs of the kernel benchmark on noisy machines, in which the true times are known."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.harness.analysis import analyse
from benchmarks.harness.verdicts import judge

Rng = np.random.Generator
# Adds noise to the seconds of turns by candidate and round, in place, and returns the fraction of
# each turn waited for a CPU.
Noise = Callable[[Rng, np.ndarray], np.ndarray]

# The candidates of a case: rung, whose, threads, whether it is trained, and its true milliseconds.
# Many are as fast as what they are compared with, because these are where verdicts go wrong.
ROWS = [
    ("loops", "ours", 1, False, 40.0),
    ("blocked", "ours", 1, False, 10.0),
    ("packed", "ours", 1, False, 10.0),
    ("tile", "ours", 1, False, 7.7),
    ("wide", "ours", 1, False, 7.7),
    ("trained", "ours", 1, True, 7.7),
    ("parallel", "ours", 2, True, 4.3),
    ("NumPy", "ours", 1, False, 7.7),
    ("NumPy", "ours", 2, False, 4.3),
    ("PyTorch", "torch", 1, False, 10.0),
    ("PyTorch", "torch", 2, False, 4.3),
]
REFERENCES, UNCOMPILED = ("NumPy", "PyTorch"), ("loops", "NumPy", "PyTorch")
CONTROLS = [ROWS[index] for index in (5, 6, 9, 10)]
LIMITS = [(name, threads) for threads in (1, 2) for name in ("peak", "triad", "update")]


def idle(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Multiply by log-normal errors of 3 %."""
    seconds *= np.exp(0.03 * rng.standard_normal(seconds.shape))
    return np.zeros(seconds.shape)


def heavy_tails(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Multiply by errors with the tails of Student's t with two degrees of freedom."""
    seconds *= np.exp(0.02 * rng.standard_t(2, seconds.shape))
    return np.zeros(seconds.shape)


def ticks(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Take the CPU from every fifth turn for some ticks of 4 ms; most of these turns show it."""
    idle(rng, seconds)
    lost = (rng.random(seconds.shape) < 0.2) * rng.integers(1, 4, seconds.shape) * 4e-3
    turns = np.maximum(5 * seconds, 5e-3)
    seconds *= 1 + lost / turns
    return lost / turns * (rng.random(seconds.shape) < 0.7)


def burst(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Take most turns of three successive rounds while another process runs."""
    idle(rng, seconds)
    first = int(rng.integers(len(seconds[0]) - 2))
    hit = rng.random((len(seconds), 3)) < 0.7
    seconds[:, first : first + 3] *= 1 + hit * rng.uniform(0.2, 1.5, hit.shape)
    return np.zeros(seconds.shape)


def slow_process(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Let the process of one control take 1.4 times as long in all rounds."""
    seconds[len(ROWS) + rng.integers(len(CONTROLS))] *= 1.4
    return idle(rng, seconds)


def busy(rng: Rng, seconds: np.ndarray) -> np.ndarray:
    """Let a process have one of two CPUs: two threads take twice as long, or as before."""
    threads = [row[2] for row in (*ROWS, *CONTROLS)] + [each[1] for each in LIMITS]
    several = np.array(threads)[:, np.newaxis] > 1
    seconds *= np.where(several, rng.choice([1, 2], (len(threads), 1), p=[0.3, 0.7]), 1)
    seconds[[threads.index(2, len(ROWS) + len(CONTROLS))]] *= 1.5
    return idle(rng, seconds)


def case(
    rng: Rng, noise: Noise, number: int, rounds: int, slowed: Mapping[tuple[int, str], float]
) -> dict[str, Any]:
    """Return an analysed case. slowed: factors of true times by case and rung."""
    true = [row[4] * slowed.get((number, row[0]), 1.0) for row in (*ROWS, *CONTROLS)]
    usual = np.array([*true, *(10.0 for _ in LIMITS)])[:, np.newaxis] * 1e-3
    # The pace of the machine in this minute, and in each round; where memory is placed.
    pace = np.exp(0.1 * rng.standard_normal() + 0.03 * rng.standard_normal(rounds))
    placed = np.exp(0.015 * rng.standard_normal(usual.shape))
    seconds = usual * pace * placed
    waited = noise(rng, seconds)
    turns = [
        {"turns": [[float(each)] for each in times], "waits": waits.tolist()}
        for times, waits in zip(seconds, waited, strict=True)
    ]
    rows = [
        {"rung": rung, "by": by, "threads": threads, "trained": trained,
         "reference": rung in REFERENCES, "true": time,
         "compile_seconds": None if rung in UNCOMPILED else 0}
        for (rung, by, threads, trained, _), time in zip((*ROWS, *CONTROLS), true, strict=True)
    ]  # fmt: skip
    limits = [{"name": name, "threads": threads, "amount": 1e9 * threads}
              for name, threads in LIMITS]  # fmt: skip
    every = [about | taken for about, taken in zip((*rows, *limits), turns, strict=True)]
    names = {"operation": "softmax", "direction": "forward", "shape": f"shape{number}"}
    sizes = {"N": 8 + number}
    parts = {"rows": every[: len(ROWS)], "controls": every[len(ROWS) : len(rows)]}
    parts["limits"] = every[len(rows) :]
    return analyse({**names, "sizes": sizes, "rounds": rounds, **parts}, [])


def run(
    rng: Rng,
    noise: Noise,
    cases: int = 4,
    rounds: int = 9,
    slowed: Mapping[tuple[int, str], float] | None = None,
) -> dict[str, Any]:
    """Return a run with its verdicts."""
    found: list[dict[str, Any]] = []
    for number in range(cases):
        found.append(judge(case(rng, noise, number, rounds, slowed or {}), found))
    return {"cases": found}
