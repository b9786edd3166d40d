"""Print pip constraints for the lowest version of every dependency that pyproject.toml allows.

The arguments are the extras to include. A requirement without a lower bound is an error.
"""

import re
import sys
import tomllib
from pathlib import Path


def lowest(requirement: str) -> str:
    """Turn ``name>=1.2`` into ``name==1.2``; pinned requirements stay."""
    found = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(?:>=|==)([\w.]+)(?:,<[\w.]+)?", requirement)
    if found is None:
        sys.exit(f"pyproject.toml: {requirement} should have a lower bound")
    return f"{found[1]}=={found[2]}"


project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[1:]:
    requirements += project["optional-dependencies"][extra]
print(*(lowest(each) for each in requirements if not each.startswith(project["name"])), sep="\n")
