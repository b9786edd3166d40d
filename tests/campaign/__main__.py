"""Run one case and keep its folder, or all of a family, or all: python -m campaign [FAMILY [N]]."""

import sys
import tempfile
from pathlib import Path

from campaign import runner
from campaign.family import CASES, FAMILIES


def main(name: str = "", number: str = "") -> int:
    if not number:
        found = [
            problem
            for family in ([FAMILIES[name]] if name else FAMILIES.values())
            for problem in map(family.examine, range(CASES))
            if problem
        ]
        print("\n\n".join([*found, f"{len(found)} cases are wrong"]))
        return bool(found)
    family = FAMILIES[name]
    folder = family.copy_to(Path(tempfile.mkdtemp()) / "input")
    case = family.case(int(number), folder)
    print(f"{case.damage.what}\ncd {folder}\ntinygpt {' '.join(map(ascii, case.command))}")
    outcome = runner.run(case.command, folder)
    wrong = family.verdict(case, outcome)
    print(outcome, wrong or "right", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
