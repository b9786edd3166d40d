"""One task: whoever can do it passes the gate, and then all take turns, round by round.

Beside them run the limits of the machine, for what bounds a kernel is what the machine does in the
same minute, and one rung twice: what it gains over itself is what nothing else may be praised for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workers import Process, WorkerError

OURS = "ours"
# What names a task.
TASK = ("operation", "direction", "shape")
# A slow rung takes turns until it has spent so many seconds on a task, but so many at least.
PATIENCE, LEAST_TURNS = 1.5, 5

Say = Callable[[str], None]


def rounded(seconds: list[float]) -> list[float]:
    """To four digits, which is more than a clock is good for."""
    return [float(f"{value:.4g}") for value in seconds]


@dataclass
class Team:
    """ours: holds the ladder and the limits. peers: by name and threads. left_out: and why."""

    ours: Process
    peers: dict[tuple[str, int], Process] = field(default_factory=dict[tuple[str, int], Process])
    left_out: dict[str, str] = field(default_factory=dict[str, str])

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        for key in [key for key in self.peers if key[0] == name]:
            self.peers.pop(key).close()


@dataclass
class Entrant:
    """about: what is known of it, for the record. seconds: of each round, or None for no turn."""

    process: Process
    about: dict[str, Any]
    key: int | None = None
    seconds: list[list[float] | None] = field(default_factory=list[list[float] | None])
    spent: float = 0.0
    lost: bool = False

    def turn(self) -> list[float] | None:
        turns = sum(each is not None for each in self.seconds)
        if self.lost or (self.spent > PATIENCE and turns >= LEAST_TURNS):
            return None
        found: list[float] = self.process.ask("turn", key=self.key)
        self.spent += sum(found)
        return rounded(found)

    @property
    def record(self) -> dict[str, Any]:
        return {**self.about, "seconds": self.seconds}


@dataclass
class Climb:
    """What came of a task. stopped: whether Ctrl-C came before the last round."""

    about: dict[str, Any]
    entrants: list[Entrant] = field(default_factory=list[Entrant])
    limits: list[Entrant] = field(default_factory=list[Entrant])
    controls: list[Entrant] = field(default_factory=list[Entrant])
    stopped: bool = False

    @property
    def everyone(self) -> list[Entrant]:
        everyone = (*self.entrants, *self.controls, *self.limits)
        return [each for each in everyone if each.key is not None]

    @property
    def record(self) -> dict[str, Any]:
        """As JSON keeps it; of rounds only whole ones."""
        rounds = min((len(each.seconds) for each in self.everyone), default=0)
        for each in self.everyone:
            del each.seconds[rounds:]
        return {
            **self.about,
            "rounds": rounds,
            "rows": [each.record for each in self.entrants],
            "limits": [each.record for each in self.limits],
            "controls": [each.record for each in self.controls],
        }


def climb(
    team: Team, task: tuple[str, str, str], threads: Sequence[int], last_only: bool, rounds: int,
    with_asm: bool, say: Say,
) -> Climb:  # fmt: skip
    """A task's operation, direction and shape, by the rungs with one thread and with `threads`.

    Raises WorkerError if our own process ends; a peer that does is left out from then on.
    """
    about = team.ours.ask("begin", **dict(zip(TASK, task, strict=True)))
    found = Climb({**dict(zip(TASK, task, strict=True)), **about["task"]})
    try:
        open_ours(team, found, about["rungs"], threads, last_only, with_asm, say)
        open_peers(team, found, task, threads, say)
        open_limits(team, found)
        take_rounds(team, found, rounds, say)
    except KeyboardInterrupt:
        found.stopped = True
    return found


def open_ours(
    team: Team, found: Climb, rungs: list[dict[str, Any]], threads: Sequence[int], last_only: bool,
    with_asm: bool, say: Say,
) -> None:  # fmt: skip
    ladder = [rung for rung in rungs if not rung["reference"]]
    if last_only:
        last = [rung for rung in ladder if rung["threads"] == "one"][-1:] + ladder[-1:]
        rungs = [rung for rung in rungs if rung["reference"] or rung in last]
    for rung in rungs:
        for count in threads_of(rung, threads):
            say(f"{rung['rung']} at the gate")
            entrant = Entrant(team.ours, {**rung, "by": OURS, "threads": count})
            found.entrants.append(entrant)
            if rung["able"]:
                pass_gate(entrant, with_asm)
    open_controls(team, found)


def open_controls(team: Team, found: Climb) -> None:
    """Of each number of threads the last rung again, with arrays of its own."""
    last = {
        each.about["threads"]: each
        for each in found.entrants
        if each.key is not None and not each.about["reference"]
    }
    for each in last.values():
        twin = Entrant(team.ours, {**each.about})
        pass_gate(twin, False)
        found.controls.append(twin)


def threads_of(rung: dict[str, Any], threads: Sequence[int]) -> list[int]:
    """With how many threads a rung is measured; one that needs several, only where there are."""
    if rung["threads"] == "one":
        return [1]
    return [count for count in threads if count > 1 or rung["threads"] == "any"]


def pass_gate(entrant: Entrant, with_asm: bool) -> None:
    name = entrant.about["rung"]
    report = entrant.process.ask("open", name=name, threads=entrant.about["threads"])
    entrant.key = report.pop("key", None)
    entrant.about |= report
    if with_asm and entrant.key is not None:
        entrant.about["packed"] = entrant.process.ask("packed", name=name)


def open_peers(
    team: Team, found: Climb, task: tuple[str, str, str], threads: Sequence[int], say: Say
) -> None:
    for (name, count), process in list(team.peers.items()):
        if (name, count) not in team.peers or count not in threads:
            continue  # Left out meanwhile.
        say(f"{name} at the gate")
        try:
            about = process.ask("begin", **dict(zip(TASK, task, strict=True)))
            for rung in about["rungs"]:
                entrant = Entrant(process, {**rung, "by": name, "threads": count})
                pass_gate(entrant, False)
                found.entrants.append(entrant)
            if not about["rungs"]:
                absent = {"rung": name, "by": name, "threads": count, "reference": True}
                found.entrants.append(Entrant(process, {**absent, "able": False, "offered": False}))
        except WorkerError as error:
            team.leave_out(name, str(error))


def open_limits(team: Team, found: Climb) -> None:
    """The peak and the bandwidth for the task's working set, for each number of threads."""
    for count in sorted({each.about["threads"] for each in found.entrants}):
        for name in ("peak", "triad", "update"):
            about = {"name": name, "threads": count, "size": found.about["working_set"]}
            limit = Entrant(team.ours, about)
            report = team.ours.ask("open_limit", **about)
            limit.key = report.pop("key")
            limit.about |= report
            found.limits.append(limit)


def take_rounds(team: Team, found: Climb, rounds: int, say: Say) -> None:
    """Each begins with another entrant. A round counts when all had their turn."""
    for number in range(rounds):
        everyone = found.everyone
        first = number * len(everyone) // rounds
        turns: list[tuple[Entrant, list[float] | None]] = []
        for each in [*everyone[first:], *everyone[:first]]:
            say(f"round {number + 1}/{rounds}: {each.about.get('rung', each.about.get('name'))}")
            try:
                turns.append((each, each.turn()))
            except WorkerError as error:
                if each.process is team.ours:
                    raise
                each.lost = True
                team.leave_out(each.about["by"], str(error))
                turns.append((each, None))
        for each, seconds in turns:
            each.seconds.append(seconds)
