"""The kernel benchmark as one HTML page that loads nothing: ladders as bars, and rooflines."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import ladders
from benchmarks.harness.analysis import FASTER, SAME, SLOWER, bandwidth, rates_of
from benchmarks.render import cells, roofline
from benchmarks.render.cells import GIGA, interval, milliseconds, number, percent
from benchmarks.render.roofline import Axis, Roofs

COLUMNS = {
    "ms": "milliseconds per step, median over the rounds",
    "gain": "speedup over the serial rung above; for a reference, its time divided by ours",
    "GFLOP/s": "1e9 floating-point operations per second",
    "GB/s": "1e9 bytes per second",
    "of limit": "how close the time is to what bounds it, computing or moving the bytes",
    "compile s": "seconds of compilation; cached: loaded from disk",
    "first ms": "milliseconds of the first step, without compilation",
    "packed": "fraction of vector instructions among its arithmetic",
}
VERDICTS = {FASTER: "▲ faster", SLOWER: "▼ slower", SAME: "not resolved"}
VERDICTS_OF_OURS = {FASTER: "▲ ours faster", SLOWER: "▼ ours slower", SAME: "not resolved"}
TERM = re.compile(r"([^:.]{1,40}): (.*)")  # in the notes of a ladder


def write(found: dict[str, Any], path: Path) -> None:
    """Write the page of a result to a new file."""
    with path.open("x", encoding="utf-8") as file:
        file.write(render(found))


def render(found: dict[str, Any]) -> str:
    """Return the page of a result as kernels.run returns it, with samples."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    records, limits = found["cases"], dict[str, dict[int, list[str]]]()
    for limit in found["limits"]:
        rates = [number(rate / GIGA) for rate in limit["rate"][:3]]
        limits.setdefault(cells.limit_name(limit), {})[limit["threads"]] = rates
    operations = list(dict.fromkeys(record["operation"] for record in records))
    roofs = roofline.roofs(found["limits"])
    packed = any(row.get("packed") is not None for record in records for row in record["rows"])
    return environment.get_template("kernels.html.jinja").render(
        found=found,
        facts=facts(found),
        limits=limits,
        counts=sorted({limit["threads"] for limit in found["limits"]}),
        operations=operations,
        shapes=list(dict.fromkeys(record["shape"] for record in records)),
        measured_on=ladders.MEASURED_ON,
        notes={name: list(blocks(ladders.notes(name))) for name in operations},
        cases=[view(record, roofs, found["options"]["rounds"]) for record in records],
        columns=[name for name in COLUMNS if packed or name != "packed"],
        about=COLUMNS,
        several=cells.several,
    )


def facts(found: dict[str, Any]) -> dict[str, str]:
    """Return what the page says about the machine and the run, by name."""
    machine, options = found["machine"], found["options"]
    affinity, load = machine["affinity"], machine["load"]
    caches = {
        name: f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / (1 << 10):g} KiB"
        for name, size in machine["caches"].items()
    }
    threads = f"{' and '.join(map(str, options['threads']))} of {machine['cpus']} CPUs"
    named = {
        "date": machine["date"],
        "CPU": machine["cpu"],
        "vectors": f"{machine['vector_bits']} bits",
        "threads": threads + (f" ({', '.join(map(str, affinity))})" if affinity else ""),
        "caches": pairs(caches),
        "load": "unknown" if load is None else f"{load} before, {found['load_after']} after",
        "system": machine["system"],
        "Python": machine["python"],
        "versions": pairs({name: each for name, each in machine["versions"].items() if each}),
        "BLAS": machine["blas"],
        "commit": machine["commit"] or "unknown",
        "rounds": str(options["rounds"]),
        "seed": str(found["seed"]),
    }
    return named | {f"peer {name}": pairs(about) for name, about in found["peers"].items()}


