"""The cases of the campaign: every fault, with each of its files, ways and arguments in turn."""

import functools
import tempfile
from pathlib import Path
from random import Random
from typing import NamedTuple

from campaign import runner
from campaign.faults import FAULTS, Fault
from campaign.inputs import copy_of_inputs
from campaign.runner import Expected, Outcome

SEED, CASES = 17, 2000


class Case(NamedTuple):
    """One of the files or arguments of a fault."""

    section: str
    fault: Fault
    file: str
    way: str
    arguments: tuple[str, ...]

    def names(self) -> list[str]:
        """Return the names of which a refusal must have one: of the file, its folder, an argument.

        Only the first characters of an argument are compared. A blank one need not be named.
        """
        flag, _, value = "".join(self.arguments[-1:]).rpartition("=")
        line = value.split("\n")[0]
        start = line.strip("./ \0")[:20] or line.strip()
        shown = start.encode(errors="backslashreplace").decode().replace("\x1b", "").split("/")[0]
        arguments = [shown, ascii(start)[1:-1], flag or shown] if self.arguments else []
        path = Path(self.file)
        file = [path.name, path.parent.name or path.name] if self.file else []
        return [*self.fault.names, *file, *self.arguments[:-1], *arguments]


DIFFERENT = [
    Case(section, fault, file, way, arguments)
    for section, faults in FAULTS.items()
    for fault in faults
    for file in fault.files.split() or [""]
    for way in fault.ways
    for arguments in fault.arguments
]


def numbers(section: str) -> list[int]:
    """Return the numbers of the cases in a section."""
    return [n for n in range(CASES) if DIFFERENT[n % len(DIFFERENT)].section == section]


def examine(number: int, place: Path | None = None) -> str:
    """Run a case, in a new folder if given; return what it is and what is wrong with it, or ""."""
    rng, case = Random(f"{SEED} {number}"), DIFFERENT[number % len(DIFFERENT)]
    fault = case.fault
    command = (*rng.choice([*fault.commands]), *case.arguments)
    with tempfile.TemporaryDirectory() as root:
        folder = copy_of_inputs(place or Path(root) / "input")
        fault.ways[case.way](rng, folder / case.file)
        outcome = runner.run(command, folder)
    expected = Expected(fault.refused, fault.accepted, case.names(), fault.prints)
    wrong = next(runner.problems(outcome, expected, lambda: undamaged(command)), "")
    said = " ".join((outcome.stderr.strip() or outcome.stdout.strip()).split())[-600:]
    described = (
        f"{case.section} {number}: {case.file} {case.way}\n  {wrong}\n"
        f"  $ tinygpt {' '.join(map(ascii, command))}\n  exit {outcome.code}: {said}\n"
        f"  rerun: PYTHONPATH=tests python -m campaign {number}"
    )
    return described.encode(errors="backslashreplace").decode() if wrong else ""


@functools.cache
def undamaged(command: tuple[str, ...]) -> Outcome:
    """Return the outcome of a command on the valid inputs."""
    with tempfile.TemporaryDirectory() as root:
        return runner.run(command, copy_of_inputs(Path(root) / "input"))
