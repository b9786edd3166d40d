"""On what it was measured: the machine, the versions, the commit."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import llvmlite.binding  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from benchmarks.workers import ROOT

PACKAGES = ("tinygpt-np", "numpy", "numba", "llvmlite", "torch")
# What Linux says of the caches of the first CPU; and what is assumed elsewhere, in bytes.
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def affinity() -> list[int] | None:
    """Which CPUs this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def vector_bits() -> int:
    """How wide a vector of this CPU is."""
    features: Any = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 512
    return 256 if features.get("avx") else 128


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
        "cpu": cpu_name(),
        "cpus": cpus(),
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


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
