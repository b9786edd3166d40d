"""Seconds of training to a validation loss, of our recipes and of nanoGPT's in PyTorch.

Each recipe trains in its own process. All take turns, from one evaluation to the next, and only
training is timed. The rules are in the README.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import records
from benchmarks.experiments import TINYGPT, TORCH, Entry
from benchmarks.harness.process import Process
from benchmarks.harness.rounds import OURS, Candidate, Comparison, Say, counted
from benchmarks.harness.session import session
from benchmarks.render.report import table_of
from tinygpt_np.config import PRESETS

SERVED = "benchmarks.worker.training:Runs"
TARGETS, SEEDS = (1.906, 1.70, 1.60, 1.50), (1, 2, 3)
# Evaluations of the whole validation split in a run, at equal numbers of steps.
EVALUATIONS = 40
# With --quick, only this many are reached, and the targets are others.
QUICK_TURNS, QUICK_TARGETS = 2, (3.0, 2.7)
# Ours, by name: the presets whose tokens are characters, and a run to the first target only.
RECIPES = {
    name: preset
    for name, preset in PRESETS.items()
    if (preset.tokenizer, preset.init_from) == ("char", "scratch")
} | {
    "sprint": replace(
        PRESETS["shakespeare"], block_size=64, batch_size=12, max_iters=240, lr_decay_iters=240
    )
}
# nanoGPT's CPU recipe in PyTorch, by name, and whether it is compiled.
NANOGPT, PEERS = PRESETS["cpu"], {"PyTorch": False, "torch.compile": True}
DEFAULT = ("sprint", "shakespeare", "cpu", *PEERS)


def seconds_to(target: float, seconds: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return when the loss was first at most a target, or None if it never was.

    Between two evaluations it is taken to fall linearly. Before the first one it is unknown, so
    that none is earlier.
    """
    points = list(zip(seconds, losses, strict=True))
    if points and points[0][1] <= target:
        return points[0][0]
    for (before, above), (after, below) in pairwise(points):
        if below <= target:
            return before + (after - before) * (above - target) / (above - below)
    return None


def run(
    recipes: Sequence[str], target: Sequence[float] | None, seeds: Sequence[int], evaluations: int,
    data: str, threads: int, quick: bool, record: bool, json: Path | None,
) -> bool:  # fmt: skip
    """Train all recipes with all seeds, show the times, and record or write them if asked."""
    targets = tuple(target or (QUICK_TARGETS if quick else TARGETS))
    seeds, recipes = tuple(dict.fromkeys(seeds)), tuple(dict.fromkeys(recipes))
    seeds, rounds = (seeds[:1], min(QUICK_TURNS, evaluations)) if quick else (seeds, evaluations)
    options = {"targets": targets, "seeds": seeds, "evaluations": evaluations, "threads": threads}
    with session("speedrun", options | {"data": data}, json) as run:
        progress = counted(range(len(seeds) * rounds))
        found: list[dict[str, Any]] = []
        for seed in seeds:
            entries = entries_of(recipes, data, seed, threads)
            turns = (text for _, text in progress)
            comparison = compare(entries, rounds, evaluations, threads, turns, run.say)
            run.found["left_out"] |= comparison.left_out
            found += ({"seed": seed, **row} for row in rows_of(comparison, rounds == evaluations))
            if comparison.stopped:
                break
        else:
            run.found["complete"] = True
        results = summaries(found, targets)
        run.found |= {"results": results, "curves": found}
        with run.hidden() as console:
            show(results, console)
        if record and run.found["complete"]:
            configs = RECIPES | dict.fromkeys(PEERS, NANOGPT)
            records.append(records.PATH, records.record_of(run.found, configs))
            run.tell(f"recorded in {records.PATH}; its table for the README is:")
            with run.hidden() as console:
                console.print(escape(records.table(records.read(records.PATH))), soft_wrap=True)
    return run.found["complete"]


