"""The kernel benchmark as one HTML page that needs no network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import ladders, roofline
from benchmarks.kernels_table import number
from benchmarks.page_task import COLUMNS, view
from benchmarks.roofline import GIGA, several

# How lines of a list begin: "- a", or a name and a colon, or two spaces, before what it is.
ITEM, TERM = re.compile(r"[-*] "), re.compile(r"(?!\s)((?:(?!\. ).){1,40}?)(?::\s+|\s{2,})(?=\S)")


def write(found: dict[str, Any], path: Path) -> None:
    """Writes what kernels.run returned as a page, to a new file."""
    page = render(found)
    with path.open("x", encoding="utf-8") as file:
        file.write(page)


def render(found: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    operations = list(dict.fromkeys(task["operation"] for task in found["tasks"]))
    shapes = list(dict.fromkeys(task["shape"] for task in found["tasks"]))
    roofs = roofline.roofs(found["limits"])
    tasks = [
        view(task, f"t{place}", roofs, found["options"]["rounds"])
        for place, task in enumerate(found["tasks"])
    ]
    return environment.get_template("kernels.html.jinja").render(
        found=found,
        facts=facts(found),
        limits=limits(found["limits"]),
        counts=sorted({limit["threads"] for limit in found["limits"]}),
        operations=operations,
        shapes=shapes,
        stories_measured_on=ladders.STORIES_MEASURED_ON,
        stories={name: list(blocks(found["stories"].get(name, ""))) for name in operations},
        tasks=tasks,
        columns=columns(found["tasks"]),
        about=COLUMNS,
        several=several,
    )


def columns(tasks: list[dict[str, Any]]) -> list[str]:
    """Without the share of vector instructions, unless it was asked for."""
    packed = any(row.get("packed") is not None for task in tasks for row in task["rows"])
    return [name for name in COLUMNS if packed or name != "packed"]


def facts(found: dict[str, Any]) -> dict[str, str]:
    """On what it was measured, by name."""
    machine, options = found["machine"], found["options"]
    affinity = machine["affinity"]
    before, after = machine["load"], found.get("load_after")
    versions = {name: version for name, version in machine["versions"].items() if version}
    peers = {f"{name}, a peer": about for name, about in found.get("peers", {}).items()}
    named = {
        "date": machine["date"],
        "CPU": machine["cpu"],
        "vectors": f"{machine['vector_bits']} bits",
        "threads": f"{' and '.join(map(str, options['threads']))}, of {machine['cpus']} CPUs"
        + (f" ({', '.join(map(str, affinity))})" if affinity else ""),
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
    return ", ".join(f"{name} {value}" for name, value in about.items())


def kibi(size: int) -> str:
    return f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / (1 << 10):g} KiB"


def limits(measured: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, str]]]:
    """By label and threads."""
    found: dict[str, dict[int, dict[str, str]]] = {}
    for limit in measured:
        where = limit["where"]
        label = f"triad, {where}, GB/s" if where else f"{limit['name']}, GFLOP/s"
        rate = {name: number(limit["rate"][name] / GIGA) for name in ("median", "low", "high")}
        found.setdefault(label, {})[limit["threads"]] = rate
    return found


def blocks(story: str) -> Iterator[tuple[str, Any]]:
    """The paragraphs, lists and indented lines of a docstring, each with its kind."""
    for block in filter(None, re.split(r"\n\s*\n", story.strip())):
        lines = block.splitlines()
        terms = [TERM.match(item) for item in gathered(lines, TERM)]
        if ITEM.match(lines[0]):
            yield "list", [item[2:] for item in gathered(lines, ITEM)]
        elif len(terms) > 1 and all(line.startswith(" ") or TERM.match(line) for line in lines):
            yield "terms", [(term[1], term.string[term.end() :]) for term in terms if term]
        elif all(line.startswith(" ") for line in lines):
            yield "lines", "\n".join(lines)
        else:
            yield "paragraph", " ".join(block.split())


def gathered(lines: list[str], first: re.Pattern[str]) -> list[str]:
    """Items of a list, each in one line: those that begin as `first` does, and what follows."""
    items: list[str] = []
    for line in lines:
        if items and not first.match(line):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items
