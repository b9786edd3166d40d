"""The kernel benchmark as one HTML page that loads nothing: ladders as bars, and rooflines."""

import base64
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import cpus, ladders
from benchmarks.harness.analysis import FASTER, SAME, SLOWER, bandwidth, rates_of
from benchmarks.render import cells, roofline, sweep, sweep_plot
from benchmarks.render.cells import (
    GIGA,
    LADDER,
    MINE,
    REFERENCES,
    interval,
    milliseconds,
    number,
    percent,
)
from benchmarks.render.roofline import Axis, Roofs

COLUMNS = {
    "ms": "milliseconds per step, median over the rounds",
    "gain": "speedup over the serial rung above, of your kernels over ours; the time of references "
    "divided by ours",
    "GFLOP/s": "1e9 floating-point operations per second",
    "GB/s": "1e9 bytes per second",
    "of limit": "how close the time is to what bounds it, computing or moving the bytes",
    "compile s": "seconds of compilation; cached: loaded from disk",
    "first ms": "milliseconds of the first step, without compilation",
    "packed": "fraction of vector instructions among its arithmetic",
    "IPC": "instructions per cycle, and the instructions of a step",
    "misses": "cache misses of a step, as Linux counts them",
}
# The columns that are shown only if a row has them.
OPTIONAL = ("packed", "IPC", "misses")
VERDICTS = {FASTER: "▲ faster", SLOWER: "▼ slower", SAME: "not resolved"}
VERDICTS_OF_OURS = {FASTER: "▲ ours faster", SLOWER: "▼ ours slower", SAME: "not resolved"}
# The meaning of a gain in each part of the table.
OVER = {
    LADDER: "over the serial rung above",
    MINE: "over the kernel of training",
    REFERENCES: "its time divided by ours",
}
CACHE_MODES = {
    "hot": "hot: they hold the arrays, as far as these fit, because steps follow each other",
    "cold": "cold: before each step other memory, twice as large as they, is written",
}
MOST_TICKS = 4  # that are labelled above the bars
TERM = re.compile(r"([^:.]{1,40}): (.*)")  # in the notes of a ladder


def write(found: dict[str, Any], path: Path) -> None:
    """Write the page of a result to a new file."""
    with path.open("x", encoding="utf-8") as file:
        file.write(render(found))


def render(found: dict[str, Any]) -> str:
    """Return the page of a result as kernels.run returns it, with samples."""
    records, limits = found["cases"], dict[str, dict[int, list[str]]]()
    for limit in found["limits"]:
        rates = [number(rate / GIGA) for rate in limit["rate"][:3]]
        limits.setdefault(cells.limit_name(limit), {})[limit["threads"]] = rates
    operations = list(dict.fromkeys(record["operation"] for record in records))
    roofs = roofline.roofs(found["limits"])
    views = [view(record, roofs, found["options"]["rounds"]) for record in records]
    rows = [row for each in views for group in each["groups"] for row in group]
    shown = {column for row in rows for column in row["figures"]}
    return template("kernels.html.jinja").render(
        found=found,
        facts=facts(found),
        limits=limits,
        counts=sorted({limit["threads"] for limit in found["limits"]}),
        operations=operations,
        shapes=list(dict.fromkeys(record["shape"] for record in records)),
        measured_on=ladders.MEASURED_ON,
        notes={name: list(blocks(ladders.notes(name))) for name in operations},
        sweeps=pictures(found) if found["options"].get("sweep") else {},
        gains={name: gains(records, name) for name in operations},
        cases=views,
        columns=[name for name in COLUMNS if name in shown or name not in OPTIONAL],
        about=COLUMNS,
        several=cells.several,
    )


def pictures(found: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return the pictures of a sweep by operation, each as a data URL with what it shows."""
    shown: dict[str, list[tuple[str, str]]] = {}
    for each in sweep.panels(found):
        svg = base64.b64encode(sweep_plot.draw([each]).encode()).decode()
        words = f"{each.unit} of {each.title} against {each.letters}"
        picture = f"data:image/svg+xml;base64,{svg}", words
        shown.setdefault(each.operation, []).append(picture)
    return shown


def template(name: str) -> jinja2.Template:
    """Return a template of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def facts(found: dict[str, Any]) -> dict[str, str]:
    """Return what the page says about the machine and the run, by name."""
    machine, options = found["machine"], found["options"]
    threads = f"{' and '.join(map(str, options['threads']))} of {machine['cpus']} CPUs"
    named = {
        "date": machine["date"],
        "CPU": machine["cpu"],
        "vectors": f"{machine['vector_bits']} bits",
        "threads": threads,
        "caches": pairs({name: binary(size) for name, size in machine["caches"].items()}),
        **cpus.in_words(machine),
        "others in this run": cpus.used(found["usage"]) or "unknown",
        "system": machine["system"],
        "Python": machine["python"],
        "versions": pairs({name: each for name, each in machine["versions"].items() if each}),
        "BLAS": machine["blas"],
        "commit": machine["commit"] or "unknown",
        "rounds": str(options["rounds"]),
        "seed": str(found["seed"]),
    }
    if "cache" in options:
        named["caches before a step"] = CACHE_MODES[options["cache"]]
    if "note" in found:
        named["note"] = found["note"]
    return named | {f"peer {name}": pairs(about) for name, about in found["peers"].items()}


def binary(size: int) -> str:
    """Return a number of bytes in KiB or MiB."""
    return f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / (1 << 10):g} KiB"


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


