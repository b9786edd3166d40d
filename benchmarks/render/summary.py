"""The part of a result that is kept in results/, and the README's section about it.

    python -m benchmarks.render.summary RESULT.json results/NAME.json

writes the second file and prints the section. Kept are the kernels of training, what they were
compared with, the limits, and all rungs of the ladder that the README shows.
"""

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import ladders
from benchmarks.harness import figures
from benchmarks.harness.analysis import BANDWIDTHS, Interval, rates_of
from benchmarks.harness.figures import USUAL
from benchmarks.render import cells
from benchmarks.render.cells import GIGA, LADDER, interval

# The ladder of the README.
SHOWN = {"operation": "matmul", "direction": "forward", "shape": "lecture"}
# Fields of rows that are not kept.
DROPPED = (
    "compile_seconds", "first_seconds", "packed", "loop", "loop_flops", "counters", "layouts",
    "steady",
)  # fmt: skip
HEAD = "| rung | idea | ms | gain | GFLOP/s | of limit |\n|---|---|---|---|---|---|"

Record = dict[str, Any]


def small(found: Record) -> Record:
    """Return what is kept of a result."""
    return {**found, "again": [], "cases": [small_case(record) for record in found["cases"]]}


def small_case(record: Record) -> Record:
    """Return what is kept of a case."""
    shown = is_shown(record)
    dropped = DROPPED if shown else (*DROPPED, "gain")
    rows = [row for row in record["rows"] if shown or is_kept(row)]
    return {
        **{key: record[key] for key in record if key not in ("working_set", "cache")},
        "controls": [],
        "rows": [{key: row[key] for key in row if key not in dropped} for row in rows],
        "limits": list(limits(record)),
    }


def limits(record: Record) -> Iterator[Record]:
    """Yield the peak of a case and its highest bandwidth, for each number of threads."""
    for threads, rates in rates_of(record).items():
        fastest = max(set(rates) & {*BANDWIDTHS}, key=lambda name: rates[name])
        for name in ("peak", fastest):
            yield {"name": name, "threads": threads, "rate": rates[name]}


def is_shown(record: Record) -> bool:
    """Return whether a case is the one that the README shows."""
    return all(record[key] == name for key, name in SHOWN.items())


def is_kept(row: Record) -> bool:
    """Return whether a row is a kernel of training or one that is compared with these."""
    row = USUAL | row
    return row["trained"] or cells.part(row) != LADDER


def section(found: Record, name: str) -> str:
    """Return the section of the README about the result of this name."""
    machine = found["machine"]
    (record,) = filter(is_shown, found["cases"])
    text = (
        f"`{SHOWN['operation']} {SHOWN['direction']}` at the shape `{SHOWN['shape']}`, on an\n"
        f"{machine['cpu']} with {machine['vector_bits']}-bit vectors and {machine['cpus']} CPUs,\n"
        f"from [`results/{name}.json`](results/{name}.json):"
    )
    return "\n".join([text, "", HEAD, *table(record), "", *peers(found)])


def table(record: Record) -> Iterator[str]:
    """Yield the rows of a ladder in Markdown."""
    ideas = {rung.name: rung.idea for rung in ladders.rungs(record["operation"])}
    for row in (USUAL | each for each in record["rows"]):
        if cells.part(row) == LADDER and cells.is_timed(row):
            gain, seconds = row.get("gain"), row["seconds"][0]
            share = cells.share(row) if "fraction" in row else ""
            cell = [
                cells.label(row), ideas[row["rung"]], f"{seconds * 1e3:.1f}",
                f"{interval(Interval(*gain))} {cells.mark(row)}" if gain else "",
                f"{record['flops'] / seconds / GIGA:.1f}", share,
            ]  # fmt: skip
            yield f"| {' | '.join(cell)} |"


def peers(found: Record) -> Iterator[str]:
    """Yield how long PyTorch takes on each number of threads, in rows with a verdict."""
    rows = [row for record in found["cases"] for row in record["rows"]]
    for threads in found["options"]["threads"]:
        ratios = [
            row["by_ours"][0]
            for row in (USUAL | row for row in rows)
            if (row["by"], row["threads"]) == ("torch", threads)
            and row.get("by_ours") and not row.get("unresolved")
        ]  # fmt: skip
        if ratios:
            mean = statistics.geometric_mean(ratios)
            on = f"On {cells.several(threads)} PyTorch takes {mean:.2f} times as long as the"
            yield f"{on}\nkernels of training (geometric mean of {len(ratios)} cases)."


def main() -> None:
    """Write the small file of a result, and print the section of the README."""
    try:
        if len(sys.argv) != 3:
            raise ValueError("expected RESULT.json and results/NAME.json")
        source, target = Path(sys.argv[1]), figures.new_file(Path(sys.argv[2]))
        found = small(figures.read(source))
        if not any(map(is_shown, found["cases"])):
            raise ValueError(f"{source} has no {' '.join(SHOWN.values())}")
    except ValueError as error:
        print(f"python -m benchmarks.render.summary: {error}", file=sys.stderr)
        sys.exit(2)
    figures.write(target, found)
    print(section(found, target.stem))


if __name__ == "__main__":
    main()
