"""On what it was measured: the machine, the versions, the commit."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
from llvmlite import binding  # pyright: ignore[reportMissingTypeStubs]

from benchmarks.workers import ROOT
from tinygpt_np import machine

llvm: Any = binding

PACKAGES = ("tinygpt-np", "numpy", "numba", "llvmlite", "torch")
# What Linux says of the caches of the first CPU; and what is assumed elsewhere, in bytes.
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


def affinity() -> list[int] | None:
    """Which CPUs this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def vector_bits() -> int:
    """Return the width of this processor's vectors."""
    return machine.vector_bits(llvm.get_host_cpu_features())


def caches() -> dict[str, int]:
    """The bytes of each level that holds data, from the nearest on."""
    found: dict[str, int] = {}
    for index in sorted(CACHES.glob("index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if (index / "type").read_text().strip() != "Instruction":
                level = f"L{(index / 'level').read_text().strip()}"
                found[level] = kibibytes((index / "size").read_text().strip())
    return found or USUAL_CACHES


def kibibytes(size: str) -> int:
    """As Linux writes it: "48K", "48M"."""
    return int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]


def load() -> float | None:
    """How many processes wanted a CPU over the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def facts() -> dict[str, Any]:
    """All of it, in values that JSON knows."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": machine.processor_name(),
        "cpus": machine.usable_cores(),
        "affinity": affinity(),
        "vector_bits": vector_bits(),
        "caches": caches(),
        "load": load(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "blas": blas(),
        "commit": commit(),
    }


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def blas() -> str:
    """The BLAS that NumPy was built with."""
    config = cast(Any, np.show_config(mode="dicts"))
    found = config["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']}"


def commit() -> str | None:
    """The commit of this clone, with a + if files differ from it; None outside of git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
