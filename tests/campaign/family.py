"""The families of the campaign: each draws its cases from the faults in a table."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType

from campaign import hugging_face, nanogpt, runner, runs, texts, tokenizers, tokens
from campaign.faults import Damage, Fault, Outcome

SEED = 17
CASES = 250


@dataclass(frozen=True)
class Case:
    """One of the cases of a family, ready to run in its folder."""

    fault: Fault
    damage: Damage
    command: tuple[str, ...]


class Family:
    """A module with FAULTS, and build(folder), which makes the valid input that they damage."""

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__.rpartition(".")[2]
        faults: Sequence[Fault] = module.FAULTS
        self.faults = [fault for fault in faults for _ in range(fault.weight)]
        self.build = module.build

    @functools.cached_property
    def template(self) -> Path:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.build(folder)
        return folder

    def copy_to(self, folder: Path) -> Path:
        shutil.copytree(self.template, folder, symlinks=True)
        return folder

    def case(self, number: int, folder: Path) -> Case:
        """Damage the input in a folder as case `number` has it."""
        rng = Random(f"{SEED} {self.name} {number}")
        fault = self.faults[number % len(self.faults)]
        command = tuple(rng.choice(fault.commands))
        damage = fault.damage(rng, folder)
        return Case(fault, damage, (*command, *damage.arguments))

    def examine(self, number: int) -> str:
        """Run a case; return what it is and what is wrong with it, or ""."""
        with tempfile.TemporaryDirectory() as root:
            folder = self.copy_to(Path(root) / "input")
            case = self.case(number, folder)
            outcome = runner.run(case.command, folder)
        wrong = self.verdict(case, outcome)
        return self.describe(number, case, outcome, wrong) if wrong else ""

    def verdict(self, case: Case, outcome: Outcome) -> str:
        undamaged = functools.partial(self.undamaged, case.command)
        return runner.verdict(case.fault, case.damage, outcome, undamaged)

    @functools.cache  # noqa: B019
    def undamaged(self, command: tuple[str, ...]) -> Outcome:
        with tempfile.TemporaryDirectory() as root:
            return runner.run(command, self.copy_to(Path(root) / "input"))

    def describe(self, number: int, case: Case, outcome: Outcome, wrong: str) -> str:
        said = " ".join((outcome.stderr.strip() or outcome.stdout.strip()).split())[-600:]
        described = (
            f"{self.name} {number}: {case.damage.what}\n"
            f"  {wrong}\n"
            f"  $ tinygpt {' '.join(map(ascii, case.command))}\n"
            f"  exit {outcome.code} after {outcome.seconds:.1f} s: {said}\n"
            f"  rerun: PYTHONPATH=tests python -m campaign {self.name} {number}"
        )
        return described.encode(errors="backslashreplace").decode()


MODULES = (runs, texts, tokens, hugging_face, tokenizers, nanogpt)
FAMILIES = {family.name: family for family in map(Family, MODULES)}
