"""Sizes of a matmul's blocks that suit the processor. The bits of a result do not depend on them.

They are those that `tinygpt doctor --tune` measured on this machine, or those of its processor in
processors.json, or those of a similar one there. compiled/README.md tells what was measured.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple, cast

from llvmlite import binding  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.compiled.cache import cache_root, write
from tinygpt_np.compiled.simd.vectors import LANES

TABLE = Path(__file__).parent.parent / "processors.json"
# The row for a processor without one: by float32 in a vector, then for all others.
SIMILAR, ANY = {8: "znver3"}, "sapphirerapids"


class Blocks(NamedTuple):
    """Sizes of a matmul C = A·B that depend on the processor; see kernels/matmul.py.

    in_place: the most numbers of a B that is read where it is instead of packed. by_tiles: the
    least depth at which an A across it is copied tile by tile instead of as it is.
    """

    in_place: int
    by_tiles: int


# `tinygpt doctor --tune` tries these, and a table may have no others.
CHOICES = {"by_tiles": (1, 256, 1 << 20), "in_place": (0, 1 << 15, 1 << 17)}


def processor() -> str:
    """Return LLVM's name for processors of this kind."""
    return cast(Any, binding).get_host_cpu_name()


def own_table() -> Path:
    """Return the file of what was measured on this machine."""
    return cache_root().parent / TABLE.name


def read(path: Path) -> dict[str, Blocks]:
    """Return the sizes by processor, without those that no table may have."""
    try:
        rows = json.loads(path.read_text())
        found = {name: Blocks(**row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: each for name, each in found.items() if is_valid(each)}


def is_valid(blocks: Blocks) -> bool:
    """Return whether all sizes are among those that may be chosen."""
    return all(getattr(blocks, name) in sizes for name, sizes in CHOICES.items())


@functools.cache
def chosen() -> tuple[Blocks, str]:
    """Return the sizes for this processor, and where they are from."""
    name = processor()
    if own := read(own_table()).get(name):
        return own, "measured on this machine"
    table = read(TABLE)
    row = name if name in table else SIMILAR.get(LANES, ANY)
    return table[row], f"measured on {row}"


def keep(blocks: Blocks) -> Path:
    """Write the sizes measured on this machine, for later processes; return the file."""
    path, name = own_table(), processor()
    rows = {name: each._asdict() for name, each in {**read(path), name: blocks}.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, (json.dumps(rows, indent=2) + "\n").encode())
    return path
