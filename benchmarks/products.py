"""The matmuls of the training steps against NumPy's BLAS on one thread, in one table."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import kernels
from benchmarks.cases.shapes import MICRO_BATCHES
from benchmarks.plan import Plan
from benchmarks.render.cells import GIGA, interval
from benchmarks.render.report import table_of

SHAPES = tuple(MICRO_BATCHES)
ROUNDS = 20
# Ratios below this are listed at the end.
SLOW = 0.9


def run(
    threads: int, rounds: int | None, json: Path | None, shapes: Sequence[str] = SHAPES
) -> bool:
    """Run all matmuls, show them, and write the result; return whether this was completed."""
    plan = Plan(["products"], shapes, [threads], rounds or ROUNDS)
    found = kernels.run(plan, json, benchmark="matmul")
    show(found, Console(highlight=False))
    return found["complete"]


def show(found: dict[str, Any], console: Console) -> None:
    """Show a row per matmul, the geometric mean of the ratios, the smallest, and the small ones."""
    columns = ("", "×", "ours, GFLOP/s", "NumPy", "NumPy / ours")
    table = table_of("matmuls on one thread", *columns)
    ratios: dict[str, float] = {}
    for record in sorted(found["cases"], key=lambda record: SHAPES.index(record["shape"])):
        name = f"{record['shape']} {record['direction']}"
        speeds = [
            f"{record['flops'] / row['seconds'].median / GIGA:.1f}" if "seconds" in row else "WRONG"
            for row in record["rows"]
        ]
        ratio = record["rows"][1].get("by_ours")
        uses = 1 if name.endswith("dW") else record["sizes"]["uses"]
        table.add_row(name, str(uses), *speeds, interval(ratio) if ratio else "")
        if ratio:
            ratios[name] = ratio.median
    console.print(table)
    console.print("×: products per step, which share the packing of the weights")
    if ratios:
        smallest = min(ratios, key=ratios.__getitem__)
        slow = [f"\n  {ratio:.2f} {name}" for name, ratio in ratios.items() if ratio < SLOW]
        mean = statistics.geometric_mean(ratios.values())
        console.print(f"geometric mean of NumPy / ours: {mean:.2f}")
        console.print(f"smallest: {ratios[smallest]:.2f}, {smallest}")
        console.print(f"below {SLOW}:{''.join(slow) or ' none'}")