def pairs(about: dict[str, Any]) -> str:
    """Return names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in about.items())


def blocks(notes: str) -> Iterator[tuple[str, Any]]:
    """Yield the paragraphs, lists and lists of terms of a docstring, each with its kind."""
    for block in notes.strip().split("\n\n"):
        # The other lines of an item are indented.
        items = [" ".join(item.split()) for item in re.split(r"\n(?! )", block)]
        terms = [TERM.fullmatch(item) for item in items]
        if block.startswith("- "):
            yield "list", [item[2:] for item in items]
        elif len(items) > 1 and all(terms):
            yield "terms", [term.groups() for term in terms if term]
        else:
            yield "paragraph", " ".join(items)


def view(record: dict[str, Any], roofs: Roofs, rounds: int) -> dict[str, Any]:
    """Return a case as the template shows it."""
    own, intensity = rates_of(record), record["flops"] / record["bytes"]
    roofs = {threads: {**rates} for threads, rates in roofs.items()}
    for threads, rates in own.items():
        cache = record["cache"][str(threads)]
        roofs.setdefault(threads, {}).update({"peak": rates["peak"], cache: bandwidth(rates)})
    bounds = {
        threads: min(rates["peak"], bandwidth(rates) * intensity) for threads, rates in own.items()
    }
    timed = [row for row in record["rows"] if "seconds" in row]
    speeds = [*(record["flops"] / row["seconds"].median for row in timed), *bounds.values()]
    # The slowest has a bar and the fastest fits.
    low = math.floor(math.log10(min(speeds, default=1) / 1.5))
    scale = Axis(10.0**low, max(speeds, default=1) * 1.15, 0, 100)
    rows = [view_row(record, row, bounds.get(row["threads"]), scale) for row in record["rows"]]
    drawn = [row for row in rows if row["bar"]]
    groups = [[row for row in rows if row["reference"] == part] for part in (False, True)]
    stopped = f"stopped after {record['rounds']} of {rounds} rounds"
    return {
        **{name: record[name] for name in ("operation", "direction", "shape")},
        "about": f"{cells.sizes(record)}; {cells.costs(record)}: {intensity:.2g} FLOP/byte",
        "stopped": stopped if record["rounds"] < rounds else "",
        "decades": math.log10(scale.high) - low,
        "ticks": [(scale.place(value), f"{value / GIGA:g}") for value in scale.ticks()],
        "groups": [group for group in groups if group],
        "limits": cells.limits_in_words(record),
        "controls": cells.controls_in_words(record),
        "roofline": roofline.draw(intensity, drawn, roofs) if drawn else None,
    }


def view_row(
    record: dict[str, Any], row: dict[str, Any], roof: float | None, scale: Axis
) -> dict[str, Any]:
    """Return a row of a ladder as the template shows it."""
    name = cells.label(row)
    found: dict[str, Any] = {
        "name": name,
        "by": row["by"] if row["by"] not in ("ours", row["rung"]) else "",
        "idea": row.get("idea", ""),
        "reference": row["reference"],
        "wrong": row.get("wrong"),
        "why_not": cells.why_not(row),
        "figures": cells.figures(record, row),
        "bar": None,
        "verdict": "",
        "words": "",
    }
    if cells.gain_of(row) is not None:
        found["verdict"] = row["verdict"]
        found["words"] = (VERDICTS_OF_OURS if row["reference"] else VERDICTS)[row["verdict"]]
    if "seconds" in row:
        found["speed"] = record["flops"] / row["seconds"].median
        found["bar"] = bar(row, found["speed"], roof, scale)
        found["tip"] = tip(record, row, name, found["words"])
    return found


def bar(row: dict[str, Any], speed: float, roof: float | None, scale: Axis) -> dict[str, Any]:
    """Return a bar in percent of the scale: to "start", then what the rung gained, to "end".

    roof: where the limit is. kind: "first", "reference", or a verdict and "up" or "down".
    """
    ratio = None if row["reference"] else row.get("gain")
    if ratio is None:
        kind, before = "reference" if row["reference"] else "first", speed
    else:
        kind = f"{row['verdict']} {'up' if ratio.median >= 1 else 'down'}"
        before = speed / ratio.median
    start, end = sorted(min(max(scale.place(value), 0), 100) for value in (before, speed))
    limit = None if roof is None else scale.place(roof)
    return {"start": start, "end": end, "roof": limit, "kind": kind}


def tip(record: dict[str, Any], row: dict[str, Any], name: str, words: str) -> str:
    """Return the text that is shown when a bar or a point is hovered, line by line."""
    median, (least, most) = row["seconds"].median, row["range"]
    turns = sum(turn is not None for turn in row["turns"])
    lines = [
        f"{name}: {milliseconds(median)} ms (min {milliseconds(least)}, max {milliseconds(most)})",
        f"turns in {turns} of {record['rounds']} rounds",
    ]
    if ratio := cells.gain_of(row):
        over = "its time divided by ours" if row["reference"] else "over the serial rung above"
        lines.append(f"{over}: {interval(ratio)} at {ratio.coverage:.0%}, {words}")
    rates = [record[name] / median / GIGA for name in ("flops", "bytes")]
    lines.append(f"{rates[0]:.3g} GFLOP/s, {rates[1]:.3g} GB/s")
    if fraction := row.get("fraction"):
        low, high = percent(fraction.low), percent(fraction.high)
        lines.append(f"{percent(fraction.median)} ({low}–{high}) of the limit, {row['bound']}")
    return "\n".join(lines)
