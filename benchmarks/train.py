"""The training step: forward, backward, clipping by the global norm, AdamW; float32."""

from dataclasses import asdict
from typing import Any

from benchmarks.contest import Contest
from benchmarks.workers import Side
from benchmarks.works import Work

PYTORCH = "benchmarks.peers.pytorch:train"


def contest(
    work: Work, threads: int, rounds: int | None, ours: dict[str, Any], pytorch: bool
) -> Contest:
    """ours: backend and matmul of our side. pytorch: whether it is there to be measured."""
    common = {"work": asdict(work), "threads": threads}
    sides = [Side("ours", "benchmarks.ours:train", {**common, **ours})]
    if pytorch:
        sides += [
            Side("eager", PYTORCH, {**common, "compiled": False}),
            Side("compile", PYTORCH, {**common, "compiled": True}),
        ]
    return Contest(work.name, asdict(work), sides, rounds or work.rounds, work.tokens)
