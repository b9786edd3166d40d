"""The matmuls of the training steps against NumPy's BLAS on one thread, in one table."""

import statistics
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import kernels
from benchmarks.harness.report import GIGA, interval

SHAPES = ("cpu", "lecture", "gpt2")
ROUNDS = 20
# Ratios below this are listed at the end.
SLOW = 0.9


def run(shapes: tuple[str, ...], rounds: int, path: Path | None) -> bool:
    """Run all matmuls, show them, and write the result; return whether this was completed."""
    plan = kernels.Plan(["products"], shapes, [1], rounds)
    found = kernels.run(plan, path, benchmark="matmul", quiet=True)
    show(found, Console(highlight=False))
    return found["complete"]


def show(found: dict[str, Any], console: Console) -> None:
    """Show a row per matmul, and the geometric mean of the ratios."""
    table = Table(title="matmuls on one thread", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for label in ("×", "ours, GFLOP/s", "NumPy", "NumPy / ours"):
        table.add_column(label, justify="right")
    order = {shape: number for number, shape in enumerate(SHAPES)}
    ratios: dict[str, float] = {}
    for record in sorted(found["cases"], key=lambda record: order[record["shape"]]):
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
        console.print(summary(ratios))


def summary(ratios: dict[str, float]) -> str:
    """Return the mean of the ratios, the smallest, and those that are small."""
    smallest = min(ratios, key=lambda name: ratios[name])
    slow = [f"  {ratio:.2f} {name}" for name, ratio in ratios.items() if ratio < SLOW]
    lines = [
        f"geometric mean of NumPy / ours: {statistics.geometric_mean(ratios.values()):.2f}",
        f"smallest: {ratios[smallest]:.2f}, {smallest}",
        f"below {SLOW}:{'' if slow else ' none'}",
    ]
    return "\n".join([*lines, *slow])
