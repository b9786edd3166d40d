"""2,000 cases of malformed input: each is refused by name, or harmless.

A case is a fault with one of its files, ways and arguments. A run tests one case in ten, other ones
each day; CASES=7 pytest tests/campaign tests only case 7, CASES=all all of them, and CASES=1/4 one
in four.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from campaign import runner
from campaign.faults import FAULTS
from campaign.inputs import inputs
from campaign.runner import Outcome
from helpers.optional import needs
from helpers.sample import sample

SEED, CASES, EVERY = 17, 2000, 10
Capture = pytest.CaptureFixture[str]
# The outcomes of commands on the valid inputs.
UNDAMAGED: dict[tuple[str, ...], Outcome] = {}
DIFFERENT = [
    (section, fault, file, way, arguments)
    for section, faults in FAULTS.items()
    for fault in faults
    for file in fault.files.split() or [""]
    for way in fault.ways
    for arguments in fault.arguments
]


def names_of(file: str, arguments: tuple[str, ...]) -> list[str]:
    """Return the names of which a refusal must have one: of the file, its folder, an argument.

    Only the first characters of an argument are compared. A blank one need not be named.
    """
    path = Path(file)
    found = [path.name, path.parent.name or path.name] if file else []
    if arguments:
        flag, _, value = arguments[-1].rpartition("=")
        line = value.split("\n")[0]
        start = line.strip("./ \0")[:20] or line.strip()
        shown = start.encode(errors="backslashreplace").decode().replace("\x1b", "").split("/")[0]
        found += [*arguments[:-1], shown, ascii(start)[1:-1], flag or shown]
    return found


def examine(number: int, capfd: Capture) -> str:
    """Run a case; return what it is and what is wrong with it, or ""."""
    section, fault, file, way, arguments = DIFFERENT[number % len(DIFFERENT)]
    rng = Random(f"{SEED} {number}")
    command = (*rng.choice([*fault.commands]), *arguments)

    def outcome_of(damage: Callable[[Random, Path], object]) -> Outcome:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(shutil.copytree(inputs(), Path(root) / "input"))
            damage(rng, folder / file)
            return runner.run(command, folder, capfd)

    def undamaged() -> Outcome:
        if command not in UNDAMAGED:
            UNDAMAGED[command] = outcome_of(lambda rng, path: None)
        return UNDAMAGED[command]

    outcome, names = outcome_of(fault.ways[way]), [*fault.names, *names_of(file, arguments)]
    wrong = next(runner.problems(outcome, fault, names, undamaged), "")
    said = " ".join((outcome.stderr.strip() or outcome.stdout.strip()).split())[-600:]
    described = (
        f"{section} {number}: {file} {way}\n  {wrong}\n"
        f"  $ tinygpt {' '.join(map(ascii, command))}\n  exit {outcome.code}: {said}\n"
    )
    return described.encode(errors="backslashreplace").decode() if wrong else ""


@pytest.mark.slow
@pytest.mark.parametrize("section", FAULTS)
def test_a_malformed_input_is_refused_by_name_or_harmless(section: str, capfd: Capture) -> None:
    if section == "nanogpt":
        needs("torch")
    numbers = sample(CASES, EVERY)
    mine = [number for number in numbers if DIFFERENT[number % len(DIFFERENT)][0] == section]
    assert not [problem for number in mine if (problem := examine(number, capfd))]