def entries_of(recipes: Iterable[str], data: str, seed: int, threads: int) -> Iterator[Entry]:
    """Yield the recipes as candidates."""
    free: dict[str, Any] = {"data": data, "seed": seed, "threads": threads}
    for name in recipes:
        if name in PEERS:
            options = {"config": asdict(replace(NANOGPT, **free)), "compiled": PEERS[name]}
            yield Entry(name, f"{TORCH}:run", options, reference=True, by="torch")
        else:
            yield Entry(name, f"{TINYGPT}:run", {"config": asdict(replace(RECIPES[name], **free))})


def compare(
    entries: Iterable[Entry], rounds: int, evaluations: int, threads: int,
    progress: Iterator[str], say: Say,
) -> Comparison:  # fmt: skip
    """Train the candidates in turns, from one evaluation to the next."""
    comparison, orders = Comparison({}), random.Random(1)
    with closing(comparison), comparison.until_interrupted():
        for entry in entries:
            if entry.by != OURS and find_spec(entry.by) is None:
                comparison.left_out[entry.by] = "not installed: pip install '.[bench]'"
                continue
            say(f"warming up {entry.name}")
            process = Process(entry.name, SERVED, {}, threads)
            about = {"recipe": entry.name, "name": entry.name, "by": entry.by}
            candidate = Candidate(process, about, required=entry.by == OURS)
            comparison.candidates.append(candidate)
            candidate.open(build=entry.build, options=entry.options, evaluations=evaluations)
        for _ in range(rounds):
            comparison.take_round(orders, next(progress), say)
    return comparison


def rows_of(comparison: Comparison, whole: bool) -> Iterator[dict[str, Any]]:
    """Yield what is known of each candidate: its losses, and the seconds until each of them.

    whole: whether all rounds are the whole of training.
    """
    for row in comparison.record["rows"]:
        spent = [seconds for (seconds,) in filter(None, row.pop("turns"))]
        complete = whole and not comparison.stopped and "failed" not in row
        losses = row.get("losses", [])[: len(spent)]
        yield row | {"seconds": list(accumulate(spent)), "losses": losses, "complete": complete}


def summaries(
    rows: Iterable[Mapping[str, Any]], targets: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Return what is shown of each recipe, as lists with an item for each seed.

    A time is None if the loss was not reached. Unless the run is complete, it may still be.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        lists = ("seeds", "complete", "warm_up", "seconds", "best")
        each = found.setdefault(row["recipe"], {"by": row["by"], **{name: [] for name in lists}})
        times = each.setdefault("times", {f"{target:g}": [] for target in targets})
        if "failed" in row:
            each["failed"] = row["failed"]
        if seconds := row["seconds"]:
            losses = row["losses"]
            values = (row["seed"], row["complete"], row["warm_up_seconds"], seconds[-1])
            for name, value in zip(lists, (*values, min(losses)), strict=True):
                each[name].append(value)
            each["steps"] = row["steps"]
            for target in targets:
                times[f"{target:g}"].append(seconds_to(target, seconds, losses))
    return found


def show(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Show the times, and how many times as long PyTorch takes."""
    every = results.values()
    targets: list[str] = [*next(iter(every))["times"]] if results else []
    title = "seconds of training to a loss; medians over the seeds (lowest–highest)"
    table = table_of(title, "", *map(escape, results))
    for target in targets:
        cells = (records.time(each["times"][target], each["complete"]) for each in every)
        table.add_row(f"to {target}", *cells)
    for title, name, digits in (
        ("all steps", "seconds", None), ("best loss", "best", 3), ("warm-up", "warm_up", None)
    ):  # fmt: skip
        table.add_row(title, *(records.spread(each[name], digits) for each in every))
    console.print(table)
    for name, each in results.items():
        if "failed" in each:
            console.print(f"FAILED: {escape(name)}: {escape(each['failed'])}", soft_wrap=True)
    for name, each in results.items():
        peers = {peer: theirs for peer, theirs in results.items() if each["by"] != theirs["by"]}
        for peer, theirs in peers.items() if each["by"] == OURS else ():
            for target in targets:
                if text := records.ratio(each, theirs, target):
                    console.print(f"to {target}, {peer} takes {text} times as long as {name}")
