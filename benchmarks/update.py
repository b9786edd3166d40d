"""The optimizer's share of a training step: steps without an update, by AdamW and by Muon."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.experiments import TINYGPT, Entry, Experiment, compare
from benchmarks.harness.session import session
from benchmarks.render.cells import percent
from tinygpt_np.config import PRESETS

ROUNDS = 15
OPTIMIZERS = {"AdamW": "adamw", "Muon": "muon"}
# Presets whose vocabulary is that of the corpus, so that they can be run without other files.
CHOICES = [name for name, config in PRESETS.items() if config.tokenizer == "char"]


def run(preset: Sequence[str], threads: int, rounds: int | None, json: Path | None) -> bool:
    """Time the steps of presets; show them and the shares; return whether this was completed."""
    options = {"preset": [*preset], "threads": threads}
    with session("update", options, json) as run:
        for name in dict.fromkeys(preset):
            comparison = compare(experiment(name, threads, rounds or ROUNDS), threads, run.say)
            if not run.add(comparison):
                return False
            with run.hidden() as console:
                console.print(shares(run.found["cases"][-1]))
        run.found["complete"] = True
    return True


def experiment(preset: str, threads: int, rounds: int) -> Experiment:
    """Return the steps of a preset to compare."""
    config = replace(PRESETS[preset], threads=threads)
    build, settings = f"{TINYGPT}:step_by", asdict(config)
    entries = [Entry("gradients", build, {"settings": settings, "optimizer": ""}, trained=True)]
    entries += [
        Entry(f"with {name}", build, {"settings": settings, "optimizer": optimizer}, reference=True)
        for name, optimizer in OPTIMIZERS.items()
    ]
    return Experiment(preset, settings, entries, rounds, config.tokens_per_step)


def shares(record: dict[str, Any]) -> str:
    """Return each optimizer's share of its step, with the interval, as text."""
    found: list[str] = []
    for name, row in zip(OPTIMIZERS, record["rows"][1:], strict=True):
        if ratio := row.get("by_ours"):  # The whole step, divided by the step without an update.
            share, low, high = (percent(1 - 1 / max(each, 1)) for each in ratio[:3])
            found.append(f"{name} {share} ({low} to {high})")
    return f"share of the step: {', '.join(found)}"
