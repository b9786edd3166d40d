"""The figures of a run that are kept in a file: medians with their intervals, but no samples."""

import json
from pathlib import Path
from typing import Any

# An estimate is kept as [median, low, high, coverage].
ESTIMATE = ("median", "low", "high", "coverage")
ABOUT = ("rung", "by", "threads", "reference", "able", "offered", "wrong")
PAID = ("compile_seconds", "first_seconds", "packed")
# A row leaves out what has these values.
USUAL = {"by": "ours", "threads": 1, "reference": False, "able": True}


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a result of the kernel benchmark."""
    kept = {name: value for name, value in found.items() if name != "stories"}
    kept["limits"] = [
        {name: limit[name] for name in ("name", "where", "threads")}
        | {"rate": short(limit["rate"])}
        for limit in found["limits"]
    ]
    for part in ("tasks", "again"):
        kept[part] = [figures_of_task(task) for task in found[part]]
    return kept


def figures_of_task(task: dict[str, Any]) -> dict[str, Any]:
    limits = [
        {"name": each["name"], "threads": each["threads"], "rate": short(each["rate"]),
         "pace": short(each["pace"])}
        for each in task["limits"]
    ]  # fmt: skip
    controls = [
        {"rung": each["rung"], "threads": each["threads"], "ratio": short(each["ratio"])}
        for each in task["controls"]
    ]
    rows = [figures_of_row(row) for row in task["rows"]]
    return {**task, "rows": rows, "limits": limits, "controls": controls}


def figures_of_row(row: dict[str, Any]) -> dict[str, Any]:
    """seconds: the median of the rounds. gain: over the rung above; by_ours: of a reference."""
    kept = {name: row[name] for name in ABOUT if name in row and row[name] != USUAL.get(name)}
    kept |= {name: short(row[name]) for name in PAID if row.get(name) is not None}
    if "summary" in row:
        what = row["summary"]
        kept["seconds"] = short({name: what[name] for name in ESTIMATE})
        for name in ("gain", "by_ours", "verdict"):
            if what.get(name) is not None:
                kept[name] = short(what[name])
        if "share" in what:
            kept["share"] = short(what["share"]["median"])
    return kept


def short(value: Any) -> Any:
    """Return a number to four digits, and an estimate as a list of numbers."""
    if isinstance(value, dict):
        return [short(value[name]) for name in ESTIMATE]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(path: Path, kept: dict[str, Any]) -> None:
    """Write figures as JSON to a new file, one row of a table per line."""
    with path.open("x", encoding="utf-8") as file:
        file.write(lines(kept) + "\n")


def lines(value: Any, indent: int = 0) -> str:
    """Return JSON with short objects and lists on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent <= 100 or "rung" in value:
        return flat
    space = "\n" + " " * (indent + 1)
    found: Any = value
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {lines(found[name], indent + 1)}" for name in found]
    else:
        parts = [lines(each, indent + 1) for each in found]
    begin, end = flat[0], flat[-1]
    return begin + space + ("," + space).join(parts) + space[:-1] + end
