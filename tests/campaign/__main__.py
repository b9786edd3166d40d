"""Run one case and keep its folder, or a whole family: python -m campaign FAMILY [NUMBER]."""

import sys
import tempfile
from pathlib import Path

from campaign import runner
from campaign.family import CASES, FAMILIES


def main(name: str, number: str = "") -> None:
    family = FAMILIES[name]
    if not number:
        found = [family.examine(each) for each in range(CASES)]
        print("\n\n".join(filter(None, found)))
        print(f"\n{name}: {sum(map(bool, found))} of {CASES} cases are wrong")
        return
    folder = family.copy_to(Path(tempfile.mkdtemp()) / "input")
    case = family.case(int(number), folder)
    print(f"{case.what}\ncd {folder}\ntinygpt {' '.join(map(ascii, case.command))}")
    outcome = runner.run(case, folder)
    print(outcome)
    print(runner.judge(case, outcome, family.undamaged) or "right")


if __name__ == "__main__":
    main(*sys.argv[1:])
