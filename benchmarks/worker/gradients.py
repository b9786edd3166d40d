"""An accumulation step, the update and the adding of gradients in a worker process."""

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

    def open(self, workload: dict[str, Any], threads: int) -> dict[str, Any]:
        """Build the model and compile; return nothing that is measured."""
        sizes = Workload(**workload)
        self.model = GPT(sizes.config, workloads.SEED, backend="numba")
        settings = workloads.BETA1, workloads.BETA2, workloads.WEIGHT_DECAY
        self.optimizer = AdamW(self.model.params, *settings)
        self.engine = CompiledEngine(self.model, sizes.batch_size, threads)
        self.engine.warm_up(self.optimizer)
        self.batches = workloads.batches(sizes)
        self.terms = np.ones(ADDED, np.float32), np.ones(ADDED, np.float32)
        self.turn()  # Buffers are touched for the first time.
        return {}

    def turn(self) -> dict[str, float]:
        """Take a step; return the seconds of its parts, and those to add a byte."""
        tokens, targets = next(self.batches)
        engine = self.engine
        packing = timed(engine.prepare)
        step = timed(
            lambda: engine.accumulate([(tokens, targets)], [engine.grads], targets.size, None)
        )

        def update() -> None:
            norm = engine.norm(engine.grads)
            rate, clip = workloads.LEARNING_RATE, workloads.GRAD_CLIP
            engine.update(self.optimizer, engine.grads, norm, rate, clip)

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
