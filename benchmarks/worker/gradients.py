"""An accumulation step, the update and the adding of gradients in a worker process."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.models import workloads
from benchmarks.models.workloads import Workload
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW

# Numbers that are added to others, more than caches hold.
ADDED = 1 << 24


class Gradients:
    """A model that is trained, with a clock for each part of a step."""

    def open(self, workload: dict[str, Any], threads: int, batches: int) -> dict[str, Any]:
        """Build the model and compile for a step of some batches; return nothing."""
        sizes = Workload(**workload)
        self.model = GPT(sizes.config, workloads.SEED, backend="numba")
        settings = workloads.BETA1, workloads.BETA2, workloads.WEIGHT_DECAY
        self.optimizer = AdamW(self.model.params, *settings)
        self.engine = CompiledEngine(self.model, sizes.batch_size, threads, batches=batches)
        self.engine.warm_up(self.optimizer)
        # As in training, several batches run at the same time if one does not occupy all threads.
        together = range(self.engine.at_once(batches))
        self.grads = [{n: np.zeros_like(p) for n, p in self.model.params.items()} for _ in together]
        self.batches = workloads.batches(sizes)
        self.terms = np.ones(ADDED, np.float32), np.ones(ADDED, np.float32)
        self.turn()  # Buffers are touched for the first time.
        return {}

    def turn(self) -> dict[str, float]:
        """Take a step; return the seconds of its parts for a batch, and those to add a byte."""
        engine, count = self.engine, len(self.grads)
        batches = list(itertools.islice(self.batches, count))
        targets = sum(targets.size for _, targets in batches)
        packing = timed(engine.prepare)
        step = timed(lambda: engine.accumulate(batches, self.grads, targets, None)) / count

        def update() -> None:
            norm = engine.norm(self.grads[0])
            rate, clip = workloads.LEARNING_RATE, workloads.GRAD_CLIP
            engine.update(self.optimizer, self.grads[0], norm, rate, clip)

        update_seconds = timed(update)
        total, term = self.terms
        adding = timed(lambda: np.add(total, term, out=total))
        seconds = {"packing": packing, "step": step, "update": update_seconds}
        return seconds | {"adding": adding / total.nbytes}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
