"""The CPUs that may be used: what sets their speed, and how much others use them."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

# Linux describes the CPUs here, and what they have done since the system was started.
FOLDER, STATISTICS = Path("/sys/devices/system/cpu"), Path("/proc/stat")
# Seconds for which it is watched who uses them before a run, and the share that is called busy.
WATCHED, BUSY = 0.2, 0.25

Usage = dict[str, Any]


class Times(NamedTuple):
    """Seconds: busy, stolen and all of each CPU, and those of this process and its children."""

    cpus: dict[str, tuple[float, float, float]]
    own: float


def facts() -> dict[str, Any]:
    """Return what sets the speed of the CPUs; None for what the system does not say."""
    usable, cores = affinity(), lines("topology/thread_siblings_list")
    return {
        "affinity": usable,
        "pinned": None if usable is None else len(usable) < (os.cpu_count() or 0),
        # Such as ["0,64", "1,65"], or [] if each has a core of its own.
        "siblings": cores and [cpus for cpus in cores if not cpus.isdigit()],
        "governor": lines("cpufreq/scaling_governor"),
    }


def affinity() -> list[int] | None:
    """Return the CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def lines(name: str) -> list[str] | None:
    """Return the different lines in the files of this name of all CPUs."""
    found: set[str] = set()
    for path in FOLDER.glob(f"cpu[0-9]*/{name}"):
        with contextlib.suppress(OSError):  # A CPU may be offline.
            found.add(path.read_text().strip())
    return sorted(found) or None


def times() -> Times | None:
    """Return the times so far, or None if the system does not count them."""
    usable, tick = affinity(), 1 / os.sysconf("SC_CLK_TCK")
    found: dict[str, tuple[float, float, float]] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in STATISTICS.read_text().splitlines():
            name, *ticks = line.split()
            number = name.removeprefix("cpu")
            if name != number and number and (usable is None or int(number) in usable):
                user, nice, system, idle, wait, hard, soft, steal, *_ = map(int, ticks)
                busy = user + nice + system + hard + soft
                found[number] = busy * tick, steal * tick, (busy + steal + idle + wait) * tick
    counted = any(total for *_, total in found.values())
    return Times(found, sum(os.times()[:4])) if counted else None


def usage(before: Times | None) -> Usage | None:
    """Return how the CPUs were used since `before`.

    busy, steal: the shares of the time in which a CPU worked, and in which the host gave it to
    others, by CPU. others: how many CPUs were used by processes that are not children of this one.
    """
    after = times()
    if before is None or after is None:
        return None
    spent = {
        cpu: [now - then for now, then in zip(after.cpus[cpu], before.cpus[cpu], strict=True)]
        for cpu in after.cpus
        if cpu in before.cpus
    }
    if not spent or not all(total for *_, total in spent.values()):
        return None
    others = sum(busy for busy, *_ in spent.values()) - (after.own - before.own)
    seconds = max(total for *_, total in spent.values())
    return {
        "busy": {cpu: round(busy / total, 3) for cpu, (busy, _, total) in spent.items()},
        "steal": {cpu: round(steal / total, 3) for cpu, (_, steal, total) in spent.items()},
        "others": round(max(others / seconds, 0.0), 2),
    }


def watch() -> Usage | None:
    """Return how others use the CPUs now."""
    before = times()
    time.sleep(WATCHED)
    return usage(before)


def in_words(facts: dict[str, Any]) -> dict[str, str]:
    """Return what may make times differ, by name, from the facts about a machine."""
    cpus, cores, load = facts["affinity"], facts["siblings"], facts["load"]
    pinned = ", ".join(map(str, cpus or ())) if facts["pinned"] else "no"
    found = {
        "pinned to CPUs": None if cpus is None else pinned,
        "CPUs of one core": None if cores is None else " and ".join(cores) or "none",
        "governor": ", ".join(facts["governor"] or ()) or None,
        "load per CPU": None if load is None else f"{load / facts['cpus']:.2f}",
        "other processes": used(facts["usage"]),
    }
    return {name: "unknown" if words is None else words for name, words in found.items()}


def used(usage: Usage | None) -> str | None:
    """Return in words how many CPUs others used, and the largest steal."""
    if usage is None:
        return None
    return f"{usage['others']} CPUs, steal {max(usage['steal'].values()):.0%}"


def busy(usage: Usage | None) -> list[str]:
    """Return which CPUs are busy, and how much, if other processes use that much."""
    shares: dict[str, float] = usage["busy"] if usage and usage["others"] > BUSY else {}
    return [f"CPU {cpu} is {share:.0%} busy" for cpu, share in shares.items() if share > BUSY]
