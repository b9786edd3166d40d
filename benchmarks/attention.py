"""Causal attention, forward and backward, float32: ours against PyTorch's fused kernel."""

from typing import Any

from benchmarks.contest import Contest
from benchmarks.workers import Side

# Those of the work gpt-384.
SIZES = {"batch": 8, "time": 256, "n_head": 6, "head_size": 64}
ROUNDS = 15
PYTORCH = "benchmarks.peers.pytorch:attention"


def contest(
    sizes: dict[str, int], threads: int, rounds: int | None, backend: str, pytorch: bool
) -> Contest:
    """pytorch: whether it is there to be measured."""
    common: dict[str, Any] = {"sizes": sizes, "threads": threads}
    sides = [Side("ours", "benchmarks.ours:attention", {**common, "backend": backend})]
    if pytorch:
        sides += [
            Side("sdpa", PYTORCH, {**common, "from_qkv": True}),
            Side("sdpa apart", PYTORCH, {**common, "from_qkv": False}),
        ]
    tokens = sizes["batch"] * sizes["time"]
    return Contest("attention", sizes, sides, rounds or ROUNDS, tokens)
