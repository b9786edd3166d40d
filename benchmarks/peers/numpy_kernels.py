"""NumPy as a peer of the ladders: its rungs in a process of their own, with the threads of BLAS."""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import ladders
from benchmarks.ladders import Rung


def rungs(operation: str) -> list[Rung]:
    """Return the NumPy rung of a ladder as a reference on any number of threads."""
    idea = "The operation in ops/, with BLAS for matmuls."
    return [
        replace(rung, idea=idea, threads="any", reference=True)
        for rung in ladders.rungs(operation)
        if rung.name == "NumPy"
    ]


def about() -> dict[str, Any]:
    """Return the version."""
    return {"numpy": np.__version__}
