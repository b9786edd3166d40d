"""The CSV file of a result: a line for each row of each case. Cells without a value are empty."""

import csv
from pathlib import Path
from typing import Any

from benchmarks.harness.analysis import bandwidth, rates_of
from benchmarks.render.cells import GIGA, is_timed, why_not

# Times and counts are of one step. gain: speedup over the serial rung above. time_by_ours: the time
# divided by that of our trained kernel.
COLUMNS: tuple[str, ...] = (
    "cpu", "date", "commit", "cache_mode", "operation", "direction", "shape", "sizes", "flops",
    "bytes", "working_set_bytes", "fits_cache", "rung", "by", "threads", "reference", "trained",
    "state", "reason", "seconds", "seconds_low", "seconds_high", "coverage", "gain", "gain_low",
    "gain_high", "time_by_ours", "time_by_ours_low", "time_by_ours_high", "verdict", "unresolved",
    "gflop_per_second", "gbyte_per_second", "fraction_of_limit", "bound",
    "peak_gflop_per_second", "bandwidth_gbyte_per_second", "compile_seconds",
    "first_step_seconds", "packed_fraction", "instructions", "cycles", "cache_misses", "layouts",
    "warnings",
)  # fmt: skip
ESTIMATES = {"seconds": "seconds", "gain": "gain", "by_ours": "time_by_ours"}
COUNTERS = {"instructions": "instructions", "cycles": "cycles", "misses": "cache_misses"}
# Columns that are values of a row under another name.
RENAMED = {"first_seconds": "first_step_seconds", "packed": "packed_fraction"}


def write(found: dict[str, Any], path: Path) -> None:
    """Write the rows of a result to a new file."""
    with path.open("x", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        lines.writeheader()
        for record in found["cases"]:
            for row in record["rows"]:
                lines.writerow(line(found, record, row))


def line(found: dict[str, Any], record: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row by column."""
    machine, rates = found["machine"], rates_of(record).get(row["threads"], {})
    plain = {name: value for name, value in row.items() if name not in ESTIMATES}
    values = {**machine, **record, **plain, "cache_mode": found["options"].get("cache")}
    values |= {RENAMED[name]: value for name, value in row.items() if name in RENAMED}
    values |= {
        "sizes": " ".join(f"{letter}={size}" for letter, size in record["sizes"].items()),
        "working_set_bytes": record["working_set"],
        "fits_cache": record.get("cache", {}).get(str(row["threads"])),
        "state": why_not(row).lower() or "timed",
        "reason": row.get("wrong") or row.get("failed"),
        "warnings": "; ".join(row.get("warnings", [])),
    }
    if rates:
        values["peak_gflop_per_second"] = rates["peak"] / GIGA
        values["bandwidth_gbyte_per_second"] = bandwidth(rates) / GIGA
    counters: dict[str, float] = row.get("counters") or {}
    values |= {column: counters.get(name) for name, column in COUNTERS.items()}
    return values | (speeds(record, row) if is_timed(row) else {})


def speeds(record: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return the times of a row and what follows from them."""
    median = row["seconds"].median
    found = {
        "coverage": row["seconds"].coverage,
        "gflop_per_second": record["flops"] / median / GIGA,
        "gbyte_per_second": record["bytes"] / median / GIGA,
        "fraction_of_limit": row["fraction"].median if "fraction" in row else None,
    }
    for name, column in ESTIMATES.items():
        if each := row.get(name):
            found |= {column: each.median, f"{column}_low": each.low, f"{column}_high": each.high}
    return found
