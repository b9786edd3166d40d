"""Two ranks with a thread each against one process with two threads, by `tinygpt train`.

GPT-2's blocks learn characters of Shakespeare, because GPT-2's tokenizer is not part of this
repository. The runs are temporary.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import network
from benchmarks.harness import mpi
from benchmarks.network import Job, Machine, Network
from tinygpt_np.text.corpus import load
from tinygpt_np.training import metrics

RANKS = 2
ALONE, TOGETHER = "one process, two threads", "two ranks, one thread each"
# Threads of a process, by the name of the run.
COMMANDS = {ALONE: RANKS, TOGETHER: 1}
BATCH_SIZE, BLOCK_SIZE, ACCUMULATION = 2, 256, 4
# Steps of a run, and how many of the first are left out.
STEPS, WARM_UP = 4, 1
# Characters of the text, of which a tenth is for validation.
CHARACTERS = 20_000
# Two ranks should have at least this fraction of the speed.
ENOUGH = 0.85
RUN = "check"


def text() -> str:
    """Return the text that is learned."""
    return load("shakespeare").text[:CHARACTERS]


def characters() -> set[str]:
    """Return the vocabulary."""
    return set(text())


def command(name: str, data: Path) -> list[str]:
    """Return a command of COMMANDS."""
    settings = {
        "preset": "gpt2-124m", "tokenizer": "char", "data": data, "name": RUN,
        "batch-size": BATCH_SIZE, "block-size": BLOCK_SIZE, "max-iters": STEPS,
        "gradient-accumulation-steps": ACCUMULATION, "threads": COMMANDS[name],
    }  # fmt: skip
    flags = [word for flag, value in settings.items() for word in (f"--{flag}", str(value))]
    train = [sys.executable, "-m", "tinygpt_np", "train", *flags, "--no-keep-best"]
    return mpi.under_mpirun(RANKS, train) if name == TOGETHER else train


def speeds(name: str) -> list[float]:
    """Run a command of COMMANDS; return its tokens per second, without the first steps."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (data := folder / "text.txt").write_text(text(), encoding="utf-8")
        with mpi.running(command(name, data), COMMANDS[name], folder) as lines:
            for _ in lines:
                pass
        rows = metrics.read(folder / "runs" / RUN)
    found = [row.tokens_per_second for row in rows if row.tokens_per_second is not None]
    return found[WARM_UP:]


def expected(
    work: Job, two_threads: Machine, one_thread: Machine, between: Network
) -> dict[str, float]:
    """Return the predicted seconds of a step, by the name of the run.

    The cores that compute also copy the messages, so nothing of the exchange is hidden, and
    `between`, which was fitted to the exchange, has its adding in it.
    """
    seen = replace(work, late=1.0)
    together = network.predict(seen, RANKS, replace(one_thread, adding=0.0), between).total
    own = (work.accumulation // RANKS - 1) * work.size * one_thread.adding
    alone = network.predict(work, 1, two_threads, between).total
    return {ALONE: alone, TOGETHER: together + own}


def ratios(found: Mapping[str, Sequence[Sequence[float]]]) -> list[float]:
    """Return the speed of two ranks divided by that of one process, for each pair of runs."""
    return [
        statistics.median(together) / statistics.median(alone)
        for alone, together in zip(found[ALONE], found[TOGETHER], strict=False)
    ]
