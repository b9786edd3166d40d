"""Run one case and keep its folder, or all: python -m campaign [NUMBER]."""

import sys
import tempfile
from pathlib import Path

from campaign.cases import CASES, examine

if len(sys.argv) > 1:
    folder = Path(tempfile.mkdtemp()) / "input"
    print(examine(int(sys.argv[1]), folder) or "right", folder, sep="\n")
else:
    found = [problem for problem in map(examine, range(CASES)) if problem]
    sys.exit("\n\n".join([*found, f"{len(found)} cases are wrong"]) if found else 0)
