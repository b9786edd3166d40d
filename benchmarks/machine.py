"""Facts about the machine for results: caches, load, versions, commit."""

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

from benchmarks import ROOT, cpus
from tinygpt_np import machine

PACKAGES = ("tinygpt-np", "numpy", "numba", "llvmlite", "torch", "transformers")
# The folder in which Linux describes the caches of the first CPU, and sizes for other systems.
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


def vector_bits() -> int:
    """Return the width of this processor's vectors."""
    return machine.vector_bits(cast(Any, binding).get_host_cpu_features())


def caches() -> dict[str, int]:
    """Return the bytes of each cache that holds data, from L1 on."""
    found: dict[str, int] = {}
    for index in sorted(CACHES.glob("index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if (index / "type").read_text().strip() != "Instruction":
                level = f"L{(index / 'level').read_text().strip()}"
                size = (index / "size").read_text().strip()  # such as 48K
                found[level] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
    return found or USUAL_CACHES


def load() -> float | None:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def facts() -> dict[str, Any]:
    """Return all facts, in values that JSON knows."""
    blas = cast(Any, np.show_config(mode="dicts"))["Build Dependencies"]["blas"]
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": machine.processor_name(),
        "cpus": machine.usable_cores(),
        **cpus.facts(),
        "vector_bits": vector_bits(),
        "caches": caches(),
        "load": load(),
        "usage": cpus.watch(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "blas": f"{blas['name']} {blas['version']}",
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the commit of this clone, with a + if files were changed; None outside of git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.check_output(
            [*git, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL
        )
        changed = subprocess.check_output([*git, "status", "--porcelain"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+" if changed else "")