def gains(records: list[dict[str, Any]], operation: str) -> dict[str, dict[str, list[str]]]:
    """Return what the rungs of an operation gained in this run, by rung and shape, in words."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for row in record["rows"]:
            gain = cells.gain_of(row) if record["operation"] == operation else None
            if gain is not None and cells.part(row) == LADDER and cells.is_timed(row):
                threads = f" ×{row['threads']}" if row["threads"] > 1 else ""
                words = f"{record['direction']}{threads} {interval(gain)}"
                found.setdefault(row["rung"], {}).setdefault(record["shape"], []).append(words)
    return found


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
    timed = [row for row in record["rows"] if cells.is_timed(row)]
    speeds = [*(record["flops"] / row["seconds"].median for row in timed), *bounds.values()]
    # The slowest has a bar and the fastest fits.
    low = math.floor(math.log10(min(speeds, default=1) / 1.5))
    scale = Axis(10.0**low, max(speeds, default=1) * 1.15, 0, 100)
    rows = [
        view_row(record, row, name, bounds.get(row["threads"]), scale)
        for row, name in zip(record["rows"], cells.names(record["rows"]), strict=True)
    ]
    drawn = [row for row in rows if row["bar"]]
    groups = [[row for row in rows if row["part"] == part] for part in cells.PARTS]
    ticks = scale.ticks()
    stopped = f"stopped after {record['rounds']} of {rounds} rounds"
    return {
        **{name: record[name] for name in ("operation", "direction", "shape")},
        "about": f"{cells.sizes(record)}; {cells.costs(record)}: {intensity:.2g} FLOP/byte",
        "stopped": stopped if record["rounds"] < rounds else "",
        "decades": math.log10(scale.high) - low,
        "ticks": [
            (scale.place(value), f"{value / GIGA:g}")
            for value in ticks[:: -(-len(ticks) // MOST_TICKS)]
        ],
        "groups": [group for group in groups if group],
        "limits": cells.limits_in_words(record),
        "against": cells.against_in_words(record),
        "controls": cells.controls_in_words(record),
        "roofline": roofline.draw(intensity, drawn, roofs) if drawn else None,
    }


def view_row(
    record: dict[str, Any], row: dict[str, Any], name: str, roof: float | None, scale: Axis
) -> dict[str, Any]:
    """Return a row of a ladder as the template shows it."""
    part, unresolved = cells.part(row), row.get("unresolved")
    found: dict[str, Any] = {
        "name": name,
        "part": part,
        "by": "" if part == LADDER or row["by"] in name else row["by"],
        "idea": row.get("idea", ""),
        "notes": cells.notes(row),
        "loop": "\n".join(row.get("loop", [])[:-1]),
        "loop_in_words": cells.loop_in_words(record, row) if row.get("loop") else "",
        "why_not": cells.why_not(row),
        "bad": row.get("wrong") or row.get("failed"),
        "traceback": row.get("traceback"),
        "figures": cells.figures(record, row),
        "bar": None,
        "verdict": "",
        "words": "",
    }
    if not cells.is_timed(row):
        return found
    if cells.gain_of(row) is not None:
        found["verdict"] = SAME if unresolved else row["verdict"]
        words = VERDICTS_OF_OURS if part == REFERENCES else VERDICTS
        found["words"] = "no verdict" if unresolved else words[row["verdict"]]
    found["speed"] = record["flops"] / row["seconds"].median
    found["bar"] = bar(row, found, roof, scale)
    found["tip"] = tip(record, row, name, found["words"])
    return found


def bar(
    row: dict[str, Any], shown: dict[str, Any], roof: float | None, scale: Axis
) -> dict[str, Any]:
    """Return a bar in percent of the scale: to "start", then what the rung gained, to "end".

    roof: where the limit is. kind: "first", "mine", "references", or a verdict and "up" or "down".
    """
    ratio = row.get("gain") if shown["part"] == LADDER else None
    before = speed = shown["speed"]
    kind = "first" if shown["part"] == LADDER else shown["part"]
    if ratio is not None:
        kind = f"{shown['verdict']} {'up' if ratio.median >= 1 else 'down'}"
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
        over = OVER[cells.part(row)]
        lines.append(f"{over}: {interval(ratio)} at {ratio.coverage:.0%}, {words}")
    rates = [record[name] / median / GIGA for name in ("flops", "bytes")]
    lines.append(f"{rates[0]:.3g} GFLOP/s, {rates[1]:.3g} GB/s")
    if fraction := row.get("fraction"):
        low, high = percent(fraction.low), percent(fraction.high)
        lines.append(f"{percent(fraction.median)} ({low}–{high}) of the limit, {row['bound']}")
    return "\n".join(lines)
