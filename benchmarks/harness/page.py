"""The kernel benchmark as one HTML page that loads nothing: ladders as bars, and rooflines."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import ladders
from benchmarks.harness import report, roofline
from benchmarks.harness.analysis import FASTER, SAME, SLOWER, bandwidth
from benchmarks.harness.report import GIGA, interval, milliseconds, number, percent, several

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
VERDICTS_OF_OURS = {**VERDICTS, FASTER: "▲ ours faster", SLOWER: "▼ ours slower"}
# Starts of list items in a docstring: "- a", or a name, a colon, and a description.
ITEM, TERM = re.compile(r"[-*] "), re.compile(r"(?!\s)((?:(?!\. ).){1,40}?)(?::\s+|\s{2,})(?=\S)")


@dataclass(frozen=True)
class Bar:
    """A bar in percent of the scale: to `start`, then what the rung gained or lost, to `end`.

    roof: where the limit is. kind: "first", "reference", or a verdict and "up" or "down".
    """

    start: float
    end: float
    roof: float | None
    kind: str


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale of FLOP/s, which starts at a power of ten."""

    low: float
    decades: float

    def place(self, value: float) -> float:
        """Return where a value is, in percent."""
        fraction = (math.log10(value) - self.low) / self.decades
        return 100 * min(max(fraction, 0), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The powers of ten with their labels."""
        powers = [self.low + step for step in range(math.floor(self.decades) + 1)]
        return [(100 * (p - self.low) / self.decades, f"{10 ** (p - 9):g}") for p in powers]


def scale_of(speeds: list[float]) -> Scale:
    """Return a scale on which the slowest has a bar and the fastest fits."""
    low = math.floor(math.log10(min(speeds, default=1) / 1.5))
    return Scale(low, math.log10(max(speeds, default=1) * 1.15) - low)


def write(found: dict[str, Any], path: Path) -> None:
    """Write the page of a result to a new file."""
    page = render(found)
    with path.open("x", encoding="utf-8") as file:
        file.write(page)


def render(found: dict[str, Any]) -> str:
    """Return the page of a result as kernels.run returns it, with samples."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    records = found["cases"]
    operations = list(dict.fromkeys(record["operation"] for record in records))
    roofs = roofline.roofs(found["limits"])
    packed = any(row.get("packed") is not None for record in records for row in record["rows"])
    return environment.get_template("kernels.html.jinja").render(
        found=found,
        facts=facts(found),
        limits=limits(found["limits"]),
        counts=sorted({limit["threads"] for limit in found["limits"]}),
        operations=operations,
        shapes=list(dict.fromkeys(record["shape"] for record in records)),
        measured_on=ladders.MEASURED_ON,
        notes={name: list(blocks(ladders.notes(name))) for name in operations},
        cases=[view(record, roofs, found["options"]["rounds"]) for record in records],
        columns=[name for name in COLUMNS if packed or name != "packed"],
        about=COLUMNS,
        several=several,
    )


def facts(found: dict[str, Any]) -> dict[str, str]:
    """Return what the page says about the machine and the run, by name."""
    machine, options = found["machine"], found["options"]
    affinity = machine["affinity"]
    before, after = machine["load"], found.get("load_after")
    versions = {name: version for name, version in machine["versions"].items() if version}
    peers = {f"peer {name}": about for name, about in found["peers"].items()}
    threads = f"{' and '.join(map(str, options['threads']))} of {machine['cpus']} CPUs"
    named = {
        "date": machine["date"],
        "CPU": machine["cpu"],
        "vectors": f"{machine['vector_bits']} bits",
        "threads": threads + (f" ({', '.join(map(str, affinity))})" if affinity else ""),
        "caches": ", ".join(f"{name} {kibi(size)}" for name, size in machine["caches"].items()),
        "load": f"{before} before, {after} after" if before is not None else "unknown",
        "system": machine["system"],
        "Python": machine["python"],
        "versions": pairs(versions),
        "BLAS": machine["blas"],
        "commit": machine["commit"] or "unknown",
        "rounds": str(options["rounds"]),
        "seed": str(found["seed"]),
    }
    return named | {name: pairs(about) for name, about in peers.items()}


def pairs(about: dict[str, Any]) -> str:
    """Return names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in about.items())


def kibi(size: int) -> str:
    """Return bytes in KiB or MiB."""
    return f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / (1 << 10):g} KiB"


def limits(measured: list[dict[str, Any]]) -> dict[str, dict[int, list[str]]]:
    """Return the median, low and high of each limit of the machine, by label and threads."""
    found: dict[str, dict[int, list[str]]] = {}
    for limit in measured:
        where = limit["where"]
        label = f"triad, {where}, GB/s" if where else f"{limit['name']}, GFLOP/s"
        rates = [number(rate / GIGA) for rate in limit["rate"][:3]]
        found.setdefault(label, {})[limit["threads"]] = rates
    return found


def blocks(notes: str) -> Iterator[tuple[str, Any]]:
    """Yield the paragraphs, lists and indented lines of a docstring, each with its kind."""
    for block in filter(None, re.split(r"\n\s*\n", notes.strip())):
        lines = block.splitlines()
        terms = [TERM.match(item) for item in items(lines, TERM)]
        if ITEM.match(lines[0]):
            yield "list", [item[2:] for item in items(lines, ITEM)]
        elif len(terms) > 1 and all(line.startswith(" ") or TERM.match(line) for line in lines):
            yield "terms", [(term[1], term.string[term.end() :]) for term in terms if term]
        elif all(line.startswith(" ") for line in lines):
            yield "lines", "\n".join(lines)
        else:
            yield "paragraph", " ".join(block.split())


def items(lines: list[str], first: re.Pattern[str]) -> list[str]:
    """Return the items of a list, each in one line; `first` matches where one starts."""
    found: list[str] = []
    for line in lines:
        if found and not first.match(line):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
    return found


def view(record: dict[str, Any], roofs: roofline.Roofs, rounds: int) -> dict[str, Any]:
    """Return a case as the template shows it."""
    bounds = bounds_of(record)
    timed = [row for row in record["rows"] if "seconds" in row]
    scale = scale_of([*(speed(record, row) for row in timed), *bounds.values()])
    rows = [view_row(record, row, bounds, scale) for row in record["rows"]]
    sizes = ", ".join(f"{letter} {size:,}" for letter, size in record["sizes"].items())
    intensity = record["flops"] / record["bytes"]
    cost = f"{report.amount(record['flops'])}FLOP, {report.amount(record['bytes'])}B"
    stopped = f"stopped after {record['rounds']} of {rounds} rounds"
    points = [
        roofline.Point(shown["name"], shown["tip"], speed(record, row), not row["reference"])
        for row, shown in zip(record["rows"], rows, strict=True)
        if "seconds" in row
    ]
    groups = [[row for row in rows if row["reference"] == part] for part in (False, True)]
    return {
        "operation": record["operation"],
        "direction": record["direction"],
        "shape": record["shape"],
        "about": f"{sizes}; {cost}: {intensity:.2g} FLOP/byte",
        "stopped": stopped if record["rounds"] < rounds else "",
        "scale": scale,
        "groups": [group for group in groups if group],
        "limits": report.limits_in_words(record),
        "controls": report.controls_in_words(record),
        "roofline": roofline.draw(intensity, points, own_roofs(record, roofs)) if timed else None,
    }


def speed(record: dict[str, Any], row: dict[str, Any]) -> float:
    """Return the FLOP/s of a row."""
    return record["flops"] / row["seconds"].median


def own_roofs(record: dict[str, Any], roofs: roofline.Roofs) -> roofline.Roofs:
    """Return the roofs of the machine, updated with those measured with the case."""
    peaks, bandwidths = {**roofs.peaks}, {key: {**each} for key, each in roofs.bandwidths.items()}
    for threads, rates in report.rates_of(record).items():
        peaks[threads] = rates["peak"]
        bandwidths.setdefault(threads, {})[record["cache"][str(threads)]] = bandwidth(rates)
    return roofline.Roofs(peaks, bandwidths)


def bounds_of(record: dict[str, Any]) -> dict[int, float]:
    """Return the FLOP/s that the machine allows in a case, by threads."""
    return {
        threads: min(rates["peak"], bandwidth(rates) * record["flops"] / record["bytes"])
        for threads, rates in report.rates_of(record).items()
    }


def view_row(
    record: dict[str, Any], row: dict[str, Any], bounds: dict[int, float], scale: Scale
) -> dict[str, Any]:
    """Return a row of a ladder as the template shows it."""
    timed, name = "seconds" in row, report.label(row)
    resolved = timed and report.gain_of(row) is not None
    return {
        "name": name,
        "by": row["by"] if row["by"] not in ("ours", row["rung"]) else "",
        "idea": row.get("idea", ""),
        "reference": row["reference"],
        "wrong": row.get("wrong"),
        "why_not": report.why_not(row),
        "figures": report.figures(record, row),
        "bar": bar(record, row, bounds.get(row["threads"]), scale) if timed else None,
        "tip": tip(record, row, name) if timed else "",
        "verdict": row["verdict"] if resolved else "",
        "words": words(row) if resolved else "",
    }


def words(row: dict[str, Any]) -> str:
    """Return the verdict in words."""
    return (VERDICTS_OF_OURS if row["reference"] else VERDICTS)[row["verdict"]]


def bar(record: dict[str, Any], row: dict[str, Any], roof: float | None, scale: Scale) -> Bar:
    """Return the bar of a row."""
    own, limit = scale.place(speed(record, row)), None if roof is None else scale.place(roof)
    ratio = row.get("gain")
    if row["reference"] or ratio is None:
        return Bar(own, own, limit, "reference" if row["reference"] else "first")
    start, end = sorted((own, scale.place(speed(record, row) / ratio.median)))
    return Bar(start, end, limit, f"{row['verdict']} {'up' if ratio.median >= 1 else 'down'}")


def tip(record: dict[str, Any], row: dict[str, Any], name: str) -> str:
    """Return the text that is shown when a bar or a point is hovered, line by line."""
    median, (least, most) = row["seconds"].median, row["range"]
    turns = sum(turn is not None for turn in row["turns"])
    lines = [
        f"{name}: {milliseconds(median)} ms (min {milliseconds(least)}, max {milliseconds(most)})",
        f"turns in {turns} of {record['rounds']} rounds",
    ]
    if ratio := report.gain_of(row):
        over = "its time divided by ours" if row["reference"] else "over the serial rung above"
        lines.append(f"{over}: {interval(ratio)} at {ratio.coverage:.0%}, {words(row)}")
    rates = [record[name] / median / GIGA for name in ("flops", "bytes")]
    lines.append(f"{rates[0]:.3g} GFLOP/s, {rates[1]:.3g} GB/s")
    if fraction := row.get("fraction"):
        low, high = percent(fraction.low), percent(fraction.high)
        lines.append(f"{percent(fraction.median)} ({low}–{high}) of the limit, {row['bound']}")
    return "\n".join(lines)
