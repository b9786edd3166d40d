"""Result files: the figures of a run as JSON, medians with their intervals but no samples.

An estimate is a list [median, low, high, coverage].
"""

import json
from pathlib import Path
from typing import Any, cast

# The version of the format. The first, without a number, had limits of their best samples.
FORMAT = 2
# A row leaves out what has these values.
USUAL = {
    "by": "ours", "threads": 1, "reference": False, "trained": False, "able": True, "wrong": None
}  # fmt: skip
# Left out of files: samples, and values that follow from others or from the source.
DROPPED = (
    "turns", "waits", "idea", "range", "bound", "amount", "size", "agreement", "loop", "loop_flops",
)  # fmt: skip


def new_file(path: Path) -> Path:
    """Return the path of a new file, or raise ValueError if it cannot be written."""
    try:
        path.open("x").close()
        path.unlink()
    except FileExistsError:
        raise ValueError(f"{path} exists already, and nothing is overwritten") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    return path


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the figures of a run to a new file, one row of a table per line."""
    with path.open("x", encoding="utf-8") as file:
        file.write(lines({"format": FORMAT, **figures(found)}) + "\n")


def read(path: Path, benchmark: str = "kernels") -> dict[str, Any]:
    """Return the figures of a run of a benchmark, or raise ValueError if a file has none."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    named = cast(dict[str, Any], found if isinstance(found, dict) else {})
    if named.get("benchmark") != benchmark:
        raise ValueError(f"{path} is no result of python -m benchmarks {benchmark}")
    if (version := named.get("format", 1)) != FORMAT:
        raise ValueError(f"{path} has format {version} of results; known is {FORMAT}: run it again")
    return named


def figures(found: Any) -> Any:
    """Return what a file keeps of a result: numbers to four digits, no samples."""
    if isinstance(found, dict):
        named = cast(dict[str, Any], found)
        usual = USUAL if "rung" in named else {}
        return {
            name: figures(each)
            for name, each in named.items()
            if name not in DROPPED and (name not in usual or each != usual[name])
        }
    if isinstance(found, list | tuple):
        return [figures(each) for each in cast(list[Any], found)]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def lines(value: Any, indent: int = 0) -> str:
    """Return JSON with short objects and lists, and rows, on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent <= 100 or "rung" in value:
        return flat
    space, found = "\n" + " " * (indent + 1), cast(Any, value)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {lines(found[name], indent + 1)}" for name in found]
    else:
        parts = [lines(each, indent + 1) for each in found]
    return flat[0] + space + ("," + space).join(parts) + space[:-1] + flat[-1]
