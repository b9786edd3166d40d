"""Records of the speedrun: a file that only grows, and its table in the README."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.harness import figures
from tinygpt_np.config import TrainConfig
from tinygpt_np.storage import files

PATH = ROOT / "benchmarks" / "results" / "speedrun.json"
NEVER = "never"
# Settings of a recipe that a record leaves out, because they are those of the run.
OF_THE_RUN = ("data", "seed", "threads")


def spread(values: Sequence[float], digits: int | None = None) -> str:
    """Return the median of values, with the lowest and the highest; infinity is never.

    digits: after the point; by default one, or three below 1.
    """
    if not values:
        return "–"
    middle, low, high = (
        NEVER if value == math.inf else f"{value:.{digits or (1 if value >= 1 else 3)}f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}–{high})"


def time(times: Sequence[float | None], complete: Sequence[bool]) -> str:
    """Return the times to a loss; one that was not reached does not count unless it never will."""
    found = zip(times, complete, strict=True)
    return spread([math.inf if each is None else each for each, ended in found if each or ended])


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], target: str) -> str:
    """Return how many times as long they take to a loss with the same seeds, or nothing.

    If they never reach it, all of their training is taken, so that the ratio is at least this.
    There is no ratio if ours does not reach it with every seed, or theirs was stopped before it.
    """
    mine = dict(zip(ours["seeds"], ours["times"][target], strict=True))
    names = ("seeds", "complete", "seconds")
    found, never = list[float](), False
    for seed, complete, whole, they in zip(
        *(theirs[name] for name in names), theirs["times"][target], strict=True
    ):
        if (we := mine.pop(seed, None)) is None or (they is None and not complete):
            return ""
        found.append((whole if they is None else they) / we)
        never = never or they is None
    if mine or not found:
        return ""
    return ("at least " if never else "") + spread(found, 2)


def record_of(found: Mapping[str, Any], recipes: Mapping[str, TrainConfig]) -> dict[str, Any]:
    """Return the record of a complete run, without recipes that failed.

    Settings are those that are not of preset cpu.
    """
    machine, usual, rows = found["machine"], asdict(TrainConfig()), list[dict[str, Any]]()
    for name, each in found["results"].items():
        if "failed" in each:
            continue
        settings = {
            setting: value
            for setting, value in asdict(recipes[name]).items()
            if value != usual[setting] and setting not in OF_THE_RUN
        }
        rows.append({
            "recipe": name, "by": each["by"], "settings": settings, "steps": each["steps"],
            "times": {
                target: [None if time is None else round(time, 2) for time in times]
                for target, times in each["times"].items()
            },
            "seconds": [round(value, 2) for value in each["seconds"]],
            "best": [round(value, 4) for value in each["best"]],
        })  # fmt: skip
    return {
        "date": machine["date"][:10], "commit": machine["commit"], "cpu": machine["cpu"],
        **{name: found["options"][name] for name in ("threads", "seeds", "evaluations")},
        "versions": {name: machine["versions"][name] for name in ("numba", "torch")},
        "recipes": rows,
    }  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """Return all records, the oldest first."""
    return json.loads(path.read_text(encoding="utf-8"))["records"]


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record to the file, atomically."""
    content = {"benchmark": "speedrun", "records": [*read(path), record]}
    files.write_file(path, (figures.lines(content) + "\n").encode())


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of all records for the README."""
    targets = list(dict.fromkeys(target for each in records for row in each["recipes"]
                                 for target in row["times"]))  # fmt: skip
    head = ["date", "commit", "processor", "threads", "recipe", *targets, "all steps", "best loss"]
    lines = [head, ["---"] * len(head)]
    for each in records:
        about = [each["date"], (each["commit"] or "")[:7], each["cpu"], str(each["threads"])]
        for row in each["recipes"]:
            times = [row["times"].get(target, []) for target in targets]
            cells = [time(values, [True] * len(values)) for values in times]
            measured = [*cells, spread(row["seconds"]), spread(row["best"], 3)]
            lines.append([*about, row["recipe"], *measured])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
