"""The campaign: eight families of 250 cases, each drawn from a seed of its own."""

import atexit
import copy
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType

from campaign import (
    flags,
    hugging_face,
    nanogpt,
    prompts,
    runner,
    runs,
    texts,
    tokenizer_files,
    tokens,
)
from campaign.case import Case, Kind, Outcome, harmless

SEED = 16
CASES = 250


class Family:
    """A module of kinds of damage, and the valid input that they damage.

    module: has KINDS, and build(folder), which makes the valid input.
    """

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__.rpartition(".")[2]
        self.kinds: Sequence[Kind] = module.KINDS
        self.build = module.build

    @functools.cached_property
    def template(self) -> Path:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.build(folder)
        return folder

    def copy_to(self, folder: Path) -> Path:
        """Copy the valid input, with links as they are."""
        shutil.copytree(self.template, folder, symlinks=True)
        return folder

    @functools.cached_property
    def drawn(self) -> list[tuple[Kind, Random]]:
        """The kind and the random numbers of each case, such that no two cases are the same."""
        drawn: list[tuple[Kind, Random]] = []
        seen = set[str]()
        number = 0
        while len(drawn) < CASES:
            kind = self.kinds[number % len(self.kinds)]
            rng = Random(f"{SEED} {self.name} {number}")
            made = self.identity(kind, copy.copy(rng))
            if made not in seen:
                seen.add(made)
                drawn.append((kind, rng))
            number += 1
        return drawn

    def identity(self, kind: Kind, rng: Random) -> str:
        """Return all that a case consists of: its files, and how the command is started."""
        with tempfile.TemporaryDirectory() as root:
            folder = self.copy_to(Path(root) / "input")
            case = kind(rng, folder)
            return repr((runner.contents(folder), case.command, case.process)).replace(root, "")

    def case(self, number: int, folder: Path) -> Case:
        """Damage the input in a folder as case `number` has it."""
        kind, rng = self.drawn[number]
        return kind(copy.copy(rng), folder)

    def examine(self, number: int) -> str:
        """Run one case; return what it is and what is wrong with it, or ""."""
        with tempfile.TemporaryDirectory() as root:
            folder = self.copy_to(Path(root) / "input")
            case = self.case(number, folder)
            outcome = runner.run(case, folder)
            wrong = runner.judge(case, outcome, self.undamaged)
        return describe(self.name, number, case, outcome, wrong) if wrong else ""

    def undamaged(self, command: list[str]) -> Outcome:
        return self._undamaged(tuple(command))

    @functools.cache  # noqa: B019
    def _undamaged(self, command: tuple[str, ...]) -> Outcome:
        with tempfile.TemporaryDirectory() as root:
            folder = self.copy_to(Path(root) / "input")
            return runner.run(harmless("", command), folder)


def describe(family: str, number: int, case: Case, outcome: Outcome, wrong: str) -> str:
    said = " ".join((outcome.stderr.strip() or outcome.stdout.strip()).split())[-600:]
    described = (
        f"{family} {number}: {case.what}\n"
        f"  {wrong}\n"
        f"  $ tinygpt {' '.join(map(ascii, case.command))}\n"
        f"  exit {outcome.code} after {outcome.seconds:.1f} s: {said}\n"
        f"  rerun: PYTHONPATH=tests python -m campaign {family} {number}"
    )
    return described.encode(errors="backslashreplace").decode()


MODULES = (runs, texts, flags, prompts, tokens, hugging_face, tokenizer_files, nanogpt)
FAMILIES = {family.name: family for family in map(Family, MODULES)}
